"""What a scoreboard measures of replies, what each figure means, and the board as a table. It knows no model.

A board is the JSON object that `train.evaluate` writes as scoreboard.json: `arms` ({arm: {measure: estimate}}),
`differences` ({arm: {measure: the adapter's less the arm's}}), `drift` ({arm: [share held at turn 1, 2, ...]}), `flips`
({measure: how many `items` the adapter has `won` and `lost` against the base model with the persona, the exact paired
`p`, and which: `wins` and `losses`}), `other_flips` ({arm: the same against that one}), `rule` and `samples` for the
card, `reading` where blind readers have read its replies, and how all of it was measured.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roleplay.errors import DataError
from roleplay.results import reading
from roleplay.results import wording as texts
from roleplay.results.wording import TEXTS
from roleplay.text.splits import FEW_HELD_OUT

BARE_BASE, BASE_WITH_PERSONA, BASE_WITH_ROWS = "base", "base + persona", "base + retrieval"
TUNED, WRITTEN = "adapter", "reference"  # the adapter with the persona; the replies that the rows hold
ARMS = (BARE_BASE, BASE_WITH_PERSONA, BASE_WITH_ROWS, TUNED, WRITTEN)
SORTS = {1: "better", -1: "worse", 0: "undecided"}  # of a difference, by its `sign`
MAX_BYTES = 4 << 20  # of a scoreboard.json


@dataclass(frozen=True)
class Measure:
    """How to read a figure: `better` is "lower", "higher" or "" where neither is. `wording.MEASURES` has the words."""

    better: str
    percent: bool


MEASURES = {
    "held-out loss": Measure("lower", False),
    "choice": Measure("higher", True),
    "facts": Measure("higher", True),
    "recall": Measure("higher", True),
    "stop rate": Measure("higher", True),
    "stop rate, 256": Measure("higher", True),
    "copied, 256": Measure("lower", True),
    "openers that stop": Measure("higher", True),
    "tokens": Measure("", False),
    "chrF": Measure("higher", False),
    "distinct-2": Measure("higher", False),
    "copied": Measure("lower", True),
    "identity": Measure("higher", True),
    "in character": Measure("higher", True),
    "first turns": Measure("higher", True),
    "last turns": Measure("higher", True),
    "plain Chinese": Measure("lower", False),
    "plain English": Measure("lower", False),
}


def read(path: Path) -> dict[str, Any]:
    """A scoreboard.json; raises `DataError` unless it holds known arms, known measures and numbers.

    The file may be a stranger's: of the board that is returned, nothing else may be shown but the texts of its flips,
    as texts.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MB")
        board = json.loads(path.read_text(encoding="utf-8"))
        numbers = list(board.get("rules", {}).values())
        for part in ("arms", "differences"):
            for arm, values in board[part].items():
                _check_names(arm, values)
                for entry in values.values():
                    numbers += [entry[key] for key in ("value", "low", "high")]
        if BASE_WITH_PERSONA in board.get("other_flips", {}):
            raise ValueError(f"{BASE_WITH_PERSONA!r} is among other_flips, and its place is in flips")
        for arm, lists in flips_by_arm(board).items():
            for name, flip in lists.items():
                numbers += _flip_numbers(arm, name, flip)
        numbers += reading.numbers(board["reading"]) if "reading" in board else []
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise ValueError("not all figures are numbers")
        table(board), verdicts(board)  # raises where a word is in the wrong place, or a figure missing
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not a scoreboard ({error!s:.120}); write it with train.evaluate") from error
    return board


def flips_by_arm(board: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the adapter won and lost, by the arm that it was compared with and by measure."""
    return {BASE_WITH_PERSONA: board.get("flips", {}), **board.get("other_flips", {})}


def _check_names(arm: str, measures: Iterable[str]) -> None:
    """Raises `ValueError` for an arm or a measure that is none of ours."""
    if arm not in ARMS:
        raise ValueError(f"{arm!r:.40} is no arm")
    if unknown := [name for name in measures if name not in MEASURES]:
        raise ValueError(f"{unknown[0]!r:.40} is no measure")


def _flip_numbers(arm: str, name: str, flip: Mapping[str, Any]) -> list[Any]:
    """What should be numbers in what was won and lost; raises `ValueError` for words that are none of ours."""
    _check_names(arm, [name])
    for item in [*flip.get("wins", ()), *flip.get("losses", ())]:
        if not all(isinstance(item[key], str) for key in ("item", TUNED, arm)):
            raise ValueError(f"{item!r:.40} is no item")
    return [flip[key] for key in ("items", "won", "lost", "p")]


def figure(name: str, entry: Mapping[str, float] | None, language: str = "en") -> str:
    """An estimate of a measure as people read it, "–" where there is none."""
    if entry is None:
        return "–"
    form = "{:.0%}" if MEASURES[name].percent else "{:.2f}"
    return TEXTS[language]["figure"].format(**{key: form.format(entry[key]) for key in ("value", "low", "high")})


def sign(name: str, entry: Mapping[str, float]) -> int:
    """1 where a difference is clearly for the adapter, -1 where it is clearly against it, 0 where chance may do."""
    better = {"higher": 1, "lower": -1, "": 0}[MEASURES[name].better]
    return better * ((entry["low"] > 0) - (entry["high"] < 0))


def table(board: Mapping[str, Any], part: str = "arms", language: str = "en") -> list[list[str]]:
    """Head and rows: a measure, every arm's figure with its interval, and what the measure means.

    `part` "differences" gives the adapter's figure less the arm's instead; shares are in percentage points then.
    """
    arms: Mapping[str, Mapping[str, Any]] = board[part]
    rows = []
    for key, (name, meaning) in texts.MEASURES[language].items():
        if any(key in values for values in arms.values()):
            rows.append([name, *(figure(key, arm.get(key), language) for arm in arms.values()), meaning])
    return [["", *(texts.ARMS[language][arm] for arm in arms), ""], *rows]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table as lines for a terminal, every column as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def verdicts(board: Mapping[str, Any], language: str = "en") -> list[str]:
    """What a board says in sentences.

    At what the adapter is better or worse than each other arm, or not clearly either; how many items of each list it
    wins and loses; how far the rules err; that there are few held-out rows; what was not measured.
    """
    words, sentences = TEXTS[language], []
    for arm, values in board["differences"].items():
        sorts: dict[str, list[str]] = {sort: [] for sort in SORTS.values()}
        for name, entry in values.items():
            if MEASURES[name].better:
                sorts[SORTS[sign(name, entry)]].append(texts.MEASURES[language][name][0])
        told = {sort: words["comma"].join(names) or words["nothing"] for sort, names in sorts.items()}
        sentences.append(words["against"].format(arm=texts.ARMS[language][arm], **told))
    for name, flip in board.get("flips", {}).items():
        p = "p < 0.001" if flip["p"] < 0.001 else f"p = {flip['p']:.3f}"
        measure, counts = texts.MEASURES[language][name][0], {key: flip[key] for key in ("items", "won", "lost")}
        sentences.append(texts.FLIPS[language].format(measure=measure, p=p, **counts))
    if check := board.get("rules"):
        sentences.append(words["rules"].format(**check))
    held_out = board.get("held_out")
    if held_out and held_out["rows"] < FEW_HELD_OUT:
        sentences.append(words["few_rows"].format(**held_out))
    measured = {name for values in board["arms"].values() for name in values}
    if missing := [name for key, (name, _) in texts.MEASURES[language].items() if key not in measured]:
        sentences.append(words["not_measured"].format(names=words["comma"].join(missing)))
    return sentences
