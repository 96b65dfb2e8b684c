"""Time our training against the tutorial's recipe and TRL, each arm in a process of its own, on the same rows.

    python -m benchmarks.training --json runs/training.json
    python -m benchmarks.training --json runs/training-fp32.json --dtype float32 --updates 2
    python -m benchmarks.training --json runs/training-2b.json --shape gemma-2b --updates 1 --repeats 1
    python -m benchmarks.training --json runs/profile.json --dtype bfloat16 --arms ours --repeats 1 --profile

Arms (benchmarks/recipes.py): tutorial, trl, trl_tuned, ours, and lean, which is ours with activation checkpointing.
Rows, token ids (the tutorial's prompt), updates of 16 rows, LoRA and dropout are the same in all; every other repeat
runs the arms in reverse. The first update warms up and has its operations counted; the first timed update repeats its
rows. Prints the rows, the dtype and a table, and writes every figure, with the ratios, as one JSON object; each figure
is the median. With --dropout 0 it exits with status 1 unless all arms show the same losses.
"""

import random
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

import torch
import transformers
import trl
from torch import nn
from torch.utils import benchmark

from benchmarks import recipes
from benchmarks import rows as files
from benchmarks.gauges import PeakMemory, Profile, Watch
from benchmarks.generation import EMBEDDED
from benchmarks.recipes import RECIPES, TUTORIAL_PERSONA, UPDATE
from benchmarks.report import write
from roleplay.errors import DataError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text import personas
from roleplay.text.prompts import IGNORED, Example, PromptEncoder
from roleplay.text.rows import read_rows
from roleplay.weights import base_models, devices
from train.learning.memory import activation_bytes
from train.learning.settings import LoraFlags
from train.lora import encode

RATIOS = (
    "ours/tutorial",
    "ours/trl",
    "ours/trl_tuned",
    "memory ours/tutorial",
    "memory ours/trl_tuned",
    "lean/tutorial",
    "memory lean/tutorial",
)
TOLERANCE = 0.02  # nat by which the losses of two arms may differ; bfloat16 rounds
SPEED, MEMORY = "rows_per_second", "peak_memory_mb"


@dataclass(frozen=True)
class Flags:
    json: str = flag("runs/training.json", "file that the figures are written to")
    shape: str = flag(
        EMBEDDED, "gemma-2b or gemma-2-2b for random weights of its shape, or a base model as train.lora takes it"
    )
    dtype: list[str] = flag(
        [],
        "which dtypes run; none is both on the embedded model, else what suits the machine",
        ("bfloat16", "float32"),
    )
    arms: list[str] = flag(list(RECIPES), "which arms run", tuple(RECIPES))
    data: str = flag(files.default_data(), "file of rows")
    persona: str = flag("tutorial", "its short persona, or ours, which favours the shared prefix", ("tutorial", "ours"))
    updates: int = flag(
        3, "timed updates of 16 rows in each process; more makes steadier figures and a longer run", within=(1, inf)
    )
    repeats: int = flag(3, "times that each arm runs, every other time in reverse order", within=(1, inf))
    pack_rows: int = flag(
        0, "rows that ours and trl_tuned compute at once; 0 is as train.lora chooses", (0, 1, 2, 4, 8, 16)
    )
    dropout: float = flag(0.1, "of LoRA in every arm; with 0 all arms must show the same losses", within=(0, 0.9))
    seed: int = flag(0, "of the rows, the initial weights and dropout", within=(0, inf))
    profile: bool = flag(False, "also say where the time of an update goes, which slows it")


@torch.no_grad()
def product_rate(model: nn.Module, embeddings: torch.Tensor, tokens: int, labels: int) -> float:
    """Operations per second that the machine reaches in the model's own matrix products, nothing else between them.

    Every frozen projection is multiplied with `tokens` rows and the head with `labels`, in the faster of two layouts.
    """
    linears = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and "lm_head" not in name]
    products = [(m.weight, tokens) for m in linears if not m.weight.requires_grad] + [(embeddings, labels)]
    operations, seconds = 0, 0.0
    for weight, rows in products:
        x = torch.randn(rows, weight.shape[1], dtype=weight.dtype, device=weight.device)
        names = {"x": x, "weight": weight}
        seconds += min(
            benchmark.Timer(text, globals=names, num_threads=torch.get_num_threads()).timeit(2).mean
            for text in ("x @ weight.t()", "weight @ x.t()")
        )
        operations += 2 * rows * weight.numel()
    return operations / seconds


def read_examples(base: base_models.BaseModel, flags: Flags) -> list[Example]:
    """The rows of all timed updates as token ids; raises `DataError` when the file has too few."""
    rows, wanted = read_rows(flags.data)[0], UPDATE * flags.updates
    if len(rows) < wanted:
        raise DataError(f"{flags.data}: {len(rows)} rows, {flags.updates} updates take {wanted}: lower --updates")
    chosen = random.Random(flags.seed).sample(rows, wanted)
    persona = personas.default() if flags.persona == "ours" else TUTORIAL_PERSONA
    examples = encode(chosen, PromptEncoder(base.tokenizer, "tutorial"), persona, LoraFlags(max_length=2048))
    # Random weights of another vocabulary come with a borrowed tokenizer: any ids do, and equal ones stay equal.
    size = base.model.config.vocab_size
    return [
        Example([i % size for i in e.input_ids], [y if y == IGNORED else y % size for y in e.labels], e.where)
        for e in examples
    ]


