"""What a training is asked for, checked, and said again in the words of the libraries that do it."""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from roleplay.disk import check_writable
from roleplay.errors import RoleplayError
from roleplay.flags import flag
from roleplay.text.prompts import TEMPLATES
from roleplay.weights import base_models
from roleplay.weights.adapters import PROJECTIONS
from roleplay.weights.layout import MAX_RANK, NAME
from roleplay.weights.training_rows import HELD_OUT, SEED
from train.learning.adapter import INITIALISATIONS
from train.learning.attention import ATTENTION
from train.learning.memory import PackPlan, Wishes, process_count


@dataclass(frozen=True)
class LoraFlags:
    name: str = flag("zhenhuan-mine", "folder under adapters/ to write")
    character: str = flag("zhenhuan", "a folder under dataset/, or any folder: its persona and its rows")
    data: list[str] = flag([], "files of rows, JSON lists or JSON Lines, in place of the character's")
    base_model: str = flag("", "embedded, a Hugging Face id, modelscope:OWNER/NAME or a folder; chosen by the device")
    persona: str = flag("", "a persona or a character card (docs/cards.md), in place of the character's")
    template: str = flag("gemma", "where the persona goes: into the first user turn or a system turn", tuple(TEMPLATES))
    rank: int = flag(16, "rank of the LoRA matrices; higher can learn more and takes more memory", within=(1, MAX_RANK))
    alpha: int = flag(
        32, "the update is scaled by alpha / rank; higher acts like a higher learning rate", within=(1, inf)
    )
    dropout: float = flag(0.05, "share of LoRA inputs zeroed; higher forgets the rows' exact words", within=(0, 0.9))
    projections: list[str] = flag(list(PROJECTIONS), "which projections of a layer are adapted")
    rslora: bool = flag(False, "scale by alpha / sqrt(rank) instead (rsLoRA), for high ranks")
    initialisation: str = flag(
        "kaiming", "first values: random A and zero B, or both orthogonal", tuple(INITIALISATIONS)
    )
    learning_rate: float = flag(1e-3, "peak rate; higher learns faster and forgets more", within=(0, inf))
    lora_plus_ratio: float = flag(1.0, "how much faster the B matrices learn (LoRA+)", within=(1, inf))
    schedule: str = flag("cosine", "shape of the rate over the run", ("cosine", "linear", "constant_with_warmup"))
    warmup: float = flag(0.05, "share of the run in which the rate rises to its peak", within=(0, 0.9))
    epochs: float = flag(
        0, "passes over the training rows; more learn them by heart; 0 chooses by the number of rows", within=(0, inf)
    )
    keep: float = flag(
        0.85, "share of the learned update that is saved; lower forgets less, and speaks less like the rows"
    )
    batch_size: int = flag(0, "rows in one update, over all devices; 0 chooses by the number of rows", within=(0, inf))
    pack_rows: int = flag(
        0, "rows computed at once; fewer take less memory; 0 is as many as pay and fit", within=(0, inf)
    )
    max_length: int = flag(512, "tokens a row may take; longer conversations lose their oldest turns", within=(1, inf))
    rehearsal: float = flag(
        0.5,
        "weight of what the base model says without a persona, beside the rows; higher forgets less",
        within=(0, inf),
    )
    loss_on: str = flag("all", "learn every reply of a conversation or the last", ("all", "last"))
    held_out: float = flag(HELD_OUT, "share of rows held out, where the data names none itself", within=(0, 0.5))
    evaluate_every: int = flag(200, "updates between held-out losses", within=(1, inf))
    save_every: int = flag(50, "updates between checkpoints", within=(1, inf))
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


def check_flags(flags: LoraFlags, home: Path) -> None:
    """What would end a run later is refused now: names, shares, folders of `home` that exist or cannot be written."""
    if not NAME.fullmatch(flags.name):
        raise RoleplayError(f"--name {flags.name!r:.80}: use letters, digits, dots and dashes")
    if unknown := sorted(set(flags.projections) - set(PROJECTIONS)):
        raise RoleplayError(f"unknown projection {unknown[0]!r}: choose from {', '.join(PROJECTIONS)}")
    if flags.initialisation == "orthogonal" and flags.rank % 2:
        raise RoleplayError(f"--rank {flags.rank}: an orthogonal initialisation takes an even rank")
    if not 0 < flags.keep <= 1:
        raise RoleplayError(f"--keep {flags.keep}: give a share above 0 and at most 1")
    processes = process_count()
    if flags.batch_size % (processes * (flags.pack_rows or 1)):
        parts = f"{processes} processes" + (f" with {flags.pack_rows} rows a pack" if flags.pack_rows else "")
        raise RoleplayError(f"--batch-size {flags.batch_size} cannot be shared out to {parts}: give a multiple")
    folder = home / "adapters" / flags.name
    if folder.exists() and not flags.overwrite:
        raise RoleplayError(f"{folder} exists: choose another --name, or replace it with --overwrite")
    check_writable(folder.parent)
    check_writable(home / "runs")


def choose_attention(flags: LoraFlags, base: base_models.BaseModel) -> base_models.Reasoned:
    if flags.attention != "auto":
        return flags.attention, "as asked"
    if base.attention[0] == "flash_attention_2":
        return base.attention[0], "flash-attn is installed; it takes no shared prefix, so rows are packed whole"
    return ATTENTION, "the persona is computed once a pack"


def lora_config(flags: LoraFlags) -> dict[str, Any]:
    """The flags in peft's words."""
    return {
        "r": flags.rank,
        "lora_alpha": flags.alpha,
        "lora_dropout": flags.dropout,
        "target_modules": flags.projections,
        "use_rslora": flags.rslora,
        "init_lora_weights": INITIALISATIONS[flags.initialisation],
    }


def pack_wishes(flags: LoraFlags, processes: int = 1) -> Wishes:
    """The flags as `memory.plan` takes them."""
    rows = flags.pack_rows or max(1, flags.batch_size // processes)
    return Wishes(rows, not flags.pack_rows, flags.checkpointing, flags.dropout > 0, processes)


def training_arguments(flags: LoraFlags, run: Path, plan: PackPlan, processes: int, on_cpu: bool) -> TrainingArguments:
    """The flags in transformers' words; checkpoints go to the folder `run`."""
    return TrainingArguments(
        output_dir=str(run),
        per_device_train_batch_size=plan.rows,
        per_device_eval_batch_size=plan.rows,
        gradient_accumulation_steps=max(1, flags.batch_size // (plan.rows * processes)),
        activation_checkpointing=plan.checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        num_train_epochs=flags.epochs,
        learning_rate=flags.learning_rate,
        lr_scheduler_type=flags.schedule,
        warmup_steps=flags.warmup,
        eval_strategy="steps",
        eval_steps=flags.evaluate_every,
        eval_on_start=not flags.resume,
        save_strategy="steps",
        save_steps=flags.save_every,
        logging_steps=1,
        seed=flags.seed,
        remove_unused_columns=False,
        disable_tqdm=True,
        log_level="error",
        report_to="trackio" if flags.trackio or flags.trackio_space else "none",
        project="roleplay",
        run_name=flags.name,
        trackio_space_id=flags.trackio_space or None,
        use_cpu=on_cpu,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
    )
