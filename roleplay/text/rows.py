"""Rows of instruction / input / output, single- and multi-turn, read from any common form and checked.

A row is an object with `instruction`, `output` and, where wanted, `input` (a text to work on), `history` (earlier
[user, reply] pairs), `history_weights` (0 for a pair whose reply is shown and not learnt, else 1), `context` (what
others said just before; it opens the user's turn), `scene` (rows of one scene stay on one side of a split), `split`
("train" or "held_out"), `weight` (how often it is drawn, for instance in place of copies), `speaker`, and `system`
(compared with the persona, and not taught). Other forms become this one (roleplay/text/reading). Nothing here knows
tokens.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roleplay.errors import DataError
from roleplay.text.prompts import Turn
from roleplay.text.reading import forms
from roleplay.text.reading.files import read_records

SPLITS = ("train", "held_out")
MAX_WEIGHT = 100
_HALF_EMOJI = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Row:
    """One checked row: all turns oldest first (the last reply is the row's own) and where it stands."""

    turns: tuple[Turn, ...]
    scene: str = ""
    split: str = ""
    weight: float = 1.0
    where: str = ""  # "file.json row 7", counted from 1
    system: str = ""  # what the row calls the system prompt
    history_weights: tuple[int, ...] = ()  # of all turns but the last: 0 is shown, not learnt; () where all are learnt

    @property
    def text(self) -> str:
        return "\n".join(part for turn in self.turns for part in turn)

    @property
    def learnt(self) -> tuple[Turn, ...]:
        """The turns whose reply is learnt; the last is always one."""
        unlearnt, size = self.unlearnt, len(self.turns)
        return tuple(turn for n, turn in enumerate(self.turns) if size - n not in unlearnt)

    @property
    def unlearnt(self) -> frozenset[int]:
        """The other turns, by their number from the last, which is 1."""
        return frozenset(len(self.turns) - n for n, weight in enumerate(self.history_weights) if not weight)


@dataclass(frozen=True)
class RowFile:
    """A file as it was read: the values of its usable rows and the rows, what is broken, and notes for people."""

    values: list[dict[str, Any]]
    rows: list[Row]
    broken: list[str]
    notes: list[str]

    @property
    def size(self) -> int:
        return len(self.rows) + len(self.broken)


def user_text(instruction: str, given: str) -> str:
    """What the user says: the instruction and, on a line of its own, the text that it is about."""
    return f"{instruction.strip()}\n{given.strip()}".strip()


def _text(value: Any, what: str, advice: str) -> str:
    """`value` as a text with \\n alone between its lines; raises `DataError` that says `what` is no text."""
    if not isinstance(value, str):
        raise DataError(f"{what} is {value!r:.80}; {advice}")
    if _HALF_EMOJI.search(value):
        raise DataError(f"{what} is {value!r:.80}, with half an emoji in it; write it whole or take it out")
    return value.replace("\r\n", "\n").replace("\r", "\n").strip()


def _turn(pair: Any, where: str) -> Turn:
    if isinstance(pair, list | tuple) and len(pair) == 2:
        user, reply = (_text(text, f"{where}: history", "give it pairs of texts") for text in pair)
        if user and reply:
            return user, reply
    raise DataError(f"{where}: history must be a list of [user, reply] pairs of texts that are not empty")


def _history_weights(weights: Any, pairs: int, where: str) -> tuple[int, ...]:
    listed = isinstance(weights, list | tuple) and len(weights) == pairs
    if not listed or any(weight not in (0, 1) for weight in weights):
        what = "give 0 (shown, not learnt) or 1 for each pair of its history, or leave it out"
        raise DataError(f"{where}: history_weights is {weights!r:.80}; {what}")
    return tuple(map(int, weights)) if 0 in weights else ()


def parse_row(value: Any, where: str) -> Row:
    """One JSON value as a `Row`; null is the same as absent. Raises `DataError` that names `where` and the key."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: {type(value).__name__} where an object with instruction and output belongs")
    value = {key: part for key, part in value.items() if part is not None}
    texts = {
        key: _text(value.get(key, ""), f"{where}: {key}", "give it a text or leave it out")
        for key in ("input", "context", "scene", "speaker", "system")
    }
    if texts["input"]:  # it may be all that the user says
        value = {"instruction": ""} | value
    needed = {key: _text(value.get(key), f"{where}: {key}", "give it a text") for key in ("instruction", "output")}
    for key, text in needed.items():
        if not text and not (key == "instruction" and texts["input"]):
            raise DataError(f"{where}: {key} is {value[key]!r:.80}; give it a text or remove the row")
    history = value.get("history", [])
    if not isinstance(history, list | tuple):
        raise DataError(f"{where}: history must be a list of [user, reply] pairs of texts that are not empty")
    if value.get("split", "") not in ("", *SPLITS):
        raise DataError(f"{where}: split is {value['split']!r:.80}; use train or held_out, or leave it out")
    weight = value.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MAX_WEIGHT:
        raise DataError(f"{where}: weight is {weight!r:.80}; give a number above 0 and at most {MAX_WEIGHT}")
    weights = _history_weights(value.get("history_weights", [1] * len(history)), len(history), where)
    asked = user_text(texts["context"], user_text(needed["instruction"], texts["input"]))
    turns = (*(_turn(pair, where) for pair in history), (asked, needed["output"]))
    return Row(turns, texts["scene"], value.get("split", ""), float(weight), where, texts["system"], weights)


def as_value(row: Row) -> dict[str, Any]:
    """A row as it is written to a file of rows; `parse_row` gives it back."""
    *history, (user, reply) = row.turns
    value: dict[str, Any] = {"instruction": user, "input": "", "output": reply}
    rest: dict[str, Any] = {"history": [list(turn) for turn in history], "history_weights": list(row.history_weights)}
    rest |= {"scene": row.scene, "split": row.split, "system": row.system}
    return (
        value | {key: part for key, part in rest.items() if part} | ({"weight": row.weight} if row.weight != 1 else {})
    )


def read_row_file(source: str | Path, form: str = "", name: str = "") -> RowFile:
    """Everything in a file of rows of any form, the broken ones named; `name` begins where each row stands.

    Raises `DataError` for a file that holds no rows of a known form.
    """
    found = read_records(source)
    records = [forms.plain(value) for value in found.values]
    try:
        form, told = forms.recognise(records, form)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    notes = [*found.notes, told]
    if unused := forms.unused_keys(form, records):
        notes.append(f"not used: {', '.join(unused)}")
    values, rows, broken, left_out = [], list[Row](), list[str](), Counter[str]()
    lines = found.lines if len(set(found.lines)) > 1 else []
    for number, record in enumerate(records, 1):
        place = f"{name} {f'line {lines[number - 1]}, ' if lines else ''}row {number}".strip()
        try:
            value, missing = _converted(form, record, place)
            rows.append(parse_row(value, place))
            values.append(value)
            left_out.update(missing)
        except DataError as error:
            broken.append(str(error))
    notes += [f"{what}, in {count:,} rows" for what, count in left_out.items()]
    return RowFile(values, rows, broken, notes)


def _converted(form: str, record: Any, place: str) -> tuple[Any, list[str]]:
    try:
        return forms.convert(form, record)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def read_rows(source: str | Path, form: str = "") -> tuple[list[Row], list[str]]:
    """All rows of a file, a folder or a hub's data set, and notes on how it was read.

    The form is recognised, or the one of `forms.FORMS` that is named. Raises `DataError` for the first row that is not
    usable.
    """
    found = read_row_file(source, form, str(source))
    if found.broken:
        raise DataError(found.broken[0])
    return found.rows, [f"{source}: {note}" for note in found.notes]


def system_notes(rows: Sequence[Row], persona: str) -> list[str]:
    """A sentence where rows have a system text that is not the persona's: it is not taught."""
    told = Counter(row.system for row in rows if row.system and row.system != persona.strip())
    if not told:
        return []
    texts = f"{len(told):,} system texts, such as" if len(told) > 1 else "the system text"
    return [
        f"{sum(told.values()):,} rows have {texts} {told.most_common(1)[0][0]!r:.80}, which is not the persona's "
        "system prompt; the persona is taught with, so put that text into a persona file and give it with --persona"
    ]


def load_json(path: str | Path) -> list[Any]:
    """The values of a JSON list or of JSON Lines; raises `DataError` with the line."""
    return read_records(path).values


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_sha256(source: str | Path, rows: Sequence[Row]) -> str:
    """SHA-256 of a file's bytes; of the rows where they came from a folder or from a hub."""
    if Path(source).is_file():
        return file_sha256(source)
    text = json.dumps([as_value(row) for row in rows], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
