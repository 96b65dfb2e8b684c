"""`train.lora` on a tiny random Gemma: what it learns, what it writes, what it refuses, and what it survives."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from roleplay import heap
from roleplay.engine.decoder import Decoder, Lora, Segment
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE, Question, Request, Sampling
from roleplay.environment import ROOT
from roleplay.errors import AdapterError, DataError, RoleplayError, StaleRunError
from roleplay.flags import parse
from roleplay.text.known import known
from roleplay.text.prompts import Example
from roleplay.text.rows import file_sha256
from roleplay.weights import base_models, devices, inspection, training_rows
from roleplay.weights.adapters import PROJECTIONS, Adapter, read_weights
from tests import tiny
from tests.disk import largest_file
from tests.hub_server import hub_server
from train import export, lookup, lora
from train.learning import memory, trainer
from train.learning.adapter import attach_lora
from train.learning.checkpoints import check_resume, what_must_stay
from train.learning.settings import LoraFlags, lora_config

WRITTEN = {
    "NOTICE",
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "chat_template.jinja",
    "training.json",
    "training_curve.png",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A folder with a tiny Gemma 3 and a byte tokenizer, as a base model."""
    folder = tmp_path_factory.mktemp("base")
    tiny.gemma(max_position_embeddings=1024).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Sixty short rows of random words, thirty scenes; every third row is a conversation."""
    lot = random.Random(0)
    words = ["snow", "plum", "tea", "silk", "moon", "jade", "crane", "lotus", "amber", "willow", "ink", "gate", "lamp"]

    def say(count: int) -> str:
        return " ".join(lot.choices(words, k=count))

    rows = [
        {
            "instruction": f"{say(4)}?",
            "input": "",
            "output": f"{say(7)}.",
            "scene": f"scene-{n // 2}",
            **({"history": [[f"{say(2)}!", f"{say(3)}."]]} if n % 3 == 0 else {}),
        }
        for n in range(60)
    ]
    path = tmp_path_factory.mktemp("data") / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Adapters and runs go here and not into the repository."""
    monkeypatch.setattr(lora, "ROOT", tmp_path)
    monkeypatch.setattr(training_rows, "FOLDERS", (tmp_path / "runs",))
    return tmp_path


def few(base: Path, rows: Path, **changes) -> dict[str, Any]:
    given = dict(name="me", base_model=str(base), data=[str(rows)], epochs=1.0, batch_size=8, held_out=0.1)
    given |= dict(evaluate_every=3, save_every=2, learning_rate=5e-3, max_length=1024)
    return given | changes


def settings(base: Path, rows: Path, **changes) -> LoraFlags:
    return LoraFlags(**few(base, rows, **changes))


@pytest.fixture(scope="module")
def taught(base, data, tmp_path_factory) -> Callable[..., Path]:
    """Trains with these settings, once for all tests that want the same."""
    made = dict[str, Path]()

    def train(**changes: Any) -> Path:
        if (key := repr(changes)) not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(lora, "ROOT", tmp_path_factory.mktemp("home"))
                made[key] = lora.train(settings(base, data, **changes))
        return made[key]

    return train


