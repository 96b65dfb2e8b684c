"""Rows split into training and held-out parts without a leak: scenes and near-duplicates stay together.

Where they cannot, because so many rows belong together that nothing could be held out, they are parted as little as
need be, and a note says so.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from roleplay.errors import DataError
from roleplay.text.known import FALLBACK
from roleplay.text.rows import Row

T = TypeVar("T")

NEAR_DUPLICATE = 0.7  # Jaccard similarity of character trigrams from which two rows count as one
SHARED, FEWEST = 0.5, 8  # what more rows have than this share, and than this number, tells none of them apart
BLOCK = 2048  # texts that are compared with all others at a time: every pair that shares a trigram takes memory
LEAST_HELD_OUT = 2  # rows: an interval needs two
FEW_HELD_OUT = 30  # fewer held-out rows judge nothing

Tell = Callable[[str], object]


def near_duplicates(texts: Sequence[str], threshold: float = NEAR_DUPLICATE) -> list[tuple[int, int]]:
    """Pairs i < j whose texts are alike: Jaccard similarity of character trigrams at least `threshold`.

    Letter case, spaces and punctuation do not count, and no trigram that most texts share, such as those of a persona
    in every row; the same texts are alike in any case. Source: Broder, "On the resemblance and containment of
    documents", 1997 (computed exactly here, through one sparse product).
    """
    bare, grams = _grams(texts)
    pairs = {(a, b) for a, b in _alike(grams, grams, threshold) if a < b}
    first: dict[str, int] = {}
    same = {(first.setdefault(text, number), number) for text, number in _without_grams(bare, grams)}
    return sorted(pairs | {(a, b) for a, b in same if a < b})


def near_duplicates_between(
    some: Sequence[str], others: Sequence[str], threshold: float = NEAR_DUPLICATE
) -> list[tuple[int, int]]:
    """The pairs of `near_duplicates` that have a text of each list, by their numbers there: many times as fast where
    one is short."""
    if not some or not others:
        return []
    bare, grams = _grams([*some, *others])
    cut, bare_others = len(some), defaultdict[str, list[int]](list)
    without = _without_grams(bare, grams)
    for text, number in without:
        if number >= cut:
            bare_others[text].append(number - cut)
    pairs = {(a, b) for text, a in without if a < cut for b in bare_others[text]}
    return sorted(pairs | set(_alike(grams[:cut], grams[cut:], threshold)))


def _grams(texts: Sequence[str]) -> tuple[list[str], Any]:
    """The texts as they are compared, and which trigrams each of them has, as a sparse matrix."""
    from sklearn.feature_extraction.text import CountVectorizer  # a second and a half: the chat seldom asks

    bare = ["^" + (re.sub(r"[\W_]+", "", text.lower()) or text) + "$" for text in texts]
    grams = CountVectorizer(analyzer="char", ngram_range=(3, 3), binary=True, lowercase=False).fit_transform(bare)
    return bare, grams[:, max(SHARED * len(texts), FEWEST) >= grams.sum(axis=0).A1]


def _without_grams(bare: Sequence[str], grams: Any) -> list[tuple[str, int]]:
    return [(bare[number], number) for number in np.flatnonzero(grams.sum(axis=1).A1 == 0).tolist()]


def _alike(some: Any, others: Any, threshold: float) -> list[tuple[int, int]]:
    sizes, found = others.sum(axis=1).A1, list[tuple[int, int]]()
    for start in range(0, some.shape[0], BLOCK):
        part = some[start : start + BLOCK]
        shared = (part @ others.T).tocoo()
        alike = shared.data >= threshold * (part.sum(axis=1).A1[shared.row] + sizes[shared.col] - shared.data)
        found += zip((shared.row[alike] + start).tolist(), shared.col[alike].tolist(), strict=True)
    return found


def _components(size: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    links = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs)), tuple(links)), shape=(size, size))
    members: dict[int, list[int]] = defaultdict(list)
    for number, label in enumerate(connected_components(graph, directed=False)[1]):
        members[label].append(number)
    return list(members.values())


def groups(rows: Sequence[Row]) -> list[list[int]]:
    """Row numbers in groups that no split may part: one scene, or near-duplicates, taken together transitively."""
    pairs: list[tuple[int, int]] = near_duplicates([row.text for row in rows]) if len(rows) > 1 else []
    first_of: dict[str, int] = {}
    pairs += [(first_of.setdefault(row.scene, number), number) for number, row in enumerate(rows) if row.scene]
    return _components(len(rows), pairs)


def _copies(rows: Sequence[Row]) -> list[list[int]]:
    first_of: dict[str, int] = {}
    return _components(len(rows), [(first_of.setdefault(row.text, number), number) for number, row in enumerate(rows)])


def situations(rows: Sequence[Row]) -> list[list[int]]:
    """The groups of held-out rows, for intervals; by text alone where all are of one scene."""
    found = groups(rows)
    return found if len(found) > 1 else groups([replace(row, scene="") for row in rows])


def _may_be_held_out(group: Sequence[int], rows: Sequence[Row]) -> bool:
    return all(rows[i].weight <= 1 and not rows[i].scene.startswith(FALLBACK) for i in group)


def _cut(found: list[list[int]], rows: Sequence[Row], most: float, tell: Tell) -> list[list[int]]:
    """The groups, those that cannot be held out cut where too few rows stand in others.

    They are cut by text alone where a scene joined them, and then down to the copies of one text.
    """

    def fits(group: Sequence[int]) -> bool:
        return len(group) <= most and _may_be_held_out(group, rows)

    for what, parted in (("of one scene or alike", situations), ("nearly alike", _copies)):
        small, large = [g for g in found if fits(g)], [g for g in found if not fits(g)]
        if not large or sum(map(len, small)) >= most:
            break
        parts = [[group[i] for i in part] for group in large for part in parted([rows[i] for i in group])]
        if len(parts) > len(large):
            tell(
                f"{sum(map(len, large)):,} of {len(rows):,} rows are {what}, more than can be held out, so they stand "
                "on both sides and the held-out loss flatters: take what many share, such as a persona, out of them "
                "(--persona), and give every situation a scene of its own"
            )
        found = small + parts
    return found


def split_rows(
    rows: Sequence[Row], held_out: float, seed: int = 0, tell: Tell = lambda note: None
) -> tuple[list[Row], list[Row]]:
    """Train and held-out rows; whole groups go to one side, about the share `held_out` of the rows to the second.

    A row with a weight above 1 is meant to be learnt, and so is a fallback: their groups are not held out. Rows that
    already say `split` are taken at their word. `tell` hears of groups that had to be parted. Raises `DataError` when a
    group then stands on both sides, and when a side would be empty.
    """
    if any(row.split for row in rows):
        train, held = sides(rows)
        _check_sides(train, held)
        if not train or not held:
            sizes = f"{len(train):,} training and {len(held):,} held-out rows"
            raise DataError(f"{sizes} by their own split: mark some of both, or take split out of every row")
        return train, held
    most = max(LEAST_HELD_OUT, held_out * len(rows)) if held_out else 0
    shuffled = [group for group in _cut(groups(rows), rows, most, tell) if _may_be_held_out(group, rows)]
    random.Random(seed).shuffle(shuffled)
    chosen: set[int] = set()
    for group in shuffled:
        if len(chosen) + len(group) <= min(most, len(rows) - 1):
            chosen.update(group)
    if not chosen:
        raise DataError(f"{len(rows):,} training and 0 held-out rows: {_why_none(rows, held_out)}")
    return [r for i, r in enumerate(rows) if i not in chosen], [rows[i] for i in sorted(chosen)]


def name_few(held_out: Sequence[Row]) -> list[str]:
    """A line on every held-out row where there are few, so that a person sees what will judge; else none."""
    if len(held_out) >= FEW_HELD_OUT:
        return []
    return [f"held out     {Path(row.where).name}: {' '.join(row.turns[-1][0].split()):.80}" for row in held_out]


def sides(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows to learn and the held-out ones, by what each says of itself."""
    train, held = ([row for row in rows if (row.split == "held_out") is side] for side in (False, True))
    return train, held


