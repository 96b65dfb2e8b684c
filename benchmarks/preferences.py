"""Time `train.prefer` against TRL's `DPOTrainer`, each arm in a process of its own, on the same pairs.

    python -m benchmarks.preferences --json runs/preferences.json
    python -m benchmarks.preferences --json runs/preferences-fp32.json --dtype float32 --updates 2

Arms: trl is `DPOTrainer` as it comes, with activation checkpointing, which asks the reference in every update; in
trl_tuned it recomputes nothing and asks the reference once, as ours does. A pair is a row of the file: its reply is
chosen, that of another row rejected. Pairs, token ids, updates of 8 pairs and LoRA are the same in all, without
dropout; every other repeat runs the arms in reverse. An update's time has its pairs' share of the reference in it; the
first update warms up. Prints a table and the ratios, each figure a median, and writes them as one JSON object. Exits
with status 1 unless all arms show the same losses.
"""

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset, disable_progress_bars
from peft import PeftModel
from transformers import PrinterCallback, TrainingArguments
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from benchmarks import recipes
from benchmarks import rows as files
from benchmarks.gauges import PeakMemory, Watch
from benchmarks.generation import EMBEDDED
from benchmarks.recipes import TUTORIAL_PERSONA
from benchmarks.report import write
from benchmarks.training import MEMORY, same_losses, summary
from roleplay.errors import DataError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text import personas
from roleplay.text.pairs import Pair
from roleplay.text.prompts import IGNORED, Example, PromptEncoder
from roleplay.text.rows import read_rows
from roleplay.weights import base_models, devices
from train.learning import memory
from train.learning.adapter import attach_lora
from train.learning.attention import ATTENTION
from train.learning.fused import fuse
from train.learning.loss import use_chunked_loss
from train.learning.preference import EncodedPair, Objective, as_rows, encode_pair, score, with_reference
from train.learning.preference_trainer import PreferenceTrainer
from train.learning.settings import LoraFlags, PreferFlags, lora_config, pack_wishes

ARMS = ("trl", "trl_tuned", "ours")
SPEED, UPDATE = "pairs_per_second", PreferFlags().batch_size
LORA = lora_config(LoraFlags(**recipes.ADAPTER | {"dropout": 0.0}))


@dataclass(frozen=True)
class Flags:
    json: str = flag("runs/preferences.json", "file that the figures are written to")
    shape: str = flag(
        EMBEDDED, "gemma-2b or gemma-2-2b for random weights of its shape, or a base model as train.prefer takes it"
    )
    dtype: str = flag("", "float32 or bfloat16; without it, what suits the machine", ("", "float32", "bfloat16"))
    arms: list[str] = flag(list(ARMS), "which arms run", ARMS)
    data: str = flag(files.default_data(), "file of rows that the pairs are made of")
    persona: str = flag("tutorial", "its short persona, or ours, which favours the shared prefix", ("tutorial", "ours"))
    updates: int = flag(3, "timed updates in each process; more makes steadier figures", within=(1, inf))
    repeats: int = flag(2, "times that each arm runs, every other time in reverse order", within=(1, inf))
    seed: int = flag(0, "of the pairs and the initial weights", within=(0, inf))


class OnIds(DPOTrainer):
    """TRL's trainer on token ids; `reference_seconds` is what asking the reference beforehand has taken."""

    reference_seconds = 0.0

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, *args: Any) -> Any:
        began = time.perf_counter()
        found = super()._precompute_ref_logps(*args)
        self.reference_seconds = time.perf_counter() - began
        return found


def read_pairs(base: base_models.BaseModel, flags: Flags) -> list[EncodedPair]:
    """The pairs of the warm-up and of all timed updates; raises `DataError` when the file has too few rows."""
    rows, wanted = read_rows(flags.data)[0], UPDATE * (flags.updates + 1)
    if len(rows) < wanted:
        raise DataError(f"{flags.data}: {len(rows)} rows, {flags.updates} updates take {wanted}: lower --updates")
    chosen = random.Random(flags.seed).sample(rows, wanted)
    persona = personas.default() if flags.persona == "ours" else TUTORIAL_PERSONA
    encoder, size = PromptEncoder(base.tokenizer), base.model.config.vocab_size

    def fit(side: Example) -> Example:  # a borrowed tokenizer's ids into the vocabulary of random weights
        return Example([i % size for i in side.input_ids], [y if y == IGNORED else y % size for y in side.labels])

    pairs = []
    for row, other in zip(chosen, [*chosen[1:], chosen[0]], strict=True):
        *before, (user, reply) = row.turns
        pair = Pair("", tuple(before), user, reply, other.turns[-1][1], row.where)
        encoded = encode_pair(encoder, pair, persona.system_prompt, PreferFlags().max_length)
        pairs.append(EncodedPair(*map(fit, encoded.sides)))
    return pairs


