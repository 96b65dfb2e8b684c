"""All sections of an evaluation, each once: what it asks and scores, and how it enters a board."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from roleplay.text.characters import FACTS, LISTS, RECALL
from train.measuring import choosing, generated, likelihoods
from train.measuring.figures import Board
from train.measuring.progress import Work, writing
from train.measuring.replies import Ask
from train.measuring.subject import Bench


@dataclass(frozen=True)
class Section:
    """A part of an evaluation that can be measured without the others."""

    enter: Callable[[Bench, Board], Any]  # enters its figures; returns what people may read of it, or None
    asks: Callable[[Bench], generated.Asked] = lambda bench: []  # the replies that it judges
    scored: Callable[[Bench], Mapping[str, Work]] = lambda bench: {}  # the texts that it takes the likelihood of
    needs: str = ""  # what may be missing, so that it is skipped: there is no ...

    def plan(self, bench: Bench) -> dict[str, Work]:
        """The work of every arm, none where there is nothing to measure."""
        found = {arm: work for arm, work in self.scored(bench).items() if work.items}
        for arm, asks in self.asks(bench):
            if asks:
                asked = bench.subject.mean_tokens([_text(ask) for ask in asks])
                found[arm] = found.get(arm, Work()) + writing(asks, asked, bench.subject.reply_tokens(arm))
        return found


def _text(ask: Ask) -> str:
    """What an ask has after its persona."""
    return "\n".join([*(text for turn in ask.question.turns for text in turn), ask.question.user])


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
