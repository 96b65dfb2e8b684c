"""Adapter folders from this project or from strangers, inspected and refused before any weight is used.

Only safetensors and JSON are read; no pickle is opened, no template and no code is run. Nothing here knows a hub.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from roleplay.disk import read_json
from roleplay.errors import AdapterError, RoleplayError
from roleplay.text import limits
from roleplay.text.meaning import SUMMARIES
from roleplay.text.prompts import template_name
from roleplay.weights import embedded
from roleplay.weights.adapters import PROJECTIONS, Adapter, LookedUp, lora_key
from roleplay.weights.examples import read_examples
from roleplay.weights.layout import (
    CONFIG,
    EXAMPLES,
    MAX_ALPHA,
    MAX_BYTES,
    MAX_RANK,
    MEANING,
    NAME,
    READABLE,
    TEMPLATE,
    TRAINING,
    WEIGHTS,
)
from roleplay.weights.meanings import ADVICE, read_meaning

DTYPES = ("F32", "F16", "BF16")
HARMLESS_STARTS = ("gaussian", "orthogonal")  # values of init_lora_weights that leave the base model as it is
ADOPT = "see whether train.adopt takes it in"
_KEY = re.compile(
    r"base_model\.model\.(?P<module>model\.layers\.(?P<layer>\d{1,4})\.(?P<block>\w+)\.(?P<projection>\w+))"
    r"\.lora_(?P<side>[AB])\.weight",
    re.ASCII,
)


def may_be_adopted(error: RoleplayError) -> bool:
    """Whether what was refused may be the LoRA of another trainer's, which `train.adopt` takes in."""
    return ADOPT in str(error)


def inspect(folder: Path, looks_up: bool = True) -> Adapter:
    """Everything that can be checked without the base model, and without what it looks up where that is not wanted;
    raises `AdapterError` for the first thing amiss."""
    try:
        return _inspect(Path(folder), looks_up)
    except OSError as error:
        raise AdapterError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error


def _inspect(folder: Path, looks_up: bool) -> Adapter:
    _check_files(folder)
    config = _read_json(folder / CONFIG)
    training = _read_json(folder / TRAINING) if (folder / TRAINING).exists() else {}
    rank, scaling, targets = _check_config(config, folder / CONFIG)
    _check_coverage(_check_tensors(folder / WEIGHTS, rank), targets, folder / WEIGHTS)
    try:
        template = template_name((folder / TEMPLATE).read_text(encoding="utf-8"))
    except (RoleplayError, UnicodeDecodeError) as error:
        raise AdapterError(f"{folder / TEMPLATE}: {error}; {ADOPT}") from error
    if training.get("template", template) != template:
        raise AdapterError(f"{folder / TRAINING}: template {training['template']!r} is not the one in {TEMPLATE}")
    _check_values(folder / WEIGHTS)
    base, persona = (training.get(key, {}) for key in ("base_model", "persona"))
    if not isinstance(base, dict) or not isinstance(persona, dict):
        raise AdapterError(f"{folder / TRAINING}: base_model and persona must be objects; write it with train.lora")
    turns = read_examples(folder) if looks_up else ()
    return Adapter(
        name=folder.name,
        folder=folder,
        rank=rank,
        scaling=scaling,
        base_model=_text(folder, base.get("name") or config.get("base_model_name_or_path") or ""),
        base_fingerprint=_text(folder, base.get("fingerprint", "")),
        template=template,
        persona=_text(folder, persona.get("system_prompt", "")),
        training=training,
        looked_up=LookedUp(turns, read_meaning(folder, turns) if looks_up else None),
    )


def _text(folder: Path, value: Any) -> str:
    if not isinstance(value, str) or len(value) > limits.PERSONA:
        most = f"{limits.PERSONA:,} characters"
        raise AdapterError(f"{folder}: {value!r:.40} must be a text of at most {most} in {TRAINING}")
    return value


