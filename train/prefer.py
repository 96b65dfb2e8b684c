"""Go on from an adapter by preferences: of two replies, the one that people chose becomes likelier.

    python -m train.prefer --adapter adapters/zhenhuan-gemma3-270m --votes votes --name zhenhuan-voted
    python -m train.prefer --adapter adapters/mara --pairs pairs.jsonl --loss ipo --name mara-2
    python -m train.prefer --adapter adapters/mara --votes votes --loss kto --name mara-2    # ties and "both bad" too
    python -m train.prefer --adapter adapters/mara --own-samples 8 --name mara-2    # its best of 8 replies, its worst
    python -m train.prefer --adapter adapters/mara --pairs pairs.jsonl --name mara-2 --resume    # after Ctrl-C, a crash

Before adapters/NAME/ is written, both adapters are measured on the same held-out pairs and by the character's lists;
where the new one knows less who she is, leaves her character more often, or ends fewer replies, it is refused and kept
in runs/NAME/. The new adapter's training.json and card say from which adapter and from how many pairs it was made.
"""

import dataclasses
import importlib.metadata
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from peft import LoraConfig, PeftModel
from tqdm import tqdm
from transformers import set_seed

from dataset.preferences import kinds, one_sided, review, sentences, vote_pairs, vote_thumbs
from roleplay.disk import read_json, write_json
from roleplay.engine.decoder import Decoder
from roleplay.engine.states import reader_of
from roleplay.environment import ROOT, Environment
from roleplay.errors import AdapterError, DataError, RoleplayError, one_line_errors
from roleplay.flags import parse
from roleplay.results.votes import Box
from roleplay.text.characters import load_character, trained_as
from roleplay.text.pairs import Pair, Thumb, apart, pairs_sha256, prompt_groups, read_pairs, settle, split_pairs
from roleplay.text.prompts import PromptEncoder
from roleplay.text.splits import draw_share
from roleplay.weights import base_models, inspection
from roleplay.weights.adapters import Adapter
from roleplay.weights.training_rows import recorded_name, rows_of
from train.learning import memory
from train.learning.adapter import finish, told_of
from train.learning.attention import ATTENTION
from train.learning.callbacks import SampleReplies, follow, sample_prompts
from train.learning.checkpoints import RESUME, check_resume, last_checkpoint, what_must_stay
from train.learning.fused import fuse
from train.learning.loss import use_chunked_loss
from train.learning.memory import process_count
from train.learning.preference import Objective, as_rows, encode_pair, encode_thumbs, score, with_reference
from train.learning.preference_trainer import PreferenceTrainer, ThumbTrainer
from train.learning.settings import PreferFlags, check_run, choose_attention, pack_wishes, training_arguments
from train.measuring import gate, own_samples
from train.measuring.gate import Change
from train.measuring.own_samples import OwnSamples
from train.measuring.replies import Writer
from train.measuring.written import Written, load_written
from train.publishing.folders import name_adapter, publish, write_adapter

LIBRARIES = ("torch", "transformers", "peft", "accelerate")
RECORDED = ("settings", "data", "held_out", "base_model", "persona", "results")  # what a card is made of
OWN = "own samples"  # how the record names the pairs of them, and the run its file
ASKED = 32  # held-out prompts that both adapters answer


@dataclass(frozen=True)
class Material:
    """The pairs on both sides of the split, what they are from, and the kinds of the votes among them.

    `thumbs` are what KTO learns: the replies of the pairs, and of votes that make none; `own` is told of own samples.
    """

    pairs: list[Pair]
    held_out: list[Pair]
    thumbs: list[Thumb]
    files: list[dict[str, Any]]
    votes: dict[str, int]
    own: dict[str, Any]


def sample_own(flags: PreferFlags, adapter: Adapter, run: Path) -> OwnSamples:
    """Pairs of the adapter's own replies to its training rows; a run that goes on has those that it began with."""
    path = run / f"{OWN.replace(' ', '_')}.json"
    with PartialState().main_process_first():
        if PartialState().is_main_process and not flags.resume:
            write_json(path, dataclasses.asdict(write_own(flags, adapter)))
            base_models.release()
    return OwnSamples(**read_json(path, advice=f"remove {run} to start anew"))