def measure(arm: str, dtype: str, flags: Flags) -> dict[str, Any]:
    """One run of one arm, in this process."""
    base = recipes.load(flags.shape, dtype)
    examples = read_examples(base, flags)
    adapter = recipes.ADAPTER | {"dropout": flags.dropout}
    settings = LoraFlags(template="tutorial", pack_rows=flags.pack_rows, seed=flags.seed, **adapter)
    embeddings: Any = base.model.get_input_embeddings()
    for weight in base.model.parameters():
        weight.sum()  # weights that are mapped from a file become resident when they are read
    transformers.set_seed(flags.seed)
    with tempfile.TemporaryDirectory() as folder, PeakMemory(base.device[0]) as memory:
        trainer = recipes.build(
            arm,
            base,
            [*examples[:UPDATE], *examples],
            settings,
            output_dir=folder,
            max_steps=flags.updates + 1,
            learning_rate=1e-4,
            train_sampling_strategy="sequential",
        )
        trainer.add_callback(watch := Watch(embeddings))
        profile = Profile(base.device[0])
        if flags.profile:
            trainer.add_callback(profile)
        trainer.train()
    seconds = watch.ended[-1] - watch.ended[0]
    labels = sum(label != IGNORED for example in examples[:UPDATE] for label in example.labels)
    passes = watch.passes[0]
    tokens, values = watch.tokens[0] // passes, base.model.dtype.itemsize
    estimated = activation_bytes(base.model.config, tokens, values, flags.dropout > 0)  # of ours, which recomputes none
    achieved = watch.operations.count / (watch.ended[1] - watch.ended[0])
    possible = product_rate(base.model, embeddings.weight, tokens, max(1, labels // passes))
    return {
        SPEED: UPDATE * flags.updates / seconds,
        "seconds_per_update": seconds / flags.updates,
        "tokens_computed": sum(watch.tokens[1:]),
        "passes_per_update": passes,
        MEMORY: memory.above / 1e6,
        "estimated_memory_mb": estimated / 1e6,
        "gflop_per_update": watch.operations.count / 1e9,
        "gflop_per_second": achieved / 1e9,
        "product_gflop_per_second": possible / 1e9,
        "product_share": achieved / possible,
        "profile": profile.shares,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][1:],
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the runs of one arm, the losses of the first, and all runs."""
    medians = {
        key: round(statistics.median(run[key] for run in runs), 4)
        for key in runs[0]
        if not isinstance(runs[0][key], list)
    }
    return medians | {"losses": runs[0]["losses"], "runs": runs}


def ratios(arms: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Rows per second, or memory, of one arm over another's, for the pairs that ran."""
    found = {}
    for key in RATIOS:
        a, b = key.removeprefix("memory ").split("/")
        if a in arms and b in arms:
            figure = MEMORY if key.startswith("memory") else SPEED
            found[key] = round(arms[a][figure] / arms[b][figure], 3)
    return found


def compare(dtype: str, flags: Flags) -> dict[str, Any]:
    def told(run: dict[str, Any]) -> str:
        return f"{run[SPEED]:.3f} rows/s, {run[MEMORY]:,.0f} MB in {dtype}"

    runs = recipes.in_turn(measure, flags.arms, flags.repeats, told, dtype, flags)
    arms = {arm: summary(found) for arm, found in runs.items()}
    return {"arms": arms, "ratios": ratios(arms)}


def table(dtype: str, result: dict[str, Any]) -> str:
    head = f"{dtype:<10} {'rows/s':>8} {'tokens':>8} {'MB':>8} {'GFLOP/s':>8} {'share':>6}  losses"
    lines = [
        f"{arm:<10} {a[SPEED]:>8.3f} {a['tokens_computed']:>8.0f} {a[MEMORY]:>8.0f} {a['gflop_per_second']:>8.1f} "
        f"{a['product_share']:>6.0%}  {' '.join(f'{loss:.3f}' for loss in a['losses'])}"
        for arm, a in result["arms"].items()
    ]
    for arm, a in result["arms"].items():
        lines += [f"{arm:<10} {share:>6.1%} {name}" for name, share in a["runs"][0]["profile"]]
    return "\n".join([head, *lines, *(f"{key:<24} {value:.2f}" for key, value in result["ratios"].items())])


def same_losses(results: dict[str, Any]) -> bool:
    """Whether all arms learned the same; with dropout they draw other masks, and nothing can be said."""
    losses = [[arm["losses"] for arm in result["arms"].values()] for result in results.values()]
    return all(max(step) - min(step) <= TOLERANCE for arms in losses for step in zip(*arms, strict=True))


def main() -> int:
    flags = parse(Flags, __doc__)
    device = devices.choose_device()
    results = {}
    wanted = ["bfloat16", "float32"] if flags.shape == EMBEDDED else [devices.choose_dtype(device[0])[0]]
    dtypes = flags.dtype or wanted
    data = files.tell(flags.data, read_rows(flags.data)[0], ", ".join(dtypes))
    for dtype in dtypes:
        results[dtype] = compare(dtype, flags)
        print(table(dtype, results[dtype]), end="\n\n", flush=True)
    report = {
        "settings": asdict(flags),
        "data": data,
        "machine": {"device": device, "threads": torch.get_num_threads()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__},
        "dtypes": results,
        "ratios": next(iter(results.values()))["ratios"],  # of the dtype that was named first
    }
    write(report, flags.json)
    if flags.dropout == 0 and not same_losses(results):
        print("the arms have learned something else from the same rows, though nothing was dropped", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