def _check_files(folder: Path) -> None:
    """Nothing is opened yet: names, kinds and sizes only."""
    if not folder.is_dir():
        raise AdapterError(f"{folder}: no such adapter folder; train one with train.lora or choose another")
    if not NAME.fullmatch(folder.name):
        raise AdapterError(f"{folder.name!r:.80}: not an adapter name; use letters, digits, dots and dashes")
    home = folder.resolve()
    for path in sorted(folder.iterdir()):
        if not path.name.isprintable():
            raise AdapterError(f"{folder}: a file is named {path.name!r:.80}; remove it")
        if not path.resolve().is_relative_to(home):
            raise AdapterError(f"{path}: a link that leaves its folder; replace it with the file itself")
        if path.is_dir():
            continue  # never looked into
        if not path.is_file():
            raise AdapterError(f"{path}: neither a file nor a folder; remove it")
        if path.suffix == ".safetensors" and path.name not in (WEIGHTS, MEANING):
            maker = ": it is of mlx-lm, whose adapters are not loaded" if path.name == "adapters.safetensors" else ""
            raise AdapterError(f"{path}: an adapter has one weight file, {WEIGHTS}; remove this one{maker}")
        if path.name != EXAMPLES and path.suffix.lower() not in READABLE:
            raise AdapterError(
                f"{path}: {path.suffix} files are not accepted, they may hold code; remove it, or {ADOPT}"
            )
        size = path.stat().st_size
        limit = MAX_BYTES.get(path.name, size)  # the rest is never read
        if size > limit:
            raise AdapterError(f"{path}: {size / 1e6:,.0f} MB, the limit is {limit / 1e6:,.0f} MB; it is not read")
    for name in (CONFIG, WEIGHTS, TEMPLATE):
        if not (folder / name).is_file():
            raise AdapterError(f"{folder}: has no {name}, which a folder of train.lora holds; {ADOPT}")


def _read_json(path: Path) -> dict[str, Any]:
    value = read_json(path, advice="download or save it again", kind=AdapterError)
    if not isinstance(value, dict):
        raise AdapterError(f"{path}: holds a {type(value).__name__} where an object belongs; save it again")
    return value


def _check_config(config: dict[str, Any], path: Path) -> tuple[int, float, list[str]]:
    """Rank, scaling and projections; a key not named here must keep peft's default, which is plain LoRA."""
    allowed: dict[str, Callable[[Any], bool]] = {
        "peft_type": lambda v: v == "LORA",
        "task_type": lambda v: v in (None, "CAUSAL_LM"),
        "_from_model_config": lambda v: isinstance(v, bool),
        "peft_version": lambda v: isinstance(v, str),
        "base_model_name_or_path": lambda v: v is None or isinstance(v, str),
        "revision": lambda v: v is None or isinstance(v, str),
        "inference_mode": lambda v: isinstance(v, bool),
        "use_rslora": lambda v: isinstance(v, bool),
        "init_lora_weights": lambda v: isinstance(v, bool) or v in HARMLESS_STARTS,
        "lora_dropout": lambda v: is_number(v, 0, 1),
        "r": lambda v: isinstance(v, int) and is_number(v, 1, MAX_RANK),
        "lora_alpha": lambda v: is_number(v, 1e-3, MAX_ALPHA),
        "target_modules": lambda v: isinstance(v, list) and bool(v) and all(isinstance(m, str) for m in v),
    }
    defaults = peft_defaults()
    for key in ("peft_type", "r", "lora_alpha", "target_modules"):
        if key not in config:
            raise AdapterError(f"{path}: has no {key}; save the adapter again with peft")
    for key, value in config.items():
        if key not in allowed and key not in defaults:
            raise AdapterError(f"{path}: unknown key {key!r:.80}; only plain LoRA settings are accepted: {ADOPT}")
        good = allowed[key](value) if key in allowed else value == defaults[key]
        if not good:
            plain = f"only plain LoRA up to rank {MAX_RANK} is accepted: {ADOPT}"
            raise AdapterError(f"{path}: {key} is {value!r:.80}; {plain}")
    # For all-linear, peft writes every module with its whole name; `_check_coverage` sees that none is left out.
    targets = sorted({re.sub(r"^model\.layers\.\d+\.\w+\.", "", module) for module in config["target_modules"]})
    if unknown := [module for module in targets if module not in PROJECTIONS]:
        raise AdapterError(f"{path}: target module {unknown[0]!r:.80} is none of {', '.join(PROJECTIONS)}")
    rank = config["r"]
    return rank, config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank), targets


def peft_defaults() -> dict[str, Any]:
    """What peft takes for a key of adapter_config.json that is not there."""
    return {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(LoraConfig)
    }


def is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _check_tensors(path: Path, rank: int) -> dict[str, list[int]]:
    """Shapes by key, from the header alone."""
    shapes = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():
                match, part = _KEY.fullmatch(key), file.get_slice(key)
                if not match or PROJECTIONS.get(match["projection"]) != match["block"]:
                    raise AdapterError(f"{path}: {key!r:.120} is no LoRA matrix of a Gemma projection{_meant_by(key)}")
                shapes[key] = part.get_shape()
                if part.get_dtype() not in DTYPES:
                    raise AdapterError(f"{path}: {key} is {part.get_dtype()}; only {', '.join(DTYPES)} are accepted")
                if len(shapes[key]) != 2 or shapes[key][0 if match["side"] == "A" else 1] != rank:
                    raise AdapterError(f"{path}: {key} has shape {shapes[key]}, which is not of rank {rank}")
    except SafetensorError as error:
        raise AdapterError(f"{path}: no whole safetensors file ({error!s:.80}); download it again") from error
    return shapes


