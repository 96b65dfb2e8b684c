"""Gemma's forward pass for generation, over the weights of a loaded transformers model: few rows, no padding, LoRA.

Sequences of unequal length lie one after the other as rows of one matrix, so that every weight is read once for all
of them; a sequence's adapter acts on its own rows only. Projections that share an input are fused; no weight changes,
and the transformers model goes on working. Nothing here knows text or sampling.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from roleplay.engine.cache import KeyValues
from roleplay.engine.matrix import Matrix
from roleplay.engine.soft_caps import capped_attention, soft_cap
from roleplay.weights.architectures import Architecture, architecture_of, attention_cap, logit_cap

QKV, OUT, GATE_UP, DOWN = range(4)  # the four matrix products of a layer, in the order they happen
_PROJECTIONS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


def _fuse(modules: Sequence[nn.Linear]) -> Matrix:
    """One weight for projections of the same input; unless `Matrix` copies it, the modules keep views of it, so that
    memory does not grow."""
    fused = modules[0].weight.data if len(modules) == 1 else torch.cat([module.weight.data for module in modules])
    matrix = Matrix(fused)
    if len(modules) > 1 and not matrix.blocked:
        for module, part in zip(modules, fused.split([module.out_features for module in modules]), strict=True):
            module.weight.data = part
    return matrix


class _Pair(NamedTuple):
    down: Matrix  # (rank, in)
    up: Matrix  # (out, rank), scaled
    strength: float = 1.0  # by which the whole is multiplied


class Lora:
    """An adapter's matrices on the model's device, fused like the projections: A (rank, in), B (out, rank) with the
    scaling folded in."""

    def __init__(self, decoder: "Decoder", weights: Mapping[str, torch.Tensor], scaling: float) -> None:
        """`weights` has peft's keys, A (rank, in) and B (out, rank), for every layer or none of a projection."""
        self.layers = []
        for index, layer in enumerate(decoder.layers):
            pairs: list[_Pair | None] = []
            for names, sizes in zip(_PROJECTIONS, layer.sizes, strict=True):
                block = "mlp" if names[0] in ("gate_proj", "up_proj", "down_proj") else "self_attn"
                keys = [f"base_model.model.model.layers.{index}.{block}.{name}.lora_" for name in names]
                down = [weights[f"{key}A.weight"] for key in keys if f"{key}A.weight" in weights]
                # A projection without LoRA has a block of no columns in the block-diagonal B.
                up = [weights.get(f"{key}B.weight", torch.zeros(n, 0)) for key, n in zip(keys, sizes, strict=True)]
                if not down:
                    pairs.append(None)
                    continue
                whole = torch.block_diag(*up) * scaling
                pairs.append(_Pair(Matrix(decoder.like(torch.cat(down))), Matrix(decoder.like(whole))))
            self.layers.append(pairs)


@dataclass(frozen=True)
class Segment:
    """New tokens of one sequence, its past, and the adapter that it is computed with."""

    ids: Sequence[int]
    cache: KeyValues
    lora: Lora | None = None
    wanted: int = 1  # of how many of the last tokens the final hidden state is asked for


_Past = tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]


class _Norm:
    """Root-mean-square norm in float32 with the weight stored as its distance from one."""

    def __init__(self, *modules: Any, repeats: Sequence[int] = (1,)) -> None:
        """Several norms of the same size act on neighbouring heads: `repeats` says on how many each."""
        rows = [(1.0 + m.weight.data.float()).expand(n, -1) for m, n in zip(modules, repeats, strict=True)]
        size = rows[0].shape[-1]
        self.weight, self.eps = torch.cat(rows) * math.sqrt(size), modules[0].eps * size

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        # Of the sum of squares instead of their mean: `F.rms_norm` takes three times as long for a few rows on a CPU.
        wide = x.float()
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().add_(self.eps).rsqrt_()
        return (wide * inverse).mul_(self.weight).to(x.dtype)


