"""Rows of instruction / input / output, single- and multi-turn, read and checked.

A row is an object with `instruction`, `output` and, where wanted, `input` (a text to work on), `history` (earlier
[user, reply] pairs), `context` (what others said just before; it opens the user's turn), `scene` (rows of one scene
stay on one side of a split), `split` ("train" or "held_out"), `weight` (how often it is drawn, for instance in place
of copies) and `speaker`. Nothing here knows tokens.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roleplay.errors import DataError
from roleplay.text.prompts import Turn

SPLITS = ("train", "held_out")
KEYS = ("instruction", "input", "output", "history", "context", "scene", "split", "weight", "speaker")


@dataclass(frozen=True)
class Row:
    """One checked row: all turns oldest first (the last reply is the row's own) and where it stands."""

    turns: tuple[Turn, ...]
    scene: str = ""
    split: str = ""
    weight: float = 1.0
    where: str = ""  # "file.json row 7", counted from 1

    @property
    def text(self) -> str:
        return "\n".join(part for turn in self.turns for part in turn)


def user_text(instruction: str, given: str) -> str:
    """What the user says: the instruction and, on a line of its own, the text that it is about."""
    return f"{instruction.strip()}\n{given.strip()}".strip()


def parse_row(value: Any, where: str) -> Row:
    """One JSON value as a `Row`; raises `DataError` that names `where` and the key."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: {type(value).__name__} where an object with instruction and output belongs")
    if unknown := sorted(set(value) - set(KEYS)):
        raise DataError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(KEYS)}")
    for key in ("instruction", "output"):
        if not isinstance(value.get(key), str) or not value[key].strip():
            raise DataError(f"{where}: {key} is {value.get(key)!r}; give it a text or remove the row")
    for key in ("input", "context", "scene", "speaker"):
        if not isinstance(value.get(key, ""), str):
            raise DataError(f"{where}: {key} is {value[key]!r}; give it a text or leave it out")
    history = value.get("history", [])
    good = isinstance(history, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) and t.strip() for t in pair)
        for pair in history
    )
    if not good:
        raise DataError(f"{where}: history must be a list of [user, reply] pairs of texts that are not empty")
    if value.get("split", "") not in ("", *SPLITS):
        raise DataError(f"{where}: split is {value['split']!r}; use train or held_out, or leave it out")
    weight = value.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 100:
        raise DataError(f"{where}: weight is {weight!r}; give a number above 0 and at most 100")
    asked = user_text(value.get("context", ""), user_text(value["instruction"], value.get("input", "")))
    own = (asked, value["output"].strip())
    turns = (*((user.strip(), reply.strip()) for user, reply in history), own)
    return Row(turns, value.get("scene", ""), value.get("split", ""), float(weight), where)


def load_json(path: str | Path) -> list[Any]:
    """The values of a JSON list or of JSON Lines (by the name's ending); raises `DataError` with the line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        if path.suffix == ".jsonl":
            values = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON (line {error.lineno}: {error.msg})") from error
    if not isinstance(values, list) or not values:
        raise DataError(f"{path}: holds no rows; a list of objects with instruction and output is wanted")
    return values


def read_rows(path: str | Path) -> list[Row]:
    """All rows of a file; raises `DataError` for the first that is not usable."""
    return [parse_row(value, f"{path} row {number}") for number, value in enumerate(load_json(path), 1)]


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
