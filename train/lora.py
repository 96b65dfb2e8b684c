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
from pathlib import Path
from typing import Any

from accelerate import PartialState
from peft import LoraConfig
from transformers import set_seed

from roleplay.environment import ROOT, Environment
from roleplay.errors import DataError, one_line_errors
from roleplay.flags import parse
from roleplay.text.characters import ROWS, load_character
from roleplay.text.known import known
from roleplay.text.personas import Persona, load_persona
from roleplay.text.prompts import Example, PromptEncoder
from roleplay.text.retrieval import Retriever
from roleplay.text.rows import Row, system_notes
from roleplay.text.splits import draw_share, name_few, repeat_by_weight
from roleplay.weights import base_models, inspection
from roleplay.weights.adapters import NOTHING, Adapter, read_weights
from roleplay.weights.examples import lookup_notes
from roleplay.weights.training_rows import held_out_sha256, load_rows, remember
from train.learning import memory, recipe
from train.learning.adapter import attach_lora, finish, go_on_from, told_of
from train.learning.attention import ATTENTION
from train.learning.callbacks import SampleReplies, follow, sample_prompts
from train.learning.checkpoints import RESUME, check_resume, what_must_stay
from train.learning.loss import use_chunked_loss
from train.learning.meaning import look_up
from train.learning.memory import process_count
from train.learning.packing import label_counts
from train.learning.practice import encoders
from train.learning.rehearsal import prepare
from train.learning.settings import (
    LoraFlags,
    check_flags,
    choose_attention,
    lora_config,
    pack_wishes,
    training_arguments,
)
from train.learning.trainer import CharacterTrainer
from train.publishing.folders import publish, write_adapter

LIBRARIES = ("torch", "transformers", "peft", "accelerate")


@dataclass(frozen=True)
class Material:
    """What is learnt: who speaks, the rows on both sides of the split, the files they are from, and notes on those."""

    persona: Persona
    rows: list[Row]
    held_out: list[Row]
    paths: list[str]
    files: list[dict[str, Any]]
    notes: list[str]


def read_material(flags: LoraFlags, start: Adapter | None = None) -> Material:
    """The character's persona and rows, or those that are given; raises `DataError` for what cannot be read."""
    character = load_character(flags.character)
    persona = load_persona(flags.persona) if flags.persona else character.persona
    paths = flags.data or [str(character.rows or character.folder / ROWS)]
    notes = list[str]()
    rows, held_out, files = load_rows(paths, flags.held_out, flags.seed, flags.format, notes.append)
    if flags.data and not flags.persona:
        notes.append(f"learnt as {persona.name}; where the rows are somebody else's, say whose: --persona, --character")
    if start and start.persona != persona.system_prompt:
        notes.append(f"learnt as {persona.name}, with another persona than {start.name}: --persona or --character")
    if flags.retrieval:
        notes += lookup_notes(rows)
    notes += system_notes([*rows, *held_out], persona.system_prompt)
    return Material(persona, repeat_by_weight(rows, flags.seed), held_out, paths, files, notes)


def starting_point(flags: LoraFlags) -> tuple[LoraFlags, Adapter | None]:
    """The adapter to go on from, None for none, and the flags with its template, rank and projections; raises
    `AdapterError` for one that cannot be read."""
    if not flags.adapter:
        return flags, None
    start = inspection.inspect(Path(flags.adapter), looks_up=False)  # what it looks up is written anew
    config = LoraConfig.from_pretrained(str(start.folder))
    own = {"rank": config.r, "alpha": config.lora_alpha, "rslora": config.use_rslora, "template": start.template}
    return dataclasses.replace(flags, projections=sorted(config.target_modules or ()), **own), start


def lineage(start: Adapter | None) -> list[dict[str, Any]]:
    """The adapter that a training goes on from, as training.json names it; none where it begins anew."""
    return [start.identity] if start else []


def compared(material: Material, start: Adapter | None) -> list[dict[str, Any]]:
    """What a run that goes on must find with the same content."""
    sha256 = "".join(one["sha256"] for one in lineage(start))
    return [*material.files, {"file": "the adapter", "sha256": sha256}]


def check_start(start: Adapter | None, base: base_models.BaseModel, fingerprint: str) -> None:
    """Raises `AdapterError` where the adapter to go on from was not made for the base model, of this fingerprint."""
    if start and (warning := inspection.check_base(start, base.model, fingerprint, base.hub_id)):
        print(f"warning      {warning}")


def checkpoint_of(
    flags: LoraFlags, material: Material, start: Adapter | None, run: Path, fingerprint: str
) -> str | None:
    """As `check_resume`, of a run on a base model of this fingerprint."""
    persona, found = material.persona.system_prompt, compared(material, start)
    return check_resume(run, what_must_stay(dataclasses.asdict(flags), persona, found, fingerprint), flags.resume)


def begin(trainer: CharacterTrainer, start: Adapter | None) -> dict[str, float]:
    """Put the weights of `start` in place of the first values; returns the base model's held-out loss, taken before.

    Without it a run begins with the base model, whose loss is then its first.
    """
    if not start:
        return {}
    base = trainer.evaluate()["eval_loss"]
    go_on_from(trainer.lora, read_weights(start))
    return {"base_held_out_loss": base}


