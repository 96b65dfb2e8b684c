"""Gemma's forward pass for generation, over the weights of a loaded transformers model: few rows, no padding, LoRA.

Sequences of unequal length lie one after the other as rows of one matrix, so that every weight is read once for all
of them; a sequence's adapter acts on its own rows only. Projections that share an input are fused; no weight changes,
and the transformers model goes on working. Nothing here knows text or sampling.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from transformers import PreTrainedModel

from roleplay.engine.attention import View, attend
from roleplay.engine.cache import KeyValues
from roleplay.engine.matrix import Int8Matrix, Matrix, Product, fewest_rows, fuse, is_blocked
from roleplay.engine.norm import Norm
from roleplay.engine.soft_caps import soft_cap
from roleplay.weights.architectures import Architecture, architecture_of, attention_cap, logit_cap

QKV, OUT, GATE_UP, DOWN = range(4)  # the four matrix products of a layer, in the order they happen
_PROJECTIONS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


class _Pair(NamedTuple):
    down: Matrix  # (rank, in)
    up: Matrix  # (out, rank), scaled


class Lora:
    """An adapter's matrices on the model's device, fused like the projections: A (rank, in), B (out, rank) with the
    scaling folded in."""

    strength = 1.0  # by which the whole is multiplied

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

    @property
    def end(self) -> int:
        """How many tokens the sequence has with the new ones."""
        return self.cache.length + len(self.ids)


class _Update(NamedTuple):
    """Where an adapter acts: on `rows`, less the `others` (rows, 1) that are not its own."""

    lora: Lora
    rows: slice
    others: torch.Tensor | None


class Step(Protocol):
    """What differs between steps: how tokens attend, and how adapters act."""

    ids: torch.Tensor  # of all tokens
    positions: torch.Tensor

    def mix(self, layer: "Layer", query: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        """Attention of `query` (tokens, heads, head size) to what is held of each token's sequence, which
        `keys_values` (2, kv heads, tokens, head size) join; (tokens, heads * head size)."""

    def correct(self, layer: "Layer", which: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """`y` (tokens, out), one of the layer's products of `x`, with every adapter's update on its own rows."""


class EagerStep:
    """What the layers share in one forward pass over `segments`, those of one adapter neighbours.

    Where there are fewer tokens than `fewest`, rows that nobody reads fill it up, once and not for every product.
    """

    def __init__(self, segments: Sequence[Segment], decoder: "Decoder") -> None:
        self.segments, fewest, device = segments, fewest_rows(decoder.embedding.weight), decoder.device
        for segment in segments:
            segment.cache.reserve(segment.end)
        counts = [len(segment.ids) for segment in segments]
        self.counts = [*counts, max(0, fewest - sum(counts))]
        ids = [token for segment in segments for token in segment.ids]
        positions = [position for s in segments for position in range(s.cache.length, s.end)]
        filling = [0] * self.counts[-1]
        self.ids, self.positions = torch.tensor([ids + filling, positions + filling], device=device)
        self.new = [s.cache.part(s.cache.length, s.end).unbind(1) for s in segments]
        whole = [View(s.cache, len(s.ids)) for s in segments]
        self.views = {
            window: [
                View(s.cache, len(s.ids), window) if 0 < window < s.end else view
                for s, view in zip(segments, whole, strict=True)
            ]
            for window in {layer.window for layer in decoder.layers}
        }
        self.updates = list(self._updates(fewest))

    def _updates(self, fewest: int) -> Iterator[_Update]:
        """Every adapter with its rows, and where these are fewer than `fewest`, with some beside them."""
        start, read, total = 0, sum(self.counts[:-1]), len(self.ids)
        for lora, own in itertools.groupby(self.segments, key=lambda segment: segment.lora):
            end = start + sum(len(segment.ids) for segment in own)
            end = total if end == read else end  # the rows that nobody reads are the last one's
            first = max(0, min(start, total - fewest))
            last = max(end, first + fewest)
            if lora:
                numbers = torch.arange(first, last, device=self.ids.device)[:, None]
                others = (numbers < start) | (numbers >= end) if last - first > end - start else None
                yield _Update(lora, slice(first, last), others)
            start = end

    def mix(self, layer: "Layer", query: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        *new, _ = keys_values.split(self.counts, dim=2)
        torch._foreach_copy_([own[layer.index] for own in self.new], new)
        *queries, filling = query.view(len(query), layer.kv_heads, -1, layer.head_size).split(self.counts)
        mixed = [
            attend(own, view, layer.index, layer.scaling, layer.cap)
            for own, view in zip(queries, self.views[layer.window], strict=True)
        ]
        return torch.cat([*mixed, filling]).reshape(len(query), -1)

    def correct(self, layer: "Layer", which: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for lora, rows, others in self.updates:
            if pair := lora.layers[layer.index][which]:
                within = pair.down(x[rows])
                within = within * lora.strength if lora.strength != 1 else within
                within = within if others is None else within.masked_fill(others, 0.0)
                own = y[rows]
                updated = pair.up.add_to(own, within)
                if len(updated) == len(y):
                    y = updated
                elif updated is not own:
                    own.copy_(updated)
        return y

    def finish(self) -> None:
        """The caches hold the tokens."""
        for segment in self.segments:
            segment.cache.length = segment.end


class Layer:
    """One layer's fused weights (out, in) and its norms, by reference."""

    def __init__(self, layer: Any, kind: Architecture, cap: float, index: int, product: Product) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        groups = [
            [getattr(mlp if n[0] in ("gate_proj", "down_proj") else attention, p) for p in n] for n in _PROJECTIONS
        ]
        self.index = index
        self.sizes = [[module.out_features for module in modules] for modules in groups]
        self.products = [fuse(modules, product) for modules in groups]
        self.activation = mlp.act_fn
        self.scaling = attention.scaling
        self.head_size: int = attention.head_dim
        self.heads = self.sizes[QKV][0] // self.head_size
        self.kv_heads = self.sizes[QKV][1] // self.head_size
        self.cap = cap
        self.kind = attention.layer_type if kind.rotary_by_kind else ""
        self.window: int = getattr(attention, "sliding_window", None) or 0  # 0: it sees everything
        of_heads = [getattr(attention, name) for name in kind.heads]
        self.heads_norm = Norm(*of_heads, repeats=(self.heads, self.kv_heads)) if of_heads else None
        self.before_attention, self.before_mlp = Norm(layer.input_layernorm), Norm(getattr(layer, kind.before_mlp))
        self.after_attention, self.after_mlp = (
            Norm(getattr(layer, name)) if name else None for name in (kind.after_attention, kind.after_mlp)
        )

    def __call__(self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor], step: Step) -> torch.Tensor:
        """The layer's output for x (tokens, hidden); the tokens' keys and values are in their caches then."""
        qkv = self._project(QKV, self.before_attention(x), step).view(len(x), -1, self.head_size)
        qk, value = qkv.split([self.heads + self.kv_heads, self.kv_heads], dim=1)
        qk = self.heads_norm(qk) if self.heads_norm else qk
        cos, sin = rotation
        # sin has its first half negated, so that swapping the halves of a head completes the rotation.
        qk = qk * cos + qk.roll(self.head_size // 2, -1) * sin
        query, key = qk.split([self.heads, self.kv_heads], dim=1)
        keys_values = torch.stack([key, value]).transpose(1, 2)
        y = self._project(OUT, step.mix(self, query, keys_values), step)
        x = x + (self.after_attention(y) if self.after_attention else y)
        gate, up = self._project(GATE_UP, self.before_mlp(x), step).chunk(2, dim=-1)
        y = self._project(DOWN, self.activation(gate) * up, step)
        return x + (self.after_mlp(y) if self.after_mlp else y)

    def _project(self, which: int, x: torch.Tensor, step: Step) -> torch.Tensor:
        """One of the four products of x (tokens, in)."""
        return step.correct(self, which, x, self.products[which](x))


class Decoder:
    """A Gemma text model ready to generate; with `int8` by `Int8Matrix`, but for adapters and attention.

    Raises `ModelError` for one that it does not compute.
    """

    def __init__(self, model: PreTrainedModel, int8: bool = False) -> None:
        config, inner = model.config, model.model
        kind, cap, product = architecture_of(config), attention_cap(config), Int8Matrix if int8 else Matrix
        self.int8 = int8
        self.rotary_by_kind, self.logit_cap = kind.rotary_by_kind, logit_cap(config)
        self.vocabulary: int = config.vocab_size
        self.embedding = inner.embed_tokens
        self.head_product = product(model.lm_head.weight.data)
        self.layers = [Layer(layer, kind, cap, index, product) for index, layer in enumerate(inner.layers)]
        self.final_norm = Norm(inner.norm)
        self.rotary = inner.rotary_emb
        self.head_size: int = config.head_dim

    @property
    def device(self) -> torch.device:
        """Asked anew each time: on ZeroGPU the weights move to the GPU that is lent for a call."""
        device: torch.device = self.embedding.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.embedding.weight.dtype
        return dtype

    @property
    def promise(self) -> str:
        """What a row's neighbours in a step change in its scores."""
        if is_blocked(self.embedding.weight):  # that kernel gives a row the same bits beside any others
            return "an answer is the same to the bit whoever else is answered, while its chat's cache is kept"
        exact = self.dtype == torch.float32 and self.device.type == "cpu" and not self.int8
        kept = ", and the greedy text stays the same" * exact
        return f"others' answers move an answer's scores by rounding alone{kept}"

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
        step = EagerStep([segments[number] for number in order], self)
        x = self.through(step)
        step.finish()
        ends = itertools.accumulate(step.counts)
        last = [range(end - s.wanted, end) for s, end in zip(step.segments, ends, strict=False)]
        as_asked = sorted(zip(order, last, strict=True))
        return self.final_norm(x[[at for _, part in as_asked for at in part]])

    def through(self, step: Step, depth: int | None = None) -> torch.Tensor:
        """All tokens of a step through all layers or the first `depth`, (tokens, hidden)."""
        x = self.embedding(step.ids)
        rotations = self._rotations(x, step.positions)
        for layer in self.layers[:depth]:
            x = layer(x, rotations[layer.kind], step)
        return x

    @torch.inference_mode()
    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (rows, vocabulary) in float32 of final hidden states (rows, hidden)."""
        return soft_cap(self.head_product(hidden).float(), self.logit_cap)

    def _rotations(self, x: torch.Tensor, positions: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Cosine and signed sine, (tokens, 1, head size), for every kind of layer."""
        rotations = {}
        for kind in {layer.kind for layer in self.layers}:
            arguments = (x, positions[None], kind) if self.rotary_by_kind else (x, positions[None])
            cos, sin = self.rotary(*arguments)
            sin[..., : self.head_size // 2].neg_()
            rotations[kind] = cos[0, :, None], sin[0, :, None]
        return rotations
