"""What a scoreboard measures of replies, what each figure means, and the board as a table. It knows no model.

A board is the JSON object that `train.evaluate` writes as scoreboard.json: `arms` ({arm: {measure: estimate}}),
`differences` ({arm: {measure: the adapter's less the arm's}}), `drift` ({arm: [share held at turn 1, 2, ...]}), `rule`
and `samples` for the card, and how all of it was measured.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from sacrebleu.metrics import CHRF

from roleplay.intervals import Estimate, bootstrap, jackknife, share, share_difference
from roleplay.probes import units

BASE, PERSONA, RETRIEVAL, ADAPTER, REFERENCE = "base", "base + persona", "base + retrieval", "adapter", "reference"
ARMS = (BASE, PERSONA, RETRIEVAL, ADAPTER, REFERENCE)
DISTINCT_UNITS = 24  # of every reply at most: distinct-2 falls with length
CHINESE_RUN, OTHER_RUN = 10, 6  # units in a row that count as copied: 10 characters, or 6 words of about that length


@dataclass(frozen=True)
class Measure:
    """How to read a figure: `better` is "lower", "higher" or "" where neither is."""

    better: str
    percent: bool
    meaning: str


MEASURES = {
    "held-out loss": Measure("lower", False, "Nat per token of her replies in rows that were never trained on."),
    "stop rate": Measure("higher", True, "Replies that end by themselves within the length that every arm is given."),
    "stop rate, 256": Measure("higher", True, "Replies that end by themselves within the page's 256 tokens."),
    "openers that stop": Measure("higher", True, "Greedy replies to the persona's openers that end within 256 tokens."),
    "tokens": Measure("", False, "Mean length of a reply in tokens, cut at the length that every arm is given."),
    "chrF": Measure("higher", False, "Character n-grams shared with her written reply, 0 to 100."),
    "distinct-2": Measure("higher", False, "Distinct pairs of neighbouring words or characters, of all."),
    "copied": Measure("lower", True, "Replies with a run of 10 characters (6 words) that stands in the training rows."),
    "identity": Measure("higher", True, "Written questions about who she is that get an accepted answer in character."),
    "in character": Measure("higher", True, "Written attempts to break the role after which no rule finds a fault."),
    "first turns": Measure("higher", True, "Replies in the first three of ten turns in which no rule finds a fault."),
    "last turns": Measure("higher", True, "Replies in the last three of ten turns; lower than the first is drift."),
    "plain Chinese": Measure("lower", False, "Nat per token of plain Chinese text: higher than base is forgetting."),
    "plain English": Measure("lower", False, "Nat per token of plain English text: higher than base is forgetting."),
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


def distinct_2(texts: Iterable[str]) -> float:
    """Distinct pairs of neighbouring units over all pairs (Li et al., 2016); 0 where there is no pair."""
    pairs = [pair for said in map(units, texts) for pair in pairwise(said)]
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

    def compare_distinct(self, texts: Mapping[str, Sequence[str]]) -> None:
        """Enter distinct-2, which is of all replies together and has no value an item."""
        for arm, own in texts.items():
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


def figure(name: str, entry: Mapping[str, float] | None) -> str:
    """An estimate of a measure as people read it, "–" where there is none."""
    if entry is None:
        return "–"
    form = "{:.0%}" if MEASURES[name].percent else "{:.2f}"
    value, low, high = (form.format(entry[key]) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def table(board: Mapping[str, Any], part: str = "arms") -> list[list[str]]:
    """Head and rows: a measure, every arm's figure with its interval, and what the measure means.

    `part` "differences" gives the adapter's figure less the arm's instead; shares are in percentage points then.
    """
    arms: Mapping[str, Mapping[str, Any]] = board[part]
    names = [name for name in MEASURES if any(name in values for values in arms.values())]
    rows = [[name, *(figure(name, arm.get(name)) for arm in arms.values()), MEASURES[name].meaning] for name in names]
    return [["", *arms, ""], *rows]


def verdicts(board: Mapping[str, Any]) -> list[str]:
    """At what the adapter is better or worse than each other arm, or not clearly either, and how far the rules err."""
    sentences = []
    for arm, values in board["differences"].items():
        sorts: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
        for name, entry in values.items():
            if sign := {"higher": 1, "lower": -1}.get(MEASURES[name].better):
                low, high = sorted((sign * entry["low"], sign * entry["high"]))
                sorts["better" if low > 0 else "worse" if high < 0 else "undecided"].append(name)
        told = "; ".join(f"{sort}: {', '.join(names) or 'nothing'}" for sort, names in sorts.items())
        sentences.append(f"The adapter against {arm}: {told}.")
    if check := board.get("rules"):
        sentences.append(
            f"The rules blame {check['false_alarms']} of {check['good']} good replies labelled by hand and miss "
            f"{check['missed']} of {check['broken']} broken ones; "
            f"they blame {check['blamed']} of {check['references']} held-out references."
        )
    return sentences
