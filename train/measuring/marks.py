"""The marks that blind readers give, and what they add up to: means with intervals, and how far readers agree.

The form of the marks is that of the reading sheet: {"reader": name, "scores": {id: {"sense": 2, "answers": 1,
"voice": 2, "note": "..."}}}. Nothing here knows a model, or how a sheet looks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

from roleplay.disk import read_json
from roleplay.errors import DataError
from roleplay.results.board import ARMS
from roleplay.results.reading import FULL, PARTS, QUESTIONS
from train.measuring.resampling import bootstrap, share

VALUES = (0, 1, 2)
NOT_MARKS = "not the marks of a reader"


@dataclass(frozen=True)
class Question:
    """One question of the rubric: `values` says in a sentence each what 0, 1 and 2 mean."""

    asks: str
    values: tuple[str, str, str]


RUBRIC = {
    "sense": Question(
        "Does it make sense?",
        (
            "It is word salad or nonsense, or it contradicts itself.",
            "Parts are garbled or odd, but you can see what is meant.",
            "Every sentence means something, and they hang together.",
        ),
    ),
    "answers": Question(
        "Does it answer what the visitor said?",
        (
            "It is beside the point, or has forgotten what was said before.",
            "It has only loosely to do with what was said.",
            "It clearly answers. A hint counts where you see the link.",
        ),
    ),
    "voice": Question(
        "Does it sound like the character?",
        (
            "The character would never talk like this.",
            "Anybody could have said it.",
            "This is the character speaking.",
        ),
    ),
}
HOW = (
    "Read the conversations in their order, each by itself, and mark all replies of one together.",
    "Be strict and consistent: a 2 has to be earned, and the last conversation is marked like the first.",
    "Where you give a 0, say why in the note. A reply that ends in […] was cut off there: mark what there is.",
    "Use no program that judges for you, and look at no other file.",
)


@dataclass(frozen=True)
class Reading:
    """One reader's marks, {id: {question: 0, 1 or 2}}, of every conversation for which all three were given."""

    reader: str
    marks: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Source:
    """Whose replies a conversation holds: an arm, one of `LANGUAGES`, and the adapter's name where it is one."""

    arm: str
    language: str
    adapter: str


def load_reading(path: Path, known: Mapping[str, Source]) -> Reading:
    """Read a file of marks; raises `DataError` for another form, another sheet's ids, and marks but 0, 1 and 2."""
    value = read_json(path, NOT_MARKS, "save them again from the sheet")
    scores = value.get("scores") if isinstance(value, dict) else None
    reader = value.get("reader") if isinstance(value, dict) else None
    if not isinstance(scores, dict) or not isinstance(reader, str) or not reader.strip():
        raise DataError(f'{path}: {NOT_MARKS}; the form is {{"reader": name, "scores": {{id: {{"sense": 2, ...}}}}}}')
    if unknown := sorted(set(scores) - set(known)):
        raise DataError(f"{path}: {unknown[0]!r:.40} is no conversation of this sheet; give the sheet that was read")
    whole = {}
    for id, given in scores.items():
        if not isinstance(given, dict) or (unknown := sorted(set(given) - {*QUESTIONS, "note"})):
            raise DataError(f"{path}: {id} has {given!r:.80}; give it {', '.join(QUESTIONS)} and, if wanted, a note")
        marks = {name: given[name] for name in QUESTIONS if name in given}
        for name, mark in marks.items():
            if isinstance(mark, bool) or mark not in VALUES:
                raise DataError(f"{path}: {id} has {mark!r:.40} for {name}; a mark is 0, 1 or 2")
        if len(marks) == len(QUESTIONS):
            whole[id] = {name: int(mark) for name, mark in marks.items()}
    return Reading(reader.strip(), whole)


def summarise(readings: Sequence[Reading], sources: Mapping[str, Source], adapter: str) -> dict[str, Any]:
    """What the readers found of one adapter and of what it stands beside, as `roleplay.results.reading` has it.

    An arm, or a language of it, with fewer than two conversations has no interval and is left out.
    """
    arms = dict[str, dict[str, Any]]()
    for arm in ARMS:
        own = {id: source for id, source in sources.items() if source.arm == arm and source.adapter in ("", adapter)}
        for part in PARTS:
            ids = [id for id, source in own.items() if part in (PARTS[0], source.language)]
            if found := _figures(readings, ids):
                arms.setdefault(arm, {})[part] = found
    return {"readers": len(readings), "kappa": agreement(readings), "arms": arms}


def _figures(readings: Sequence[Reading], ids: Sequence[str]) -> dict[str, Any]:
    """Mean marks and the share of full ones; several readers of one conversation are not independent."""
    read = [(id, reading.marks[id]) for reading in readings for id in ids if id in reading.marks]
    clusters = [id for id, _ in read]
    if len(set(clusters)) < 2:
        return {}
    ones, full = [1.0] * len(read), [marks["sense"] == marks["answers"] == 2 for _, marks in read]
    means = {name: asdict(bootstrap([marks[name] for _, marks in read], ones, clusters)) for name in QUESTIONS}
    return {"conversations": len(set(clusters)), **means, FULL: asdict(share(full, clusters))}


def agreement(readings: Sequence[Reading]) -> dict[str, float]:
    """How far two readers agree on each question: Cohen's kappa with quadratic weights, the mean over all pairs.

    One less the mean squared difference of their marks, over what it would be if each gave the same marks by chance
    (Cohen, "Weighted kappa", 1968). A question to which both gave one and the same mark throughout has none.
    """
    from sklearn.metrics import cohen_kappa_score  # a second and a half: a sheet is seldom read back

    found = dict[str, float]()
    for name in QUESTIONS:
        values = []
        for one, other in combinations(readings, 2):
            both = sorted(one.marks.keys() & other.marks.keys())
            a, b = ([reading.marks[id][name] for id in both] for reading in (one, other))
            if len({*a, *b}) > 1:
                values.append(float(cohen_kappa_score(a, b, labels=VALUES, weights="quadratic")))
        if values and not any(map(math.isnan, values)):
            found[name] = mean(values)
    return found