def test_end_to_end(base, data, taught, tmp_path, monkeypatch):
    before = load_file(base / "model.safetensors")
    trims, trim = [], heap.trim
    monkeypatch.setattr(heap, "trim", lambda: trims.append(trim()))
    folder = taught(epochs=3.0)
    assert {path.name for path in folder.iterdir()} == WRITTEN
    assert not (folder.parent.parent / "runs" / "me").exists()
    after = load_file(base / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    weights = load_file(folder / "adapter_model.safetensors")
    assert len(weights) == 2 * 7 * tiny.LAYERS
    assert all(w.abs().max() > 0 for name, w in weights.items() if "lora_B" in name)  # B starts at zero
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["target_modules"] == sorted(PROJECTIONS)  # the same in every run
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    results = training["results"]
    assert results["held_out_loss"] < results["base_held_out_loss"] - 0.05
    assert results["updates"] == 3 * 7  # 54 rows to learn, 8 an update
    assert len(trims) >= results["updates"]  # what an update has freed goes back to the system
    assert training["data"][0]["rows"] == 60
    assert training["base_model"]["dtype"] == devices.choose_dtype("cpu")[0]
    for written in (folder / "training.json", folder / "README.md", folder / "adapter_config.json"):
        assert str(base.parent.parent) not in written.read_text(encoding="utf-8"), "a path of this machine"
    assert len(training["held_out"]["listed"]) == 6 and training["held_out"]["listed"][0].startswith("rows.json row ")

    loaded = base_models.load(str(base), tmp_path)
    adapter = inspection.inspect(folder)
    monkeypatch.setattr(training_rows, "FOLDERS", (folder.parent.parent / "runs",))
    assert training_rows.find_data(adapter) == [data]  # `train.evaluate --adapter adapters/me` needs no --data
    engine = LocalEngine(loaded, [adapter])
    question = Question(adapter.persona, (), "What of the moon?")
    request = Request({ADAPTER: question, BASE: question}, Sampling(temperature=0.0, max_new_tokens=12))
    *_, last = engine.answer(request)
    assert last[ADAPTER].text != last[BASE].text
    check_plain_peft(base, adapter)


def check_plain_peft(base: Path, adapter: Adapter) -> None:
    """peft alone loads the folder as it is, and finds the logits that the page's decoder finds."""
    ids, model = list(range(3, 60)), AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    decoder = Decoder(model)
    segment = Segment(ids, decoder.new_cache(), Lora(decoder, read_weights(adapter), adapter.scaling))
    ours = decoder.head(decoder.forward([segment]))[0]
    plain = PeftModel.from_pretrained(model, adapter.folder).eval()
    with torch.inference_mode():
        theirs = plain(torch.tensor([ids])).logits[0, -1]
        with plain.disable_adapter():
            untuned = plain(torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert (theirs - untuned).abs().max() > 0.01


def test_a_run_goes_on_from_an_adapter_with_its_matrices(base, data, home):
    first = lora.train(
        settings(base, data, rank=4, alpha=4, projections=["q_proj"], retrieval=False, learning_rate=5e-2)
    )
    again = lora.train(
        settings(base, data, adapter=str(first), name="again", keep=1.0, learning_rate=1e-9, retrieval=True)
    )
    one, two = (inspection.inspect(folder) for folder in (first, again))
    assert (two.rank, two.scaling) == (one.rank, one.scaling) == (4, 1.0) and two.looked_up.turns
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (first, again))
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)  # next to nothing was learnt
    assert two.training["goes_on_from"] == [{"name": "me", "sha256": file_sha256(first / "adapter_model.safetensors")}]
    results = two.training["results"]
    assert results["held_out_loss"] != results["base_held_out_loss"]
    assert results["log"][0]["eval_loss"] == pytest.approx(results["held_out_loss"], abs=1e-4)  # where it began
    assert two.training["settings"]["adapter"] == "me" and two.training["settings"]["rank"] == 4


def test_what_is_kept_of_a_run_that_goes_on_lies_between_both(base, data, home, taught):
    first = taught()
    made = dict[float, dict[str, torch.Tensor]]()
    for keep in (0.25, 1.0):
        folder = lora.train(settings(base, data, adapter=str(first), name=f"kept-{keep}", keep=keep))
        made[keep] = load_file(folder / "adapter_model.safetensors")
    start = load_file(first / "adapter_model.safetensors")
    for name, weight in start.items():
        end, kept = (made[keep][name].float() for keep in (1.0, 0.25))
        assert torch.allclose(kept, weight.float().lerp(end, 0.25), atol=2e-3) and not torch.equal(kept, end)


def test_what_is_refused_is_refused_before_the_minutes_that_meaning_takes(base, data, home, monkeypatch):
    monkeypatch.setattr(lora, "look_up", lambda *_: pytest.fail("learnt what rows mean, and then refused"))
    with pytest.raises(RoleplayError, match="holds no checkpoint to resume from"):
        lora.train(settings(base, data, retrieval=True, resume=True))
    with pytest.raises(DataError, match="shorten the row or raise --max-length"):
        lora.train(settings(base, data, retrieval=True, max_length=8))


def test_with_retrieval_the_rows_that_it_learnt_go_with_it(base, data, home):
    folder = lora.train(settings(base, data, retrieval=True))
    assert {path.name for path in folder.iterdir()} == WRITTEN | {"examples.json.gz", "meaning.safetensors"}
    adapter = inspection.inspect(folder)
    learnt, held_out, _ = training_rows.rows_of(adapter)
    looked_up = {one.turn for one in adapter.looked_up.turns}
    assert looked_up == {one.turn for one in known(learnt)}
    assert not {row.turns[-1] for row in held_out} & looked_up
    assert "It looks up: before it answers, it reads up to 4 of 37 rows" in (folder / "README.md").read_text()


