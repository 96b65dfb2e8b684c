"""How soon our training reaches the held-out loss that the tutorial's recipe has after its three epochs.

    python -m benchmarks.time_to_quality --json runs/time_to_quality.json
    python -m benchmarks.time_to_quality --rows 200 --seeds 0 --whole --choices default "constant rate" LoRA+ rsLoRA

Each run has a process of its own and the same rows; held-out rows come from other scenes. Wall time is that of the
training alone: loading the model and computing the held-out loss are left out. Prints, for each choice of settings and
each seed, the time in which the tutorial's loss was first reached over the tutorial's own time, and writes all curves
as JSON after every run.
"""

import csv
import dataclasses
import hashlib
import math
import random
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import send_to_device
from peft import PeftModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks import recipes
from benchmarks import rows as files
from benchmarks.generation import EMBEDDED
from benchmarks.recipes import TUTORIAL_PERSONA
from benchmarks.report import write
from roleplay.errors import DataError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.prompts import Example, PromptEncoder
from roleplay.text.rows import Row, load_json, parse_row
from roleplay.text.splits import check_no_overlap, split_rows
from roleplay.weights import devices
from train.learning import packing
from train.learning.loss import label_losses, use_chunked_loss
from train.learning.settings import LoraFlags
from train.lora import encode

TUTORIAL = LoraFlags(
    template="tutorial", learning_rate=1e-4, schedule="linear", warmup=0.0, epochs=3.0, **recipes.ADAPTER
)
OURS: dict[str, Any] = {"learning_rate": 4e-4, "epochs": 2.0, **recipes.ADAPTER}  # what suits some hundred rows
# What differs from `OURS`. A shorter run lets the rate fall to zero sooner.
CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "constant rate": {"schedule": "constant_with_warmup"},
    "rate 1e-3": {"learning_rate": 1e-3},
    "rate 2e-3": {"learning_rate": 2e-3},
    "LoRA+": {"lora_plus_ratio": 4.0},
    "rsLoRA": {"rslora": True},
    "rsLoRA, LoRA+": {"rslora": True, "lora_plus_ratio": 4.0},
    "orthogonal": {"initialisation": "orthogonal"},
    "one epoch": {"epochs": 1.0},
    "one epoch, rate 1e-3": {"epochs": 1.0, "learning_rate": 1e-3},
    "half an epoch, rate 1e-3": {"epochs": 0.5, "learning_rate": 1e-3},
}


@dataclass(frozen=True)
class Flags:
    json: str = flag("runs/time_to_quality.json", "file that the curves and ratios are written to")
    base_model: str = flag(EMBEDDED, "as train.lora takes it")
    dtype: str = flag("", "float32 or bfloat16; without it, what suits the machine")
    data: str = flag(files.default_data(), "file of rows; a *_scenes.csv beside it names their scenes")
    rows: int = flag(800, "rows to learn; fewer make a shorter run for every arm", within=(1, inf))
    held_out_rows: int = flag(100, "rows of other scenes, at most, that the loss is computed on", within=(1, inf))
    seeds: list[int] = flag([0, 1, 2], "each gives other initial weights, order and dropout; the rows stay the same")
    choices: list[str] = flag(["default"], "settings of ours that run", tuple(CHOICES))
    evaluate_every: int = flag(
        2, "updates between held-out losses of ours; more makes the time found coarser", within=(1, inf)
    )
    whole: bool = flag(False, "go on to the end of ours where the tutorial's loss is reached before it")


def read_with_scenes(path: Path) -> list[Row]:
    """The rows of a file; where `NAME_scenes.csv` stands beside it, each has the scene that its SHA-256 has there."""
    table, scenes = path.with_name(f"{path.stem}_scenes.csv"), {}
    if table.is_file():
        with open(table, encoding="utf-8", newline="") as file:
            scenes = {line["row_sha256_16"]: line["scene"] for line in csv.DictReader(file)}
    rows = []
    for number, value in enumerate(load_json(path), 1):
        row = parse_row(value, f"{path} row {number}")
        digest = hashlib.sha256(f"{value['instruction']}\n{value['output']}".encode()).hexdigest()[:16]
        rows.append(dataclasses.replace(row, scene=row.scene or scenes.get(digest, "")))
    return rows


def read_split(flags: Flags) -> tuple[list[Row], list[Row]]:
    """Rows to learn and held-out rows, always the same; raises `DataError` when the file has too few."""
    rows = read_with_scenes(Path(flags.data))
    train, held_out = split_rows(rows, min(0.5, flags.held_out_rows / len(rows)))
    if len(train) < flags.rows or not held_out:
        raise DataError(f"{flags.data}: {len(train)} training and {len(held_out)} held-out rows: lower --rows")
    chance = random.Random(0)
    train = chance.sample(train, flags.rows)
    held_out = chance.sample(held_out, min(flags.held_out_rows, len(held_out)))
    check_no_overlap(train, held_out)
    return train, held_out


