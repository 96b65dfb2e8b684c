"""Blind votes counted, with an interval. It knows no file and no page."""

from collections.abc import Iterable
from dataclasses import dataclass

from roleplay.engine.protocol import ADAPTER, BASE
from roleplay.results.intervals import wilson
from roleplay.results.votes import Vote
from roleplay.results.wording import TEXTS

ENOUGH = 20  # decisive votes from which it is said whether one side wins too often


@dataclass(frozen=True)
class Tally:
    """Counted votes; the interval is on decisive ones, ties and "both bad" stand apart."""

    adapter: int = 0
    base: int = 0
    ties: int = 0
    bad: int = 0
    left: int = 0
    right: int = 0

    @property
    def decisive(self) -> int:
        return self.adapter + self.base

    @property
    def votes(self) -> int:
        return self.decisive + self.ties + self.bad

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share of decisive votes that the adapter won."""
        return wilson(self.adapter, self.decisive)

    @property
    def conclusion(self) -> str:
        """`ADAPTER` or `BASE` once the interval leaves one half, "" before."""
        low, high = self.interval
        return ADAPTER if low > 0.5 else BASE if high < 0.5 else ""

    @property
    def sides_even(self) -> bool:
        """Whether one half lies in the 95 % interval of the left pane's share: the place does not decide."""
        low, high = wilson(self.left, self.left + self.right)
        return low <= 0.5 <= high


def count(votes: Iterable[Vote]) -> Tally:
    """The tally of some votes."""
    votes = list(votes)
    winners, choices = [vote.winner for vote in votes], [vote.choice for vote in votes]
    return Tally(
        winners.count(ADAPTER),
        winners.count(BASE),
        choices.count("tie"),
        choices.count("bad"),
        choices.count("left"),
        choices.count("right"),
    )


def score(language: str, tally: Tally) -> str:
    """The votes so far in a sentence or two."""
    words = TEXTS[language]
    if not tally.votes:
        return words["no_votes"]
    if not tally.decisive:
        return words["none_decisive"].format(ties=tally.ties, bad=tally.bad)
    low, high = tally.interval
    verdict = "inconclusive" if tally.conclusion == "" else f"prefer_{tally.conclusion}"
    sides = words["even" if tally.sides_even else "uneven"].format(left=tally.left, right=tally.right)
    told = words["score"].format(
        wins=tally.adapter,
        decisive=tally.decisive,
        share=tally.adapter / tally.decisive,
        low=low,
        high=high,
        ties=tally.ties,
        bad=tally.bad,
        verdict=words[verdict],
        sides=sides if tally.left + tally.right >= ENOUGH else "",
    )
    return told.strip()
