"""What an adapter's looked-up rows mean, in a file of its folder: a `Meaning`, its vectors in eight bits."""

import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from roleplay.errors import AdapterError
from roleplay.text.meaning import Meaning, unit
from roleplay.weights.layout import MEANING

LEVELS = 127  # of eight bits, on each side of zero
DEPTH = "depth"
DTYPES = {"center": ("F32", 1), "projection": ("F32", 2), "vectors": ("I8", 2)}  # and dimensions


def write_meaning(folder: Path, meaning: Meaning) -> None:
    """Center and projection in float32, the vectors rounded."""
    whole = {"center": meaning.center, "projection": meaning.projection}
    tensors = {key: values.astype(np.float32) for key, values in whole.items()} | {"vectors": rounded(meaning.vectors)}
    save_file(tensors, folder / MEANING, {DEPTH: str(meaning.depth)})


def rounded(vectors: np.ndarray) -> np.ndarray:
    """In whole numbers, each vector's largest the last level."""
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    return np.rint(vectors / np.maximum(largest, np.finfo(np.float32).tiny) * LEVELS).astype(np.int8)


def read_meaning(folder: Path, rows: int) -> Meaning | None:
    """What `write_meaning` wrote of so many `rows`, None where it wrote nothing; raises `AdapterError` for anything
    else."""
    path = folder / MEANING
    if not path.exists():
        return None
    advice = "write it again with train.lookup, or remove this file: rows are then looked up by their words"
    try:
        with safe_open(path, framework="numpy") as file:
            parts = {key: file.get_slice(key) for key in DTYPES}
            told = {key: (part.get_dtype(), len(part.get_shape())) for key, part in parts.items()}
            depth = (file.metadata() or {}).get(DEPTH, "")
            if told != DTYPES or not re.fullmatch("[1-9][0-9]{0,2}", depth):
                raise AdapterError(f"{path}: is of another form than train.lookup writes; {advice}")
            center, projection, vectors = (file.get_tensor(key) for key in DTYPES)
    except SafetensorError as error:
        raise AdapterError(f"{path}: holds no meaning of rows ({error!s:.80}); {advice}") from error
    if len(center) != len(projection) or vectors.shape != (rows, projection.shape[1]):
        raise AdapterError(f"{path}: is not of the {rows:,} rows that stand beside it; {advice}")
    if not np.isfinite(center).all() or not np.isfinite(projection).all():
        raise AdapterError(f"{path}: holds values that are not finite; {advice}")
    return Meaning(int(depth), center, projection, unit(vectors.astype(np.float32)))
