"""Figures of texts alone: shared n-grams, distinct pairs, runs that were copied. It knows no model and no rows."""

import re
from collections.abc import Iterable
from itertools import pairwise

from sacrebleu.metrics import CHRF

CHINESE_RUN, OTHER_RUN = 10, 6  # units in a row that count as copied: 10 characters, or 6 words of about that length
_UNIT = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+(?:'[^\W_\u3400-\u9fff]+)*")


def units(text: str) -> list[str]:
    """Chinese characters and whole words of other scripts, in lower case, without punctuation."""
    return _UNIT.findall(text.lower())


def runs(text: str) -> set[tuple[str, ...]]:
    """All runs of a text that are long enough to count as copied where they stand elsewhere too."""
    said = units(text)
    chinese = sum(len(unit) == 1 and unit > "\u3400" for unit in said)
    length = CHINESE_RUN if 2 * chinese >= len(said) else OTHER_RUN
    return {tuple(said[i : i + length]) for i in range(len(said) - length + 1)}


def distinct_2(replies: Iterable[str]) -> float:
    """Distinct pairs of neighbouring units over all pairs (Li et al., 2016); 0 where there is no pair."""
    pairs = [pair for said in map(units, replies) for pair in pairwise(said)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def chrf(reply: str, reference: str) -> float:
    """chrF (Popović, 2015) of one reply, 0 to 100."""
    return float(CHRF(word_order=0).sentence_score(reply, [reference]).score)
