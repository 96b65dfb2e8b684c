"""Fine-tune Gemma into a character with LoRA, and write a complete adapter folder.

    python -m train.lora --name zhenhuan-mine
    python -m train.lora --data mine.json --persona me.json --base-model google/gemma-2b-it --name me
    python -m train.lora --name zhenhuan-mine --resume        # after Ctrl-C, a crash or a kill

It writes adapters/NAME/ when the run is complete (weights, configuration, chat template, training.json, curve, card),
and keeps checkpoints in runs/NAME/ until then.
"""

import dataclasses
import importlib.metadata
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainingArguments, set_seed

from roleplay.disk import check_writable
from roleplay.environment import ROOT, Environment
from roleplay.errors import DataError, RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.characters import ROWS, load_character
from roleplay.text.personas import Persona, load_persona
from roleplay.text.prompts import TEMPLATES, Example, PromptEncoder
from roleplay.text.rows import Row
from roleplay.text.splits import name_few, repeat_by_weight
from roleplay.weights import base_models
from roleplay.weights.adapters import PROJECTIONS
from roleplay.weights.layout import MAX_RANK, NAME
from roleplay.weights.training_rows import HELD_OUT, SEED, load_rows
from train.learning import memory, recipe
from train.learning.adapter import INITIALISATIONS, attach_lora, finish
from train.learning.attention import ATTENTION
from train.learning.callbacks import SampleReplies, follow, sample_prompts
from train.learning.checkpoints import RESUME, check_resume, what_must_stay
from train.learning.loss import use_chunked_loss
from train.learning.memory import PackPlan, Wishes, process_count
from train.learning.packing import label_counts
from train.learning.rehearsal import prepare
from train.learning.trainer import CharacterTrainer
from train.publishing.folders import write_adapter
from train.publishing.upload import push_adapter

LIBRARIES = ("torch", "transformers", "peft", "accelerate")


