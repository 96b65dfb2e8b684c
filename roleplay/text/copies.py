"""Runs of a text that stand elsewhere too: the rule by which a reply counts as copied. It knows no model."""

import re
from collections.abc import Iterable, Sequence

from roleplay.text.prompts import Turn

CHINESE_RUN, OTHER_RUN = 10, 6  # units in a row that count as copied: 10 characters, or 6 words of about that length
_UNIT = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+(?:'[^\W_\u3400-\u9fff]+)*")


def units(text: str) -> list[str]:
    """Chinese characters and whole words of other scripts, in lower case, without punctuation."""
    return _UNIT.findall(text.lower())


def runs(text: str) -> set[tuple[str, ...]]:
    """All runs of a text that are long enough to count as copied where they stand elsewhere too."""
    return set(_runs(units(text)))


def _runs(said: Sequence[str]) -> list[tuple[str, ...]]:
    """All runs in their order, each a unit after the one before."""
    length = CHINESE_RUN if _chinese(said) else OTHER_RUN
    return [tuple(said[i : i + length]) for i in range(len(said) - length + 1)]


def _chinese(said: Sequence[str]) -> bool:
    return 2 * sum(len(unit) == 1 and unit > "\u3400" for unit in said) >= len(said)


def copied(text: str, turns: Iterable[Turn]) -> tuple[str, Turn] | None:
    """The longest passage of a text that stands in a reply of `turns`, as units, and that turn; None where no run
    does."""
    said, best, source = units(text), (0, 0), None
    own = _runs(said)
    for turn in turns:
        known = runs(turn[1]) if own else set()
        start = None
        for number, run in enumerate([*own, ()]):
            if run in known:
                start = number if start is None else start
            elif start is not None:
                if number - start > best[1] - best[0]:
                    best, source = (start, number), turn
                start = None
    if source is None:
        return None
    passage = said[best[0] : best[1] + len(own[0]) - 1]
    return ("" if _chinese(passage) else " ").join(passage), source
