"""The rows of a training: read, split the way every run splits them, and found again for an adapter. It knows no model.

Training, evaluation and retrieval share it, so that no held-out row is ever trained on or shown as an example.
"""

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from roleplay.disk import read_json, write_json
from roleplay.environment import ROOT
from roleplay.errors import DataError
from roleplay.text import splits
from roleplay.text.characters import ROWS
from roleplay.text.languages import language
from roleplay.text.rows import Row, file_sha256, read_rows, source_sha256
from roleplay.weights.adapters import Adapter
from roleplay.weights.layout import TRAINING

PROJECT = ROOT  # files in it are recorded by their way from here, others by their name alone
FOLDERS = (ROOT / "dataset", ROOT / "runs")  # where a file is looked for that is no longer where it was
PLACES = ".rows.json"  # in runs/: where on this machine the others are, by hash; an adapter's folder never says it
HELD_OUT, SEED = 0.1, 0  # share of the rows and the lot that draws them, where a training says nothing else


Loaded = tuple[list[Row], list[Row], list[dict[str, Any]]]


def load_rows(
    paths: Sequence[str | Path], held_out: float, seed: int, form: str = "", tell: splits.Tell = lambda note: None
) -> Loaded:
    """Training rows, held-out rows, and what training.json records of the files.

    `tell` hears how the files were read and split. Raises `DataError` for a file that is not usable, for an empty
    part, and for a row that stands in both.
    """
    files, rows = [], list[Row]()
    for path in paths:
        found, notes = read_rows(path, form)
        spoken = dict(Counter(language(row.text) for row in found).most_common())
        sha256 = source_sha256(path, found)
        files.append({"file": recorded_name(path), "sha256": sha256, "rows": len(found), "languages": spoken})
        rows += found
        for note in notes:
            tell(note)
    try:
        train, held = splits.split_rows(rows, held_out, seed, tell)
    except DataError as error:
        raise DataError(f"{paths[0]}: {error}") from error
    return train, held, files


def recorded_name(path: str | Path) -> str:
    """How an adapter's folder names a file of rows: nothing of the machine is in it."""
    place = Path(os.path.abspath(str(path).replace(":", "-")))  # a hub's data set may name its split
    return place.relative_to(PROJECT).as_posix() if place.is_relative_to(PROJECT) else place.name


def remember(runs: Path, paths: Sequence[str | Path], files: Sequence[dict[str, Any]]) -> None:
    """Note in `runs` where the files and folders lie that `load_rows` has read, or which data sets of a hub they are,
    for `find_data`."""
    places = {
        file["sha256"]: os.path.abspath(path) if _is_here(str(path)) else str(path)
        for path, file in zip(paths, files, strict=True)
    }
    write_json(runs / PLACES, _places(runs) | places)


def _is_here(place: str) -> bool:
    """Whether a file or a folder lies there; a folder may name its split, as in FOLDER:SPLIT."""
    return Path(place).exists() or (":" in place and Path(place.rpartition(":")[0]).is_dir())


def _places(runs: Path) -> dict[str, str]:
    with suppress(DataError):  # none have been noted yet
        return dict(read_json(runs / PLACES))
    return {}


def held_out_sha256(rows: Sequence[Row]) -> str:
    """What tells whether the same rows are held out, in whatever order."""
    return hashlib.sha256(json.dumps(sorted(row.turns for row in rows)).encode()).hexdigest()


def _held_out(adapter: Adapter) -> str:
    """The hash of the rows that its training held out, "" where it was not recorded."""
    record = adapter.training.get("held_out")
    return str(record.get("sha256", "")) if isinstance(record, dict) else ""


def find_data(adapter: Adapter, given: Sequence[str] = ()) -> list[Path]:
    """The data files; raises `DataError` when one is missing, or is not what the adapter was trained on where nothing
    but the file could tell which rows were held out."""
    if given:
        return [Path(path) for path in given]
    recorded = adapter.training.get("data")
    if not recorded:
        raise DataError(f"{adapter.folder}: {TRAINING} names no data; give the files with --data")
    paths = []
    for name, sha256 in _named(adapter, recorded):
        found = _candidates(name, _places(FOLDERS[-1]).get(sha256, ""))
        if not found:
            raise DataError(
                f"{name}, which {adapter.name} was trained on, is gone from where it was, and not in dataset/ or "
                f"runs/: say where it is with train.evaluate --adapter {adapter.folder} --data FILE"
            )
        same = next((path for path in found if path.is_file() and file_sha256(path) == sha256), None)
        if same is None and not _held_out(adapter):
            raise _changed(str(found[0]), adapter)
        paths.append(same or found[0])
    return paths


def _changed(what: str, adapter: Adapter) -> DataError:
    return DataError(
        f"{what} has changed since {adapter.name} was trained, so its held-out rows may have been trained on: train "
        "again, or give other files with --data"
    )


def _candidates(recorded: str, place: str) -> list[Path]:
    """Files that may be the recorded one: where it was, of its name, or what NAME.json has become. A folder or a hub's
    data set is at its `place` alone."""
    paths, name = [PROJECT / recorded, Path(place)], Path(recorded).name
    for folder in FOLDERS:
        paths += [folder / name, folder / Path(name).stem / ROWS, *sorted(folder.glob(f"*/{glob.escape(name)}"))]
    files = [path for path in paths if path.is_file()]
    return files or ([Path(place)] if place and (_is_here(place) or not os.path.isabs(place)) else [])


def _named(adapter: Adapter, recorded: Any) -> list[tuple[str, str]]:
    """Names and hashes of the recorded files; a name of a stranger's adapter must not lead out of the project."""
    try:
        named = [(str(record["file"]), str(record["sha256"])) for record in recorded]
    except (LookupError, TypeError) as error:
        raise DataError(f"{adapter.folder}: {TRAINING} does not say which files it was trained on") from error
    ways = [PurePosixPath(name) for name, _ in named]
    if outside := [str(way) for way in ways if way.is_absolute() or ".." in way.parts or set(str(way)) & set("\\:")]:
        raise DataError(f"{adapter.folder}: {TRAINING} names {outside[0]!r:.80}, which is not in the project")
    return named


def rows_of(adapter: Adapter, given: Sequence[str] = ()) -> Loaded:
    """As `load_rows`, of the files, in the form and with the split of this adapter's training.

    Rows to learn may have been added or mended since; raises `DataError` where other rows are held out now.
    """
    recipe = adapter.training.get("settings", {})
    try:
        held_out, seed = float(recipe.get("held_out", HELD_OUT)), int(recipe.get("seed", SEED))
        form = str(recipe.get("format", ""))
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{adapter.folder}: {TRAINING} does not say how its rows were split ({error!s:.80})") from error
    paths = find_data(adapter, given)
    train, held, files = load_rows(paths, held_out, seed, form)
    if not given and _held_out(adapter) not in ("", held_out_sha256(held)):
        raise _changed(", ".join(map(str, paths)), adapter)
    return train, held, files