@dataclass(frozen=True)
class LoraFlags:
    name: str = flag("zhenhuan-mine", "folder under adapters/ to write")
    character: str = flag("zhenhuan", "a folder under dataset/, or any folder: its persona and its rows")
    data: list[str] = flag([], "files of rows, JSON lists or JSON Lines, in place of the character's")
    base_model: str = flag("", "embedded, a Hugging Face id, modelscope:OWNER/NAME or a folder; chosen by the device")
    persona: str = flag("", "a persona as JSON, in place of the character's")
    template: str = flag("gemma", "where the persona goes: into the first user turn or a system turn", tuple(TEMPLATES))
    rank: int = flag(32, "rank of the LoRA matrices; higher can learn more and takes more memory", within=(1, MAX_RANK))
    alpha: int = flag(
        64, "the update is scaled by alpha / rank; higher acts like a higher learning rate", within=(1, inf)
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
        1.0,
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


def check_flags(flags: LoraFlags) -> None:
    """What would end a run later is refused now: names, shares, folders that exist or cannot be written."""
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
    folder = ROOT / "adapters" / flags.name
    if folder.exists() and not flags.overwrite:
        raise RoleplayError(f"{folder} exists: choose another --name, or replace it with --overwrite")
    check_writable(folder.parent)
    check_writable(ROOT / "runs")


def encode(rows: Sequence[Row], encoder: PromptEncoder, persona: Persona, flags: LoraFlags) -> list[Example]:
    """Every row as token ids whose last label is the stop token."""
    examples = [
        encoder.example(persona.system_prompt, row.turns, flags.loss_on, flags.max_length, row.where) for row in rows
    ]
    for example in examples:
        if example.labels[-1] != encoder.stop_ids[0]:
            raise DataError(f"{example.where}: its last label is not <end_of_turn>; the row would never learn to stop")
    return examples


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


def training_arguments(flags: LoraFlags, plan: PackPlan, processes: int, on_cpu: bool) -> TrainingArguments:
    """The flags in transformers' words."""
    return TrainingArguments(
        output_dir=str(ROOT / "runs" / flags.name),
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


def training_record(
    flags: LoraFlags, persona: Persona, files: list[dict[str, Any]], base: dict[str, Any]
) -> dict[str, Any]:
    """What training.json says of how an adapter was made; no path of this machine goes into it."""
    names = {key: Path(getattr(flags, key)).name for key in ("character", "persona")}
    return {
        "settings": dataclasses.asdict(flags) | {"data": [file["file"] for file in files], **names},
        "data": files,
        "base_model": base,
        "persona": dataclasses.asdict(persona),
        "template": flags.template,
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def train(flags: LoraFlags) -> Path:
    """Run the whole recipe; returns the adapter's folder. Raises `RoleplayError` for anything a user can mend."""
    check_flags(flags)
    folder, run = ROOT / "adapters" / flags.name, ROOT / "runs" / flags.name

    # Data
    character = load_character(flags.character)
    persona = load_persona(flags.persona) if flags.persona else character.persona
    data = flags.data or [str(character.rows or character.folder / ROWS)]
    rows, held_out_rows, files = load_rows(data, flags.held_out, flags.seed)
    rows = repeat_by_weight(rows, flags.seed)
    chosen = recipe.choose(len(rows), flags.epochs, flags.batch_size, max(process_count(), flags.pack_rows))
    flags = dataclasses.replace(flags, epochs=chosen.epochs, batch_size=chosen.batch_size)

    # Model
    PartialState()  # makes the GPU that `accelerate launch` means for this process the one that is loaded on
    environment, processes = Environment(), process_count()
    base = base_models.load(flags.base_model or environment.base_model, environment.cache, flags.dtype)
    origin = base.identity()
    encoder = PromptEncoder(base.tokenizer, flags.template)
    examples = encode(rows, encoder, persona, flags)
    held_out = encode(held_out_rows, encoder, persona, flags)
    attention = choose_attention(flags, base)
    plan = memory.plan(base.model, examples, attention[0] == ATTENTION, pack_wishes(flags, processes))
    base.model.set_attn_implementation(attention[0])
    use_chunked_loss(base.model)
    set_seed(flags.seed)
    model = attach_lora(base.model, **lora_config(flags))

    # Train
    must_stay = what_must_stay(dataclasses.asdict(flags), persona.system_prompt, files, origin["fingerprint"])
    checkpoint = check_resume(run, must_stay, flags.resume)
    trainer = CharacterTrainer(
        model,
        training_arguments(flags, plan, processes, base.device[0] == "cpu"),
        share_prefix=attention[0] == ATTENTION,
        lora_plus_ratio=flags.lora_plus_ratio,
        train_dataset=examples,
        eval_dataset=held_out,
    )
    if flags.rehearsal:
        trainer.rehearse(flags.rehearsal, prepare(model, encoder, rows, attention[0] == ATTENTION))
    samples = SampleReplies(trainer, encoder, persona.system_prompt, sample_prompts(persona, held_out_rows))
    stop = follow(trainer, samples)
    if trainer.is_world_process_zero():
        sizes = f"{len(examples)} to learn, {len(held_out)} held out; {plan.rows} a pack, {flags.batch_size} an update"
        weights = f"rank {flags.rank}: {model.get_nb_trainable_parameters()[0] / 1e6:.2f} million parameters trainable"
        print(*base.describe()[:3], f"attention    {attention[0]}: {attention[1]}", sep="\n")
        print(f"checkpoints  {plan.reason}", f"adapter      {weights}", sep="\n")
        print(f"rows         {sizes}", *name_few(held_out_rows), sep="\n")
        print(f"recipe       {chosen.reason}", *recipe.warnings(len(examples), len(held_out)), sep="\n")
    result = trainer.train(resume_from_checkpoint=checkpoint)
    if stop.caught:
        print(f"Stopped after update {trainer.state.global_step} of {trainer.state.max_steps}. Go on with: --resume")
        sys.exit(130)
    finish(model, flags.keep)
    trainer.evaluate()

    # Save
    if trainer.is_world_process_zero():
        results = trainer.results(result) | {"last_replies": samples.last()}
        record = training_record(flags, persona, files, origin) | {
            "held_out": label_counts(held_out) | {"listed": [Path(row.where).name for row in held_out_rows]},
            "results": results,
        }
        write_adapter(folder, model, record, RESUME)
        shutil.rmtree(run)
        before, after = results["base_held_out_loss"], results["held_out_loss"]
        print(*recipe.closing(results["last_replies"]), sep="\n")
        print(f"{folder}: held-out loss {before:.3f} -> {after:.3f} nat per token on {len(held_out)} rows")
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
