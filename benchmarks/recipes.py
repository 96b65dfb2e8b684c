"""The training recipes that the benchmarks compare, each as a `Trainer` on the same rows of token ids.

`tutorial` is the well-known tutorial's, with its attention mask as long as its row; `trl` is TRL's `SFTTrainer` with
its own defaults, `trl_tuned` with packing and without activation checkpointing; `ours` is `train.lora`'s, `lean` the
same with checkpointing. An update is 16 rows in all of them. Nothing here knows a clock or a file.
"""

import dataclasses
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import transformers
from datasets import Dataset, concatenate_datasets, disable_progress_bars
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer, pack_dataset

from benchmarks.generation import SHAPES
from benchmarks.generation import Flags as GenerationFlags
from benchmarks.generation import load as load_random
from roleplay.environment import Environment
from roleplay.errors import RoleplayError
from roleplay.text.personas import Persona
from roleplay.text.prompts import IGNORED, Example
from roleplay.weights import base_models
from train.learning import memory
from train.learning.adapter import attach_lora
from train.learning.attention import ATTENTION
from train.learning.loss import use_chunked_loss
from train.learning.settings import LoraFlags, lora_config, pack_wishes
from train.learning.trainer import CharacterTrainer

Result = TypeVar("Result")
UPDATE = 16  # rows
TUTORIAL_PERSONA = Persona("甄嬛", "现在你要扮演皇帝身边的女人--甄嬛")


def load(name: str, dtype: str) -> base_models.BaseModel:
    """A base model as `train.lora` takes it, or random weights in the shape of a larger; raises `ModelError`."""
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # TRL uses names that transformers will drop
    if name in SHAPES:
        return load_random(GenerationFlags(shape=name, dtype=dtype))
    return base_models.load(name, Environment().cache, dtype)


def _tutorial(
    base: base_models.BaseModel, rows: Sequence[Example], settings: LoraFlags, arguments: dict[str, Any]
) -> Trainer:
    model = attach_lora(base.model, **lora_config(settings))
    model.enable_input_require_grads()
    base.tokenizer.pad_token = base.tokenizer.eos_token
    return Trainer(
        model,
        TrainingArguments(
            per_device_train_batch_size=4,
            gradient_accumulation_steps=4,
            activation_checkpointing=True,
            remove_unused_columns=False,
            **arguments,
        ),
        train_dataset=[
            {"input_ids": row.input_ids, "attention_mask": [1] * len(row.input_ids), "labels": row.labels}
            for row in rows
        ],
        data_collator=DataCollatorForSeq2Seq(base.tokenizer, padding=True),
    )


def _trl(
    base: base_models.BaseModel, rows: Sequence[Example], settings: LoraFlags, arguments: dict[str, Any]
) -> Trainer:
    """As it comes: 8 padded rows at once, checkpointing, autocast to bfloat16 (switched off for float32 weights)."""
    data = {
        "input_ids": [row.input_ids for row in rows],
        "completion_mask": [[int(label != IGNORED) for label in row.labels] for row in rows],
    }
    config = SFTConfig(
        completion_only_loss=True, bf16=base.dtype[0] == "bfloat16", gradient_accumulation_steps=2, **arguments
    )
    return SFTTrainer(
        attach_lora(base.model, **lora_config(settings)),
        config,
        train_dataset=Dataset.from_dict(data),
        processing_class=base.tokenizer,
    )


def _trl_tuned(
    base: base_models.BaseModel, rows: Sequence[Example], settings: LoraFlags, arguments: dict[str, Any]
) -> Trainer:
    """Packed by TRL's own packer, as many rows of an update at once as fit, so that no row moves to another update."""
    pack_rows = memory.plan(
        base.model, rows, False, dataclasses.replace(pack_wishes(settings), checkpointing="off")
    ).rows
    packs = []
    for start in range(0, len(rows), pack_rows):
        chunk = rows[start : start + pack_rows]
        data = Dataset.from_dict({"input_ids": [r.input_ids for r in chunk], "labels": [r.labels for r in chunk]})
        packs.append(pack_dataset(data, sum(len(row.input_ids) for row in chunk)))
    config = SFTConfig(
        packing=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=UPDATE // pack_rows,
        **arguments,
    )
    return SFTTrainer(
        attach_lora(base.model, **lora_config(settings)),
        config,
        train_dataset=concatenate_datasets(packs),
        processing_class=base.tokenizer,
    )


