"""Novels to speeches in order, each with its speaker, the words that told who it is, its chapter and its scene."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from dataset.novel import chinese, english
from dataset.novel.attribution import NARRATOR, attribute, epithets
from dataset.novel.characters import Spelling, simplified
from dataset.novel.hints import Hint
from dataset.novel.people import People
from dataset.novel.prose import Chapter, read_chapters
from dataset.screenplay import SOMEBODY, Scene, Screenplay, Speech

_SCENE_GAP = 300  # characters of Chinese narration that part two scenes; an English text has three for each


@dataclass(frozen=True)
class NovelSpeech:
    """One speech; `speaker` is "" where it cannot be told, `cue` the narration that tells it, if any."""

    speaker: str
    text: str
    cue: str
    chapter: str
    confidence: float
    line: str  # the text as it reads without its tags
    narration: tuple[str, ...]  # the paragraphs before it
    scene: str


def read_novels(paths: Sequence[str | Path], aliases: Mapping[str, str], min_confidence: float) -> list[NovelSpeech]:
    """Every speech of the files in order; `aliases` maps a name to the one that stands for it."""
    chapters = [chapter for path in paths for chapter in read_chapters(Path(path))]
    wide = sum(len(re.findall(r"[\u4e00-\u9fff]", said.text)) for chapter in chapters for said in chapter.utterances)
    if 2 * wide > sum(len(said.text) for chapter in chapters for said in chapter.utterances):
        spelling = Spelling(chapters)
        finder = chinese.Finder([*chinese.names(spelling.chapters), *map(simplified, aliases)])
        told = [spelling.spelt(chinese.hints(chapter, finder)) for chapter in spelling.chapters]
        found = [(chapter, _renamed(own, aliases)) for chapter, own in zip(chapters, told, strict=True)]
        return _speeches([(chapter, hints, attribute(hints, {})) for chapter, hints in found], min_confidence)
    people = People(chapters)
    narrator = aliases.get(NARRATOR, people.narrator or NARRATOR)
    answered = []
    for chapter in chapters:
        hints = _renamed(english.hints(chapter, people), aliases)
        gender = people.gender | {hint.name: hint.gender for hint in hints if hint.name[:1].islower() and hint.gender}
        answers = attribute(hints, gender)
        hints = _renamed(hints, epithets(hints, answers, gender))
        answers = attribute(hints, gender, answers)
        answered.append((chapter, hints, [(narrator if n == NARRATOR else n, sure) for n, sure in answers]))
    return _speeches(answered, min_confidence)


def _renamed(hints: Sequence[Hint], aliases: Mapping[str, str]) -> list[Hint]:
    aliases = {name: shown for name, shown in aliases.items() if name != NARRATOR}

    def several(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(aliases.get(name, name) for name in names)

    return [
        replace(
            hint,
            name=aliases.get(hint.name, hint.name),
            self_named=aliases.get(hint.self_named, hint.self_named),
            addressed=several(hint.addressed),
            mentioned=several(hint.mentioned),
            present=several(hint.present),
        )
        for hint in hints
    ]


def _speeches(
    answered: Sequence[tuple[Chapter, Sequence[Hint], Sequence[tuple[str, float]]]], least: float
) -> list[NovelSpeech]:
    speeches = []
    opened: Counter[str] = Counter()
    for chapter, hints, answers in answered:
        scene, last = "", -1
        for said, hint, (name, sure) in zip(chapter.utterances, hints, answers, strict=True):
            gap = sum(map(len, said.between)) + len(said.lead)
            if (
                not scene
                or said.scene != last
                or gap > _SCENE_GAP * (1 if re.search(r"[\u4e00-\u9fff]", said.text) else 3)
            ):
                opened[chapter.name] += 1
                number = opened[chapter.name]
                scene = chapter.name if number == 1 else f"{chapter.name} #{number}"
            last = said.scene
            name = name if sure >= least else ""
            narration = tuple(said.between) + ((said.lead,) if said.lead else ())
            speeches.append(
                NovelSpeech(name, said.text, hint.cue if name else "", chapter.name, sure, said.line, narration, scene)
            )
    return speeches


def as_screenplay(speeches: Sequence[NovelSpeech]) -> Screenplay:
    """The same speeches as scenes that rows are made from, with the narration as directions."""
    scenes: list[Scene] = []
    for speech in speeches:
        if not scenes or scenes[-1].id != speech.scene:
            scenes.append(Scene(speech.scene))
        lines = scenes[-1].speeches
        lines += [Speech("", text) for text in speech.narration]
        lines.append(Speech(speech.speaker or SOMEBODY, speech.line))
    return Screenplay(scenes, [])


def proposals(speeches: Sequence[NovelSpeech], least: int = 5) -> list[tuple[str, str, int]]:
    """Pairs of names that may be one person: they take turns with the same others and hardly ever with each other."""
    count = Counter(speech.speaker for speech in speeches if speech.speaker)
    together, apart = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for first, between, last in zip(speeches, speeches[1:], speeches[2:], strict=False):
        if (
            first.scene == last.scene
            and first.speaker != last.speaker
            and between.speaker not in ("", first.speaker, last.speaker)
        ):
            together[_pair(first.speaker, last.speaker)] += 1
    for first, last in pairwise(speeches):
        apart[_pair(first.speaker, last.speaker)] += first.scene == last.scene and first.speaker != last.speaker
    found = []
    for (one, other), times in together.items():
        alike = min(len(one), len(other)) > 1 and (one in other or other in one)
        if one and other and times >= (1 if alike else least) and apart[one, other] * 10 <= times:
            shown, alias = sorted((one, other), key=lambda name: (-count[name], name))
            found.append((shown, alias, times))
    return sorted(found, key=lambda pair: (-pair[2], pair))


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)
