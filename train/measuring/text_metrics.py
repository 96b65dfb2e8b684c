"""Figures of texts alone: shared n-grams and distinct pairs. It knows no model and no rows."""

from collections.abc import Iterable
from itertools import pairwise

from sacrebleu.metrics import CHRF

from roleplay.text.copies import units


def distinct_2(replies: Iterable[str]) -> float:
    """Distinct pairs of neighbouring units over all pairs (Li et al., 2016); 0 where there is no pair."""
    pairs = [pair for said in map(units, replies) for pair in pairwise(said)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def chrf(reply: str, reference: str) -> float:
    """chrF (Popović, 2015) of one reply, 0 to 100."""
    return float(CHRF(word_order=0).sentence_score(reply, [reference]).score)