class _Layer:
    """One layer's fused weights (out, in) and its norms, by reference."""

    def __init__(self, layer: Any, kind: Architecture, cap: float) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        groups = [
            [getattr(mlp if n[0] in ("gate_proj", "down_proj") else attention, p) for p in n] for n in _PROJECTIONS
        ]
        self.sizes = [[module.out_features for module in modules] for modules in groups]
        self.products = [_fuse(modules) for modules in groups]
        self.activation = mlp.act_fn
        self.scaling = attention.scaling
        self.heads = self.sizes[QKV][0] // attention.head_dim
        self.kv_heads = self.sizes[QKV][1] // attention.head_dim
        self.cap = cap
        self.kind = attention.layer_type if kind.rotary_by_kind else ""
        self.window: int = getattr(attention, "sliding_window", None) or 0  # 0: it sees everything
        of_heads = [getattr(attention, name) for name in kind.heads]
        self.heads_norm = _Norm(*of_heads, repeats=(self.heads, self.kv_heads)) if of_heads else None
        self.before_attention, self.before_mlp = _Norm(layer.input_layernorm), _Norm(getattr(layer, kind.before_mlp))
        self.after_attention, self.after_mlp = (
            _Norm(getattr(layer, name)) if name else None for name in (kind.after_attention, kind.after_mlp)
        )

    def project(
        self, which: int, x: torch.Tensor, updates: Sequence[tuple[slice, Sequence[_Pair | None]]]
    ) -> torch.Tensor:
        """One of the four products of x (tokens, in), with every adapter's update on its own rows."""
        y = self.products[which](x)
        for part, pairs in updates:
            if pair := pairs[which]:
                within = pair.down(x[part])
                pair.up.add_to(y[part], within * pair.strength if pair.strength != 1 else within)
        return y


