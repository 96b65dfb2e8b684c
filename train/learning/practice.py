"""How an adapter learns to use the rows that it looks up: a training row stands behind some that its message finds.

A row is never shown itself, and now and then none: who always sees the answer only learns to copy it. Then what is found
is as near as what a visitor's message finds.
"""

import random

from transformers import PreTrainedTokenizerBase

from roleplay.text.prompts import PromptEncoder, Turn
from roleplay.text.retrieval import NEAREST, Retriever, RetrievingEncoder

RANKED = 50  # rows that are looked at: a reply may stand in many
SHOWN, OF_TWENTY = tuple(range(NEAREST + 1)), (1, 5, 9, 5)  # how many are shown, and in how many rows of twenty


class PracticeEncoder(RetrievingEncoder):
    """A `RetrievingEncoder` for training rows: the same row is always shown the same others for a seed."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str, retriever: Retriever, seed: int) -> None:
        super().__init__(tokenizer, template, retriever)
        self._seed = seed

    def found(self, turn: Turn) -> list[Turn]:
        (count,) = random.Random(f"{self._seed} {turn}").choices(SHOWN, OF_TWENTY)
        ranked = self.retriever.ranked(turn[0], RANKED)
        others = [other for _, other in ranked if other[0] != turn[0] and other[1] != turn[1]]
        return others[:count][::-1]


def encoders(
    tokenizer: PreTrainedTokenizerBase, template: str, retriever: Retriever | None, seed: int
) -> tuple[PromptEncoder, PromptEncoder]:
    """What encodes the training rows, and what encodes all else as the chat will; both plain where nothing is looked
    up."""
    if not retriever:
        plain = PromptEncoder(tokenizer, template)
        return plain, plain
    return PracticeEncoder(tokenizer, template, retriever, seed), RetrievingEncoder(tokenizer, template, retriever)
