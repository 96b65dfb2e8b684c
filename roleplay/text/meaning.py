"""Nearness by what is meant: a base model's hidden states of two texts, compared after a learned projection.

Two wordings of one matter may share no word; in the middle of a language model they are alike. A text's state is the
mean over its tokens' hidden states after some of the layers. The projection is learned from matters that stand in
several wordings (`train.learning.meaning`), and nearness is the cosine. Nothing here computes a hidden state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roleplay.text.prompts import PromptEncoder

Floats = NDArray[np.floating[Any]]
States = Callable[[Sequence[Sequence[int]], int], Floats]  # of texts as token ids, after a number of layers: see below
KEPT = 256  # texts whose vectors are remembered: one is asked for several times while it is answered


@dataclass(frozen=True, eq=False)
class Meaning:
    """A projection of a base model's hidden states, and with it the vectors of texts."""

    depth: int  # layers that a text goes through
    center: Floats  # (hidden,)
    projection: Floats  # (hidden, size)
    vectors: Floats  # (texts, size), of length one

    def project(self, states: Floats) -> Floats:
        """Mean hidden states (texts, hidden) as vectors of length one (texts, size)."""
        return unit((states - self.center) @ self.projection)

    def nearness(self, encoder: PromptEncoder, states: States) -> Callable[[str], Floats]:
        """Gives the cosine of a text with each of the `vectors`, (texts,); of an empty one 0."""

        @lru_cache(KEPT)
        def vector(text: str) -> Floats:
            if not text.strip():
                return np.zeros(self.vectors.shape[1], np.float32)
            return self.project(states([ids_of(encoder, text)], self.depth))[0]

        def nearness(text: str) -> Floats:
            cosines: Floats = self.vectors @ vector(text)
            return cosines

        return nearness


def unit(vectors: Floats) -> Floats:
    """Each brought to length one; one of zeros stays."""
    lengths: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


def ids_of(encoder: PromptEncoder, text: str) -> list[int]:
    """A text as `States` takes it: `<bos>`, whose state does not count, and its own tokens."""
    return [encoder.tokenizer.bos_token_id, *encoder.encode(text.strip())]
