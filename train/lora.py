"""Fine-tune Gemma into a character with LoRA, and write a complete adapter folder.

    python -m train.lora --name zhenhuan-mine
    python -m train.lora --data mine.json --persona me.json --base-model google/gemma-2b-it --name me
    python -m train.lora --name zhenhuan-mine --resume        # after Ctrl-C, a crash or a kill

It writes adapters/NAME/ when the run is complete (weights, configuration, chat template, training.json, curve, card),
and keeps checkpoints in runs/NAME/ until then.
"""

import dataclasses
import importlib.metadata
import os
import shutil
import sys
import time
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import transformers
from accelerate import PartialState
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import TrainingArguments, set_seed

from roleplay.disk import check_writable
from roleplay.environment import ROOT, Environment
from roleplay.errors import DataError, RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text import personas
from roleplay.text.personas import Persona, load_persona
from roleplay.text.prompts import IGNORED, TEMPLATES, Example, PromptEncoder
from roleplay.text.rows import Row
from roleplay.text.splits import repeat_by_weight
from roleplay.weights import base_models
from roleplay.weights.adapters import PROJECTIONS
from roleplay.weights.layout import NAME
from roleplay.weights.training_rows import HELD_OUT, SEED, load_rows
from train.learning import memory
from train.learning.attention import ATTENTION
from train.learning.callbacks import ProgressBar, StopSignal
from train.learning.checkpoints import RESUME, check_resume
from train.learning.loss import use_chunked_loss
from train.learning.trainer import CharacterTrainer
from train.publishing.folders import write_adapter
from train.publishing.upload import push_adapter

LIBRARIES = ("torch", "transformers", "peft", "accelerate")
WHAT_MUST_STAY = ("rank", "alpha", "dropout", "projections", "template", "loss_on", "seed", "batch_size", "rslora")
INITIALISATIONS: dict[str, Any] = {"kaiming": True, "orthogonal": "orthogonal"}  # in peft's words


@dataclass(frozen=True)
class LoraFlags:
    name: str = flag("zhenhuan-mine", "folder under adapters/ to write")
    data: list[str] = flag(
        [str(ROOT / "dataset" / "zhenhuan" / "rows.json")], "files of rows, JSON lists or JSON Lines"
    )
    base_model: str = flag("", "embedded, a Hugging Face id, modelscope:OWNER/NAME or a folder; chosen by the device")
    persona: str = flag("", "a persona as JSON; Zhen Huan where none is given")
    template: str = flag("gemma", "where the persona goes: into the first user turn or a system turn", tuple(TEMPLATES))
    rank: int = flag(8, "rank of the LoRA matrices; higher can learn more and takes more memory", within=(1, inf))
    alpha: int = flag(
        32, "the update is scaled by alpha / rank; higher acts like a higher learning rate", within=(1, inf)
    )
    dropout: float = flag(0.1, "share of LoRA inputs zeroed; higher forgets the rows' exact words", within=(0, 0.9))
    projections: list[str] = flag(list(PROJECTIONS), "which projections of a layer are adapted")
    rslora: bool = flag(False, "scale by alpha / sqrt(rank) instead (rsLoRA), for high ranks")
    initialisation: str = flag(
        "kaiming", "first values: random A and zero B, or both orthogonal", tuple(INITIALISATIONS)
    )
    learning_rate: float = flag(4e-4, "peak rate; higher learns faster and forgets more", within=(0, inf))
    lora_plus_ratio: float = flag(1.0, "how much faster the B matrices learn (LoRA+)", within=(1, inf))
    schedule: str = flag("cosine", "shape of the rate over the run", ("cosine", "linear", "constant_with_warmup"))
    warmup: float = flag(0.05, "share of the run in which the rate rises to its peak", within=(0, 0.9))
    epochs: float = flag(2.0, "passes over the training rows; more learn them by heart", within=(0.01, inf))
    keep: float = flag(
        0.83, "share of the learned update that is saved; lower forgets less, and speaks less like the rows"
    )
    batch_size: int = flag(16, "rows in one update, over all devices", within=(1, inf))
    pack_rows: int = flag(
        0, "rows computed at once; fewer take less memory; 0 is as many as pay and fit", within=(0, inf)
    )
    max_length: int = flag(512, "tokens a row may take; longer conversations lose their oldest turns", within=(1, inf))
    loss_on: str = flag("all", "learn every reply of a conversation or the last", ("all", "last"))
    held_out: float = flag(HELD_OUT, "share of rows held out, where the data names none itself", within=(0, 0.5))
    evaluate_every: int = flag(40, "updates between held-out losses", within=(1, inf))
    save_every: int = flag(20, "updates between checkpoints", within=(1, inf))
    seed: int = flag(SEED, "fixes the split, the order, the initial weights and dropout", within=(0, 2**32 - 1))
    dtype: str = flag("", "of the base weights; LoRA is float32 always", ("", "float32", "bfloat16"))
    attention: str = flag(
        "auto",
        "shared_prefix, or rows packed unshared with sdpa or flash_attention_2",
        ("auto", ATTENTION, "sdpa", "flash_attention_2"),
    )
    checkpointing: str = flag("auto", "recompute activations: a third slower, far less memory", ("auto", "on", "off"))
    resume: bool = flag(False, "go on from the last checkpoint of this name")
    overwrite: bool = flag(False, "replace adapters/NAME where it exists")
    trackio: bool = flag(False, "live curves in Trackio; look with: trackio show")
    trackio_space: str = flag("", "a Space (user/name) that shows the live curves")
    push: str = flag("", "Hugging Face repository (user/name) to push the adapter to, private")
    push_modelscope: str = flag("", "ModelScope repository (user/name) to push the adapter to, private")