def build_ours(
    base: base_models.BaseModel, pairs: Sequence[EncodedPair], arguments: dict[str, Any]
) -> tuple[Any, float]:
    """The trainer of `train.prefer`, and how long the reference has taken."""
    plan = memory.plan(base.model, as_rows(pairs), True, pack_wishes(PreferFlags()))
    base.model.set_attn_implementation(ATTENTION)
    use_chunked_loss(base.model)
    model = attach_lora(base.model, **LORA)
    fuse(model)
    began = time.perf_counter()
    known = with_reference(pairs, score(model, pairs, plan.rows))
    seconds = time.perf_counter() - began
    own = TrainingArguments(
        per_device_train_batch_size=plan.rows,
        gradient_accumulation_steps=UPDATE // plan.rows,
        activation_checkpointing=plan.checkpointing,
        remove_unused_columns=False,
        **arguments,
    )
    return PreferenceTrainer(model, own, True, Objective(), train_dataset=known), seconds


def build_trl(
    base: base_models.BaseModel, pairs: Sequence[EncodedPair], arguments: dict[str, Any], tuned: bool
) -> tuple[Any, float]:
    """TRL's trainer, and how long the reference has taken where it is asked beforehand."""
    disable_progress_bars()
    data = []
    for pair in pairs:
        asked = sum(label == IGNORED for label in pair.chosen.labels)
        ids = {"chosen_ids": pair.chosen.input_ids[asked:], "rejected_ids": pair.rejected.input_ids[asked:]}
        data.append({"prompt_ids": pair.chosen.input_ids[:asked], **ids})
    own = dict(gradient_checkpointing=False, precompute_ref_log_probs=True, bf16=False) if tuned else {}
    own = {"bf16": base.dtype[0] == "bfloat16"} | own
    config = DPOConfig(per_device_train_batch_size=UPDATE, beta=Objective().beta, **own, **arguments)
    model: PeftModel = attach_lora(base.model, **LORA)
    trainer = OnIds(model, args=config, train_dataset=Dataset.from_list(data), processing_class=base.tokenizer)
    return trainer, trainer.reference_seconds


def measure(arm: str, dtype: str, flags: Flags) -> dict[str, Any]:
    """One run of one arm, in this process."""
    base = recipes.load(flags.shape, dtype)
    pairs = read_pairs(base, flags)
    embeddings: Any = base.model.get_input_embeddings()
    for weight in base.model.parameters():
        weight.sum()  # weights that are mapped from a file become resident when they are read
    transformers.set_seed(flags.seed)
    with tempfile.TemporaryDirectory() as folder, PeakMemory(base.device[0]) as peak:
        arguments: dict[str, Any] = dict(output_dir=folder, max_steps=flags.updates + 1, learning_rate=1e-4)
        arguments |= dict(train_sampling_strategy="sequential", logging_steps=1, save_strategy="no", report_to="none")
        arguments |= dict(disable_tqdm=True, log_level="error", dataloader_pin_memory=False, seed=flags.seed)
        arguments |= dict(use_cpu=base.device[0] == "cpu")
        if arm == "ours":
            trainer, reference = build_ours(base, pairs, arguments)
        else:
            trainer, reference = build_trl(base, pairs, arguments, arm == "trl_tuned")
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(watch := Watch(embeddings))
        trainer.train()
    seconds = (watch.ended[-1] - watch.ended[0]) / flags.updates + reference / (flags.updates + 1)
    return {
        SPEED: UPDATE / seconds,
        "seconds_per_update": seconds,
        "seconds_of_reference": reference,
        "tokens_computed": sum(watch.tokens[1:]),
        MEMORY: peak.above / 1e6,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }


def compare(dtype: str, flags: Flags) -> dict[str, Any]:
    """Every arm as often as asked, in both orders: medians, and ours over the others."""

    def told(run: dict[str, Any]) -> str:
        return f"{run[SPEED]:.3f} pairs/s, {run[MEMORY]:,.0f} MB"

    runs = recipes.in_turn(measure, flags.arms, flags.repeats, told, dtype, flags)
    arms = {arm: summary(found) for arm, found in runs.items()}
    others = [arm for arm in arms if arm != "ours" and "ours" in arms]
    ratios = {f"ours/{arm}": round(arms["ours"][SPEED] / arms[arm][SPEED], 3) for arm in others}
    ratios |= {f"memory ours/{arm}": round(arms["ours"][MEMORY] / arms[arm][MEMORY], 3) for arm in others}
    return {"arms": arms, "ratios": ratios}


def main() -> int:
    flags = parse(Flags, __doc__)
    device = devices.choose_device()
    dtype = flags.dtype or devices.choose_dtype(device[0])[0]
    data = files.tell(flags.data, read_rows(flags.data)[0], dtype)
    result = compare(dtype, flags)
    print(f"{'':<10} {'pairs/s':>8} {'MB':>8}  losses")
    for arm, found in result["arms"].items():
        losses = " ".join(f"{loss:.3f}" for loss in found["losses"])
        print(f"{arm:<10} {found[SPEED]:>8.3f} {found[MEMORY]:>8.0f}  {losses}")
    print(*(f"{key:<24} {value:.2f}" for key, value in result["ratios"].items()), sep="\n")
    machine = {"device": device, "threads": torch.get_num_threads()}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__}
    settings = {"settings": asdict(flags), "data": data, "machine": machine, "versions": versions}
    write({**settings, **result}, flags.json)
    if not same_losses({dtype: result}):
        print("the arms have learned something else from the same pairs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