def _check_sides(train: Sequence[Row], held: Sequence[Row]) -> None:
    """Raises `DataError` when rows that belong together are on two sides."""
    scenes = {row.scene: row for row in train if row.scene}
    pairs = [(scenes[row.scene], row) for row in held if row.scene in scenes]
    alike = near_duplicates_between([row.text for row in held], [row.text for row in train])
    for a, b in [*pairs, *((train[b], held[a]) for a, b in alike)]:
        raise DataError(
            f"{a.where} and {b.where} belong together (same scene or nearly the same text) but their splits differ"
        )


def _why_none(rows: Sequence[Row], held_out: float) -> str:
    """Why no row is held out, and what to do."""
    if not held_out:
        return "give a --held-out above 0"
    if all(row.weight > 1 for row in rows):
        return "every row has a weight above 1, and such rows are to be learnt; take it from some"
    if copies := len(rows) - len({row.text for row in rows}):
        return f"{copies:,} of them are copies of another, which cannot stand on both sides; add other rows"
    return f"nothing can be held out of {len(rows):,}; add rows (dataset.convert collects saved chats)"


def check_no_overlap(train: Sequence[Row], held_out: Sequence[Row]) -> None:
    """Raises `DataError` when a held-out row (nearly) stands in the training part too."""
    for a, b in near_duplicates_between([row.text for row in held_out], [row.text for row in train]):
        raise DataError(f"{held_out[a].where} is held out but {train[b].where} is nearly the same; remove one")


def repeat_by_weight(rows: Iterable[Row], seed: int) -> list[Row]:
    """Each row as often as its weight says, the fraction drawn by lot: what one epoch sees.

    Raises `DataError` where that is nothing.
    """
    lot = random.Random(seed)
    drawn = [row for row in rows for _ in range(int(row.weight) + (lot.random() < row.weight % 1))]
    if not drawn:
        raise DataError("no row is left to learn: their weights are so low that none was drawn; raise them")
    return drawn


def draw_share(rows: list[T], epochs: float, seed: int) -> list[T]:
    """What so many passes see of rows: all of them, or for less than one as many as it takes, by lot."""
    part = min(len(rows), max(1, round(epochs * len(rows))))
    return random.Random(seed).sample(rows, part) if epochs < 1 else rows
