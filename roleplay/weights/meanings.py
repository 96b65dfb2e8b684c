"""What an adapter's looked-up rows mean, in a file of its folder: a `Meaning`, its large matrices in eight bits."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from roleplay.errors import AdapterError
from roleplay.text.known import Known
from roleplay.text.meaning import Floats, Kinds, Meaning, Projection, Rarity, kinds_of, numbered, unit
from roleplay.weights.adapters import PROJECTIONS, lora_key
from roleplay.weights.layout import MEANING

RANK = 16  # of what layers have learnt, at most
LEVELS = 127  # of eight bits, on each side of zero
LARGEST, SMALLEST = 1e6, 1e-6  # of a number in the file, and of one that is divided by
LARGEST_SCALE = 1.0  # of a matrix that layers have learnt: with larger ones, hidden states may be no numbers
DEPTH = "depth"
SCALE = " scale"
LINEAR, VECTORS, TOKENS = "linear", "vectors", "tokens"  # vectors have length one, and need no scale
KINDS, BIAS = "kinds", "bias"
ADVICE = "remove this file, and write it again with train.lookup: until then, rows are looked up by their words"


def lora_keys(depth: int) -> list[str]:
    """Of every matrix that the first `depth` layers have learnt, each A before its B."""
    return [lora_key(layer, projection, side) for layer in range(depth) for projection in PROJECTIONS for side in "AB"]


def write_meaning(folder: Path, meaning: Meaning) -> None:
    """What the layers have learnt, the projection, the vectors, and what tokens count."""
    tensors = {key: values.astype(np.float32) for key, values in meaning.projection._asdict().items()}
    for key, values in {LINEAR: meaning.projection.linear, KINDS: meaning.kinds.weights, **meaning.lora}.items():
        tensors[key], tensors[key + SCALE] = rounded(_rank_first(key, values))
    tensors[VECTORS], _ = rounded(meaning.vectors)
    tensors[BIAS] = meaning.kinds.bias.astype(np.float32)
    tensors["rarity"] = np.array([*meaning.rarity.values()], np.float32)
    tensors[TOKENS] = np.array([*meaning.rarity], np.int32)
    save_file(tensors, folder / MEANING, {DEPTH: str(meaning.depth)})


def _rank_first(key: str, values: Floats) -> Floats:
    """A as it is and B turned: few rows, and so few scales. It undoes itself."""
    return values.T if ".lora_B." in key else values


def rounded(rows: Floats) -> tuple[np.ndarray, np.ndarray]:
    """In whole numbers, the largest of each row the last level; and what they are to be multiplied with."""
    scale = np.maximum(np.abs(rows).max(axis=1, initial=0), np.finfo(np.float32).tiny) / LEVELS
    return np.rint(rows / scale[:, None]).astype(np.int8, order="C"), scale.astype(np.float32)


def _table(features: int, size: int, texts: int, tokens: int, kinds: int) -> dict[str, list[int]]:
    """The shape of every tensor but those of the layers."""
    return {
        **{key: [features] for key in ("center", "deviation")},
        **{LINEAR: [size, features], LINEAR + SCALE: [size], VECTORS: [texts, size]},
        **{"rarity": [tokens], TOKENS: [tokens]},
        **{KINDS: [kinds, features], KINDS + SCALE: [kinds], BIAS: [kinds]},
    }


def _is_whole(shapes: Mapping[str, Sequence[int]], lora: Sequence[str]) -> bool:
    """Whether they fit together; whether they fit a model, `inspection.check_base` sees."""
    lengths = [shapes[key][0] for key in ("center", LINEAR, VECTORS, TOKENS, BIAS) if shapes[key]]
    if len(lengths) < 5 or min(lengths[:4]) < 1 or any(len(shapes[key]) != 2 for key in lora):
        return False
    ranks = {shapes[key][0] for key in lora}
    table = _table(*lengths) | {key + SCALE: shapes[key][:1] for key in lora}
    return len(ranks) == 1 and 0 < min(ranks) <= RANK and table == {key: shapes[key] for key in table}


def read_meaning(folder: Path, known: Sequence[Known]) -> Meaning | None:
    """What `write_meaning` wrote of turns, None where it wrote nothing; raises `AdapterError` for anything else."""
    path = folder / MEANING
    if not path.exists():
        return None
    texts, text_of = numbered([one.turn[0] for one in known])
    kind_of = kinds_of(known)
    try:
        with safe_open(path, framework="numpy") as file:
            depth = (file.metadata() or {}).get(DEPTH, "")
            lora = lora_keys(int(depth)) if re.fullmatch("[1-9][0-9]{0,2}", depth) else []
            parts = {key: file.get_slice(key) for key in (*_table(0, 0, 0, 0, 0), *lora, *(k + SCALE for k in lora))}
            shapes = {key: part.get_shape() for key, part in parts.items()}
            dtypes = {
                key: "I8" if key in (LINEAR, VECTORS, KINDS, *lora) else "I32" if key == TOKENS else "F32"
                for key in parts
            }
            if not lora or not _is_whole(shapes, lora) or dtypes != {k: part.get_dtype() for k, part in parts.items()}:
                raise AdapterError(f"{path}: is of another form than train.lookup writes; {ADVICE}")
            if (shapes[VECTORS][0], shapes[BIAS][0]) != (len(texts), kind_of.max(initial=-1) + 1):
                raise AdapterError(f"{path}: is not of the {len(known):,} rows that stand beside it; {ADVICE}")
            tensors = {key: file.get_tensor(key) for key in parts}
    except SafetensorError as error:
        raise AdapterError(f"{path}: holds no meaning of rows ({error!s:.80}); {ADVICE}") from error
    divided_by = [tensors[key] >= SMALLEST for key in ("deviation", "rarity")]
    bounded = [np.abs(values) <= LARGEST for key, values in tensors.items() if key != TOKENS]
    bounded += [tensors[key + SCALE] <= LARGEST_SCALE for key in lora]
    if not all(values.all() for values in divided_by + bounded):  # none of which is true of what is no number
        raise AdapterError(f"{path}: holds numbers that are none, too large, or too small; {ADVICE}")
    tensors |= {key: _rank_first(key, tensors[key] * tensors[key + SCALE][:, None]) for key in (LINEAR, KINDS, *lora)}
    rarity = Rarity(dict(zip(tensors[TOKENS].tolist(), tensors["rarity"].tolist(), strict=True)))
    projection = Projection(*(tensors[key] for key in Projection._fields))
    vectors = unit(tensors[VECTORS].astype(np.float32))
    learnt = {key: tensors[key] for key in lora}
    return Meaning(
        int(depth), learnt, rarity, projection, vectors, text_of, Kinds(tensors[KINDS], tensors[BIAS]), kind_of
    )
