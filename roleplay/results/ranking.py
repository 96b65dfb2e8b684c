"""Votes between any two: a tally for each pair that met, and a ranking where three or more did. It knows no page.

The ranking is that of Bradley and Terry ("Rank analysis of incomplete block designs", 1952), fitted by the MM steps of
Hunter (2004); a tie is half a win for each. Intervals come from resampling the votes.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from roleplay.engine.protocol import ADAPTER, BASE
from roleplay.results.intervals import Estimate
from roleplay.results.tally import ENOUGH, Tally, count
from roleplay.results.votes import PERSONA, SHA256_SHOWN, Vote
from roleplay.results.wording import TEXTS

ROUNDS, STEPS, SEED = 400, 60, 0  # resamplings, MM steps of each fit, and the dice of the resampling
PRIOR = 0.5  # wins and losses of everyone against someone of middling strength, so that none is beyond measure


class Player(NamedTuple):
    """Who, at which strength, what it was given, and which weights: the base model with training rows is another
    opponent, and so is another checkpoint of the same name."""

    adapter: str = ""
    strength: float = 1.0
    given: str = PERSONA
    sha256: str = ""  # of an adapter's weights, "" where it was not recorded


Pair = tuple[Player, Player]


@dataclass(frozen=True)
class Ranked:
    """Who, and the share of votes that they would win against the others, each as often."""

    player: Player
    share: Estimate


def pair_of(vote: Vote) -> Pair:
    """Who stood on the adapter's and on the base side; at a strength of 0 anyone is the base model."""
    own, other = (
        Player(one.adapter, one.strength, sha256=sha256) if one.adapter and one.strength else Player()
        for one, sha256 in zip(vote.speakers, vote.weights_sha256, strict=True)
    )
    return own, other._replace(given=vote.given)


def pairs(votes: Iterable[Vote]) -> dict[Pair, Tally]:
    """The tally of every two that met, whichever of them stood on the adapter's side; the base model is the second."""
    met: dict[Pair, list[Vote]] = {}
    for vote in votes:
        first, second = pair_of(vote)
        if first == second:
            continue
        if (second, first) in met or (second.adapter and not first.adapter):
            first, second = second, first
            vote = replace(vote, order=[{ADAPTER: BASE, BASE: ADAPTER}[side] for side in vote.order])
        met.setdefault((first, second), []).append(vote)
    return {pair: count(own) for pair, own in met.items()}


def players_of(met: Iterable[Pair], *others: Player) -> set[Player]:
    """Everyone who met somebody, and the `others`."""
    return {player for pair in met for player in pair} | set(others)


def ranking(met: dict[Pair, Tally]) -> list[Ranked]:
    """The best first, of those whom `_comparable` finds; empty where they are fewer than three."""
    players = sorted(players_of(met))
    wins = np.zeros((len(players), len(players)))  # [i, j]: of i against j
    for (first, second), tally in met.items():
        i, j = players.index(first), players.index(second)
        wins[i, j] += tally.adapter + tally.ties / 2
        wins[j, i] += tally.base + tally.ties / 2
    ranked = _comparable(wins + wins.T)
    if len(ranked) < 3:
        return []
    players, wins = [players[i] for i in ranked], wins[np.ix_(ranked, ranked)]
    dice, total = np.random.default_rng(SEED), int(wins.sum())
    drawn = dice.multinomial(total, (wins / wins.sum()).ravel(), ROUNDS).reshape(ROUNDS, *wins.shape)
    low, high = np.percentile(_shares(drawn), (2.5, 97.5), axis=0)
    found = [
        Ranked(player, Estimate(*map(float, values)))
        for player, *values in zip(players, _shares(wins[None])[0], low, high, strict=True)
    ]
    return sorted(found, key=lambda one: -one.share.value)


def _comparable(votes: np.ndarray) -> np.ndarray:
    """Numbers of the most players who have `ENOUGH` votes with one another and reach each other by pairs that met.

    `votes` (players, players) has those of each pair. Leaving one out takes votes from others, who may have to go too.
    """
    players = np.arange(len(votes))
    while not (enough := votes[np.ix_(players, players)].sum(1) >= ENOUGH).all():
        players = players[enough]
    reached = (votes[np.ix_(players, players)] > 0) | np.eye(len(players), dtype=bool)
    for _ in players:
        reached = reached @ reached
    return players[max(reached, key=np.count_nonzero)] if len(players) else players


def _shares(wins: np.ndarray) -> np.ndarray:
    """Of the strengths that fit each sample (samples, players, players) best: the mean chance against the others."""
    played, strength = wins + wins.swapaxes(1, 2), np.ones(wins.shape[:2])
    for _ in range(STEPS):
        against = (played / (strength[:, :, None] + strength[:, None])).sum(2) + 2 * PRIOR / (strength + 1.0)
        strength = (wins.sum(2) + PRIOR) / against
    chance = strength[:, :, None] / (strength[:, :, None] + strength[:, None])
    return (chance.sum(2) - 0.5) / (wins.shape[1] - 1)


def name_of(player: Player, language: str, players: Collection[Player]) -> str:
    """As it is called in a tally of `players`: with its hash where several checkpoints among them have its name."""
    words, name = TEXTS[language], player.adapter or TEXTS[language]["base_model"]
    if player.sha256 and len({one.sha256 for one in players if one.adapter == player.adapter}) > 1:
        name = words["checkpoint"].format(name=name, sha256=player.sha256[:SHA256_SHOWN])
    if player.strength != 1:
        name = words["at_strength"].format(name=name, strength=player.strength)
    return name if player.given == PERSONA else words[f"given_{player.given}"].format(name=name)


def sentences(met: dict[Pair, Tally], own: Player, language: str) -> list[str]:
    """Each pair that an adapter of this name was in, but `own` itself beside the base model, in a sentence."""
    words, told, players = TEXTS[language], [], players_of(met, own)
    for (first, second), tally in met.items():
        if own.adapter not in (first.adapter, second.adapter) or (first, second) == (own, Player()):
            continue
        low, high = tally.interval
        names = {"first": name_of(first, language, players), "second": name_of(second, language, players)}
        counts = {"wins": tally.adapter, "decisive": tally.decisive, "ties": tally.ties, "bad": tally.bad}
        preferred = {ADAPTER: names["first"], BASE: names["second"]}.get(tally.conclusion)
        verdict = words["prefer"].format(name=preferred) if preferred else words["inconclusive"]
        told.append(words["pair"].format(**names, **counts, low=low, high=high, verdict=verdict))
    return told
