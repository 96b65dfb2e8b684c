"""What a training is asked for, checked, and said again in the words of the libraries that do it."""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from roleplay.disk import check_writable
from roleplay.engine.protocol import MAX_CANDIDATES
from roleplay.environment import ROOT
from roleplay.errors import RoleplayError
from roleplay.flags import flag
from roleplay.text import limits
from roleplay.text.pairs import HELD_OUT as PAIRS_HELD_OUT
from roleplay.text.prompts import TEMPLATES
from roleplay.text.reading.forms import FORMS
from roleplay.weights import base_models, devices
from roleplay.weights.adapters import PROJECTIONS
from roleplay.weights.architectures import plain_attention
from roleplay.weights.layout import MAX_ALPHA, MAX_RANK, NAME
from roleplay.weights.training_rows import HELD_OUT, SEED
from train.learning.adapter import INITIALISATIONS
from train.learning.attention import ATTENTION
from train.learning.memory import PackPlan, Wishes, process_count
from train.learning.preference import LOSSES


@dataclass(frozen=True)
class RunFlags:
    """What every training is asked for, whatever it learns from; a row is a pair where pairs are learnt."""

    name: str = flag("", "folder under adapters/ to write")
    base_model: str = flag("", "embedded, a Hugging Face id, modelscope:OWNER/NAME or a folder; chosen by the device")
    learning_rate: float = flag(1e-3, "peak rate; higher learns faster and forgets more", within=(0, inf))
    schedule: str = flag("cosine", "shape of the rate over the run", ("cosine", "linear", "constant_with_warmup"))
    warmup: float = flag(0.05, "share of the run in which the rate rises to its peak", within=(0, 0.9))
    epochs: float = flag(
        0,
        "passes over the training rows, below 1 over a part; more learn them by heart; 0 chooses by their number",
        within=(0, inf),
    )
    batch_size: int = flag(0, "rows in one update, over all devices; 0 chooses by the number of rows", within=(0, inf))
    pack_rows: int = flag(
        0, "rows computed at once; fewer take less memory; 0 is as many as pay and fit", within=(0, inf)
    )
    max_length: int = flag(
        limits.ROW_TOKENS, "tokens a row may take; longer conversations lose their oldest turns", within=(1, inf)
    )
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


@dataclass(frozen=True)
class LoraFlags(RunFlags):
    name: str = flag("zhenhuan-mine", "folder under adapters/ to write")
    character: str = flag("zhenhuan", "a folder under dataset/, or any folder: its persona and its rows")
    data: list[str] = flag([], "files of rows, in any form of docs/rows.md, in place of the character's")
    adapter: str = flag(
        "", "folder of an adapter to go on from, in place of new matrices; with its rank and projections"
    )
    format: str = flag("", "the form of the rows, where it is recognised wrongly", ("", *FORMS))
    persona: str = flag("", "a persona or a character card (docs/cards.md), in place of the character's")
    template: str = flag("gemma", "where the persona goes: into the first user turn or a system turn", tuple(TEMPLATES))
    rank: int = flag(16, "rank of the LoRA matrices; higher can learn more and takes more memory", within=(1, MAX_RANK))
    alpha: int = flag(
        32, "the update is scaled by alpha / rank; higher acts like a higher learning rate", within=(1, MAX_ALPHA)
    )
    dropout: float = flag(0.05, "share of LoRA inputs zeroed; higher forgets the rows' exact words", within=(0, 0.9))
    projections: list[str] = flag(list(PROJECTIONS), "which projections of a layer are adapted")
    rslora: bool = flag(False, "scale by alpha / sqrt(rank) instead (rsLoRA), for high ranks")
    initialisation: str = flag(
        "kaiming", "first values: random A and zero B, or both orthogonal", tuple(INITIALISATIONS)
    )
    lora_plus_ratio: float = flag(1.0, "how much faster the B matrices learn (LoRA+)", within=(1, inf))
    keep: float = flag(
        0.85, "share of what the run learnt that is saved; lower forgets less, and speaks less like the rows"
    )
    rehearsal: float = flag(
        0.5,
        "weight of what the base model says without a persona, beside the rows; higher forgets less",
        within=(0, inf),
    )
    retrieval: bool = flag(False, "learn to use the rows nearest to a message, which are then looked up in every chat")
    loss_on: str = flag("all", "learn every reply of a conversation or the last", ("all", "last"))


