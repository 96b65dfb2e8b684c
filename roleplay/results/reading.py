"""What blind readers found, as it stands in a scoreboard.json under "reading": checked, as a table, and in sentences.

`arms` holds {arm: {part: {"conversations": n, figure: estimate}}} with the parts all, zh and en; `readers` is how many
read, `kappa` how far two of them agree on each question (1 is always, 0 no more than by chance).
"""

from collections.abc import Mapping
from typing import Any

from roleplay.results.wording import ARMS, READING, TEXTS

QUESTIONS = ("sense", "answers", "voice")  # each is given 0, 1 or 2
FULL = "both full"  # the share of conversations with 2 for sense and for answers
FIGURES = (*QUESTIONS, FULL)
PARTS = ("all", "zh", "en")


def numbers(reading: Mapping[str, Any]) -> list[Any]:
    """Everything in a reading that has to be a number; raises `ValueError` or `LookupError` for another form."""
    _only(reading, ("readers", "kappa", "arms"))
    _only(reading["kappa"], QUESTIONS)
    found = [reading["readers"], *reading["kappa"].values()]
    _only(reading["arms"], ARMS["en"])
    for parts in reading["arms"].values():
        _only(parts, PARTS)
        for part in parts.values():
            _only(part, ("conversations", *FIGURES))
            found.append(part["conversations"])
            found += [part[name][key] for name in FIGURES for key in ("value", "low", "high")]
    return found


def _only(given: Mapping[str, Any], known: Any) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{unknown[0]!r:.40} is unknown")


def table(reading: Mapping[str, Any], language: str = "en") -> list[list[str]]:
    """Head and rows as in `board.table`: a figure, every arm's value with its interval, and what the figure means."""
    words, arms = READING[language], reading["arms"]
    rows = [["", *(ARMS[language][arm] for arm in arms), ""]]
    for figure in ("conversations", *FIGURES):
        name, meaning = words["figures"][figure]
        for part in PARTS:
            if any(part in parts for parts in arms.values()):
                cells = [_cell(figure, parts.get(part, {}).get(figure), language) for parts in arms.values()]
                rows.append([words["parts"][part].format(name=name), *cells, meaning if part == PARTS[0] else ""])
    return rows


def _cell(figure: str, entry: Any, language: str) -> str:
    if entry is None:
        return "–"
    if figure == "conversations":
        return f"{entry:,}"
    form = "{:.0%}" if figure == FULL else "{:.2f}"
    return TEXTS[language]["figure"].format(**{key: form.format(entry[key]) for key in ("value", "low", "high")})


def sentences(reading: Mapping[str, Any], language: str = "en") -> list[str]:
    """How many read, and how far they agree."""
    words = READING[language]
    told = [words["readers"].format(readers=reading["readers"])]
    if kappa := reading["kappa"]:
        values = [f"{words['figures'][name][0]} {kappa[name]:.2f}" for name in QUESTIONS if name in kappa]
        told.append(words["kappa"].format(values=TEXTS[language]["comma"].join(values)))
    return told