class Decoder:
    """A Gemma text model ready to generate; raises `ModelError` for one that it does not compute."""

    def __init__(self, model: PreTrainedModel) -> None:
        config, inner = model.config, model.model
        kind = architecture_of(config)
        self.rotary_by_kind, self.logit_cap = kind.rotary_by_kind, logit_cap(config)
        self.vocabulary: int = config.vocab_size
        self.embedding = inner.embed_tokens
        self.head_product = Matrix(model.lm_head.weight.data)
        self.layers = [_Layer(layer, kind, attention_cap(config)) for layer in inner.layers]
        self.final_norm = _Norm(inner.norm)
        self.rotary = inner.rotary_emb
        self.head_size: int = config.head_dim

    @property
    def device(self) -> torch.device:
        """Asked anew each time: on ZeroGPU the weights move to the GPU that is lent for a call."""
        return self.head_product.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.head_product.weight.dtype

    @property
    def promise(self) -> str:
        """What a row's neighbours in a step change in its scores."""
        if self.head_product.blocked:  # that kernel gives a row the same bits beside any others
            return "an answer is the same to the bit whoever else is answered, while its chat's cache is kept"
        return "others' answers move an answer's scores by rounding alone"

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` in the model's dtype and on its device."""
        return tensor.to(self.device, self.dtype)

    def new_cache(self) -> KeyValues:
        return KeyValues(len(self.layers), self.layers[0].kv_heads, self.head_size, self.dtype, self.device)

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> torch.Tensor:
        """The final hidden states that the segments want, (tokens, hidden); their caches grow by the tokens.

        When it fails, no cache has changed.
        """
        # The rows of one adapter are neighbours, so that a product is corrected once an adapter and not once a row.
        order = sorted(range(len(segments)), key=lambda number: id(segments[number].lora))
        segments = [segments[number] for number in order]
        ends = [segment.cache.length + len(segment.ids) for segment in segments]
        for segment, end in zip(segments, ends, strict=True):
            segment.cache.reserve(end)
        starts = itertools.accumulate((len(segment.ids) for segment in segments), initial=0)
        rows = [slice(start, start + len(segment.ids)) for start, segment in zip(starts, segments, strict=False)]
        ids = torch.tensor([i for segment in segments for i in segment.ids], device=self.device)
        positions = [
            torch.arange(s.cache.length, end, device=self.device) for s, end in zip(segments, ends, strict=True)
        ]
        x = self.embedding(ids)
        rotations = self._rotations(x, torch.cat(positions))
        counts = [len(segment.ids) for segment in segments]
        views = {window: [_View(p, window) for p in positions] for window in {layer.window for layer in self.layers}}
        new = [s.cache.part(s.cache.length, end).unbind(1) for s, end in zip(segments, ends, strict=True)]
        pasts = {window: self._pasts(segments, ends, own) for window, own in views.items()}
        adapters = _by_adapter(segments, rows)
        for index, layer in enumerate(self.layers):
            updates = [(part, lora.layers[index]) for part, lora in adapters]
            qkv = layer.project(QKV, layer.before_attention(x), updates).view(len(x), -1, self.head_size)
            qk, value = qkv.split([layer.heads + layer.kv_heads, layer.kv_heads], dim=1)
            qk = layer.heads_norm(qk) if layer.heads_norm else qk
            cos, sin = rotations[layer.kind]
            # sin has its first half negated, so that swapping the halves of a head completes the rotation.
            qk = qk * cos + qk.roll(self.head_size // 2, -1) * sin
            keys_values = torch.stack([qk[:, layer.heads :], value]).transpose(1, 2)
            torch._foreach_copy_([own[index] for own in new], list(keys_values.split(counts, dim=2)))
            query = qk[:, : layer.heads].view(len(x), layer.kv_heads, -1, self.head_size).permute(1, 2, 0, 3)
            mixed = [
                _attend(own, keys[index], values[index], view, layer)
                for own, (keys, values), view in zip(
                    query.split(counts, dim=2), pasts[layer.window], views[layer.window], strict=True
                )
            ]
            y = layer.project(OUT, torch.cat(mixed, 2).permute(2, 0, 1, 3).reshape(len(x), -1), updates)
            x = x + (layer.after_attention(y) if layer.after_attention else y)
            gate, up = layer.project(GATE_UP, layer.before_mlp(x), updates).chunk(2, dim=-1)
            y = layer.project(DOWN, layer.activation(gate) * up, updates)
            x = x + (layer.after_mlp(y) if layer.after_mlp else y)
        for segment, end in zip(segments, ends, strict=True):
            segment.cache.length = end
        last = [range(part.stop - s.wanted, part.stop) for s, part in zip(segments, rows, strict=True)]
        as_asked = sorted(zip(order, last, strict=True))
        return self.final_norm(x[[at for _, part in as_asked for at in part]])

    @torch.inference_mode()
    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (rows, vocabulary) in float32 of final hidden states (rows, hidden)."""
        return soft_cap(self.head_product(hidden).float(), self.logit_cap)

    def _pasts(self, segments: Sequence[Segment], ends: Sequence[int], views: Sequence["_View"]) -> list[_Past]:
        """What each segment sees: keys and values of every layer, (kv heads, group, past, head size).

        Query heads that share a key head are a dimension of their own, so keys are never repeated in memory. It is cut
        out once a step and row for all layers: what is done a layer and row is paid by every token of everyone.
        """
        group = self.layers[0].heads // self.layers[0].kv_heads
        pasts = []
        for segment, end, view in zip(segments, ends, views, strict=True):
            seen = segment.cache.part(view.first, end)[:, :, :, None].expand(-1, -1, -1, group, -1, -1)
            keys, values = seen.unbind()
            pasts.append((keys.unbind(), values.unbind()))
        return pasts

    def _rotations(self, x: torch.Tensor, positions: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Cosine and signed sine, (tokens, 1, head size), for every kind of layer."""
        rotations = {}
        for kind in {layer.kind for layer in self.layers}:
            arguments = (x, positions[None], kind) if self.rotary_by_kind else (x, positions[None])
            cos, sin = self.rotary(*arguments)
            sin[..., : self.head_size // 2].neg_()
            rotations[kind] = cos[0, :, None], sin[0, :, None]
        return rotations


def _by_adapter(segments: Sequence[Segment], rows: Sequence[slice]) -> list[tuple[slice, Lora]]:
    """Each adapter with all of its rows, which are neighbours."""
    adapters = []
    for lora, own in itertools.groupby(zip(segments, rows, strict=True), key=lambda pair: pair[0].lora):
        parts = [part for _, part in own]
        if lora:
            adapters.append((slice(parts[0].start, parts[-1].stop), lora))
    return adapters


class _View:
    """Which past tokens the new ones at `positions` see: those from `first` on, less what `mask` (new, past) hides."""

    def __init__(self, positions: torch.Tensor, window: int) -> None:
        start, end = int(positions[0]), int(positions[-1]) + 1
        self.first = max(0, start - window + 1) if window else 0
        self.causal = start == 0 and (not window or end <= window)  # then no mask is needed
        self.mask = None
        if len(positions) > 1 and not self.causal:
            past = torch.arange(self.first, end, device=positions.device)
            distance = positions[:, None] - past
            self.mask = (distance >= 0) & (distance < window) if window else distance >= 0


def _attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, view: _View, layer: _Layer) -> torch.Tensor:
    """Attention of the new tokens of one sequence, all (kv heads, group, tokens or past, head size)."""
    tokens = query.shape[2]
    causal = view.causal and tokens > 1
    if layer.cap:
        seen = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril() if causal else view.mask
        return capped_attention(query * layer.scaling, keys, values, seen, layer.cap)
    return F.scaled_dot_product_attention(
        query, keys, values, attn_mask=view.mask, is_causal=causal, scale=layer.scaling
    )
