"""Whether what judges a character can be read, and whether it asks for more than what the rows say."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from dataset.findings import NAMED_ROWS
from dataset.report import Finding
from roleplay.errors import DataError
from roleplay.text.characters import Character
from roleplay.text.rows import Row
from roleplay.text.splits import near_duplicates_between, sides
from train.measuring.rules import Lists, load_lists
from train.measuring.sheet import load_prompts
from train.measuring.written import load_facts, load_recall

SHORTEST = 9  # characters: what is shorter ("why?", "真的吗") stands in any chat, and is not compared


def _of_lists(lists: Lists) -> Iterator[str]:
    yield from (item.user for item in lists.identity)
    yield from (item.user for item in lists.breaks)
    yield from chain(*lists.conversations)


def _questions(character: Character) -> tuple[list[str], list[Finding]]:
    """All messages that judge, and a finding for each file that cannot be read."""
    files: tuple[tuple[Path | None, Callable[[Path], Any], Callable[[Any], Iterator[str]]], ...] = (
        (character.lists, load_lists, _of_lists),
        (character.facts, load_facts, lambda facts: (fact.user for fact in facts)),
        (character.recall, load_recall, lambda talks: (talk.turns[-1] for talk in talks)),
        (character.sheet, load_prompts, lambda prompts: (user for prompt in prompts for user in prompt.turns)),
    )
    asked, broken = list[str](), list[Finding]()
    for path, load, questions in files:
        try:
            asked += questions(load(path)) if path else ()
        except DataError as error:
            broken.append(Finding("error", f"train.evaluate would refuse this file: {error}", []))
    return asked, broken


def find_judged(rows: Sequence[Row], character: Character) -> list[Finding]:
    """Files that judge and cannot be read, and questions that (nearly) stand among the messages of the rows."""
    asked, findings = _questions(character)
    asked = [text for text in dict.fromkeys(asked) if len(text) >= SHORTEST]
    said = list(dict.fromkeys(row.turns[-1][0] for row in sides(rows)[0]))
    known = dict(near_duplicates_between(asked, said))
    if known:
        named = [f"{asked[a]} ~ {said[b]}" for a, b in list(known.items())[:NAMED_ROWS]]
        text = f"{len(known):,} questions that judge (nearly) stand in the rows: they say what was learnt by heart"
        findings.append(Finding("warning", text, named))
    return findings
