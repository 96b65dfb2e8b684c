"""One adapter's figures as they come in: from a value an item to a board with intervals. It knows no model."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from roleplay.results.board import ARMS, BASE_WITH_PERSONA, MEASURES, TUNED, WRITTEN
from roleplay.results.intervals import Estimate
from roleplay.text.copies import units
from train.measuring.flips import Outcome, flips
from train.measuring.resampling import bootstrap, jackknife, share, share_difference
from train.measuring.text_metrics import distinct_2

DISTINCT_UNITS = 24  # of every reply at most: distinct-2 falls with length


@dataclass
class Board:
    """One adapter's figures as they come in."""

    arms: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    differences: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    drift: dict[str, list[Estimate]] = field(default_factory=dict)
    flips: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # by opponent and measure
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
        for arm in values.keys() - {TUNED, WRITTEN} if TUNED in values else ():
            if MEASURES[name].percent:
                difference = share_difference(self.arms[TUNED][name], self.arms[arm][name])
            else:
                items = zip(values[TUNED], values[arm], strict=True)
                difference = bootstrap([a - b for a, b in items], weights, clusters)
            self._enter(self.differences, arm, name, difference)

    def compare_list(
        self,
        name: str,
        items: Sequence[str],
        outcomes: Mapping[str, Sequence[Outcome]],
        clusters: Sequence[Hashable] | None = None,
    ) -> None:
        """Enter every arm's share of right items, and which of them the adapter wins and loses against each other arm.

        `items` are what people read of them; each is a cluster of its own where no others are given.
        """
        right = {arm: [float(outcome.right) for outcome in own] for arm, own in outcomes.items()}
        self.compare(name, right, range(len(items)) if clusters is None else clusters)
        for arm in outcomes.keys() - {TUNED}:
            self.flips.setdefault(arm, {})[name] = flips(items, outcomes, arm)

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

        def ordered(table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
            return {
                arm: {name: table[arm][name] for name in MEASURES if name in table[arm]} for arm in ARMS if arm in table
            }

        def estimates(table: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
            return {arm: {name: asdict(own) for name, own in row.items()} for arm, row in ordered(table).items()}

        drift = {arm: [asdict(turn) for turn in self.drift[arm]] for arm in ARMS if arm in self.drift}
        samples = {"samples": self.samples} if self.samples else {}
        flips = ordered(self.flips)
        flipped = {"flips": flips.pop(BASE_WITH_PERSONA)} if BASE_WITH_PERSONA in flips else {}
        flipped |= {"other_flips": flips} if flips else {}
        figures = {"arms": estimates(self.arms), "differences": estimates(self.differences), "drift": drift}
        return {**figures, **flipped, **samples}
