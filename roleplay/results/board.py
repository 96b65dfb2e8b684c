"""What a scoreboard measures of replies, what each figure means, and the board as a table. It knows no model.

A board is the JSON object that `train.evaluate` writes as scoreboard.json: `arms` ({arm: {measure: estimate}}),
`differences` ({arm: {measure: the adapter's less the arm's}}), `drift` ({arm: [share held at turn 1, 2, ...]}), `rule`
and `samples` for the card, and how all of it was measured.
"""

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from sacrebleu.metrics import CHRF

from roleplay.errors import DataError
from roleplay.results import wording as texts
from roleplay.results.intervals import Estimate, bootstrap, jackknife, share, share_difference
from roleplay.results.wording import TEXTS
from train.measuring.rules import units

BASE, PERSONA, RETRIEVAL, ADAPTER, REFERENCE = "base", "base + persona", "base + retrieval", "adapter", "reference"
ARMS = (BASE, PERSONA, RETRIEVAL, ADAPTER, REFERENCE)
MAX_BYTES = 4 << 20  # of a scoreboard.json
DISTINCT_UNITS = 24  # of every reply at most: distinct-2 falls with length
CHINESE_RUN, OTHER_RUN = 10, 6  # units in a row that count as copied: 10 characters, or 6 words of about that length


@dataclass(frozen=True)
class Measure:
    """How to read a figure: `better` is "lower", "higher" or "" where neither is. The words are in `texts.MEASURES`."""

    better: str
    percent: bool


MEASURES = {
    "held-out loss": Measure("lower", False),
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


@dataclass(frozen=True)
class Reply:
    """A generated reply; `stopped` says whether it ended by itself."""

    text: str
    tokens: int
    stopped: bool


def runs(text: str) -> set[tuple[str, ...]]:
    """All runs of a text that are long enough to count as copied where they stand elsewhere too."""
    said = units(text)
    chinese = sum(len(unit) == 1 and unit > "\u3400" for unit in said)
    length = CHINESE_RUN if 2 * chinese >= len(said) else OTHER_RUN
    return {tuple(said[i : i + length]) for i in range(len(said) - length + 1)}


def distinct_2(replies: Iterable[str]) -> float:
    """Distinct pairs of neighbouring units over all pairs (Li et al., 2016); 0 where there is no pair."""
    pairs = [pair for said in map(units, replies) for pair in pairwise(said)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def chrf(reply: str, reference: str) -> float:
    """chrF (Popović, 2015) of one reply, 0 to 100."""
    return float(CHRF(word_order=0).sentence_score(reply, [reference]).score)


@dataclass
class Board:
    """One adapter's figures as they come in."""

    arms: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    differences: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    drift: dict[str, list[Estimate]] = field(default_factory=dict)
    samples: list[dict[str, str]] = field(default_factory=list)

    def compare(
        self,
        name: str,
        values: Mapping[str, Sequence[float]],
        clusters: Sequence[Hashable],
        weights: Sequence[float] | None = None,
    ) -> None:
        """Enter every arm's figure, and the adapter's less the arm's, from one value an item: 0 or 1 for a share.

        The items are the same in all arms. A loss is the sum of `values` in nat over the sum of `weights` in labels.
        """
        weights = weights or [1.0] * len(clusters)
        for arm, own in values.items():
            if MEASURES[name].percent:
                self._enter(self.arms, arm, name, share([value == 1 for value in own], clusters))
            else:
                self._enter(self.arms, arm, name, bootstrap(own, weights, clusters))
        for arm in values.keys() - {ADAPTER, REFERENCE} if ADAPTER in values else ():
            if MEASURES[name].percent:
                difference = share_difference(self.arms[ADAPTER][name], self.arms[arm][name])
            else:
                items = zip(values[ADAPTER], values[arm], strict=True)
                difference = bootstrap([a - b for a, b in items], weights, clusters)
            self._enter(self.differences, arm, name, difference)

    def compare_distinct(self, replies: Mapping[str, Sequence[str]]) -> None:
        """Enter distinct-2, which is of all replies together and has no value an item."""
        for arm, own in replies.items():
            cut = [" ".join(units(text)[:DISTINCT_UNITS]) for text in own]
            found = jackknife(distinct_2, cut)
            self._enter(self.arms, arm, "distinct-2", Estimate(found.value, max(0.0, found.low), min(1.0, found.high)))

    @staticmethod
    def _enter(table: dict[str, dict[str, Estimate]], arm: str, name: str, estimate: Estimate) -> None:
        table.setdefault(arm, {})[name] = estimate

    def as_json(self) -> dict[str, Any]:
        """Arms in the order of `ARMS`, measures in the order of `MEASURES`."""

        def ordered(table: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
            return {
                arm: {name: asdict(table[arm][name]) for name in MEASURES if name in table[arm]}
                for arm in ARMS
                if arm in table
            }

        drift = {arm: [asdict(turn) for turn in self.drift[arm]] for arm in ARMS if arm in self.drift}
        samples = {"samples": self.samples} if self.samples else {}
        return {"arms": ordered(self.arms), "differences": ordered(self.differences), "drift": drift, **samples}


def read(path: Path) -> dict[str, Any]:
    """A scoreboard.json; raises `DataError` unless it holds known arms, known measures and numbers.

    The file may be a stranger's: of the board that is returned, nothing else may be shown.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MB")
        board = json.loads(path.read_text(encoding="utf-8"))
        numbers = list(board.get("rules", {}).values())
        for part in ("arms", "differences"):
            for arm, values in board[part].items():
                if unknown := [name for name in (arm, *values) if name not in (*ARMS, *MEASURES)]:
                    raise ValueError(f"{unknown[0]!r:.40} is unknown")
                for entry in values.values():
                    numbers += [entry[key] for key in ("value", "low", "high")]
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise ValueError("not all figures are numbers")
        table(board), verdicts(board)  # raises where a word is in the wrong place, or a figure missing
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not a scoreboard ({error!s:.120}); write it with train.evaluate") from error
    return board


def figure(name: str, entry: Mapping[str, float] | None, language: str = "en") -> str:
    """An estimate of a measure as people read it, "–" where there is none."""
    if entry is None:
        return "–"
    form = "{:.0%}" if MEASURES[name].percent else "{:.2f}"
    return TEXTS[language]["figure"].format(**{key: form.format(entry[key]) for key in ("value", "low", "high")})


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


def verdicts(board: Mapping[str, Any], language: str = "en") -> list[str]:
    """At what the adapter is better or worse than each other arm, or not clearly either, and how far the rules err."""
    words, sentences = TEXTS[language], []
    for arm, values in board["differences"].items():
        sorts: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
        for name, entry in values.items():
            if sign := {"higher": 1, "lower": -1}.get(MEASURES[name].better):
                low, high = sorted((sign * entry["low"], sign * entry["high"]))
                sort = "better" if low > 0 else "worse" if high < 0 else "undecided"
                sorts[sort].append(texts.MEASURES[language][name][0])
        told = {sort: words["comma"].join(names) or words["nothing"] for sort, names in sorts.items()}
        sentences.append(words["against"].format(arm=texts.ARMS[language][arm], **told))
    if check := board.get("rules"):
        sentences.append(words["rules"].format(**check))
    return sentences