def load_base(flags: PreferFlags) -> base_models.BaseModel:
    environment = Environment()
    return base_models.load(flags.base_model or environment.base_model, environment.cache, flags.dtype)


def write_own(flags: PreferFlags, adapter: Adapter) -> OwnSamples:
    """The same, written anew."""
    rows = rows_of(adapter)[0]
    drawn = own_samples.draw_rows(rows, flags.own_messages, flags.seed)
    asks = own_samples.ask(adapter, drawn, flags.own_samples, flags.seed)
    with tqdm(total=len(asks), desc=OWN, bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as bar:
        alone = adapter.without({row.turns[-1] for row in drawn})  # it is not shown the answers
        base = load_base(flags)
        said = Writer(base, (alone,), base_models.fingerprint(base.model)).candidates(asks, bar.update)
    judge = None
    if flags.own_samples > 1:
        judge = own_samples.rules(written_for(flags, adapter).lists, rows, bool(adapter.looked_up.turns))
    return own_samples.pair(drawn, said, judge)


def read_material(flags: PreferFlags, sample: Callable[[], OwnSamples] = OwnSamples) -> Material:
    """Votes, files and what `sample` makes, gone through; says what is left out. Raises `DataError` for too little."""
    if flags.votes and not Path(flags.votes).is_dir():
        raise DataError(f"{flags.votes}: no such folder of votes; vote in the page, or give --pairs")
    votes = Box(Path(flags.votes)).votes() if flags.votes else []
    sources = [("votes", vote_pairs(votes))] if votes else []
    sources += [(recorded_name(path), read_pairs(path)) for path in flags.pairs]
    sampled = sample()  # it takes longest: what cannot be read has been named
    sources += [(OWN, sampled.pairs)] if sampled.record else []
    files = [{"file": name, "sha256": pairs_sha256(own), "rows": len(own)} for name, own in sources]
    pairs = [pair for _, own in sources for pair in own]
    usable, left_out = review(pairs)
    if not usable:
        more = "raise --own-messages" if sampled.record else "give --votes, --pairs or --own-samples"
        raise DataError(f"no usable pair in {len(votes)} votes and {len(flags.pairs)} files: {more}")
    for sentence in (*sentences(left_out, len(pairs)), *one_sided(usable, votes)):
        print(f"pairs        {sentence}")
    learnt, held_out = split_pairs(usable, flags.held_out, flags.seed, lambda note: print(f"pairs        {note}"))
    thumbs = list[Thumb]()
    if flags.loss == "kto":
        alone = apart(vote_thumbs(votes), held_out)
        thumbs = settle([*(thumb for pair in learnt for thumb in pair.thumbs), *alone])
        if alone:
            files.append({"file": "votes that make no pair", "sha256": pairs_sha256(alone), "rows": len(alone)})
    return Material(learnt, held_out, thumbs, files, kinds(votes) if votes else {}, sampled.record)


def encode(flags: PreferFlags, encoder: PromptEncoder, persona: str, material: Material) -> list[list[Any]]:
    """What is learnt and what is held out, as token ids."""

    def encoded(pairs: Sequence[Pair]) -> list[Any]:
        return [encode_pair(encoder, pair, persona, flags.max_length) for pair in pairs]

    if flags.loss == "kto":
        return [encode_thumbs(encoder, material.thumbs, persona, flags.max_length), encoded(material.held_out)]
    return [encoded(material.pairs), encoded(material.held_out)]


def starting_adapter(flags: PreferFlags) -> Adapter:
    """The adapter to go on from; raises `AdapterError` for one without the record that the new one's begins with."""
    adapter = inspection.inspect(Path(flags.adapter))
    if adapter.name == flags.name:
        raise RoleplayError(f"--name {flags.name} is the adapter that it goes on from: choose another")
    missing = [key for key in RECORDED if key not in adapter.training]
    if missing or not isinstance(adapter.training.get("preferences", []), list):
        raise AdapterError(f"{adapter.folder}: its training.json is not one of train.lora; choose another adapter")
    return adapter


def stage_record(flags: PreferFlags, adapter: Adapter, material: Material) -> dict[str, Any]:
    """What training.json says of this stage; no path of this machine goes into it."""
    names = {key: Path(getattr(flags, key)).name for key in ("adapter", "votes", "character", "base_model")}
    return {
        "adapter": adapter.identity,
        "votes": material.votes,
        "files": material.files,
        "pairs": {"learnt": len(material.pairs), "held out": len(material.held_out)},
        **({"own": material.own} if material.own else {}),
        **({"thumbs": len(material.thumbs)} if material.thumbs else {}),
        "settings": dataclasses.asdict(flags) | {"pairs": [file["file"] for file in material.files], **names},
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def with_stage(adapter: Adapter, stage: dict[str, Any]) -> dict[str, Any]:
    """The training.json of an adapter that goes on from `adapter`: its own, and one stage more."""
    return adapter.training | {"preferences": [*adapter.training.get("preferences", []), stage]}


def learn(flags: PreferFlags, adapter: Adapter, material: Material, run: Path) -> tuple[dict[str, Any], list[Change]]:
    """Train, and write the adapter into the folder `run`; returns its stage and how the held-out pairs changed."""
    processes = process_count()
    pairs = draw_share(material.pairs, flags.epochs, flags.seed)
    thumbs = draw_share(material.thumbs, flags.epochs, flags.seed)
    material = dataclasses.replace(material, pairs=pairs, thumbs=thumbs)
    base = load_base(flags)
    origin = base.identity()
    if warning := inspection.check_base(adapter, base.model, origin["fingerprint"], base.hub_id):
        print(f"warning      {warning}")
    reader = partial(reader_of, Decoder(base.model)) if adapter.looked_up.meaning else None
    answers = {(pair.user, pair.chosen) for pair in (*material.pairs, *material.held_out)}
    encoder = adapter.without(answers).encoder(base.tokenizer, reader)
    encoded, held_out = encode(flags, encoder, adapter.persona, material)
    attention, why = choose_attention(flags, base)
    share_prefix = attention == ATTENTION
    plan = memory.plan(base.model, as_rows(encoded), share_prefix, pack_wishes(flags, processes))
    base.model.set_attn_implementation(attention)
    use_chunked_loss(base.model)
    set_seed(flags.seed)
    config = LoraConfig.from_pretrained(str(adapter.folder))
    config.lora_dropout = 0.0  # else the reference is another model
    config.base_model_name_or_path = base.model.name_or_path  # a folder: peft would ask a hub at every checkpoint
    model = PeftModel.from_pretrained(base.model, str(adapter.folder), config=config, is_trainable=True)
    fuse(model)
    before = score(model, held_out, plan.rows, share_prefix)
    data = {
        "train_dataset": with_reference(encoded, score(model, encoded, plan.rows, share_prefix)),
        "eval_dataset": with_reference(held_out, before),
    }

    stage = stage_record(flags, adapter, material)
    compared = [*material.files, {"file": "the adapter", "sha256": stage["adapter"]["sha256"]}]
    must_stay = what_must_stay(dataclasses.asdict(flags), adapter.persona, compared, origin["fingerprint"])
    checkpoint = check_resume(run, must_stay, flags.resume)
    arguments = training_arguments(flags, run, plan, processes, base.device[0] == "cpu")
    objective = Objective(flags.loss, flags.beta, flags.sft_weight)
    made = ThumbTrainer if flags.loss == "kto" else PreferenceTrainer
    trainer = made(model, arguments, share_prefix, objective, **data)
    openers = adapter.training["persona"].get("openers", [])
    prompts = sample_prompts(openers, [pair.prompt for pair in material.held_out])
    samples = SampleReplies(trainer, encoder, adapter.persona, prompts)
    stop = follow(trainer, samples)
    if trainer.is_world_process_zero():
        print(*base.describe()[:3], f"attention    {attention}: {why}", f"checkpoints  {plan.reason}", sep="\n")
        print(f"adapter      {adapter.name}, {told_of(model, adapter.rank)}")
        what = "replies" if material.thumbs else "pairs"
        print(f"learns       {len(encoded)} {what}; {len(held_out)} pairs held out; {plan.rows} a pack")
    result = trainer.train(resume_from_checkpoint=checkpoint)
    if stop.caught:
        print(f"Stopped after update {trainer.state.global_step} of {trainer.state.max_steps}. Go on with: --resume")
        sys.exit(130)
    finish(model, 1.0)
    trainer.evaluate()
    stage["results"] = trainer.results(result) | {"last_replies": samples.last()}
    if trainer.is_world_process_zero():
        write_adapter(run / flags.name, model, with_stage(adapter, stage), RESUME, adapter.looked_up)
    scores = before.tolist(), trainer.held_out_scores.tolist()
    groups = prompt_groups([*material.held_out, *material.pairs])[: len(material.held_out)]
    return stage, gate.pairs_changed(*scores, groups)


def written_for(flags: PreferFlags, adapter: Adapter) -> Written:
    """What was written to judge the character, nothing where there is none."""
    character = load_character(flags.character) if flags.character else trained_as(adapter.training)
    return load_written(character.lists, character.facts, character.recall) if character else Written()


def compare(flags: PreferFlags, adapter: Adapter, staged: Path, material: Material) -> list[Change]:
    """What both adapters say to what judges the character and to held-out prompts, and what they know of it."""
    both, written = (adapter, inspection.inspect(staged)), written_for(flags, adapter)
    if not written.lists.identity:
        print("gate         this character has no lists: who she is, and whether she stays herself, is not asked")
    asked = [(pair.persona or adapter.persona, pair.turns, pair.user) for pair in material.held_out]
    return gate.compare(load_base(flags), both, written, list(dict.fromkeys(asked))[:ASKED])


def check_gate(flags: PreferFlags, staged: Path, changes: Sequence[Change]) -> None:
    """Print what changed; raises `RoleplayError` where that refuses the adapter."""
    print(*changes, sep="\n")
    if (fallen := gate.fallen(changes)) and not flags.keep_anyway:
        raise RoleplayError(
            f"{flags.name} is refused: {', '.join(change.name for change in fallen)} got clearly worse. It is kept in "
            f"{staged}; take it with --resume --keep-anyway, or train more carefully (a higher --beta, a --sft-weight)"
        )


def prefer(flags: PreferFlags) -> Path:
    """Run the whole recipe; returns the adapter's folder. Raises `RoleplayError` for anything a user can mend."""
    check_run(flags, ROOT)
    PartialState()  # makes the GPU that `accelerate launch` means for this process the one that is loaded on
    adapter, folder, run = starting_adapter(flags), ROOT / "adapters" / flags.name, ROOT / "runs" / flags.name
    written_for(flags, adapter)  # what cannot be read is named before the run
    last_checkpoint(run, flags.resume)
    material = read_material(flags, partial(sample_own, flags, adapter, run) if flags.own_samples else OwnSamples)
    stage, changes = learn(flags, adapter, material, run)
    base_models.release()
    if PartialState().is_main_process:
        changes += compare(flags, adapter, run / flags.name, material)
        check_gate(flags, run / flags.name, changes)
        stage["gate"] = [change.as_json() for change in changes]
        name_adapter(run / flags.name, folder, with_stage(adapter, stage), RESUME)
        shutil.rmtree(run)
        print(f"{folder}: goes on from {adapter.name} by {stage['pairs']['learnt']} pairs")
    return folder


def main() -> None:
    settings = parse(PreferFlags, __doc__)
    with one_line_errors():
        folder = prefer(settings)
        if PartialState().is_main_process:
            publish(folder, settings.push, settings.push_modelscope)


if __name__ == "__main__":
    main()