def held_out_loss(model: PeftModel, rows: list[Example], share_prefix: bool) -> float:
    """Nat per label over all rows; the model has been through `use_chunked_loss`."""
    base: Any = model.get_base_model()
    model.eval()
    batches = (packing.collate(rows[start : start + 16], share_prefix) for start in range(0, len(rows), 16))
    losses = [label_losses(model, base.loss_function, send_to_device(batch, model.device)) for batch in batches]
    model.train()
    return torch.cat(losses).double().mean().item()


class Curve(TrainerCallback):
    """Held-out loss over seconds of training, the clock stopped while it is computed; ends the run at `target`."""

    def __init__(self, model: PeftModel, held_out: list[Example], every: int, target: float) -> None:
        self.model, self.held_out, self.every, self.target = model, held_out, every, target
        self.seconds, self.points = 0.0, list[tuple[int, float, float]]()  # points: update, seconds, nat per label

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.since = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.seconds += time.perf_counter() - self.since
        if self.every and (state.global_step % self.every == 0 or state.global_step == state.max_steps):
            loss = held_out_loss(self.model, self.held_out, share_prefix=True)
            self.points.append((state.global_step, self.seconds, loss))
            control.should_training_stop = loss <= self.target
        self.since = time.perf_counter()


def learn(recipe: str, settings: LoraFlags, target: float, flags: Flags) -> list[tuple[int, float, float]]:
    """Train once, in this process; returns the points of the curve: update, seconds, nat per label."""
    base = recipes.load(flags.base_model, flags.dtype)
    encoder = PromptEncoder(base.tokenizer, settings.template)
    train, held_out = (encode(rows, encoder, TUTORIAL_PERSONA, settings) for rows in read_split(flags))
    transformers.set_seed(settings.seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer: Any = recipes.build(
            recipe,
            base,
            train,
            settings,
            output_dir=folder,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=settings.warmup,
        )
        curve = Curve(trainer.model, held_out, flags.evaluate_every if recipe == "ours" else 0, target)
        trainer.add_callback(curve)
        trainer.train()
    if recipe == "tutorial":  # its logits are needed until the end
        use_chunked_loss(base.model)
        loss = held_out_loss(trainer.model, held_out, share_prefix=False)
        curve.points.append((trainer.state.global_step, curve.seconds, loss))
    return curve.points


def main() -> None:
    flags = parse(Flags, __doc__)
    runs: list[dict[str, Any]] = []
    dtype = flags.dtype or devices.choose_dtype(devices.choose_device()[0])[0]
    data = files.tell(flags.data, read_with_scenes(Path(flags.data)), dtype)
    report: dict[str, Any] = {"settings": asdict(flags), "data": data, "choices": CHOICES, "runs": runs, "ratios": {}}
    for seed in flags.seeds:
        ((updates, tutorial_seconds, target),) = recipes.in_own_process(
            learn, "tutorial", dataclasses.replace(TUTORIAL, seed=seed), -math.inf, flags
        )
        runs.append({"choice": "tutorial", "seed": seed, "points": [(updates, tutorial_seconds, target)]})
        ended = f"{target:.4f} nat per label after {updates} updates in {tutorial_seconds:.0f} s"
        print(f"seed {seed}  tutorial: {ended}", flush=True)
        write(report, flags.json)
        for choice in flags.choices:
            settings = LoraFlags(**(OURS | CHOICES[choice]), seed=seed)
            points = recipes.in_own_process(learn, "ours", settings, -math.inf if flags.whole else target, flags)
            first = next((point for point in points if point[2] <= target), None)
            ratio, reached = None, "not reached"
            if first:
                ratio = first[1] / tutorial_seconds
                reached = f"reached after {first[0]} updates in {first[1]:.0f} s, {ratio:.3f} of it"
            runs.append({"choice": choice, "seed": seed, "points": points, "ratio": ratio})
            updates, _, loss = points[-1]
            print(f"seed {seed}  {choice}: {reached}; {loss:.4f} after {updates} updates", flush=True)
            write(report, flags.json)
    for choice in flags.choices:
        found = [run["ratio"] for run in runs if run["choice"] == choice]
        report["ratios"][choice] = None if None in found else round(statistics.median(found), 4)
        print(f"{choice}: ours/tutorial {report['ratios'][choice] or 'not reached with every seed'}")
    write(report, flags.json)


if __name__ == "__main__":
    with one_line_errors():
        main()
