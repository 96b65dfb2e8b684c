"""How an adapter learns to use the rows that it looks up: a training row stands behind some that its message finds.

In a third of the rows the row itself is among them, as an answer that only has to be taken up; without it an adapter
learns to pass over what it is shown. In the others it is not, and what is found is as near as what a visitor's message
finds. Source: RAFT (Zhang et al., 2024), where it is the share of questions whose document is in the context.
"""

import random
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from roleplay.text.prompts import PromptEncoder, Turn
from roleplay.text.retrieval import NEAREST, Retriever, RetrievingEncoder, encoder_for

RANKED = 50  # rows that are looked at: a message or a reply may stand in many
SHOWN, OF_TWENTY = tuple(range(NEAREST + 1)), (1, 4, 7, 8)  # how many are shown, and in how many rows of twenty
ITSELF = 1 / 3  # share of the rows that may be shown themselves


class PracticeEncoder(RetrievingEncoder):
    """A `RetrievingEncoder` for training rows: the same row is always shown the same others for a seed."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str, retriever: Retriever, seed: int) -> None:
        super().__init__(tokenizer, template, retriever)
        self._seed = seed

    def found(self, asked: str, own: Sequence[Turn] = ()) -> list[Turn]:
        lot = random.Random(f"{self._seed} {next((turn for turn in own if turn[0] == asked), asked)}")
        (count,), itself = lot.choices(SHOWN, OF_TWENTY), lot.random() < ITSELF
        users, replies = {user for user, _ in own}, {reply for _, reply in own}
        ranked = [other for _, other in self.retriever.ranked(asked, RANKED)]
        rows = [other for other in ranked if itself or not (other[0] in users or other[1] in replies)]
        return rows[:count][::-1]


def encoders(
    tokenizer: PreTrainedTokenizerBase, template: str, retriever: Retriever | None, seed: int
) -> tuple[PromptEncoder, PromptEncoder]:
    """What encodes the training rows, and what encodes all else as the chat will; both plain where nothing is looked
    up."""
    chat = encoder_for(tokenizer, template, retriever)
    return PracticeEncoder(tokenizer, template, retriever, seed) if retriever else chat, chat