def _ours(
    base: base_models.BaseModel, rows: Sequence[Example], settings: LoraFlags, arguments: dict[str, Any]
) -> Trainer:
    plan = memory.plan(base.model, rows, True, pack_wishes(settings))
    base.model.set_attn_implementation(ATTENTION)
    use_chunked_loss(base.model)
    return CharacterTrainer(
        attach_lora(base.model, **lora_config(settings)),
        TrainingArguments(
            per_device_train_batch_size=plan.rows,
            gradient_accumulation_steps=max(1, settings.batch_size // plan.rows),
            activation_checkpointing=plan.checkpointing,
            remove_unused_columns=False,
            **arguments,
        ),
        train_dataset=rows,
        share_prefix=True,
        lora_plus_ratio=settings.lora_plus_ratio,
    )


def _lean(
    base: base_models.BaseModel, rows: Sequence[Example], settings: LoraFlags, arguments: dict[str, Any]
) -> Trainer:
    return _ours(base, rows, dataclasses.replace(settings, checkpointing="on"), arguments)


# The tutorial's adapter, in every arm: what is compared is how an update is computed, not what it learns.
ADAPTER: dict[str, Any] = {"rank": 8, "alpha": 32, "dropout": 0.1, "batch_size": 16}

Build = Callable[[base_models.BaseModel, Sequence[Example], LoraFlags, dict[str, Any]], Trainer]
RECIPES: dict[str, Build] = {
    "tutorial": _tutorial,
    "trl": _trl,
    "trl_tuned": _trl_tuned,
    "ours": _ours,
    "lean": _lean,
}


def build(
    recipe: str, base: base_models.BaseModel, rows: Sequence[Example], settings: LoraFlags, **arguments: Any
) -> Trainer:
    """The trainer of a recipe; `settings` gives the adapter and ours its packs, `arguments` go to `TrainingArguments`.

    It attaches LoRA to `base.model` and, for ours, takes its logits away: load the model anew for another recipe.
    """
    disable_progress_bars()
    arguments |= dict(logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, log_level="error")
    arguments |= dict(use_cpu=base.device[0] == "cpu", dataloader_pin_memory=False, seed=settings.seed)
    trainer = RECIPES[recipe](base, rows, settings, arguments)
    trainer.remove_callback(PrinterCallback)
    return trainer


def in_own_process(measure: Callable[..., Result], recipe: str, *arguments: Any) -> Result:
    """What `measure` returns in a fresh process; raises `RoleplayError` when that is killed."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure, recipe, *arguments).result()
        except BrokenProcessPool as error:
            raise RoleplayError(
                f"the process of {recipe} was killed, most likely for its memory: leave it out, or free some memory"
            ) from error


def in_turn(
    measure: Callable[..., Result], arms: Sequence[str], repeats: int, told: Callable[[Result], str], *arguments: Any
) -> dict[str, list[Result]]:
    """What `measure` returns for every arm as often as asked, each in a fresh process, every other time in reverse.

    After each it prints what is `told` of it. Raises `RoleplayError` as `in_own_process` does.
    """
    runs: dict[str, list[Result]] = {arm: [] for arm in arms}
    for number in range(repeats):
        for arm in arms[:: -1 if number % 2 else 1]:
            runs[arm].append(run := in_own_process(measure, arm, *arguments))
            print(f"repeat {number + 1} of {repeats}: {arm} {told(run)}", file=sys.stderr, flush=True)
    return runs
