"""What an adapter's looked-up rows mean, in a file of its folder: a `Meaning`, its large matrices in eight bits."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from roleplay.errors import AdapterError
from roleplay.text.meaning import Floats, Meaning, Network, Rarity, numbered, unit
from roleplay.text.retrieval import Known
from roleplay.weights.layout import MEANING

LEVELS = 127  # of eight bits, on each side of zero
LARGEST, SMALLEST = 1e6, 1e-6  # of a number in the file, and of one that is divided by
DEPTH = "depth"
SCALED = ("linear", "inward")  # in eight bits and a scale for each row; vectors have length one, and need none
SCALE = " scale"
EIGHT_BITS, TOKENS = (*SCALED, "vectors"), "tokens"
ADVICE = "remove this file, and write it again with train.lookup: until then, rows are looked up by their words"


def write_meaning(folder: Path, meaning: Meaning) -> None:
    """The network, the vectors, and what tokens count."""
    tensors = {key: values.astype(np.float32) for key, values in meaning.network._asdict().items()}
    for key in SCALED:
        tensors[key], tensors[key + SCALE] = rounded(tensors[key])
    tensors["vectors"], _ = rounded(meaning.vectors)
    tensors["rarity"] = np.array([*meaning.rarity.values()], np.float32)
    tensors[TOKENS] = np.array([*meaning.rarity], np.int32)
    save_file(tensors, folder / MEANING, {DEPTH: str(meaning.depth)})


def rounded(rows: Floats) -> tuple[np.ndarray, np.ndarray]:
    """In whole numbers, the largest of each row the last level; and what they are to be multiplied with."""
    scale = np.maximum(np.abs(rows).max(axis=1, initial=0), np.finfo(np.float32).tiny) / LEVELS
    return np.rint(rows / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def _shapes(features: int, width: int, size: int, texts: int, tokens: int) -> dict[str, list[int]]:
    """Of every tensor in a file."""
    return {
        **{key: [features] for key in ("center", "deviation")},
        **{"linear": [size, features], "inward": [width, features], "bias": [width], "outward": [size, width]},
        **{"linear" + SCALE: [size], "inward" + SCALE: [width]},
        **{"vectors": [texts, size], "rarity": [tokens], TOKENS: [tokens]},
    }


def read_meaning(folder: Path, known: Sequence[Known]) -> Meaning | None:
    """What `write_meaning` wrote of turns, None where it wrote nothing; raises `AdapterError` for anything else."""
    path = folder / MEANING
    if not path.exists():
        return None
    texts, text_of = numbered([one.turn[0] for one in known])
    try:
        with safe_open(path, framework="numpy") as file:
            parts = {key: file.get_slice(key) for key in _shapes(0, 0, 0, 0, 0)}
            shapes = {key: part.get_shape() for key, part in parts.items()}
            depth = (file.metadata() or {}).get(DEPTH, "")
            lengths = [shapes[key][0] for key in ("center", "bias", "outward", "vectors", TOKENS) if shapes[key]]
            dtypes = {key: "I8" if key in EIGHT_BITS else "I32" if key == TOKENS else "F32" for key in parts}
            whole = len(lengths) == 5 and shapes == _shapes(*lengths) and min(lengths) > 0
            if not whole or dtypes != {key: part.get_dtype() for key, part in parts.items()}:
                raise AdapterError(f"{path}: is of another form than train.lookup writes; {ADVICE}")
            if not re.fullmatch("[1-9][0-9]{0,2}", depth) or shapes["vectors"][0] != len(texts):
                raise AdapterError(f"{path}: is not of the {len(known):,} rows that stand beside it; {ADVICE}")
            tensors = {key: file.get_tensor(key) for key in parts}
    except SafetensorError as error:
        raise AdapterError(f"{path}: holds no meaning of rows ({error!s:.80}); {ADVICE}") from error
    divided_by = [tensors[key] >= SMALLEST for key in ("deviation", "rarity")]
    bounded = [np.abs(values) <= LARGEST for key, values in tensors.items() if key != TOKENS]
    if not all(values.all() for values in divided_by + bounded):  # none of which is true of what is no number
        raise AdapterError(f"{path}: holds numbers that are none, too large, or too small; {ADVICE}")
    tensors |= {key: tensors[key] * tensors[key + SCALE][:, None] for key in SCALED}
    rarity = Rarity(dict(zip(tensors[TOKENS].tolist(), tensors["rarity"].tolist(), strict=True)))
    network = Network(*(tensors[key] for key in Network._fields))
    return Meaning(int(depth), rarity, network, unit(tensors["vectors"].astype(np.float32)), text_of)
