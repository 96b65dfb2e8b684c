"""What peft's adapter_config.json means: which modules learned, with which rank and scaling. It opens no weights."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from roleplay.adoption.origin import MLX
from roleplay.errors import AdapterError
from roleplay.weights.inspection import HARMLESS_STARTS, is_number, peft_defaults
from roleplay.weights.layout import MAX_ALPHA, MAX_RANK

MERGE = "train it again without that, or merge it with peft (merge_and_unload) and serve the result as BASE_MODEL"
MAX_PATTERNS = 400  # Gemma-2B has 126 projections; each is compared with each
# Keys that change nothing once a plain LoRA is trained; what they hold is neither used nor kept.
WITHOUT_EFFECT = {
    *("_from_model_config", "auto_mapping", "peft_version", "revision", "inference_mode", "lora_dropout"),
    *("fan_in_fan_out", "eva_config", "megatron_core", "qalora_group_size", "ensure_weight_tying", "runtime_config"),
}
REASONS = {
    "use_dora": "DoRA also rescales the rows of every weight",
    "bias": "biases of the base model were trained too",
    "lora_bias": "its matrices have biases",
    "modules_to_save": "whole modules were trained and saved beside the LoRA, such as embeddings, a head or norms",
    "trainable_token_indices": "embeddings of single tokens were trained too",
    "layer_replication": "layers of the base model are repeated",
    "target_parameters": "it changes bare parameters and not projections",
    "alora_invocation_tokens": "an activated LoRA acts only after a token of its own",
    "loftq_config": "LoftQ changed the base model's own weights",
}


@dataclass(frozen=True)
class Configuration:
    """A plain LoRA as peft reads it; a module is named as in the model that was trained."""

    rank: int
    alpha: float
    rslora: bool
    ranks: dict[str, int]  # where it differs, by an expression for the module's name
    alphas: dict[str, float]
    base_model: str  # as its trainer named it, "" where it did not
    targets: SimpleNamespace | None  # as peft asks it; None for an expression: the header says which modules there are

    def rank_of(self, module: str) -> int:
        return self.ranks.get(get_pattern_key(list(self.ranks), module), self.rank)

    def alpha_of(self, module: str) -> float:
        return self.alphas.get(get_pattern_key(list(self.alphas), module), self.alpha)

    def scaling_of(self, module: str) -> float:
        """What the product of a module's two matrices is multiplied by."""
        rank = self.rank_of(module)
        return self.alpha_of(module) / (math.sqrt(rank) if self.rslora else rank)

    def targets_module(self, module: str) -> bool:
        """Whether peft would load matrices of this module; not asked where `targets` is None."""
        return bool(check_target_module_exists(self.targets, module))


def read_configuration(config: Mapping[str, Any], path: Any) -> Configuration:
    """The meaning of a configuration; raises `AdapterError` with the reason where it is more than plain LoRA."""
    if {"fine_tune_type", "lora_parameters"} & set(config):
        raise AdapterError(f"{path}: {MLX}")
    checks = _checks()
    for key in ("peft_type", "r", "lora_alpha", "target_modules"):
        if key not in config:
            raise AdapterError(f"{path}: has no {key}; save the adapter again with peft")
    defaults = peft_defaults()
    for key, value in config.items():
        plain = key in WITHOUT_EFFECT or not value or value == defaults.get(key)
        if not (checks[key](value) if key in checks else plain):
            raise AdapterError(f"{path}: {key!s:.40} is {value!r:.80}: {_why(key, value)}")
    for pattern in [*(config.get("rank_pattern") or {}), *(config.get("alpha_pattern") or {})]:
        _check_pattern(pattern, path)
    return Configuration(
        rank=config["r"],
        alpha=config["lora_alpha"],
        rslora=bool(config.get("use_rslora")),
        ranks=dict(config.get("rank_pattern") or {}),
        alphas=dict(config.get("alpha_pattern") or {}),
        base_model=config.get("base_model_name_or_path") or "",
        targets=_targets(config, path),
    )


