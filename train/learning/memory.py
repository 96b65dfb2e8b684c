"""How much memory an update will take, and what follows from it, before anything runs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from roleplay.text.prompts import Example
from roleplay.weights.architectures import architecture_of, attention_cap
from train.learning.packing import common_prefix

FREE_SHARE = 0.6  # of the free memory, what activations may take without checkpointing
ENOUGH_TOKENS = {"cpu": 400, "cuda": 8192}  # in a pack: with more, the matrix products are hardly any faster


def activation_bytes(config: PreTrainedConfig, tokens: int, bytes_per_value: int, dropout: bool) -> int:
    """Bytes that a Gemma with LoRA on all seven projections keeps for its backward pass, without checkpointing.

    Counted from the tensors that autograd holds in a layer: the inputs of the norms and of the projections, queries,
    keys, values and what attention returns, three inner tensors of the MLP, and with dropout a byte for each value
    that goes into a LoRA matrix. What soft caps need is computed anew: see `capped_bytes`.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    heads, groups = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    kind = architecture_of(config)
    after, of_heads = bool(kind.after_attention) + bool(kind.after_mlp), bool(kind.heads)
    values = (4 + after) * hidden + 4 * inner + (3 + of_heads) * heads + (2 + of_heads) * groups
    masks = 5 * hidden + heads + inner if dropout else 0
    return tokens * config.num_hidden_layers * (values * bytes_per_value + masks)


def capped_bytes(config: PreTrainedConfig, tokens: int, bytes_per_value: int) -> int:
    """Bytes of one layer's soft-capped scores while their gradients are computed, 0 for a model without such.

    Checkpointing saves none of them. A GPU has those of the whole pack at once, a CPU those of a row.
    """
    if not attention_cap(config):
        return 0
    return config.num_attention_heads * tokens**2 * (12 + 2 * bytes_per_value)


def process_count() -> int:
    """How many processes `accelerate launch` started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Wishes:
    """What a run asks of its packs."""

    rows: int  # in a pack, at most
    may_shrink: bool  # whether fewer rows a pack are as welcome
    checkpointing: str = "auto"  # of activations: "auto", "on" or "off"
    dropout: bool = True
    processes: int = 1  # of this machine; they share its memory


@dataclass(frozen=True)
class PackPlan:
    """Rows in a pack, whether activations are recomputed, and the estimate behind both in words."""

    rows: int
    checkpointing: bool
    reason: str


def plan(model: PreTrainedModel, examples: Sequence[Example], share_prefix: bool, wishes: Wishes) -> PackPlan:
    """How to pack `examples` so that an update fits the memory that is free now.

    If they may shrink, rows become the next smaller part that makes up the same whole (16, 8, 4; 7, 1), as long as that
    many fill a pack, or the estimate exceeds what is free; where one row still does, checkpointing "auto" is on, for as
    many rows as their soft-capped scores leave room for.
    """
    prefix = common_prefix(examples) if share_prefix else 0
    mean = sum(len(example.input_ids) - prefix for example in examples) / len(examples)
    kind, rows = model.device.type, wishes.rows
    available = (
        torch.cuda.mem_get_info()[0] if kind == "cuda" else psutil.virtual_memory().available // wishes.processes
    )
    free = int(available * FREE_SHARE)

    def tokens(rows: int) -> int:
        return round(prefix + rows * mean)

    def capped(rows: int) -> int:
        return capped_bytes(model.config, tokens(rows), model.dtype.itemsize) if kind == "cuda" else 0

    def need(rows: int) -> int:
        return activation_bytes(model.config, tokens(rows), model.dtype.itemsize, wishes.dropout) + capped(rows)

    def fewer(rows: int) -> int:
        return next(part for part in range(rows // 2, 0, -1) if rows % part == 0)

    while wishes.may_shrink and rows > 1 and (tokens(fewer(rows)) >= ENOUGH_TOKENS[kind] or capped(rows) > free):
        rows = fewer(rows)
    enough = rows
    while wishes.may_shrink and rows > 1 and need(rows) > free:
        rows = fewer(rows)
    checkpoint = need(rows) > free if wishes.checkpointing == "auto" else wishes.checkpointing == "on"
    if checkpoint:
        rows = enough
    size = need(rows) / 1e9
    why = f"about {size:.1f} GB of activations for {rows} rows ({tokens(rows)} tokens), {free / 1e9:.1f} GB may be used"
    return PackPlan(rows, checkpoint, f"{'on' if checkpoint else 'off'}: {why}")
