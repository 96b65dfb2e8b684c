"""Who speaks: a persona is a system prompt with what the page shows of it. Nothing here knows a model."""

import sys
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from roleplay.environment import ROOT
from roleplay.errors import DataError
from roleplay.text import cards, limits
from roleplay.text.card_files import read_file

CHARACTER = "zhenhuan"  # in dataset/: who speaks, and who is taught, where nobody else is named


@dataclass(frozen=True)
class Persona:
    """A character: `system_prompt` is what the model reads, the rest is what the page shows."""

    name: str
    system_prompt: str
    greeting: str = ""
    openers: tuple[str, ...] = ()


KEYS = tuple(field.name for field in fields(Persona))


def parse_persona(value: Any, where: str, prompt_parts: str = "it") -> Persona:
    """A JSON value with the fields of `Persona`; raises `DataError` that names `where` for anything else.

    `prompt_parts` is what to shorten where the system prompt is too long.
    """
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
    if (length := len(texts["name"])) > limits.NAME:
        raise DataError(f"{where}: name has {length:,} characters; {limits.NAME} fit, so shorten it")
    if not texts["system_prompt"].strip():
        raise DataError(f"{where}: system_prompt is empty; say there who speaks, and how")
    if (length := len(texts["system_prompt"])) > limits.PERSONA:
        fit = f"{limits.PERSONA:,} fit, so shorten {prompt_parts}"
        raise DataError(f"{where}: system_prompt is {length:,} characters long; {fit}")
    if (length := sum(map(len, (texts["name"], texts.get("greeting", ""), *openers)))) > limits.SHOWN:
        shown = f"name, greeting and openers are {length:,} characters long together"
        raise DataError(f"{where}: {shown}; {limits.SHOWN:,} fit, so shorten them")
    return Persona(**texts, openers=tuple(map(_clean, openers)))


def _clean(text: str) -> str:
    """The text with Unix lines, and a sign in place of each half of a character that JSON may hold."""
    return text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode()


def read_persona(value: Any, where: str) -> tuple[Persona, list[str]]:
    """A persona or a card by its JSON value, with notes on all that has no place here; raises `DataError`."""
    card = cards.read_card(value, where)
    persona = parse_persona(card.persona, where, card.prompt_parts)
    unused = cards.listed(f"{where}: not used: ", [key for key in card.persona if key not in KEYS])
    return persona, [*card.notes, *([unused] if unused else [])]


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