def _meant_by(key: str) -> str:
    """What a key of another trainer's says, as the end of a sentence."""
    if "language_model" in key:
        return f": it was trained on the multimodal Gemma 3; {ADOPT}"
    if "embed_tokens" in key:
        return ": embeddings were saved too (save_embedding_layers); save it again without them"
    return f"; {ADOPT}" if ".lora_" in key else ""


def _check_coverage(shapes: dict[str, list[int]], targets: list[str], path: Path) -> None:
    """Every target in every layer from 0 on, with both matrices: peft would leave a gap at random values."""
    layers = {int(match["layer"]) for match in map(_KEY.fullmatch, shapes) if match}
    wanted = {
        lora_key(layer, target, side)
        for layer in range(max(layers, default=0) + 1)
        for target in targets
        for side in "AB"
    }
    if missing := sorted(wanted - set(shapes)):
        raise AdapterError(f"{path}: {missing[0]} is missing; download it again")
    if extra := sorted(set(shapes) - wanted):
        raise AdapterError(f"{path}: {extra[0]} is not among the target_modules of {CONFIG}")


def _check_values(path: Path) -> None:
    acts = False
    with safe_open(path, framework="pt") as file:
        for key in file.keys():
            tensor = file.get_tensor(key)
            if not torch.isfinite(tensor).all():
                raise AdapterError(f"{path}: {key} holds values that are not finite; train it again")
            if not acts and ".lora_B." in key and tensor.any():
                acts = bool(file.get_tensor(key.replace(".lora_B.", ".lora_A.")).any())
    if not acts:
        raise AdapterError(f"{path}: all products of its matrices are zero, so it changes nothing; train it first")


def check_base(adapter: Adapter, model: PreTrainedModel, fingerprint: str, name: str = "") -> str:
    """Raises `AdapterError` unless the adapter was made for this base: its fingerprint (`base_models.fingerprint`), its
    `name` where no fingerprint was recorded, and every layer and shape.

    The embedded model's adapters fit the model that it was made of too: a warning says so, otherwise it is "".
    """
    told = adapter.base_model or "a base model it does not name"
    meaning, depth = adapter.looked_up.meaning, len(model.model.layers)
    size = SUMMARIES * int(model.config.hidden_size)
    if meaning and (len(meaning.projection.center) != size or meaning.depth > depth):
        own = f"{len(meaning.projection.center):,} features after {meaning.depth} layers"
        raise AdapterError(
            f"{adapter.name}: {MEANING} is of {own}, the loaded model has {size:,} and {depth} layers: {ADVICE}"
        )
    dequantised = adapter.base_fingerprint == embedded.FINGERPRINT != fingerprint and name == embedded.HUB_ID
    if adapter.base_fingerprint and adapter.base_fingerprint != fingerprint and not dequantised:
        raise AdapterError(
            f"{adapter.name} was trained on {told} (fingerprint {adapter.base_fingerprint[:16]}), the loaded model has "
            f"{fingerprint}: set BASE_MODEL to that model or choose another adapter"
        )
    if not adapter.base_fingerprint and (not name or adapter.base_model != name):
        raise AdapterError(
            f"{adapter.name} was trained on {told} and records no fingerprint, the loaded model is "
            f"{name or 'not named'}: choose an adapter with a {TRAINING} of train.lora"
        )
    layers = _check_fit(adapter.folder / WEIGHTS, _check_tensors(adapter.folder / WEIGHTS, adapter.rank), model)
    if meaning:
        _check_fit(adapter.folder / MEANING, {key: values.shape for key, values in meaning.lora.items()}, model)
    if len(layers) != model.config.num_hidden_layers:
        raise AdapterError(
            f"{adapter.name} has {len(layers)} layers, the loaded model has {model.config.num_hidden_layers}"
        )
    if not dequantised:
        return ""
    return (
        f"{adapter.name} was trained on weights of {name} that were dequantised from Q4_K_M, and the loaded ones never "
        "were quantised: what was measured of it may differ here"
    )


def _check_fit(path: Path, shapes: Mapping[str, Sequence[int]], model: PreTrainedModel) -> set[int]:
    """Raises `AdapterError` unless matrices of these shapes fit the model's; returns the numbers of their layers."""
    linear = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    layers = set()
    for key, shape in shapes.items():
        match = _KEY.fullmatch(key)
        assert match  # no other name passes an inspection
        module, side = match["module"], match["side"]
        if module not in linear:
            raise AdapterError(f"{path.parent.name} changes {module}, which the loaded model does not have")
        features = linear[module].in_features if side == "A" else linear[module].out_features
        if shape[1 if side == "A" else 0] != features:
            raise AdapterError(f"{path}: {key} has shape {[*shape]}, the loaded model needs {features} features there")
        layers.add(int(match["layer"]))
    return layers
