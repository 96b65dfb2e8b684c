"""Count what a decoding step and an update launch: on a GPU that is what they wait for, and any machine can count it.

    python -m benchmarks.kernels --json runs/kernels.json
    python -m benchmarks.kernels --shape gemma-2-2b --rows 2 32

Nothing is computed and no memory taken: the model is on PyTorch's meta device, for which it takes the paths of a GPU.
Every operation counts as one kernel, attention and a norm of PyTorch's own too; those that return a view or memory
without content launch nothing. Half of the rows are an adapter's. A fixed step is counted as it is captured, with what
is launched each time in brackets. An update is one pack of 16 rows, forward and backward, without the optimiser.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import inf
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from benchmarks.generation import SHAPES
from benchmarks.recipes import ADAPTER, UPDATE
from benchmarks.report import write
from roleplay.engine.decoder import Decoder, Lora, Segment
from roleplay.engine.fixed import FixedStep, FixedSteps, Step
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.prompts import IGNORED, Example
from train.learning.adapter import attach_lora
from train.learning.attention import ATTENTION
from train.learning.fused import fuse
from train.learning.loss import use_chunked_loss
from train.learning.packing import collate
from train.learning.settings import LoraFlags, lora_config

PAST = 100  # tokens of each row
PERSONA, OWN = 40, 60  # tokens that all rows of an update share, and that each has of its own
MOST = 12  # kinds of operations that are shown


@dataclass(frozen=True)
class Flags:
    shape: str = flag("gemma-2b", "of the model", tuple(SHAPES))
    rows: list[int] = flag([1, 2, 8, 32], "numbers of rows of a step", within=(1, inf))
    json: str = flag("", "file for the figures")


class Kernels(TorchDispatchMode):
    """Counts operations by their names, while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        taken, made = ([leaf for leaf in tree_leaves(part) if isinstance(leaf, torch.Tensor)] for part in (args, out))
        held = {tensor.untyped_storage()._cdata for tensor in taken}
        changes = func._schema.is_mutable or any(t.untyped_storage()._cdata not in held for t in made)
        if changes and "empty" not in name and any(tensor.is_meta for tensor in (*taken, *made)):
            self.found[name] += 1
        return out


class _Attention(torch.autograd.Function):
    """Of the shape of attention; what it would be made of on the meta device is not what a GPU runs."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, found: Counter[str]) -> Any:
        found["attention"] += 1
        ctx.save_for_backward(query, key, value)
        ctx.found = found
        return torch.empty_like(query)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        ctx.found["attention backward"] += 1
        return (*(torch.empty_like(tensor) for tensor in ctx.saved_tensors), None)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How often every operation was called in the block."""

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return _Attention.apply(query, key, value, kernels.found)

    def norm(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        kernels.found["rms_norm"] += 1
        return torch.empty_like(x)

    with (
        Kernels() as kernels,
        patch.object(F, "scaled_dot_product_attention", attention),
        patch.object(F, "rms_norm", norm),
    ):
        yield kernels.found


def model_of(shape: str) -> Any:
    """A model without content."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(SHAPES[shape]).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def adapter_of(model: Any, decoder: Decoder) -> Lora:
    attached = attach_lora(model, **lora_config(LoraFlags(**ADAPTER)))
    weights = {k.replace(".default", ""): v for k, v in attached.state_dict().items() if ".lora_" in k}
    attached.unload()
    return Lora(decoder, weights, 1.0)


def in_graph(steps: FixedSteps, segments: list[Segment]) -> tuple[Counter[str], Counter[str]]:
    """What a fixed step is made of, and what is launched where it is a graph."""
    inside = Counter[str]()

    def capture(step: FixedStep) -> Step:
        with counted() as found:
            logits = step()
        inside.update(found)
        return lambda: logits

    steps.capture = capture
    steps.logits(segments)
    with counted() as outside:
        steps.logits(segments)
    return inside, outside


def step_kernels(decoder: Decoder, lora: Lora, rows: int) -> dict[str, Counter[str]]:
    """Of one step of so many rows, the decoder's own and a fixed one."""
    caches = [decoder.new_cache() for _ in range(rows)]
    for cache in caches:
        cache.reserve(2 * PAST)
        cache.length = PAST
    segments = [Segment([7], cache, (lora, None)[n % 2]) for n, cache in enumerate(caches)]
    with counted() as eager:
        decoder.head(decoder.forward(segments))
    inside, outside = in_graph(FixedSteps(decoder, lambda step: step), segments)
    return {"eager": eager, "fixed": inside, "launched": outside}


def update_kernels(model: Any) -> Counter[str]:
    """Of forward and backward through one pack."""
    model.set_attn_implementation(ATTENTION)
    use_chunked_loss(model)
    tuned = attach_lora(model, **lora_config(LoraFlags(**ADAPTER))).to("meta").train()
    fuse(tuned)
    rows = [
        Example([2] * PERSONA + [3 + n] * OWN, [IGNORED] * (PERSONA + OWN // 2) + [3] * (OWN // 2), str(n))
        for n in range(UPDATE)
    ]
    batch = {key: v.to("meta") if isinstance(v, torch.Tensor) else v for key, v in collate(rows).items()}
    with counted() as found:
        tuned(**batch).loss.backward()
    return found


def table(found: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in found.most_common(MOST))


def main() -> None:
    flags = parse(Flags, __doc__)
    model = model_of(flags.shape)
    decoder = Decoder(model)
    lora, report = adapter_of(model, decoder), dict[str, Any]()
    for rows in flags.rows:
        found = step_kernels(decoder, lora, rows)
        totals = {name: counter.total() for name, counter in found.items()}
        report[f"step of {rows}"] = {"totals": totals, **found}
        print(f"step of {rows}: {totals['eager']} kernels; fixed {totals['fixed']} ({totals['launched']} launched)")
        print(f"    fixed: {table(found['fixed'])}", flush=True)
    update = update_kernels(model_of(flags.shape))
    report["update"] = {"total": update.total(), **update}
    print(f"update of {UPDATE} rows: {update.total()} kernels\n    {table(update)}")
    if flags.json:
        write({"settings": asdict(flags), "figures": report}, flags.json)


if __name__ == "__main__":
    with one_line_errors():
        main()