def encode(rows: Sequence[Row], encoder: PromptEncoder, persona: Persona, flags: LoraFlags) -> list[Example]:
    """Every row as token ids whose last label is the stop token."""
    examples = []
    for row in rows:
        whole = encoder.example(persona.system_prompt, row.turns, flags.loss_on, flags.max_length, row.where)
        examples.append(encoder.without_loss(whole, row.unlearnt))
    for example in examples:
        if example.labels[-1] != encoder.stop_ids[0]:
            raise DataError(f"{example.where}: its last label is not <end_of_turn>; the row would never learn to stop")
    return examples


def training_record(
    flags: LoraFlags, material: Material, base: dict[str, Any], start: Adapter | None = None
) -> dict[str, Any]:
    """What training.json says of how an adapter was made; no path of this machine goes into it."""
    names = {key: Path(getattr(flags, key)).name for key in ("adapter", "character", "persona")}
    return {
        "settings": dataclasses.asdict(flags)
        | {"data": [file["file"] for file in material.files], **names, "base_model": base["name"]},
        "data": material.files,
        "goes_on_from": lineage(start),
        "base_model": base,
        "persona": dataclasses.asdict(material.persona),
        "template": flags.template,
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def held_out_record(examples: Sequence[Example], rows: Sequence[Row]) -> dict[str, Any]:
    """What training.json says of the rows that are held out, by which they are known again."""
    listed = [Path(row.where).name for row in rows]
    return label_counts(examples) | {"listed": listed, "sha256": held_out_sha256(rows)}


def train(flags: LoraFlags) -> Path:
    """Run the whole recipe; returns the adapter's folder. Raises `RoleplayError` for anything a user can mend."""
    check_flags(flags, ROOT)
    flags, start = starting_point(flags)
    folder, run, processes = ROOT / "adapters" / flags.name, ROOT / "runs" / flags.name, process_count()
    material = read_material(flags, start)
    persona = material.persona
    chosen = recipe.choose(len(material.rows), flags.epochs, flags.batch_size, max(processes, flags.pack_rows))
    flags = dataclasses.replace(flags, epochs=chosen.epochs, batch_size=chosen.batch_size)

    # Model
    PartialState()  # makes the GPU that `accelerate launch` means for this process the one that is loaded on
    environment = Environment()
    base = base_models.load(flags.base_model or environment.base_model, environment.cache, flags.dtype)
    origin = base.identity()
    check_start(start, base, origin["fingerprint"])
    checkpoint = checkpoint_of(flags, material, start, run, origin["fingerprint"])
    found = Retriever(known(material.rows)) if flags.retrieval else None
    practice, encoder = encoders(base.tokenizer, flags.template, found, flags.seed)
    examples = encode(draw_share(material.rows, flags.epochs, flags.seed), practice, persona, flags)
    held_out = encode(material.held_out, encoder, persona, flags)
    attention, why = choose_attention(flags, base)
    share_prefix = attention == ATTENTION
    plan = memory.plan(base.model, examples, share_prefix, pack_wishes(flags, processes))
    looked_up = look_up(base, material.rows, flags.seed) if flags.retrieval else NOTHING
    base.model.set_attn_implementation(attention)
    use_chunked_loss(base.model)
    set_seed(flags.seed)
    model = attach_lora(base.model, **lora_config(flags))

    # Train
    arguments = training_arguments(flags, run, plan, processes, base.device[0] == "cpu")
    data = {"train_dataset": examples, "eval_dataset": held_out}
    trainer = CharacterTrainer(model, arguments, share_prefix, flags.lora_plus_ratio, **data)
    samples = SampleReplies(trainer, encoder, persona.system_prompt, sample_prompts(persona.openers, material.held_out))
    stop = follow(trainer, samples)
    if trainer.is_world_process_zero():
        print(*(f"data         {note}" for note in material.notes), sep="\n")
        print(*base.describe()[:3], f"attention    {attention}: {why}", f"checkpoints  {plan.reason}", sep="\n")
        print(f"adapter      {told_of(model, flags.rank)}", f"recipe       {chosen.reason}", sep="\n")
        part = f"{len(examples)} of {len(material.rows)}"
        print(f"rows         {part} to learn, {len(held_out)} held out; {plan.rows} a pack")
        print(*name_few(material.held_out), *recipe.warnings(len(examples), len(held_out)), sep="\n")
    if flags.rehearsal:
        trainer.rehearse(flags.rehearsal, prepare(model, encoder, material.rows, share_prefix))
    began = begin(trainer, start)
    result = trainer.train(resume_from_checkpoint=checkpoint)
    if stop.caught:
        print(f"Stopped after update {trainer.state.global_step} of {trainer.state.max_steps}. Go on with: --resume")
        sys.exit(130)
    finish(model, flags.keep, read_weights(start) if start else {})
    trainer.evaluate()
    if trainer.is_world_process_zero():
        results = trainer.results(result) | began | {"last_replies": samples.last()}
        outcome = {"held_out": held_out_record(held_out, material.held_out), "results": results}
        write_adapter(folder, model, training_record(flags, material, origin, start) | outcome, RESUME, looked_up)
        remember(run.parent, material.paths, material.files)
        shutil.rmtree(run)
        print(*recipe.closing(folder, results, len(held_out)), sep="\n")
    return folder


def main() -> None:
    settings = parse(LoraFlags, __doc__)
    with one_line_errors():
        folder = train(settings)
        if PartialState().is_main_process:
            publish(folder, settings.push, settings.push_modelscope)


if __name__ == "__main__":
    main()
