"""Nearness by what is meant: a base model's hidden states of two texts, compared after it has learnt to tell matters.

Two wordings of a matter may share no word; in the middle of a language model they are alike, and the more so where its
first layers have learnt it from matters that stand in several wordings (LoRA; `train.learning.meaning`). A text's
features are `SUMMARIES` of its tokens' hidden states after these layers: their mean, in which a rare token counts more
(Arora et al., "A Simple but Tough-to-Beat Baseline for Sentence Embeddings", 2017), the largest of every number, and
the last. A linear map makes a short vector of them, and nearness is the cosine. Nothing here computes a hidden state.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roleplay.text.known import Known
from roleplay.text.prompts import PromptEncoder

Floats = NDArray[np.floating[Any]]
SUMMARIES = 3  # of a text's hidden states: it has so many times their size of features
READ = 256  # tokens of a text, its first: nobody else's answer goes on while they are read
KEPT = 256  # messages whose vectors are remembered, whatever conversation they stand in
FAR, SURE = 0.9, 0.25  # nearness of a fallback that is no likelier than by chance, and what certainty adds
AMONG = 0.01  # weight of the cosine with each of its messages: it only puts the replies of one fallback in order


class Tokens(NamedTuple):
    """A text as token ids, `<bos>` first, and what each of them counts in the mean; the first counts nothing."""

    ids: list[int]
    weights: list[float]


Features = Callable[[Sequence[Tokens]], Floats]  # of texts, (texts, features)


class Rarity(dict[int, float]):
    """What tokens count in a text's mean, by id; one that is not here counts as the rarest."""

    def __init__(self, values: Mapping[int, float]) -> None:
        super().__init__(values)
        self._rarest = max(self.values(), default=1.0)

    def __missing__(self, token: int) -> float:
        return self._rarest

    def tokens(self, encoder: PromptEncoder, text: str) -> Tokens:
        """A text, or the beginning of a long one, as `Features` takes it."""
        ids = encoder.encode(text.strip())[:READ]
        return Tokens([encoder.tokenizer.bos_token_id, *ids], [0.0, *(self[token] for token in ids)])


class Projection(NamedTuple):
    """A linear map of standardised features."""

    center: Floats  # (features,)
    deviation: Floats  # (features,), the standard deviation
    linear: Floats  # (size, features)

    def standardised(self, features: Floats) -> Floats:
        return (features - self.center) / self.deviation

    def vectors(self, features: Floats) -> Floats:
        """Makes vectors of length one (texts, size) of features (texts, features)."""
        return unit(self.standardised(features) @ self.linear.T)


class Kinds(NamedTuple):
    """Logistic regression on standardised features: of which fallback a text is, though nothing is near to it."""

    weights: Floats  # (kinds, features)
    bias: Floats  # (kinds,)

    def probabilities(self, standardised: Floats) -> Floats:
        """(texts, kinds) of (texts, features)."""
        scores = standardised @ self.weights.T + self.bias
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
        return exponents / exponents.sum(axis=1, keepdims=True)

    def certainties(self, standardised: Floats) -> Floats:
        """How far the probabilities are from chance, 0, to 1: (texts, kinds) of (texts, features)."""
        chance = 1 / max(2, len(self.bias))
        return np.maximum(0.0, self.probabilities(standardised) - chance) / (1 - chance) * (len(self.bias) > 1)


@dataclass(frozen=True, eq=False)
class Meaning:
    """What tells how near a text is to those of some turns."""

    depth: int  # layers that a text goes through
    lora: Mapping[str, Floats]  # what these have learnt, by `lora_key`: A (rank, in features), B (out features, rank)
    rarity: Rarity
    projection: Projection
    vectors: Floats  # (texts, size), of length one
    text_of: NDArray[np.integer[Any]]  # the number of each turn's text, (turns,)
    kinds: Kinds
    kind_of: NDArray[np.integer[Any]]  # the number of each turn's fallback, -1 for none, (turns,)

    def nearness(self, encoder: PromptEncoder, features: Features) -> Callable[[str], Floats]:
        """Gives the cosine of a text with that of each turn, (turns,), and for a fallback's turn how near another has
        to be to come before it; of an empty text 0."""
        fallback = self.kind_of >= 0

        @lru_cache(KEPT)
        def read(text: str) -> tuple[Floats, Floats]:
            tokens = self.rarity.tokens(encoder, text)
            if len(tokens.ids) == 1:
                return np.zeros(self.vectors.shape[1], np.float32), np.zeros_like(self.kinds.bias)
            found = features([tokens])
            certainties = self.kinds.certainties(self.projection.standardised(found))
            return self.projection.vectors(found)[0], FAR + SURE * certainties[0]

        def nearness(text: str) -> Floats:
            vector, of_kinds = read(text)
            near: Floats = (self.vectors @ vector)[self.text_of]
            near[fallback] = of_kinds[self.kind_of[fallback]] + AMONG * near[fallback]
            return near

        return nearness


def unit(vectors: Floats) -> Floats:
    """Each brought to length one; one of zeros stays."""
    lengths: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


def kinds_of(known: Sequence[Known]) -> NDArray[np.integer[Any]]:
    """For each turn the number of its fallback, from 0 in order, and -1 for none."""
    fallback = np.array([one.fallback for one in known], bool)
    kind_of = np.full(len(known), -1)
    kind_of[fallback] = numbered([one.matter for one in known if one.fallback])[1]
    return kind_of


def numbered(texts: Sequence[str]) -> tuple[list[str], NDArray[np.integer[Any]]]:
    """Each text once, in order, and for every one of `texts` its number there."""
    numbers: dict[str, int] = {}
    text_of = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)
    return list(numbers), text_of
