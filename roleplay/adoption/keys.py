"""What the keys of an adapter's weights mean, whichever trainer or version of peft wrote them. It reads headers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from roleplay.adoption.configuration import MERGE
from roleplay.adoption.origin import MLX
from roleplay.errors import AdapterError
from roleplay.weights.adapters import PROJECTIONS
from roleplay.weights.inspection import DTYPES

_LEFT_BY_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
_WRAPPED = rf"(?:(?:{'|'.join(_LEFT_BY_WRAPPERS)})\.)*"
_KEY = re.compile(
    rf"(?P<module>(?:(?:base_model|model|language_model|{'|'.join(_LEFT_BY_WRAPPERS)})\.)*"
    rf"layers\.(?P<layer>\d{{1,4}})\.{_WRAPPED}(?P<block>\w+?)\.{_WRAPPED}(?P<projection>\w+?_proj))\.{_WRAPPED}"
    r"lora_(?P<side>[AB])(?:\.(?P<adapter>[\w-]+))?\.weight",
    re.ASCII,
)
_PEFT = "base_model.model."  # what peft puts before the model's own names
_NOT_LORA = {  # what a key contains, and what that means
    "lora_magnitude_vector": f"it is DoRA, which also rescales the rows of every weight; {MERGE}",
    "trainable_tokens": f"embeddings of single tokens were trained too; {MERGE}",
    "lora_embedding": f"it changes the embeddings too; {MERGE}",
    ".bias": f"biases were trained too; {MERGE}",
    **dict.fromkeys(
        ("vision", "multi_modal", "audio"),
        "it changes the part of a multimodal model that sees or hears, which is not served; train its text part alone",
    ),
    "embed_tokens": "the embeddings were saved too (save_embedding_layers); save it again without them where they were "
    f"not trained, otherwise {MERGE}",
    "lm_head": f"the head was trained or saved too; {MERGE}",
    "norm": f"norms were trained too; {MERGE}",
    "lora_a": MLX,
    "lora_b": MLX,
}


@dataclass(frozen=True)
class Pair:
    """The two matrices of a projection: A (rank, in features) and B (out features, rank), by their keys."""

    module: str  # in the model that was trained
    a: str
    b: str
    rank: int
    features: tuple[int, int]  # in, out


Place = tuple[int, str]  # layer and projection


def read_pairs(path: Path) -> dict[Place, Pair]:
    """Where every pair of matrices belongs; raises `AdapterError` for anything that is no LoRA of a projection."""
    halves: dict[Place, dict[str, str]] = {}
    modules, names = dict[Place, str](), set[str]()
    shapes = _shapes(path)
    for key in shapes:
        match = _KEY.fullmatch(key)
        if not match or PROJECTIONS.get(match["projection"]) != match["block"]:
            raise AdapterError(f"{path}: {key!r:.120} is no LoRA matrix of a projection: {_why(key)}")
        place = int(match["layer"]), match["projection"]
        sides = halves.setdefault(place, {})
        if match["side"] in sides:
            raise AdapterError(
                f"{path}: {key!r:.120} is there twice, as {sides[match['side']]!r:.120} too; save it again"
            )
        sides[match["side"]], modules[place] = key, _own_name(match["module"])
        names.add(match["adapter"] or "")
    if len(names) > 1:
        raise AdapterError(f"{path}: holds several adapters ({', '.join(sorted(names))}); save one of them alone")
    if not halves:
        raise AdapterError(f"{path}: holds no matrices; save the adapter again")
    return {place: _pair(path, modules[place], sides, shapes) for place, sides in halves.items()}


def _shapes(path: Path) -> dict[str, list[int]]:
    shapes = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():
                part = file.get_slice(key)
                if part.get_dtype() not in DTYPES:
                    raise AdapterError(f"{path}: {key!r:.120} is {part.get_dtype()}; save it as {', '.join(DTYPES)}")
                shapes[key] = part.get_shape()
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path}: no whole safetensors file ({error!s:.80}); download it again") from error
    return shapes


def _own_name(module: str) -> str:
    """A module's name in the model that was trained: what peft and wrappers put around it is gone."""
    name = ".".join(part for part in module.split(".") if part not in _LEFT_BY_WRAPPERS)
    while name.startswith(_PEFT):
        name = name.removeprefix(_PEFT)
    return name


def _pair(path: Path, module: str, sides: Mapping[str, str], shapes: Mapping[str, list[int]]) -> Pair:
    if missing := {"A", "B"} - set(sides):
        raise AdapterError(f"{path}: lora_{missing.pop()} of {module} is missing; download it again")
    a, b = shapes[sides["A"]], shapes[sides["B"]]
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        raise AdapterError(
            f"{path}: the matrices of {module} have shapes {a} and {b}, which no rank fits; save it again"
        )
    return Pair(module, sides["A"], sides["B"], a[0], (a[1], b[0]))


def _why(key: str) -> str:
    for part, reason in _NOT_LORA.items():
        if part in key:
            return reason
    return f"only {', '.join(PROJECTIONS)} of Gemma's layers are served; train those alone"