def _checks() -> dict[str, Callable[[Any], bool]]:
    """What the keys that mean something may hold."""
    return {
        "peft_type": lambda v: v == "LORA",
        "task_type": lambda v: v in (None, "CAUSAL_LM"),
        "base_model_name_or_path": lambda v: v is None or (isinstance(v, str) and len(v) <= 1000),
        "use_rslora": lambda v: v is None or isinstance(v, bool),
        "init_lora_weights": lambda v: v is None or isinstance(v, bool) or v in (*HARMLESS_STARTS, "eva"),
        "r": _is_rank,
        "lora_alpha": _is_alpha,
        "rank_pattern": lambda v: not v or (_are_patterns(v) and all(map(_is_rank, v.values()))),
        "alpha_pattern": lambda v: not v or (_are_patterns(v) and all(map(_is_alpha, v.values()))),
        "target_modules": lambda v: (isinstance(v, str) and v != "") or (_are_texts(v) and bool(v)),
        "exclude_modules": lambda v: not v or isinstance(v, str) or _are_texts(v),
        "layers_to_transform": lambda v: v is None or _is_index(v) or (isinstance(v, list) and all(map(_is_index, v))),
        "layers_pattern": lambda v: not v or isinstance(v, str) or _are_texts(v),
    }


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and is_number(value, 1, MAX_RANK)


def _is_alpha(value: Any) -> bool:
    return is_number(value, 1e-3, MAX_ALPHA)


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and is_number(value, 0, 10_000)


def _are_patterns(value: Any) -> bool:
    return isinstance(value, dict) and len(value) <= MAX_PATTERNS


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _why(key: str, value: Any) -> str:
    """Why an adapter with this setting is not taken in, and what to do."""
    if key in REASONS:
        return f"{REASONS[key]}, which the engine does not compute; {MERGE}"
    if key == "init_lora_weights":
        return (
            "that start changed the base model's own weights; save it as plain LoRA first, which peft does for some "
            "(save_pretrained with path_initial_model_for_weight_conversion)"
        )
    if key == "task_type":
        return "it was trained for another task than to go on with a text; train it with task_type CAUSAL_LM"
    if key in ("rank_pattern", "alpha_pattern") and not _are_patterns(value):
        return f"it must be an object of at most {MAX_PATTERNS} names; correct it, or train it again"
    if key in ("r", "rank_pattern"):
        return f"a rank is a whole number from 1 to {MAX_RANK}; correct it, or train it again"
    if key in ("lora_alpha", "alpha_pattern"):
        return f"an alpha is a number from 0.001 to {MAX_ALPHA}; correct it, or train it again"
    return f"only plain LoRA is taken in; {MERGE}"


def _check_pattern(pattern: str, path: Any) -> None:
    """Raises `AdapterError` for an expression that is none, or that could be slow: a stranger wrote it."""
    slow = len(pattern) > 300 or re.search(r"\)[*+{]", pattern) or sum(map(pattern.count, "*+{")) > 3
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        slow = True
    if slow:
        raise AdapterError(
            f"{path}: {pattern!r:.80} is no expression, or too involved; name modules there instead, such as q_proj"
        )


def _targets(config: Mapping[str, Any], path: Any) -> SimpleNamespace | None:
    """What peft looks at to say whether a module is meant, None where that is an expression or `all-linear`."""
    modules, excluded, pattern = (config.get(k) for k in ("target_modules", "exclude_modules", "layers_pattern"))
    if isinstance(modules, str):
        return None
    for expression in (*([excluded] if isinstance(excluded, str) else []), *_listed(pattern)):
        _check_pattern(expression, path)
    return SimpleNamespace(
        target_modules=set(modules or ()),
        exclude_modules=excluded,
        layers_to_transform=config.get("layers_to_transform"),
        layers_pattern=pattern,
    )


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
