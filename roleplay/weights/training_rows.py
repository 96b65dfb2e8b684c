"""The rows of a training: read, split the way every run splits them, and found again for an adapter. It knows no model.

Training, evaluation and retrieval share it, so that no held-out row is ever trained on or shown as an example.
"""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roleplay.environment import ROOT
from roleplay.errors import DataError
from roleplay.text import splits
from roleplay.text.characters import ROWS
from roleplay.text.rows import Row, file_sha256, read_rows
from roleplay.weights.adapters import Adapter
from roleplay.weights.layout import TRAINING

FOLDERS = (ROOT / "dataset", ROOT / "runs")  # where the files of a training are looked for
HELD_OUT, SEED = 0.1, 0  # share of the rows and the lot that draws them, where a training says nothing else


def load_rows(
    paths: Sequence[str | Path], held_out: float, seed: int
) -> tuple[list[Row], list[Row], list[dict[str, Any]]]:
    """Training rows, held-out rows, and what training.json records of the files.

    Raises `DataError` for a file that is not usable, for an empty part, and for a row that stands in both.
    """
    files, rows = [], []
    for path in paths:
        found = read_rows(path)
        files.append({"file": Path(path).name, "sha256": file_sha256(path), "rows": len(found)})
        rows += found
    train, held = splits.split_rows(rows, held_out, seed)
    if not train or not held:
        sizes = f"{len(train)} training and {len(held)} held-out rows"
        raise DataError(f"{paths[0]}: {sizes}; add rows (dataset.convert collects saved chats) or change --held-out")
    splits.check_no_overlap(train, held)
    return train, held, files


def find_data(adapter: Adapter, given: Sequence[str] = ()) -> list[Path]:
    """The data files; raises `DataError` when one is missing or is not what the adapter was trained on."""
    if given:
        return [Path(path) for path in given]
    recorded = adapter.training.get("data")
    if not recorded:
        raise DataError(f"{adapter.folder}: {TRAINING} names no data; give the files with --data")
    paths = []
    for name, sha256 in _named(adapter, recorded):
        found = _candidates(name)
        if not found:
            raise DataError(f"{name} is neither in dataset/ nor in runs/: give the files with --data")
        same = next((path for path in found if file_sha256(path) == sha256), None)
        if same is None:
            raise DataError(
                f"{found[0]} has changed since {adapter.name} was trained, so its held-out rows may have been trained "
                "on: train again, or give other files with --data"
            )
        paths.append(same)
    return paths


def _candidates(name: str) -> list[Path]:
    """Files that may be the recorded one: of its name, also in a character's folder, or what NAME.json has become."""
    paths = []
    for folder in FOLDERS:
        paths += [folder / name, folder / Path(name).stem / ROWS, *sorted(folder.glob(f"*/{glob.escape(name)}"))]
    return [path for path in paths if path.is_file()]


def _named(adapter: Adapter, recorded: Any) -> list[tuple[str, str]]:
    """Names and hashes of the recorded files; a name of a stranger's adapter must not lead out of a folder."""
    try:
        named = [(str(record["file"]), str(record["sha256"])) for record in recorded]
    except (LookupError, TypeError) as error:
        raise DataError(f"{adapter.folder}: {TRAINING} does not say which files it was trained on") from error
    if outside := [name for name, _ in named if Path(name).name != name]:
        raise DataError(f"{adapter.folder}: {TRAINING} names {outside[0]!r:.80}, which is no plain file name")
    return named


def rows_of(adapter: Adapter, given: Sequence[str] = ()) -> tuple[list[Row], list[Row], list[dict[str, Any]]]:
    """As `load_rows`, of the files and with the split of this adapter's training."""
    recipe = adapter.training.get("settings", {})
    try:
        held_out, seed = float(recipe.get("held_out", HELD_OUT)), int(recipe.get("seed", SEED))
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{adapter.folder}: {TRAINING} does not say how its rows were split ({error!s:.80})") from error
    return load_rows(find_data(adapter, given), held_out, seed)
