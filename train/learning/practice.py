"""How an adapter learns to use the rows that it looks up: a training row stands behind some that its message finds.

A row is never shown the one with its own message. In most, another wording that has the same reply is among those that
are shown, so that what is learnt is to find the reply that fits and to take it up; in the others, and where no other
wording has its reply, it has to do without. Source: RAFT (Zhang et al., 2024), which shows the document that answers in a
share of the questions, beside some that do not.
"""

import random
from collections import defaultdict
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from roleplay.text.prompts import PromptEncoder, Turn
from roleplay.text.retrieval import NEAREST, Retriever, RetrievingEncoder, encoder_for

SHOWN, OF_TWENTY = tuple(range(NEAREST + 1)), (1, 4, 7, 8)  # how many are shown, and in how many rows of twenty
ANSWERED = 0.6  # share of the rows that are shown another wording with their reply, where there is one


class PracticeEncoder(RetrievingEncoder):
    """A `RetrievingEncoder` for training rows: the same row is always shown the same others for a seed."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str, retriever: Retriever, seed: int) -> None:
        super().__init__(tokenizer, template, retriever)
        self._seed = seed
        self._alike = defaultdict[str, list[Turn]](list)  # the turns that have a reply
        for turn in dict.fromkeys(row.turns[-1] for row in retriever.rows):
            self._alike[turn[1]].append(turn)

    def found(self, asked: str, own: Sequence[Turn] = ()) -> list[Turn]:
        itself = next((turn for turn in own if turn[0] == asked), (asked, ""))
        lot = random.Random(f"{self._seed} {itself}")
        (count,) = lot.choices(SHOWN, OF_TWENTY)
        near = [turn for _, turn in self.retriever.ranked(asked, count, {user for user, _ in own})][::-1]
        alike = [turn for turn in self._alike.get(itself[1], ()) if turn[0] != asked]
        if near and alike and lot.random() < ANSWERED:
            near[lot.randrange(len(near))] = lot.choice(alike)
        return near


def encoders(
    tokenizer: PreTrainedTokenizerBase, template: str, retriever: Retriever | None, seed: int
) -> tuple[PromptEncoder, PromptEncoder]:
    """What encodes the training rows, and what encodes all else as the chat will; both plain where nothing is looked
    up."""
    chat = encoder_for(tokenizer, template, retriever)
    return PracticeEncoder(tokenizer, template, retriever, seed) if retriever else chat, chat
