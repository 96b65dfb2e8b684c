"""Steps of fixed shapes, in which every row grows by one token: what a CUDA graph replays without launching kernels.

A step of few rows keeps a GPU waiting for some thousand kernels to be launched one by one. Here all that changes from
one step to the next is in tensors that stay where they are: the rows' keys and values lie side by side, and what a row
sees, where it writes and which adapter corrects it are masks and indices. Rows and positions are rounded up to powers
of two, so that few graphs serve. Prompts, longer conversations and CPUs are computed by `Decoder.forward`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from roleplay.engine.cache import KeyValues
from roleplay.engine.decoder import Decoder, Layer, Lora, Segment
from roleplay.engine.soft_caps import capped_attention
from roleplay.errors import AdapterError, first_line
from roleplay.weights.probe import kl_to_base

ROWS, POSITIONS = 32, 2048  # at most; of Gemma-2B these are 1.2 GB
MEMORY_SHARE = 0.25  # of what is free at the start, for the keys and values of all rows
FEWEST_POSITIONS = 256
ADAPTERS = 4  # that are kept side by side, of those used so far
MAX_KL = 1e-3  # nat, from `Decoder.forward`, as `apple` has it


class Seats:
    """Keys and values of several sequences side by side, (2, layers, rows, heads, positions, head size)."""

    def __init__(self, decoder: Decoder, rows: int, positions: int) -> None:
        heads, size = decoder.layers[0].kv_heads, decoder.head_size
        shape = 2, len(decoder.layers), rows, heads, positions, size
        self.store = torch.zeros(shape, dtype=decoder.dtype, device=decoder.device)
        self._taken: list[KeyValues | None] = [None] * rows

    def seat(self, caches: Sequence[KeyValues]) -> list[int]:
        """Where the caches are held now; those of others are moved out, each to a store of its own."""
        for number, cache in enumerate(self._taken):
            if cache and not cache.is_in(self.store[:, :, number]):  # it has outgrown its seat
                self._taken[number] = None
            elif cache and not any(cache is other for other in caches):
                self.free(cache)
        return [self._seat(cache) for cache in caches]

    def free(self, cache: KeyValues) -> None:
        """Have `cache` held in a store of its own, where it was held here."""
        for number, other in enumerate(self._taken):
            if other is cache:
                if cache.is_in(self.store[:, :, number]):
                    cache.move(cache.new_store(cache.length))
                self._taken[number] = None

    def _seat(self, cache: KeyValues) -> int:
        for number, other in enumerate(self._taken):
            if other is cache:
                return number
        number = self._taken.index(None)
        seat = self.store[:, :, number]
        seat[:, :, :, cache.length :].zero_()  # hidden values are multiplied with zero, and so must be finite
        cache.move(seat)
        self._taken[number] = cache
        return number


class _Stacked(NamedTuple):
    """Several adapters' matrices for one product, and which columns of what lies between them are whose."""

    down: torch.Tensor  # (ranks, in)
    up: torch.Tensor  # (out, ranks), scaled
    ranks: tuple[int, ...]


def _stack(loras: Sequence[Lora], layer: int, which: int) -> _Stacked | None:
    pairs = [lora.layers[layer][which] for lora in loras]
    own = [pair for pair in pairs if pair]
    if not own:
        return None
    down, up = torch.cat([p.down.weight for p in own]), torch.cat([p.up.weight for p in own], dim=1)
    return _Stacked(down, up, tuple(len(pair.down.weight) if pair else 0 for pair in pairs))


class Adapters:
    """Adapters side by side, so that a product is corrected for all rows at once, each by its own alone."""

    def __init__(self, loras: Sequence[Lora], decoder: Decoder) -> None:
        self.loras = loras
        self.layers = [
            [_stack(loras, layer, which) for which in range(len(own.products))]
            for layer, own in enumerate(decoder.layers)
        ]
        self.ranks = {stacked.ranks for layer in self.layers for stacked in layer if stacked}

    def number(self, lora: Lora) -> int | None:
        """Which one `lora` is, at whatever strength; None for one that is not here."""
        return next((n for n, own in enumerate(self.loras) if own.layers is lora.layers), None)