def encode(rows: list[Row], encoder: PromptEncoder, persona: Persona, settings: LoraFlags) -> list[Example]:
    """Every row as token ids whose last label is the stop token."""
    examples = [
        encoder.example(persona.system_prompt, row.turns, settings.loss_on, settings.max_length, row.where)
        for row in rows
    ]
    for example in examples:
        if example.labels[-1] != encoder.stop_ids[0]:
            raise DataError(f"{example.where}: its last label is not <end_of_turn>; the row would never learn to stop")
    return examples


def choose_attention(settings: LoraFlags, base: base_models.BaseModel) -> base_models.Reasoned:
    if settings.attention != "auto":
        return settings.attention, "as asked"
    if base.attention[0] == "flash_attention_2":
        return base.attention[0], "flash-attn is installed; it takes no shared prefix, so rows are packed whole"
    return ATTENTION, "the persona is computed once a pack"


def attach_lora(base: base_models.BaseModel, settings: LoraFlags) -> PeftModel:
    if unknown := sorted(set(settings.projections) - set(PROJECTIONS)):
        raise RoleplayError(f"unknown projection {unknown[0]!r}: choose from {', '.join(PROJECTIONS)}")
    if settings.initialisation == "orthogonal" and settings.rank % 2:
        raise RoleplayError(f"--rank {settings.rank}: an orthogonal initialisation takes an even rank")
    return get_peft_model(
        base.model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=settings.projections,
            use_rslora=settings.rslora,
            init_lora_weights=INITIALISATIONS[settings.initialisation],
        ),
    )


def keep_share(model: PeftModel, share: float) -> None:
    """Go back towards the base weights until `share` of the update is left, by way of the B matrices.

    A model trained longer and pulled back keeps more of what it learned, at the same cost to everything else, than one
    trained less. Source: WiSE-FT (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).
    """
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            weight.data.mul_(share)


