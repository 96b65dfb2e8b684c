"""A file, a folder or a data set of a hub, as records: JSON, CSV, TSV, Parquet, or what `datasets` reads."""

import csv
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roleplay.errors import DataError, first_line
from roleplay.text.reading import forms, json_values
from roleplay.text.reading.decoding import decode, read_bytes

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FILES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".md")  # never the name of a data set
LINES = (".jsonl", ".ndjson")
PARQUET = b"PAR1"
TRAIN = "train"


@dataclass(frozen=True)
class Records:
    """Values as they stand in the file, the line on which each begins (none where it has no lines), and notes."""

    values: list[Any]
    lines: list[int]
    notes: list[str]


def read_records(source: str | Path) -> Records:
    """The records of a file, of a folder, or of a hub's data set (NAME or NAME:SPLIT); raises `DataError`."""
    path = Path(source)
    if path.is_dir() or not path.exists():
        name, _, split = (str(source), "", "") if path.is_dir() else str(source).partition(":")
        if Path(name).is_dir() or _may_be_of_a_hub(name):
            return _data_set(name, split)
    data, ending = read_bytes(path), path.suffix.lower()
    if data.startswith(PARQUET):
        return _parquet(data, path)
    text, note = decode(data, path)
    notes = [note] if note else []
    if not text.strip():
        raise DataError(f"{path}: the file is empty; a list of objects with instruction and output is wanted")
    if ending in (".json", *LINES) or text.lstrip()[0] in "[{":
        try:
            value, lines = json_values.parse(text, ending in LINES)
        except DataError as error:
            raise DataError(f"{path}: not JSON ({error})") from error
        values, lines, how = _unwrap(value, lines, path, text)
    else:
        values, lines, how = _table(text, ending, path)
    if not values:
        raise DataError(f"{path}: holds no rows; a list of objects with instruction and output is wanted")
    return Records(values, lines, [*notes, *how])


def _may_be_of_a_hub(name: str) -> bool:
    """Whether this reads like OWNER/NAME, and like no file that is missing from a folder that is there."""
    return bool(HUB_ID.fullmatch(name)) and Path(name).suffix.lower() not in FILES and not Path(name).parent.is_dir()


def _unwrap(
    value: Any, lines: list[int], path: Path, text: str, keys: tuple[str, ...] = ()
) -> tuple[list[Any], list[int], list[str]]:
    """The list of records in a JSON value, which stands under `keys` in `text`; raises `DataError` where there is
    none."""
    if isinstance(value, list):
        single = value and all(isinstance(part, dict) and {"role", "from"} & set(part) for part in value)
        if single:
            return [value], [], ["one conversation"]
        listed = value and all(isinstance(part, list) and any(map(forms.is_row, part)) for part in value)
        return ([row for part in value for row in part], [], ["several lists"]) if listed else (value, lines, [])
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds no rows; a list of objects with instruction and output is wanted")
    if forms.matches_any(value):
        columns = [part for part in value.values() if isinstance(part, dict | list)]
        if len(columns) < len(value) or any(isinstance(part, list) and forms.matches_any(part) for part in columns):
            return [value], [], ["one row"]
        raise DataError(f"{path}: it has a column under each key; write it with pandas' to_json(orient='records')")
    if forms.is_persona(value):
        raise DataError(f"{path}: this is a persona or a character card and no rows; give it with --persona")
    if {"columns", "data"} <= set(value):
        raise DataError(f"{path}: its keys stand apart from its rows; write it with pandas' to_json(orient='records')")
    lists = {key: part for key, part in value.items() if isinstance(part, list) and part}
    matching = [key for key, part in lists.items() if any(map(forms.matches_any, part))]
    key = next((key for key in (TRAIN, "rows", "data", *matching, *lists) if key in lists), "")
    if not key:
        inner = {key: part for key, part in value.items() if isinstance(part, dict)}
        if len(inner) == len(value) > 1 and all(map(forms.matches_any, inner.values())):
            return list(inner.values()), [], ["every row under a key of its own"]
        if len(inner) == 1:
            ((key, part),) = inner.items()
            return _unwrap(part, [], path, text, (*keys, key))
        named = ", ".join(f"{key:.40}" for key in list(value)[:6])
        raise DataError(f"{path}: holds no rows under its keys ({named or 'none'}); a list of objects is wanted")
    others = ", ".join(f"{other:.40}" for other in lists if other != key)
    rows = [
        part["row"] if isinstance(part, dict) and isinstance(part.get("row"), dict) else part for part in lists[key]
    ]
    lines = json_values.lines_under(text, (*keys, key))
    return rows, lines, [f"the rows under {key!r:.40}" + (f"; not those under {others}" if others else "")]


def _table(text: str, ending: str, path: Path) -> tuple[list[Any], list[int], list[str]]:
    """The rows of a table whose first line names its columns; raises `DataError` for what is none."""
    head = text.lstrip("\n").partition("\n")[0]
    delimiter = "\t" if ending == ".tsv" else max(",;\t", key=head.count)
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    values, lines = [], []
    try:
        names = [name.strip().lower() for name in next(reader)]
        if (len(names) < 2 and names[0] not in forms.CHAT) or len(set(names)) < len(names):
            what = "neither JSON nor a table whose first line names its columns, each once (instruction, output)"
            raise DataError(f"{path}: {what}")
        begin = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if len(cells) > len(names):
                    raise DataError(
                        f"{path} line {begin}: {len(cells)} cells under {len(names)} columns; put a text that has "
                        f"{delimiter!r} in it in quotes"
                    )
                values.append({name: forms.from_cell(name, cell) for name, cell in zip(names, cells, strict=False)})
                lines.append(begin)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: no readable table ({error}); mend its quotes") from error
    return values, lines, [f"a table of {len(names)} columns, parted by {delimiter!r}"]


def _parquet(data: bytes, path: Path) -> Records:
    import pyarrow  # half a second, and seldom needed
    from pyarrow import parquet

    try:
        values = parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: no readable Parquet ({first_line(error)}); save it again") from error
    if not values:
        raise DataError(f"{path}: holds no rows")
    return Records(values, [], ["Parquet"])


def _data_set(name: str, split: str) -> Records:
    """A folder or a hub's data set through `datasets`; its train split where no other is named."""
    import datasets  # two seconds, and seldom needed
    import huggingface_hub

    datasets.disable_progress_bars()
    for library in (datasets, huggingface_hub):
        library.logging.set_verbosity_error()
    try:
        saved = Path(name).is_dir() and any(
            (Path(name) / file).is_file() for file in ("state.json", "dataset_dict.json")
        )
        found = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except Exception as error:  # datasets raises its own kinds, pyarrow's, the hub's and plain ones
        what = (
            "cannot be read as a data set" if Path(name).is_dir() else "no such file, and no data set that can be had"
        )
        raise DataError(f"{name}: {what} ({first_line(error)}); give a file of rows") from error
    notes = []
    if isinstance(found, datasets.DatasetDict):
        wanted = split or (TRAIN if TRAIN in found else next(iter(found)) if len(found) == 1 else "")
        if wanted not in found:
            raise DataError(f"{name}: no split {wanted!r}; name one as {name}:SPLIT, of {', '.join(found)}")
        others = ", ".join(other for other in found if other != wanted)
        notes.append(f"its split {wanted}" + (f"; not {others} (name one as {name}:SPLIT)" if others else ""))
        found = found[wanted]
    if not len(found):
        raise DataError(f"{name}: holds no rows")
    return Records(list(found), [], notes)
