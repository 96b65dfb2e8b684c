"""Who speaks: a persona is a system prompt with what the page shows of it. Nothing here knows a model."""

import sys
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from roleplay.environment import ROOT
from roleplay.errors import DataError
from roleplay.text import cards
from roleplay.text.card_files import read_file

MAX_NAME = 100  # characters

CHARACTER = "zhenhuan"  # in dataset/: who speaks, and who is taught, where nobody else is named


@dataclass(frozen=True)
class Persona:
    """A character: `system_prompt` is what the model reads, the rest is what the page shows."""

    name: str
    system_prompt: str
    greeting: str = ""
    openers: tuple[str, ...] = ()


KEYS = tuple(field.name for field in fields(Persona))


def parse_persona(value: Any, where: str) -> Persona:
    """A JSON value with the fields of `Persona`; raises `DataError` that names `where` for anything else."""
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: a {type(value).__name__} where a persona belongs, an object with the keys {', '.join(KEYS)}"
        )
    told = {key: value[key] for key in KEYS if value.get(key) is not None}
    openers = told.pop("openers", [])
    texts = {"name": "", "system_prompt": "", **told}
    if not isinstance(openers, list) or not all(isinstance(text, str) for text in [*texts.values(), *openers]):
        raise DataError(f"{where}: name, system_prompt and greeting must be texts, openers a list of texts")
    texts = {key: _clean(text) for key, text in texts.items()}
    if not texts["name"].strip():
        raise DataError(f"{where}: name is empty; say who speaks")
    if len(texts["name"]) > MAX_NAME:
        raise DataError(f"{where}: name has {len(texts['name']):,} characters, at most {MAX_NAME} fit; shorten it")
    if not texts["system_prompt"].strip():
        raise DataError(f"{where}: system_prompt is empty; say there who speaks, and how")
    return Persona(**texts, openers=tuple(map(_clean, openers)))


def _clean(text: str) -> str:
    """The text with Unix lines, and a sign in place of each half of a character that JSON may hold."""
    return text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode()


def read_persona(value: Any, where: str) -> tuple[Persona, list[str]]:
    """A persona or a card by its JSON value, with notes on all that has no place here; raises `DataError`."""
    card = cards.read_card(value, where)
    persona = parse_persona(card.persona, where)
    unknown = ", ".join(f"{key:.40}" for key in card.persona if key not in KEYS)
    return persona, [*card.notes, *([f"{where}: not used: {unknown}"] if unknown else [])]


def load_persona(path: str | Path) -> Persona:
    """Read a persona or a character card from a file and print its notes; raises `DataError` when it is neither."""
    persona, notes = read_persona(read_file(path), str(path))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return persona


@cache
def default() -> Persona:
    """Zhen Huan, whom this project comes with; raises `DataError` when her file is gone."""
    return load_persona(ROOT / "dataset" / CHARACTER / "persona.json")