def train(settings: LoraFlags) -> Path:
    """Run the whole recipe; returns the adapter's folder. Raises `RoleplayError` for anything a user can mend."""
    if not NAME.fullmatch(settings.name):
        raise RoleplayError(f"--name {settings.name!r:.80}: use letters, digits, dots and dashes")
    folder, run = ROOT / "adapters" / settings.name, ROOT / "runs" / settings.name
    if folder.exists() and not settings.overwrite:
        raise RoleplayError(f"{folder} exists: choose another --name, or replace it with --overwrite")
    for parent in (folder.parent, run.parent):
        check_writable(parent)
    if not 0 < settings.keep <= 1:
        raise RoleplayError(f"--keep {settings.keep}: give a share above 0 and at most 1")
    set_seed(settings.seed)

    # Data
    persona = load_persona(settings.persona) if settings.persona else personas.default()
    train_rows, held_out_rows, files = load_rows(settings.data, settings.held_out, settings.seed)
    train_rows = repeat_by_weight(train_rows, settings.seed)

    # Model
    PartialState()  # makes the GPU that `accelerate launch` means for this process the one that is loaded on
    environment = Environment()
    base = base_models.load(settings.base_model or environment.base_model, environment.cache, settings.dtype)
    encoder = PromptEncoder(base.tokenizer, settings.template)
    examples, held_out = (encode(rows, encoder, persona, settings) for rows in (train_rows, held_out_rows))
    attention, reason = choose_attention(settings, base)
    share_prefix = attention == ATTENTION
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    pack_rows, checkpointing, plan = memory.plan(
        base.model,
        examples,
        share_prefix,
        rows=settings.pack_rows or max(1, settings.batch_size // processes),
        may_shrink=not settings.pack_rows,
        checkpointing=settings.checkpointing,
        dropout=settings.dropout > 0,
        processes=processes,
    )
    fingerprint = base_models.fingerprint(base.model)
    parameters = base.model.num_parameters()
    base.model.set_attn_implementation(attention)
    use_chunked_loss(base.model)
    set_seed(settings.seed)
    model = attach_lora(base, settings)

    # Train
    record = {file["file"]: file["sha256"] for file in files} | {"base model": fingerprint}
    record |= {key: getattr(settings, key) for key in WHAT_MUST_STAY}
    checkpoint = check_resume(run, record, settings.resume)
    arguments = TrainingArguments(
        output_dir=str(run),
        per_device_train_batch_size=pack_rows,
        per_device_eval_batch_size=pack_rows,
        gradient_accumulation_steps=max(1, settings.batch_size // (pack_rows * processes)),
        activation_checkpointing=checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        eval_strategy="steps",
        eval_steps=settings.evaluate_every,
        eval_on_start=checkpoint is None,
        save_strategy="steps",
        save_steps=settings.save_every,
        logging_steps=1,
        seed=settings.seed,
        remove_unused_columns=False,
        disable_tqdm=True,
        log_level="error",
        report_to="trackio" if settings.trackio or settings.trackio_space else "none",
        project="roleplay",
        run_name=settings.name,
        trackio_space_id=settings.trackio_space or None,
        use_cpu=base.device[0] == "cpu",
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
    )
    stop, bar = StopSignal(), ProgressBar()
    trainer = CharacterTrainer(
        model,
        arguments,
        train_dataset=examples,
        eval_dataset=held_out,
        callbacks=[stop, bar],
        share_prefix=share_prefix,
        lora_plus_ratio=settings.lora_plus_ratio,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    bar.trainer = trainer
    if trainer.is_world_process_zero():
        count = model.get_nb_trainable_parameters()[0]
        print(*base.describe()[:3], f"attention    {attention}: {reason}", f"checkpoints  {plan}", sep="\n")
        size = f"{pack_rows} a pack, {settings.batch_size} an update"
        print(f"adapter      rank {settings.rank}: {count / 1e6:.2f} million parameters trainable")
        print(f"rows         {len(examples)} to learn, {len(held_out)} held out; {size}")
    started = time.monotonic()
    result = trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.monotonic() - started
    if stop.caught:
        print(f"Stopped after update {trainer.state.global_step} of {trainer.state.max_steps}. Go on with: --resume")
        sys.exit(130)
    keep_share(model, settings.keep)
    final_loss = trainer.evaluate()["eval_loss"]

    # Save
    log = trainer.state.log_history
    held_out_log = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    training = {
        "settings": dataclasses.asdict(settings) | {"data": [file["file"] for file in files]},
        "data": files,
        "held_out": {"rows": len(held_out), "labels": sum(y != IGNORED for e in held_out for y in e.labels)},
        "base_model": {"name": base.hub_id, "fingerprint": fingerprint, "parameters": parameters},
        "persona": dataclasses.asdict(persona),
        "template": settings.template,
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "results": {
            "updates": trainer.state.global_step,
            "seconds": round(seconds, 1),
            "train_loss": result.training_loss,
            "base_held_out_loss": held_out_log[0],
            "held_out_loss": final_loss,
            "log": [{key: float(f"{value:.6g}") for key, value in entry.items()} for entry in log],
        },
    }
    if trainer.is_world_process_zero():
        write_adapter(folder, model, training, RESUME)
        shutil.rmtree(run)
        print(f"{folder}: held-out loss {held_out_log[0]:.3f} -> {final_loss:.3f} nat per token")
    return folder


def main() -> None:
    settings = parse(LoraFlags, __doc__)
    with one_line_errors():
        folder = train(settings)
        if (settings.push or settings.push_modelscope) and PartialState().is_main_process:
            for url in push_adapter(folder, settings.push, settings.push_modelscope):
                print(f"pushed and verified: {url}")


if __name__ == "__main__":
    main()
