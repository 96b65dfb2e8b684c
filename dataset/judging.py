"""Whether what judges a character can be read, and whether it asks for more than what the rows say."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from dataset.findings import NAMED_ROWS
from dataset.report import Finding
from roleplay.errors import DataError
from roleplay.text.characters import FOLDER, PATTERN, Character, load_character
from roleplay.text.rows import Row
from roleplay.text.splits import near_duplicates_between, sides
from train.measuring.rules import Lists, load_lists
from train.measuring.sheet import load_prompts
from train.measuring.written import load_facts, load_recall

WHOSE = "put your own character's in its place, or delete the file and its measure is skipped"
SHORTEST = 9  # characters: what is shorter ("why?", "真的吗") stands in any chat, and is not compared


def _of_lists(lists: Lists) -> Iterator[str]:
    yield from (item.user for item in lists.identity)
    yield from (item.user for item in lists.breaks)
    yield from chain(*lists.conversations)


def _questions(character: Character) -> tuple[dict[str, list[str]], list[Finding]]:
    """The messages that judge, by file, and a finding for each file that cannot be read."""
    files: tuple[tuple[Path | None, Callable[[Path], Any], Callable[[Any], Iterator[str]]], ...] = (
        (character.lists, load_lists, _of_lists),
        (character.facts, load_facts, lambda facts: (fact.user for fact in facts)),
        (character.recall, load_recall, lambda talks: (talk.turns[-1] for talk in talks)),
        (character.sheet, load_prompts, lambda prompts: (user for prompt in prompts for user in prompt.turns)),
    )
    asked, broken = dict[str, list[str]](), list[Finding]()
    for path, load, questions in files:
        if not path:
            continue
        try:
            asked[path.name] = list(questions(load(path)))
        except DataError as error:
            broken.append(Finding("error", f"train.evaluate would refuse this file: {error}", []))
    return asked, broken


def find_judged(rows: Sequence[Row], character: Character) -> tuple[dict[str, int], list[Finding]]:
    """How many messages each file that judges holds, and what is wrong with them.

    A file may be one that cannot be read, or the template's, untouched; messages may (nearly) stand in the rows.
    """
    by_file, findings = _questions(character)
    template = _questions(load_character(str(FOLDER / PATTERN)))[0]
    for file, asked in by_file.items():
        same = set(asked) & set(template[file])
        if len(same) * 2 > len(asked):
            findings.append(Finding("warning", f"{file} still asks what the template's does: {WHOSE}", []))
    several = [text for text in dict.fromkeys(chain(*by_file.values())) if len(text) >= SHORTEST]
    said = list(dict.fromkeys(row.turns[-1][0] for row in sides(rows)[0]))
    known = dict(near_duplicates_between(several, said))
    if known:
        named = [f"{several[a]} ~ {said[b]}" for a, b in list(known.items())[:NAMED_ROWS]]
        text = f"{len(known):,} questions that judge (nearly) stand in the rows: they say what was learnt by heart"
        findings.append(Finding("warning", text, named))
    return {file: len(asked) for file, asked in by_file.items()}, findings
