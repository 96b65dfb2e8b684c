"""Rows split into training and held-out parts without a leak: scenes and near-duplicates are never parted."""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from roleplay.errors import DataError
from roleplay.text.rows import Row

NEAR_DUPLICATE = 0.7  # Jaccard similarity of character trigrams from which two rows count as one
FEW_HELD_OUT = 30  # fewer held-out rows judge nothing


def near_duplicates(texts: Sequence[str], threshold: float = NEAR_DUPLICATE) -> list[tuple[int, int]]:
    """Pairs i < j whose texts are alike: Jaccard similarity of character trigrams at least `threshold`.

    Letter case, spaces and punctuation do not count. Source: Broder, "On the resemblance and containment of
    documents", 1997 (computed exactly here, through one sparse product).
    """
    from sklearn.feature_extraction.text import CountVectorizer  # a second and a half: the chat seldom asks

    bare = ["^" + re.sub(r"[\W_]+", "", text.lower()) + "$" for text in texts]
    grams = CountVectorizer(analyzer="char", ngram_range=(3, 3), binary=True, lowercase=False).fit_transform(bare)
    sizes = grams.sum(axis=1).A1
    shared = (grams @ grams.T).tocoo()
    union = sizes[shared.row] + sizes[shared.col] - shared.data
    alike = (shared.data >= threshold * union) & (shared.row < shared.col)
    return sorted(zip(shared.row[alike].tolist(), shared.col[alike].tolist(), strict=True))


def groups(rows: Sequence[Row]) -> list[list[int]]:
    """Row numbers in groups that no split may part: one scene, or near-duplicates, taken together transitively."""
    pairs: list[tuple[int, int]] = near_duplicates([row.text for row in rows]) if len(rows) > 1 else []
    first_of: dict[str, int] = {}
    pairs += [(first_of.setdefault(row.scene, number), number) for number, row in enumerate(rows) if row.scene]
    links = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs)), tuple(links)), shape=(len(rows), len(rows)))
    members: dict[int, list[int]] = defaultdict(list)
    for number, label in enumerate(connected_components(graph, directed=False)[1]):
        members[label].append(number)
    return list(members.values())


def split_rows(rows: Sequence[Row], held_out: float, seed: int = 0) -> tuple[list[Row], list[Row]]:
    """Train and held-out rows; whole groups go to one side, about the share `held_out` of the rows to the second.

    A row with a weight above 1 is meant to be learnt, so its group is not held out. Rows that already say `split` are
    taken at their word; raises `DataError` when a group then stands on both sides.
    """
    if any(row.split for row in rows):
        for group in groups(rows):
            sides = {rows[i].split or "train": i for i in group}
            if len(sides) > 1:
                a, b = (rows[i].where for i in sides.values())
                raise DataError(
                    f"{a} and {b} belong together (same scene or nearly the same text) but their splits differ"
                )
        return [r for r in rows if r.split != "held_out"], [r for r in rows if r.split == "held_out"]
    shuffled = [group for group in groups(rows) if all(rows[i].weight <= 1 for i in group)]
    random.Random(seed).shuffle(shuffled)
    chosen: set[int] = set()
    for group in shuffled:
        if len(chosen) + len(group) <= held_out * len(rows):
            chosen.update(group)
    return [r for i, r in enumerate(rows) if i not in chosen], [rows[i] for i in sorted(chosen)]


def name_few(held_out: Sequence[Row]) -> list[str]:
    """A line on every held-out row where there are few, so that a person sees what will judge; else none."""
    if len(held_out) >= FEW_HELD_OUT:
        return []
    return [f"held out     {Path(row.where).name}: {' '.join(row.turns[-1][0].split()):.80}" for row in held_out]


def check_no_overlap(train: Sequence[Row], held_out: Sequence[Row]) -> None:
    """Raises `DataError` when a held-out row (nearly) stands in the training part too."""
    together = [*train, *held_out]
    for a, b in near_duplicates([row.text for row in together]):
        if a < len(train) <= b:
            raise DataError(f"{together[b].where} is held out but {together[a].where} is nearly the same; remove one")


def repeat_by_weight(rows: Iterable[Row], seed: int) -> list[Row]:
    """Each row as often as its weight says, the fraction drawn by lot: what one epoch sees."""
    lot = random.Random(seed)
    return [row for row in rows for _ in range(int(row.weight) + (lot.random() < row.weight % 1))]
