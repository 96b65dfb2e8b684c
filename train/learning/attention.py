"""Attention inside a pack: every row sees the shared prefix and itself, and nothing else."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from roleplay.engine.soft_caps import capped_attention

ATTENTION = "shared_prefix"  # the name under which transformers finds `shared_prefix_attention`


@dataclass
class Pack:
    """The structure of a packed row: tokens in the prefix, then in each row's own part."""

    prefix: int
    parts: list[int]
    _masks: dict[tuple[int, int], list[torch.Tensor]] = field(default_factory=dict, repr=False)
    _whole: dict[int, torch.Tensor] = field(default_factory=dict, repr=False)  # by window

    def masks(self, heads_per_group: int, window: int, like: torch.Tensor) -> list[torch.Tensor]:
        """Additive masks (heads_per_group * queries, keys) of the prefix and of every part; built once a batch.

        `window` is how many keys a query sees, itself included; 0 for all before it.
        """
        key = heads_per_group, window
        if key not in self._masks:
            hidden = _unseen(torch.arange(self.prefix + max(self.parts, default=0)), window)
            full = torch.zeros(hidden.shape, dtype=like.dtype).masked_fill_(hidden, float("-inf")).to(like.device)
            spans = [(0, self.prefix), *((self.prefix, self.prefix + part) for part in self.parts)]
            self._masks[key] = [full[start:end, :end].repeat(heads_per_group, 1) for start, end in spans]
        return self._masks[key]

    def mask(self, window: int, like: torch.Tensor) -> torch.Tensor:
        """Additive mask of the whole pack, (tokens, tokens), with `window` as in `masks`; built once a batch.

        A row of it is 16 values wide or a multiple: else every layer of a GPU would make, and keep, its own copy.
        """
        if window not in self._whole:
            parts = list(enumerate([self.prefix, *self.parts]))
            part = torch.cat([torch.full((n,), i) for i, n in parts])
            position = torch.cat([torch.arange(n) + self.prefix * (i > 0) for i, n in parts])
            hidden = (part != part[:, None]) & (part > 0) | _unseen(position, window)
            full = torch.zeros(len(part), -(-len(part) // 16) * 16, dtype=like.dtype)
            full[:, : len(part)].masked_fill_(hidden, float("-inf"))
            self._whole[window] = full.to(like.device)[:, : len(part)]
        return self._whole[window]


def _unseen(positions: torch.Tensor, window: int) -> torch.Tensor:
    """Which keys (columns) a query (row) may not see for their positions alone: later ones, and those `window` back."""
    hidden = positions > positions[:, None]
    return hidden | (positions <= positions[:, None] - window) if window else hidden


class Heads(NamedTuple):
    query: torch.Tensor  # (1, heads, tokens, size)
    key: torch.Tensor  # (1, groups, tokens, size)
    value: torch.Tensor  # as key


class Scores(NamedTuple):
    """What products of queries and keys go through before the softmax."""

    scaling: float
    window: int = 0  # as in `Pack.masks`
    cap: float = 0.0  # soft, 0 for none


def shared_prefix_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    pack: Pack,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention inside every part of a pack: query (1, heads, tokens, dim), key and value (1, groups, tokens, dim).

    Returns (1, tokens, heads, dim). A GPU, which waits for the next kernel rather than for products, masks one product
    over the whole pack; a CPU computes part after part, none of them between tokens that may not see each other.
    """
    attend = _attend_by_part if query.device.type == "cpu" else _attend_at_once
    return attend(Heads(query, key, value), pack, Scores(scaling, sliding_window or 0, softcap or 0.0)), None


def _attend(heads: Heads, mask: torch.Tensor, scores: Scores) -> torch.Tensor:
    """Attention under an additive mask; soft-capped scores are computed again for the gradients and never kept."""
    if not scores.cap:
        return F.scaled_dot_product_attention(*heads, attn_mask=mask, scale=scores.scaling)
    query, key, value = heads
    capped = capped_attention, query * scores.scaling, key, value, mask, scores.cap
    attended: torch.Tensor = checkpoint(*capped, use_reentrant=False)
    return attended


def _attend_at_once(heads: Heads, pack: Pack, scores: Scores) -> torch.Tensor:
    query, groups = heads.query, heads.key.shape[1]
    key, value = (t.repeat_interleave(query.shape[1] // groups, 1) for t in heads[1:])
    return _attend(Heads(query, key, value), pack.mask(scores.window, query), scores).transpose(1, 2)


def _attend_by_part(heads: Heads, pack: Pack, scores: Scores) -> torch.Tensor:
    query, key, value = heads
    groups, per_group = key.shape[1], query.shape[1] // key.shape[1]
    lengths = [pack.prefix, *pack.parts]
    masks = pack.masks(per_group, scores.window, query)
    keys, values = key.split(lengths, 2), value.split(lengths, 2)
    outputs = []
    for part, (mask, q) in enumerate(zip(masks, query.split(lengths, 2), strict=True)):
        k, v = keys[part], values[part]
        if part > 0:
            k, v = torch.cat((keys[0], k), 2), torch.cat((values[0], v), 2)
        # The heads of a group share keys and values, so their queries are rows of one product.
        folded = q.reshape(1, groups, per_group * q.shape[2], q.shape[3])
        attended = _attend(Heads(folded, k, v), mask, scores)
        outputs.append(attended.reshape(q.shape).transpose(1, 2))
    return torch.cat(outputs, 1)


AttentionInterface.register(ATTENTION, shared_prefix_attention)