def test_of_less_than_one_pass_it_reads_a_part_and_looks_up_all(base, data, home, capsys):
    folder = lora.train(settings(base, data, retrieval=True, epochs=0.5))
    assert "27 of 54 to learn" in capsys.readouterr().out
    adapter = inspection.inspect(folder)
    assert adapter.training["results"]["updates"] == -(-27 // adapter.training["settings"]["batch_size"])
    assert {one.turn for one in adapter.looked_up.turns} == {
        one.turn for one in known(training_rows.rows_of(adapter)[0])
    }


def test_what_it_looks_up_is_written_anew_without_a_training(base, data, home, tmp_path, taught, capsys):
    folder = lora.train(settings(base, data, retrieval=True))
    weights = file_sha256(folder / "adapter_model.safetensors")
    (more := tmp_path / "more.json").write_text('[{"instruction": "a heron?", "output": "I am one.", "weight": 2}]')
    lookup.main(["--adapter", str(folder), "--base-model", str(base), "--data", str(data), str(more)])
    adapter = inspection.inspect(folder)
    assert ("a heron?", "I am one.") in {one.turn for one in adapter.looked_up.turns} and adapter.looked_up.meaning
    assert adapter.training["looked_up"][1]["file"] == "more.json" and f"{folder}: 38 rows" in capsys.readouterr().out
    assert file_sha256(folder / "adapter_model.safetensors") == weights
    kept = ["--adapter", str(folder), "--base-model", str(base), "--data", str(data), "--keep-nearness"]
    lookup.main(kept)
    again = inspection.inspect(folder).looked_up
    assert len(again.turns) == 37 and again.meaning and len(again.meaning.vectors) == 37
    assert np.array_equal(again.meaning.projection.linear, adapter.looked_up.meaning.projection.linear)
    (folder / "meaning.safetensors").unlink()
    with pytest.raises(AdapterError, match="me has learnt no nearness yet: leave out --keep-nearness"):
        lookup.main(kept)
    with pytest.raises(AdapterError, match="me has not learnt to look up"):
        lookup.main(["--adapter", str(taught()), "--base-model", str(base), "--data", str(more)])


def test_the_end_of_a_run_pushes_what_it_wrote(base, data, home, monkeypatch, capsys):
    command = f"lora --name me --base-model {base} --data {data} --epochs 1 --batch-size 30 --push me/mine"
    monkeypatch.setattr(sys, "argv", command.split())
    with hub_server(monkeypatch) as server:
        lora.main()
        written = {path.name: path.read_bytes() for path in (home / "adapters" / "me").iterdir()}
        assert server.repos["models/me/mine"].files == written and set(written) == WRITTEN
        assert server.repos["models/me/mine"].private and b"ADAPTER=me/mine python app.py" in written["README.md"]
        assert f"pushed and verified: {server.url}/me/mine" in capsys.readouterr().out


EXACT = {"dropout": 0.0, "learning_rate": 1e-3}


@pytest.mark.parametrize("change", [{"attention": "sdpa"}, {"template": "tutorial"}, {"checkpointing": "on"}])
def test_choices_that_must_not_change_what_is_learnt(taught, change):
    one, other = taught(**EXACT), taught(**EXACT, **change)
    a, b = (json.loads((f / "training.json").read_text(encoding="utf-8"))["results"] for f in (one, other))
    assert a["updates"] == b["updates"]
    if "template" not in change:
        assert a["held_out_loss"] == pytest.approx(b["held_out_loss"], rel=1e-4)


def test_an_update_has_as_many_rows_as_it_was_told(base, data, home, monkeypatch):
    """Seven rows fill more than a pack here, and halves of seven would make six of them."""
    monkeypatch.setitem(memory.ENOUGH_TOKENS, "cpu", 1)
    folder = lora.train(settings(base, data, batch_size=7))
    results = json.loads((folder / "training.json").read_text(encoding="utf-8"))["results"]
    assert results["updates"] == 8  # 54 rows to learn, the last 5 together


def test_a_pack_is_a_whole_part_of_an_update(monkeypatch):
    monkeypatch.setitem(memory.ENOUGH_TOKENS, "cpu", 25)
    rows = [Example([1] * 10, [1] * 10)]
    packs = {
        asked: memory.plan(tiny.gemma(), rows, False, memory.Wishes(asked, True, "off")).rows for asked in (7, 9, 16)
    }
    assert packs == {7: 7, 9: 3, 16: 4}


PLAIN = {"dropout": 0.0, "keep": 1.0, "rehearsal": 0.0}


def size_of_b(folder: Path) -> float:
    weights = load_file(folder / "adapter_model.safetensors")
    return sum(float(w.float().norm()) for name, w in weights.items() if "lora_B" in name)


def test_lora_plus_teaches_b_faster(taught):
    assert size_of_b(taught(**PLAIN, lora_plus_ratio=8.0)) > 1.5 * size_of_b(taught(**PLAIN))


def test_orthogonal_initialisation_starts_both_matrices_and_changes_nothing(base, home):
    model = attach_lora(
        base_models.load(str(base), home, "float32").model,
        **lora_config(LoraFlags(initialisation="orthogonal")),
    )
    pairs = [(m.lora_A["default"].weight, m.lora_B["default"].weight) for m in model.modules() if hasattr(m, "lora_A")]
    assert pairs
    for a, b in pairs:
        assert b.abs().max() > 0.01
        torch.testing.assert_close(b @ a, torch.zeros(len(b), a.shape[1]), atol=1e-5, rtol=0)


def test_only_a_share_of_the_update_is_kept(taught):
    whole, half = (load_file(taught(**PLAIN | {"keep": keep}) / "adapter_model.safetensors") for keep in (1.0, 0.5))
    for name, weight in whole.items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(half[name], weight * 0.5 if "lora_B" in name else weight)


def test_a_run_of_one_update_learns(base, data, home):
    folder = lora.train(settings(base, data, batch_size=54, schedule="cosine", warmup=0.5))
    assert json.loads((folder / "training.json").read_text(encoding="utf-8"))["results"]["updates"] == 1
    weights = load_file(folder / "adapter_model.safetensors")
    assert all(w.abs().max() > 0 for name, w in weights.items() if "lora_B" in name)


@pytest.mark.parametrize("kind", ["gemma2", "multimodal gemma3"])
def test_other_gemmas_are_taught_served_and_exported(kind, data, home):
    """The same commands, from the rows to a merged model."""
    source, wide = home / "base", {"max_position_embeddings": 1024}
    model = tiny.of_kind("gemma2", **tiny.CAPS, **wide) if kind == "gemma2" else tiny.multimodal(**wide)
    model.save_pretrained(source)
    tiny.tokenizer().save_pretrained(source)
    folder = lora.train(settings(source, data, batch_size=54))
    adapter, base = inspection.inspect(folder), base_models.load(str(source), home, dtype="float32")
    engine = LocalEngine(base, [adapter])
    assert (engine.kl_to_base("me") or 0) > 1e-6
    export.export(adapter, base, home / "merged")  # it compares what was written with the attached adapter
    assert base_models.load(str(home / "merged"), home).model.num_parameters() == base.model.num_parameters()


def test_rehearsal_forgets_less(taught):
    assert size_of_b(taught(**PLAIN | {"rehearsal": 5.0})) < 0.99 * size_of_b(taught(**PLAIN))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": ["none.json"]}, "none.json: no such file"),
        ({"projections": ["q_proj", "lm_head"]}, "unknown projection 'lm_head'"),
        ({"max_length": 20}, "raise --max-length"),
        ({"base_model": "no-such-folder"}, "no base model 'no-such-folder'"),
        ({"persona": "none.json"}, "none.json: not a readable persona"),
        ({"held_out": 0.0}, "0 held-out rows"),
        ({"initialisation": "orthogonal", "rank": 7}, "--rank 7: an orthogonal initialisation takes an even rank"),
        ({"name": "my consort"}, "--name 'my consort': use letters, digits, dots and dashes"),
        ({"batch_size": 7, "pack_rows": 3}, "--batch-size 7 cannot be shared out to 1 processes with 3 rows a pack"),
        ({"learning_rate": 0.0}, "--learning-rate 0 learns nothing"),
        ({"keep": 1.5}, "--keep 1.5: give a share above 0 and at most 1"),
        ({"resume": True}, "holds no checkpoint to resume from"),
    ],
)
def test_bad_input_is_one_line(base, data, home, change, message):
    with pytest.raises(RoleplayError) as error:
        lora.train(settings(base, data, **change))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (home / "adapters").exists()


