"""All sections of an evaluation, each once: what it asks beforehand, what it scores, and how it enters a board."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from roleplay.text.characters import FACTS, LISTS, RECALL
from train.measuring import choosing, generated, likelihoods
from train.measuring.figures import Board
from train.measuring.replies import Ask
from train.measuring.subject import Bench


@dataclass(frozen=True)
class Section:
    """A part of an evaluation that can be measured without the others."""

    enter: Callable[[Bench, Board], Any]  # enters its figures; returns what people may read of it, or None
    asks: Callable[[Bench], list[Ask]] = lambda bench: []  # the replies that it judges
    scored: Callable[[Bench], int] = lambda bench: 0  # how many texts it takes the likelihood of
    needs: str = ""  # what may be missing, so that it is skipped: there is no ...

    def items(self, bench: Bench) -> int:
        """How many texts and replies it takes, for the progress bar."""
        return self.scored(bench) + sum(1 + len(ask.later) for ask in self.asks(bench))


LISTED, KNOWN, SAID = (
    f"{file} for its character; name one with --character, or the file with --{file.removesuffix('.json')}"
    for file in (LISTS, FACTS, RECALL)
)

SECTIONS = {
    "loss": Section(likelihoods.loss, scored=likelihoods.loss_texts),
    "choice": Section(
        choosing.choice,
        scored=choosing.choice_texts,
        needs=f"held-out row with {choosing.OTHERS} others of its language, from other scenes",
    ),
    "facts": Section(choosing.facts, scored=choosing.facts_texts, needs=KNOWN),
    "recall": Section(generated.recall, generated.ask_recall, needs=SAID),
    "replies": Section(generated.replies, generated.ask_replies),
    "identity": Section(generated.identity, generated.ask_identity, needs=LISTED),
    "breaks": Section(generated.breaks, generated.ask_breaks, needs=LISTED),
    "drift": Section(generated.drift, generated.ask_drift, needs=LISTED),
    "plain": Section(likelihoods.plain, scored=likelihoods.plain_texts, needs=LISTED),
}


def write_all(bench: Bench, names: Sequence[str]) -> None:
    """Generate whatever the sections judge in one batch that stays full; they will find every reply known."""
    asks = [ask for name in names for ask in SECTIONS[name].asks(bench)]
    asks.sort(key=lambda ask: -len(ask.later))  # conversations first, for a turn of them waits for another
    bench.writer.write(asks, bench.done)
