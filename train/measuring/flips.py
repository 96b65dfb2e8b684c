"""Which items of a list an adapter wins and which it loses against another arm, and whether that may be chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from roleplay.results.board import BASE_WITH_PERSONA, TUNED


@dataclass(frozen=True)
class Outcome:
    """How one arm did on one item: whether it was right, and what it said or chose."""

    right: bool
    told: str


def mcnemar(won: int, lost: int) -> float:
    """Two-sided p value of the exact paired test: as many wins or losses if every flip were a fair coin.

    Items on which both arms do alike say nothing and do not count. Items are taken as independent, so where several
    belong to one scene it is too sure. Source: McNemar, "Note on the sampling error of the difference between
    correlated proportions or percentages", 1947, in its binomial form.
    """
    return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


def flips(
    items: Sequence[str], outcomes: Mapping[str, Sequence[Outcome]], opponent: str = BASE_WITH_PERSONA
) -> dict[str, Any]:
    """What the adapter wins and loses against an arm, for a board's JSON.

    `items` are what people read of them, such as the question; `outcomes` has one of each arm for every item.
    """
    wins, losses = list[dict[str, str]](), list[dict[str, str]]()
    for item, other, tuned in zip(items, outcomes[opponent], outcomes[TUNED], strict=True):
        if other.right != tuned.right:
            side = wins if tuned.right else losses
            side.append({"item": item, TUNED: tuned.told, opponent: other.told})
    counted = {"items": len(items), "won": len(wins), "lost": len(losses), "p": mcnemar(len(wins), len(losses))}
    return {**counted, "wins": wins, "losses": losses}
