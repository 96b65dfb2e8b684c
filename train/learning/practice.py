"""How an adapter learns to use the rows that it looks up: a training row stands behind some that its message finds.

A row is never shown the one with its own message. In most, another wording that has the same reply is among what is
shown: to be learnt is which reply fits, and to take it up. In the others, and where no other wording has its reply, it
has to do without. Most rows stand behind others, as if those had been said before: what came earlier in a chat is read
past, unless the row itself asks for it. Source: RAFT (Zhang et al., 2024), which shows the document that answers in a
share of the questions, beside some that do not.
"""

import random
from collections import defaultdict
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from roleplay.text.prompts import Example, PromptEncoder, Turn
from roleplay.text.retrieval import NEAREST, Retriever, RetrievingEncoder, encoder_for

SHOWN, OF_TWENTY = tuple(range(NEAREST + 1)), (1, 9, 5, 3, 2)  # how many are shown, and in how many rows of twenty
ANSWERED = 0.85  # share of the rows that are shown another wording with their reply, where there is one
FIRST = 0.75  # share of these in which it is the nearest; in the others it stands anywhere
BEHIND = 0.6  # share of the rows that stand behind others
OTHERS = (1, 2, 3)  # behind how many


class PracticeEncoder(RetrievingEncoder):
    """A `RetrievingEncoder` for training rows: the same row is always shown the same others for a seed."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str, retriever: Retriever, seed: int) -> None:
        super().__init__(tokenizer, template, retriever)
        self._seed = seed
        self._alike = defaultdict[str, list[Turn]](list)  # the turns that have a reply
        self._opening = [turn for turn, _, after in retriever.known if not after]
        for turn in dict.fromkeys(turn for turn, _, _ in retriever.known):
            self._alike[turn[1]].append(turn)

    def example(
        self, persona: str, turns: Sequence[Turn], loss_on: str = "all", limit: int = 0, where: str = ""
    ) -> Example:
        lot = random.Random(f"{self._seed} behind {turns[-1]}")
        if lot.random() < BEHIND:
            turns, loss_on = [*lot.choices(self._opening, k=lot.choice(OTHERS)), *turns], "last"
        return super().example(persona, turns, loss_on, limit, where)

    def found_for(self, turns: Sequence[Turn]) -> list[Turn]:
        asked, reply = turns[-1]
        lot = random.Random(f"{self._seed} {(asked, reply)}")
        (count,) = lot.choices(SHOWN, OF_TWENTY)
        said = [reply for _, reply in turns[:-1]]
        near = self.retriever.examples(asked, count, {*said, *(user for user, _ in turns)}, said)
        alike = [turn for turn in self._alike[reply] if turn[0] != asked]
        if near and alike and lot.random() < ANSWERED:
            place = -1 if lot.random() < FIRST else lot.randrange(len(near))
            near[place] = lot.choice(alike)
        return near


def encoders(
    tokenizer: PreTrainedTokenizerBase, template: str, retriever: Retriever | None, seed: int
) -> tuple[PromptEncoder, PromptEncoder]:
    """What encodes the training rows, and what encodes all else as the chat will; both plain where nothing is looked
    up."""
    chat = encoder_for(tokenizer, template, retriever)
    return PracticeEncoder(tokenizer, template, retriever, seed) if retriever else chat, chat