@dataclass(frozen=True)
class PreferFlags(RunFlags):
    adapter: str = flag(
        str(ROOT / "adapters" / "zhenhuan-gemma3-270m"), "folder of the adapter to go on from, which is the reference"
    )
    votes: str = flag("", "folder of blind votes")
    pairs: list[str] = flag([], "files of prompt / chosen / rejected rows, JSON lists or JSON Lines")
    own_samples: int = flag(
        0,
        "replies of the adapter itself to each of --own-messages: 1 is rejected beside the written one (self-play), "
        "of more the worst is rejected beside the best",
        within=(0, MAX_CANDIDATES),
    )
    own_messages: int = flag(300, "messages of its training that it answers for --own-samples", within=(1, inf))
    character: str = flag("", "whose lists judge: a folder under dataset/, or a path; chosen by the adapter's training")
    loss: str = flag(
        "dpo",
        "dpo; ipo, which holds back where every pair agrees; kto, which learns single replies, ties and both bad too",
        LOSSES,
    )
    beta: float = flag(0.1, "how closely it keeps to the starting adapter; higher changes less", within=(1e-4, inf))
    sft_weight: float = flag(0.0, "weight of the plain loss on the chosen replies beside it", within=(0, inf))
    keep_anyway: bool = flag(False, "write the adapter even where it got clearly worse")
    learning_rate: float = flag(5e-5, "peak rate; higher moves further from the starting adapter", within=(0, inf))
    epochs: float = flag(2, "passes over the training pairs; more learn them by heart", within=(0.01, inf))
    max_length: int = flag(
        limits.PAIR_TOKENS, "tokens a pair's side may take; longer ones lose their oldest turns", within=(1, inf)
    )
    batch_size: int = flag(8, "pairs in one update, over all devices", within=(1, inf))
    held_out: float = flag(PAIRS_HELD_OUT, "share of pairs held out, by prompt", within=(0, 0.5))
    evaluate_every: int = flag(20, "updates between held-out margins", within=(1, inf))


def check_flags(flags: LoraFlags, home: Path) -> None:
    """What would end a run later is refused now: shares, projections, and what `check_run` finds."""
    if unknown := sorted(set(flags.projections) - set(PROJECTIONS)):
        raise RoleplayError(f"unknown projection {unknown[0]!r}: choose from {', '.join(PROJECTIONS)}")
    if flags.initialisation == "orthogonal" and flags.rank % 2:
        raise RoleplayError(f"--rank {flags.rank}: an orthogonal initialisation takes an even rank")
    if not 0 < flags.keep <= 1:
        raise RoleplayError(f"--keep {flags.keep}: give a share above 0 and at most 1")
    check_run(flags, home)


def check_run(flags: RunFlags, home: Path) -> None:
    """Raises `RoleplayError` for a name that is none, a batch that cannot be shared out, or folders of `home` that
    exist or cannot be written."""
    if not NAME.fullmatch(flags.name):
        raise RoleplayError(f"--name {flags.name!r:.80}: use letters, digits, dots and dashes")
    if not flags.learning_rate:
        raise RoleplayError("--learning-rate 0 learns nothing: give a rate above 0")
    processes = process_count()
    if flags.batch_size % (processes * (flags.pack_rows or 1)):
        parts = f"{processes} processes" + (f" with {flags.pack_rows} rows a pack" if flags.pack_rows else "")
        raise RoleplayError(f"--batch-size {flags.batch_size} cannot be shared out to {parts}: give a multiple")
    folder = home / "adapters" / flags.name
    if folder.exists() and not flags.overwrite:
        raise RoleplayError(f"{folder} exists: choose another --name, or replace it with --overwrite")
    check_writable(folder.parent)
    check_writable(home / "runs")


def choose_attention(flags: RunFlags, base: base_models.BaseModel) -> devices.Reasoned:
    if flags.attention == "sdpa":
        name, why = plain_attention(base.model.config)
        return name, f"rows packed whole, as asked; {why}"
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


def pack_wishes(flags: RunFlags, processes: int = 1) -> Wishes:
    """The flags as `memory.plan` takes them."""
    rows = flags.pack_rows or max(1, flags.batch_size // processes)
    dropout = isinstance(flags, LoraFlags) and flags.dropout > 0
    return Wishes(rows, not flags.pack_rows, flags.checkpointing, dropout, processes)


def training_arguments(flags: RunFlags, run: Path, plan: PackPlan, processes: int, on_cpu: bool) -> TrainingArguments:
    """The flags in transformers' words; checkpoints go to the folder `run`."""
    return TrainingArguments(
        output_dir=str(run),
        per_device_train_batch_size=plan.rows,
        per_device_eval_batch_size=plan.rows,
        gradient_accumulation_steps=max(1, flags.batch_size // (plan.rows * processes)),
        activation_checkpointing=plan.checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        num_train_epochs=max(1.0, flags.epochs),  # of less, `draw_share` has left out rows
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
