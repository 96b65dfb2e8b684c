"""The public rows that the figures are on: where they lie, and which file a benchmark has used."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roleplay.environment import ROOT
from roleplay.text.rows import file_sha256

# `dataset.download` writes to runs/; shared/ lies in the project or beside it.
FOLDERS = (ROOT / "runs", ROOT / "shared" / "data", ROOT.parent / "shared" / "data")
OWN = ROOT / "dataset" / "zhenhuan" / "rows.json"


def public(name: str) -> Path | None:
    """A shared file or folder in the first place that has it."""
    return next((folder / name for folder in FOLDERS if (folder / name).exists()), None)


def default_data() -> str:
    """The tutorial's rows where they are at hand, else the project's own."""
    return str(public("huanhuan.json") or OWN)


def tell(path: str, rows: Sequence[object], dtype: str) -> dict[str, Any]:
    """Print which rows a benchmark uses and in which dtype; returns what its report says of them."""
    print(f"rows         {path}: {len(rows):,} rows", f"dtype        {dtype}", sep="\n", flush=True)
    return {"file": Path(path).name, "rows": len(rows), "sha256": file_sha256(path), "dtype": dtype}
