"""A character is a folder that a person edits: who speaks, what she said, what is true of her, how she is judged.

    dataset/NAME/
      persona.json   who speaks: the system prompt, and what the page shows (needed)
      rows.json      what she is taught: instruction, output, history
      facts.md       what is true of her; for those who write rows, no program reads it
      lists.json     questions and attempts that judge her, the rules, and plain text
      facts.json     questions with one right and three wrong answers
      recall.json    short conversations that ask for what was said before
      sheet.json     what visitors ask, for readers to judge the replies to

It knows the names of the files and reads the persona alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roleplay.environment import ROOT
from roleplay.errors import DataError
from roleplay.text.personas import Persona, load_persona

FOLDER = ROOT / "dataset"
PATTERN = "template"  # the folder that `dataset.new` copies; it is no character
NAME = re.compile(r"\w[\w-]{0,63}")
PERSONA, ROWS, LISTS = "persona.json", "rows.json", "lists.json"
FACTS, RECALL, SHEET = "facts.json", "recall.json", "sheet.json"


@dataclass(frozen=True)
class Character:
    """A character and the files that the folder holds, None for one that it lacks."""

    name: str
    folder: Path
    persona: Persona
    rows: Path | None
    lists: Path | None
    facts: Path | None
    recall: Path | None
    sheet: Path | None


def names() -> list[str]:
    """The characters in dataset/, sorted."""
    return sorted(p.parent.name for p in FOLDER.glob(f"*/{PERSONA}") if p.parent.name != PATTERN)


def load_character(name: str) -> Character:
    """A folder under dataset/ by its name, or any folder by its path; raises `DataError` when it has no persona."""
    folder = FOLDER / name if name in names() else Path(name)
    if not (folder / PERSONA).is_file():
        known = ", ".join(names()) or "none there yet"
        raise DataError(f"no character {name!r:.80}: choose from {known}, or give a folder that has a {PERSONA}")

    def there(file: str) -> Path | None:
        return folder / file if (folder / file).is_file() else None

    persona = load_persona(folder / PERSONA)
    return Character(folder.resolve().name, folder, persona, *map(there, (ROWS, LISTS, FACTS, RECALL, SHEET)))


def trained_as(training: Mapping[str, Any]) -> Character | None:
    """The character in dataset/ that a training.json tells of, None where it is none of them.

    A training that was given a character and no other persona is taken at its word, as long as that is a plain name
    and the persona is called so too: the file may be a stranger's, the folder another one of that name. Otherwise it is
    the one whose system prompt the adapter was trained with.
    """
    settings, persona = training.get("settings"), training.get("persona")
    persona = persona if isinstance(persona, dict) else {}
    if isinstance(settings, dict) and settings.get("character") in names() and not settings.get("persona"):
        named = load_character(settings["character"])
        if persona.get("name", named.persona.name) == named.persona.name:
            return named
    known = (load_character(name) for name in names())
    return next((own for own in known if own.persona.system_prompt == persona.get("system_prompt")), None)