def test_rows_without_a_persona_are_told_whose_they_become(base, data):
    given = settings(base, data)
    note = "learnt as 甄嬛 · Zhen Huan; where the rows are somebody else's, say whose: --persona, --character"
    assert note in lora.read_material(given).notes
    persona = str(ROOT / "dataset" / "keeper" / "persona.json")
    assert lora.read_material(dataclasses.replace(given, persona=persona)).notes.count(note) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rank", "0"], "argument --rank: 0 is out of range: give 1 to 256"),
        (["--rank", "300"], "argument --rank: 300 is out of range: give 1 to 256"),
        (["--alpha", "5000"], "argument --alpha: 5000 is out of range: give 1 to 4096"),
        (["--dropout", "1.5"], "argument --dropout: 1.5 is out of range: give 0 to 0.9"),
        (["--epochs", "nan"], "argument --epochs: nan is out of range: give 0 or more"),
        (["--alpha", "many"], "argument --alpha: invalid int value: 'many'"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    ],
)
def test_a_bad_flag_is_one_line(capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        parse(LoraFlags, None, flags)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {message}; see --help\n"


def test_a_loss_that_is_not_finite_names_the_rows(base, data, home):
    with pytest.raises(RoleplayError, match=r"the loss is (nan|inf) on .*rows.json row \d+"):
        lora.train(settings(base, data, learning_rate=1e30, dropout=0.0, warmup=0.0, schedule="linear"))
    assert not (home / "adapters").exists()


@pytest.mark.parametrize(
    ("module", "before", "wanted"), [(trainer, "rotate_checkpoints", "runs/me"), (lora, "finish", "adapters/me")]
)
def test_a_full_disk_is_one_line_and_loses_nothing(base, data, home, taught, monkeypatch, module, before, wanted):
    """The limit on a file's size comes after the first checkpoint, or when all that is left is to write the adapter."""
    whole = taught()
    done = getattr(module, before)
    with ExitStack() as full:

        def fill(*args, **kwargs):
            done(*args, **kwargs)
            full.enter_context(largest_file(16_000))

        monkeypatch.setattr(module, before, fill)
        with pytest.raises(RoleplayError) as error:
            lora.train(settings(base, data))
    monkeypatch.setattr(module, before, done)
    assert f"cannot write {home / wanted} (" in str(error.value)
    assert str(error.value).endswith("free some disk and go on with --resume")
    assert not list((home / "adapters").glob("*"))
    assert not (home / "runs" / "me" / "incomplete").exists()
    mended = lora.train(settings(base, data, resume=True))
    assert (mended / "adapter_model.safetensors").read_bytes() == (whole / "adapter_model.safetensors").read_bytes()


def test_a_disk_that_is_full_is_named_before_the_run(base, data, home):
    sentence = r"cannot write to .*adapters \(File too large\): .*free some disk"
    with largest_file(1 << 19), pytest.raises(RoleplayError, match=sentence):
        lora.train(settings(base, data))
    assert os.listdir(home) == []


def test_a_folder_that_cannot_be_written_is_named_before_the_run(base, data, home):
    (home / "adapters").write_text("no folder")
    with pytest.raises(RoleplayError, match=r"cannot write to .*adapters \(Not a directory\): mend its permissions"):
        lora.train(settings(base, data))
    assert not (home / "runs").exists()


OF_NO_MATTER = {  # to what is learned
    *("name", "character", "data", "adapter", "persona", "resume", "overwrite"),
    *("push", "push_modelscope", "trackio", "trackio_space"),
}
OTHER: dict[type, Callable[[Any], Any]] = {
    bool: lambda value: not value,
    int: lambda value: value + 1,
    float: lambda value: value / 2 + 0.01,
    str: lambda value: f"{value}x",
    list: lambda value: value[1:],
}
BEGUN = dataclasses.asdict(LoraFlags()), "You are a.", [{"file": "rows.json", "sha256": "00"}], "fingerprint"
CHANGED = {
    name: (BEGUN[0] | {name: OTHER[type(value)](value)},)
    for name, value in BEGUN[0].items()
    if name not in OF_NO_MATTER
} | {
    "persona": (BEGUN[0], "You are b."),
    "rows.json": (*BEGUN[:2], [{"file": "rows.json", "sha256": "01"}]),
    "base model": (*BEGUN[:3], "another"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_run_goes_on_only_with_everything_as_it_was(tmp_path, name):
    assert check_resume(tmp_path, what_must_stay(*BEGUN), False) is None
    (tmp_path / "checkpoint-2").mkdir()
    assert check_resume(tmp_path, what_must_stay(*BEGUN), True) == str(tmp_path / "checkpoint-2")
    now = (*CHANGED[name], *BEGUN[len(CHANGED[name]) :])
    with pytest.raises(StaleRunError, match=f"{name} is .* but was .* set it back"):
        check_resume(tmp_path, what_must_stay(*now), True)


def test_what_is_compared_is_what_is_trained(base, data, home, tmp_path, monkeypatch):
    def begin(*_, **__):
        raise InterruptedError

    monkeypatch.setattr(lora, "CharacterTrainer", begin)
    with pytest.raises(InterruptedError):
        lora.train(settings(base, data))
    (home / "runs" / "me" / "checkpoint-2").mkdir()
    begun = tiny.adapter(tmp_path / "begun")
    fewer, persona = tmp_path / data.name, tmp_path / "me.json"
    fewer.write_text(json.dumps(json.loads(data.read_text(encoding="utf-8"))[1:]), encoding="utf-8")
    persona.write_text('{"name": "Me", "system_prompt": "You are me."}', encoding="utf-8")
    for change, told in (
        ({"rank": 4}, "rank is 4 but was 16"),
        ({"persona": str(persona)}, "persona is 'You are me.' but was"),
        ({"data": [str(fewer)]}, "rows.json is '.*' but was"),
        ({"adapter": str(begun)}, "the adapter is '.*' but was ''"),
    ):
        with pytest.raises(RoleplayError, match=told):
            lora.train(settings(base, data, resume=True, **change))
    with pytest.raises(InterruptedError):
        lora.train(settings(base, data, resume=True))


MAIN = "from pathlib import Path; from train import lora; lora.ROOT = Path('{home}'); lora.main()"


def run(home: Path, base: Path, data: Path, **changes: Any) -> subprocess.Popen[str]:
    """The script itself, in a process of its own that writes into `home`."""
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", MAIN.format(home=home), *flags(base, data, **changes)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def flags(base: Path, data: Path, **changes: Any) -> list[str]:
    """The settings as a command line has them."""
    given = few(base, data, **changes)
    given["data"] = data
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def wait_for_checkpoint(process: subprocess.Popen[str], folder: Path) -> None:
    while not list(folder.glob("checkpoint-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_a_killed_run_resumes_to_the_same_bits(base, data, home, taught):
    process = run(home, base, data, epochs=3.0)
    wait_for_checkpoint(process, home / "runs" / "me")
    process.kill()
    process.communicate()
    assert not (home / "adapters").exists()
    with pytest.raises(RoleplayError, match="go on with --resume"):
        lora.train(settings(base, data, epochs=3.0))
    resumed = lora.train(settings(base, data, epochs=3.0, resume=True))
    a, b = (load_file(folder / "adapter_model.safetensors") for folder in (taught(epochs=3.0), resumed))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_a_signal_saves_and_says_how_to_go_on(base, data, tmp_path, number):
    process = run(tmp_path, base, data, epochs=50)
    wait_for_checkpoint(process, tmp_path / "runs" / "me")
    process.send_signal(number)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "Go on with: --resume" in out
    assert "Traceback" not in err


def test_two_processes_learn_what_one_does(base, data, taught, tmp_path):
    """`accelerate launch` with two CPU processes and half the rows each."""
    script = tmp_path / "launched.py"
    script.write_text(
        f"from pathlib import Path; from train import lora; lora.ROOT = Path({str(tmp_path)!r}); lora.main()"
    )
    launch = "--cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch.split(), str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    two = subprocess.run(
        command + flags(base, data, **EXACT), cwd=ROOT, env=environment, text=True, capture_output=True, timeout=280
    )
    assert two.returncode == 0, two.stderr[-2000:]
    logs = [
        json.loads((folder / "training.json").read_text(encoding="utf-8"))["results"]["log"]
        for folder in (taught(**EXACT), tmp_path / "adapters" / "me")
    ]
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in logs]
    assert losses[0] and losses[0] == pytest.approx(losses[1], rel=1e-3)
