"""Whether a reply goes round in circles, told by its text. It knows no model and no tokens."""

from math import ceil

COPIES, SPAN = 3, 60  # how often a passage is said in a row, and over how many characters, before it counts
LONGEST = 300  # characters of such a passage


def repeats(text: str) -> bool:
    """Whether the text ends in one passage said again and again, with nothing in between."""
    sizes = range(1, min(LONGEST, len(text) // COPIES) + 1)
    return len(text) >= SPAN and any(text.endswith(text[-size:] * max(COPIES, ceil(SPAN / size))) for size in sizes)
