"""What a step of the running batch costs, for 1 to 32 rows: layers, head and dice apart.

    python -m benchmarks.step --json runs/step.json
    python -m benchmarks.step --json runs/step-2b.json --shape gemma-2b    # random weights and adapter
    OMP_NUM_THREADS=1 python -m benchmarks.step --rows 1 16    # on a busy machine

Half of the rows are the adapter's, half the base model's, each with a past of its own length. Two clocks: the wall's,
and the processor time of all threads, which other programs disturb less. Prints the medians in milliseconds and writes
them as JSON.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

import torch

from benchmarks.generation import EMBEDDED, SHAPES, load, random_adapter
from benchmarks.generation import Flags as GenerationFlags
from benchmarks.report import write
from roleplay.engine.decoder import Decoder, Lora, Segment
from roleplay.engine.fixed import FixedSteps, choose
from roleplay.engine.protocol import Sampling
from roleplay.engine.sampling import Drawing, next_tokens
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from roleplay.weights import adapters, base_models, inspection

SHORTEST, LONGER = 60, 5  # tokens of the first row's past, and how many more the next one's has


@dataclass(frozen=True)
class Flags:
    shape: str = flag(EMBEDDED, "the embedded model, or random weights in the shape of a larger", (EMBEDDED, *SHAPES))
    dtype: str = flag("", "float32 or bfloat16; without it, what suits the machine")
    adapter: str = flag("adapters/zhenhuan-alone-gemma3-270m", "the embedded model's, of every other row")
    rows: list[int] = flag([1, 2, 8, 16, 32], "numbers of rows")
    repeats: int = flag(9, "steps of each; more make steadier medians", within=(1, inf))
    json: str = flag("", "file for the figures")


def measured(work: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median milliseconds on both clocks, after one call to warm up."""
    wall, cpu = [], []
    for _ in range(repeats + 1):
        started = time.perf_counter(), time.process_time()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # a GPU computes while the program goes on
        wall.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    return {"wall": 1e3 * statistics.median(wall[1:]), "cpu": 1e3 * statistics.median(cpu[1:])}


def step(
    decoder: Decoder, lora: Lora, count: int, repeats: int, fixed: FixedSteps | None
) -> dict[str, dict[str, float]]:
    """The three parts of a step for `count` rows, and as a graph, which is layers and head, where steps are `fixed`.

    What it appends to the caches is taken back.
    """
    lengths = [SHORTEST + LONGER * number for number in range(count)]
    longest = decoder.new_cache()
    decoder.forward([Segment([9] * lengths[-1], longest)])
    caches = [longest.copy(length) for length in lengths]
    drawings = [Drawing(torch.arange(50, device=decoder.device), [5, 6, 7], Sampling())] * count

    def again(compute: Callable[[list[Segment]], torch.Tensor]) -> torch.Tensor:
        for cache, length in zip(caches, lengths, strict=True):
            cache.length = length
        return compute([Segment([7], cache, (lora, None)[n % 2]) for n, cache in enumerate(caches)])

    hidden = again(decoder.forward)
    logits = decoder.head(hidden)
    figures = {
        "layers": measured(lambda: again(decoder.forward), repeats),
        "head": measured(lambda: decoder.head(hidden), repeats),
        "dice": measured(lambda: next_tokens(logits.clone(), drawings), repeats),
    }
    if fixed:
        figures["graph"] = measured(lambda: again(fixed.logits), repeats)
    return figures


def prepared(base: base_models.BaseModel, flags: Flags) -> tuple[Decoder, Lora]:
    """What computes the steps, and the adapter of every other row."""
    with tempfile.TemporaryDirectory() as folder:
        own = flags.shape == EMBEDDED
        adapter = inspection.inspect(Path(flags.adapter)) if own else random_adapter(base, Path(folder) / "random")
        decoder = Decoder(base.model, bool(base.int8))
        return decoder, Lora(decoder, adapters.read_weights(adapter), adapter.scaling)


def main() -> None:
    flags, figures = parse(Flags, __doc__), dict[int, Any]()
    base = load(GenerationFlags(shape=flags.shape, dtype=flags.dtype))
    decoder, lora = prepared(base, flags)
    fixed, reason = choose(decoder)
    print(f"steps are computed {reason}")
    parts = ("layers", "head", "dice", *(("graph",) if fixed else ()))
    print(f"{'rows':>4}  " + "  ".join(f"{part:>20}" for part in parts) + "   ms, wall / cpu")
    for count in flags.rows:
        figures[count] = step(decoder, lora, count, flags.repeats, fixed)
        times = (f"{own['wall']:>11.1f} /{own['cpu']:>7.1f}" for own in figures[count].values())
        print(f"{count:>4}  " + "  ".join(times), flush=True)
    if flags.json:
        write({"settings": asdict(flags), "dtype": base.dtype[0], "steps": reason, "figures": figures}, flags.json)


if __name__ == "__main__":
    with one_line_errors():
        main()
