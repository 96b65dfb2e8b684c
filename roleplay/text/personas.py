"""Who speaks: a persona is a system prompt with what the page shows of it. Nothing here knows a model."""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from roleplay.disk import read_json
from roleplay.environment import ROOT
from roleplay.errors import DataError
from roleplay.text import limits

CHARACTER = "zhenhuan"  # in dataset/: who speaks, and who is taught, where nobody else is named


@dataclass(frozen=True)
class Persona:
    """A character: `system_prompt` is what the model reads, the rest is what the page shows."""

    name: str
    system_prompt: str
    greeting: str = ""
    openers: tuple[str, ...] = ()


def parse_persona(value: Any, where: str) -> Persona:
    """A JSON value with the fields of `Persona`; raises `DataError` that names `where` for anything else."""
    known = {field.name for field in fields(Persona)}
    if not isinstance(value, dict) or not set(value) <= known:
        raise DataError(f"{where}: a persona is a JSON object with the keys {', '.join(sorted(known))}")
    value = {"greeting": "", "openers": [], **value}
    openers = value.pop("openers")
    texts = [value.get("name"), value.get("system_prompt"), value["greeting"]]
    if not isinstance(openers, list) or not all(isinstance(text, str) for text in [*texts, *openers]):
        raise DataError(f"{where}: name, system_prompt and greeting must be texts, openers a list of texts")
    if not value["system_prompt"].strip():
        raise DataError(f"{where}: system_prompt is empty; say there who speaks, and how")
    if (length := len(value["system_prompt"])) > limits.PERSONA:
        raise DataError(f"{where}: system_prompt is {length:,} characters long; {limits.PERSONA:,} fit, so shorten it")
    if (length := sum(map(len, (value["name"], value["greeting"], *openers)))) > limits.SHOWN:
        told = f"name, greeting and openers are {length:,} characters long together"
        raise DataError(f"{where}: {told}; {limits.SHOWN:,} fit, so shorten them")
    return Persona(**value, openers=tuple(openers))


def load_persona(path: str | Path) -> Persona:
    """Read a persona from a JSON file in UTF-8; raises `DataError` when it cannot be read or is none."""
    return parse_persona(read_json(Path(path), "not a readable persona", "give a JSON object in UTF-8"), str(path))


@cache
def default() -> Persona:
    """Zhen Huan, whom this project comes with; raises `DataError` when her file is gone."""
    return load_persona(ROOT / "dataset" / CHARACTER / "persona.json")