class FixedStep:
    """One step for so many rows and positions, as a function of its tensors; it answers to `decoder.Step`."""

    def __init__(self, decoder: Decoder, store: torch.Tensor, adapters: Adapters, shape: tuple[int, int]) -> None:
        """`shape` is rows and positions, of `store` as `Seats` has it."""
        (rows, positions), device = shape, decoder.device
        self.decoder, self.adapters, self.store = decoder, adapters, store[:, :, :rows]
        self.numbers, self.places = torch.arange(rows, device=device), torch.arange(positions, device=device)
        self.ids, self.positions = torch.zeros(2, rows, dtype=torch.long, device=device)
        self.strengths = torch.zeros(rows, len(adapters.loras), dtype=decoder.dtype, device=device)
        self.owners = {
            ranks: torch.tensor([n for n, rank in enumerate(ranks) for _ in range(rank)], device=device)
            for ranks in adapters.ranks
        }
        self.hidden, self.columns = dict[int, torch.Tensor](), dict[tuple[int, ...], torch.Tensor]()

    def fill(self, seats: Sequence[int], segments: Sequence[Segment]) -> None:
        """Set what the step is a function of; rows without a segment compute what nobody reads."""
        ids, positions = [0] * len(self.ids), [0] * len(self.ids)
        strengths = [[0.0] * len(self.adapters.loras) for _ in ids]
        for seat, segment in zip(seats, segments, strict=True):
            ids[seat], positions[seat] = segment.ids[0], segment.cache.length
            number = self.adapters.number(segment.lora) if segment.lora else None
            if number is not None and segment.lora:
                strengths[seat][number] = segment.lora.strength
        self.ids.copy_(torch.tensor(ids))
        self.positions.copy_(torch.tensor(positions))
        self.strengths.copy_(torch.tensor(strengths).view_as(self.strengths))

    def __call__(self) -> torch.Tensor:
        """Logits (rows, vocabulary) in float32; the tokens' keys and values are in their seats then."""
        distance = self.positions[:, None] - self.places
        for window in {layer.window for layer in self.decoder.layers}:
            seen = (distance >= 0) & (distance < window) if window else distance >= 0
            hidden = torch.zeros_like(distance, dtype=self.decoder.dtype).masked_fill_(~seen, -torch.inf)
            self.hidden[window] = hidden[:, None, None]
        self.columns = {ranks: self.strengths[:, owner] for ranks, owner in self.owners.items()}
        return self.decoder.head(self.decoder.final_norm(self.decoder.through(self)))

    def mix(self, layer: Layer, query: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        """Attention of every row's token to what its seat holds; the heads of a group are rows of one product."""
        store = self.store[:, layer.index]
        store[:, self.numbers, :, self.positions] = keys_values.permute(2, 0, 1, 3)
        keys, values = store[:, :, :, : len(self.places)].unbind()
        query = query.view(len(query), layer.kv_heads, -1, layer.head_size)
        hidden = self.hidden[layer.window]
        if layer.cap:
            mixed = capped_attention(query * layer.scaling, keys, values, hidden, layer.cap)
        else:
            hidden = hidden.expand(-1, layer.kv_heads, query.shape[2], -1)
            mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=hidden, scale=layer.scaling)
        return mixed.reshape(len(query), -1)

    def correct(self, layer: Layer, which: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """`y`, the product of `x`, with every row's adapter at its strength."""
        stacked = self.adapters.layers[layer.index][which]
        if stacked is None:
            return y
        return y.addmm_(F.linear(x, stacked.down) * self.columns[stacked.ranks], stacked.up.t())


Step = Callable[[], torch.Tensor]


class FixedSteps:
    """The fixed steps of a running batch, made as its rows and their lengths ask for them."""

    def __init__(
        self, decoder: Decoder, capture: Callable[[FixedStep], Step], rows: int = ROWS, positions: int = POSITIONS
    ) -> None:
        """`capture` makes of a filled step what computes it over and over."""
        self.decoder, self.capture = decoder, capture
        self._limits = rows, positions
        self._seats = Seats(decoder, rows, positions)
        self._adapters = Adapters((), decoder)
        self._steps = dict[tuple[int, int], tuple[FixedStep, Step]]()  # by rows and positions

    def fits(self, segments: Sequence[Segment]) -> bool:
        """Whether the segments are one such step."""
        rows, positions = self._limits
        single = all(len(segment.ids) == segment.wanted == 1 for segment in segments)
        return 0 < len(segments) <= rows and single and all(segment.end <= positions for segment in segments)

    @torch.inference_mode()
    def logits(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Logits (rows, vocabulary) of segments that fit, as `Decoder.forward` and `Decoder.head` have them.

        When it fails, no cache has changed.
        """
        self._know([segment.lora for segment in segments if segment.lora])
        seats = self._seats.seat([segment.cache for segment in segments])
        longest = max(segment.end for segment in segments)
        shape = _power(1 + max(seats), 1), _power(longest, FEWEST_POSITIONS)
        shape = min(shape[0], self._limits[0]), min(shape[1], self._limits[1])
        if shape not in self._steps:
            step = FixedStep(self.decoder, self._seats.store, self._adapters, shape)
            step.fill(seats, segments)
            self._steps[shape] = step, self.capture(step)
        step, compute = self._steps[shape]
        step.fill(seats, segments)
        logits = compute()[seats]
        for segment in segments:
            segment.cache.length += 1
        return logits

    def free(self, cache: KeyValues) -> None:
        """Have a row that leaves take no more memory than it needs."""
        self._seats.free(cache)

    def _know(self, loras: Sequence[Lora]) -> None:
        """Have the adapters side by side; with another one, every step is made anew."""
        needed = list({id(lora.layers): lora for lora in loras}.values())
        new = [lora for lora in needed if self._adapters.number(lora) is None]
        if new:
            together = [*self._adapters.loras, *new]
            self._steps.clear()  # first, for their memory
            self._adapters = Adapters(together if len(together) <= ADAPTERS else needed, self.decoder)


def _power(number: int, least: int) -> int:
    """The smallest doubling of `least` that is no less than `number`."""
    while least < number:
        least *= 2
    return least


def graph(step: FixedStep, memory: Any) -> Step:
    """The step as a CUDA graph: a single launch. Graphs share `memory`, as one is replayed at a time."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()  # outside of the graph, libraries set up what they need
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    # Another thread may be loading an adapter.
    with torch.cuda.graph(captured, pool=memory, capture_error_mode="thread_local"):
        logits = step()

    def replay() -> torch.Tensor:
        captured.replay()
        return logits

    return replay


def choose(decoder: Decoder) -> tuple[FixedSteps | None, str]:
    """Captured steps for a GPU where they give the decoder's logits, with the model at hand, and why or why not."""
    if decoder.device.type != "cuda":
        return None, "one kernel after the other, as the device is no CUDA GPU"
    try:
        cache = decoder.new_cache()
        cache.reserve(POSITIONS)
        rows = rows_in(MEMORY_SHARE * torch.cuda.mem_get_info(decoder.device)[0], cache.bytes)
        steps = FixedSteps(decoder, partial(graph, memory=torch.cuda.graph_pool_handle()), rows)
        kl = difference(decoder, steps)
    except AdapterError:
        return None, "one kernel after the other: a CUDA graph's logits are not finite"
    except RuntimeError as error:  # out of memory, or something that cannot be captured
        return None, f"one kernel after the other: no CUDA graph ({first_line(error):.120})"
    if kl > MAX_KL:
        return None, f"one kernel after the other: a CUDA graph gives other logits (KL {kl:.1g} nat)"
    return steps, f"as CUDA graphs for up to {rows} rows, which give the same logits (KL {kl:.1g} nat)"


def rows_in(room: float, row: int) -> int:
    """As many rows, two at least, as `room` bytes hold where one takes `row`, a power of two."""
    rows = ROWS
    while rows > 2 and rows * row > room:
        rows //= 2
    return rows


def difference(decoder: Decoder, steps: FixedSteps) -> float:
    """KL in nat between fixed steps and the decoder's, over two steps of two sequences of unequal length."""
    past, found = [range(3, 40), range(3, 9)], []
    for fixed in (True, False):
        segments = [Segment([5], decoder.new_cache()) for _ in past]
        for segment, ids in zip(segments, past, strict=True):
            decoder.forward([Segment(ids, segment.cache)])
        found.append([steps.logits(segments) if fixed else decoder.head(decoder.forward(segments)) for _ in past])
    return kl_to_base(*(torch.cat(logits) for logits in found))
