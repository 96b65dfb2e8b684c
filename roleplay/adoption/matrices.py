"""A foreign adapter's matrices as one of ours holds them: one rank, one scaling, every layer; the products stay.

Our folders know no rank or scaling of a single layer. Where they differ, matrices are padded with zeros to the largest
rank, and each scaling goes into its B. A layer that did not learn gets zeros.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch.nn.functional import pad
from transformers import PreTrainedModel

from roleplay.adoption.configuration import Configuration
from roleplay.adoption.keys import Pair, Place
from roleplay.errors import AdapterError
from roleplay.weights.adapters import PROJECTIONS
from roleplay.weights.layout import CONFIG, MAX_ALPHA


@dataclass(frozen=True)
class Plain:
    """A LoRA with one rank and one scaling: tensors by peft's key, and what was done to have it so."""

    rank: int
    alpha: float
    rslora: bool
    projections: list[str]
    tensors: dict[str, torch.Tensor]
    changes: list[str]


def check_fit(pairs: Mapping[Place, Pair], config: Configuration, model: PreTrainedModel, path: Path) -> None:
    """Raises `AdapterError` unless peft would load exactly these matrices, with this configuration, on this model."""
    places = projections_of(model)
    for place, pair in pairs.items():
        if place not in places:
            raise AdapterError(f"{path}: {pair.module} is not in the base model, which has {_layers(places)} layers")
        if pair.features != places[place]:
            sizes = f"{pair.features[0]} to {pair.features[1]} features, the base model has {places[place][0]} to"
            raise AdapterError(
                f"{path}: {pair.module} maps {sizes} {places[place][1]} there; give its own --base-model"
            )
        if pair.rank != config.rank_of(pair.module):
            told = f"{CONFIG} says {config.rank_of(pair.module)}"
            raise AdapterError(f"{path}: {pair.module} has rank {pair.rank}, {told}; save the adapter again")
        if config.targets and not config.targets_module(pair.module):
            raise AdapterError(f"{path}: {pair.module} is not among the target_modules of {CONFIG}; save it again")
    if not config.targets:
        return
    for layer, projection in places.keys() - pairs.keys():
        start = next(iter(pairs.values())).module.rpartition("layers.")[0]
        module = f"{start}layers.{layer}.{PROJECTIONS[projection]}.{projection}"
        if config.targets_module(module):
            raise AdapterError(f"{path}: {module} is missing, which {CONFIG} names; download it again")


def projections_of(model: PreTrainedModel) -> dict[Place, tuple[int, int]]:
    """In and out features of every projection of a model, by its place."""
    found = {}
    for name, module in model.named_modules():
        parts = name.split(".")
        if isinstance(module, torch.nn.Linear) and parts[0] == "model" and parts[-1] in PROJECTIONS:
            found[int(parts[2]), parts[-1]] = (module.in_features, module.out_features)
    return found


def _layers(places: Mapping[Place, tuple[int, int]]) -> int:
    return 1 + max(layer for layer, _ in places)


def convert(
    pairs: Mapping[Place, Pair], config: Configuration, places: Mapping[Place, tuple[int, int]], path: Path
) -> Plain:
    """The same LoRA with one rank and one scaling, for every layer of the model that `places` is of."""
    rank, alpha, rslora, folded = _common(pairs, config)
    projections = sorted({projection for _, projection in pairs})
    tensors = {}
    with safe_open(path, framework="pt") as file:
        for (layer, projection), (inputs, outputs) in places.items():
            if projection not in projections:
                continue
            pair = pairs.get((layer, projection))
            key = f"base_model.model.model.layers.{layer}.{PROJECTIONS[projection]}.{projection}.lora_"
            a = file.get_tensor(pair.a) if pair else torch.zeros(rank, inputs)
            b = file.get_tensor(pair.b) if pair else torch.zeros(outputs, rank)
            if folded and pair:  # in float32, so that nothing is lost of a 16-bit matrix
                b = b.float() * config.scaling_of(pair.module)
            tensors[f"{key}A.weight"] = pad(a, (0, 0, 0, rank - a.shape[0])).contiguous()
            tensors[f"{key}B.weight"] = pad(b, (0, rank - b.shape[1])).contiguous()
    return Plain(rank, alpha, rslora, projections, tensors, _changes(pairs, folded, _layers(places) * len(projections)))


def _common(pairs: Mapping[Place, Pair], config: Configuration) -> tuple[int, float, bool, bool]:
    """The rank, alpha and rsLoRA of all, and whether scalings go into the matrices for it."""
    rank = max(pair.rank for pair in pairs.values())
    scalings = {config.scaling_of(pair.module) for pair in pairs.values()}
    alphas = {config.alpha_of(pair.module) for pair in pairs.values()}
    if len(scalings) > 1:
        return rank, rank, False, True
    if len(alphas) == 1 and len({pair.rank for pair in pairs.values()}) == 1:
        return rank, alphas.pop(), config.rslora, False
    scaling = scalings.pop()
    fits = scaling * rank / rank == scaling and 1e-3 <= scaling * rank <= MAX_ALPHA and math.isfinite(scaling)
    return (rank, scaling * rank, False, False) if fits else (rank, rank, False, True)


def _changes(pairs: Mapping[Place, Pair], folded: bool, places: int) -> list[str]:
    ranks = sorted({pair.rank for pair in pairs.values()})
    changes = [f"matrices of rank {ranks[0]} and more padded with zeros to {ranks[-1]}"] if len(ranks) > 1 else []
    changes += ["scalings that differed multiplied into the B matrices"] if folded else []
    changes += [f"zeros for {places - len(pairs)} projections that did not learn"] if places > len(pairs) else []
    return changes
