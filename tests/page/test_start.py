"""What a start finds out: the adapters that fit, and whose persona each of them has."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from page.serving import start
from roleplay.engine.local import LocalEngine
from roleplay.engine.matrix import Int8Matrix, Matrix
from roleplay.environment import ROOT, Environment
from roleplay.errors import DataError, ModelError
from roleplay.text import personas
from roleplay.weights import layout
from tests import tiny
from tests.hub_server import Hub


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A tiny base model with two adapters, whose personas are called one and two."""
    tiny.gemma().save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    for name in ("two", "one"):  # the newest speaks first
        persona(tiny.adapter(tmp_path / "adapters" / name), {"name": name, "system_prompt": f"You are {name}."})
        time.sleep(0.02)
    monkeypatch.setattr(start, "FOLDER", tmp_path / "adapters")
    plain = dict.fromkeys(("engine_url", "persona", "adapter", "dtype"), "")
    return Environment(base_model=str(tmp_path / "base"), cache=tmp_path / "cache", at_once=8, **plain)


def persona(folder: Path, value: object) -> None:
    training = json.loads((folder / layout.TRAINING).read_text(encoding="utf-8"))
    (folder / layout.TRAINING).write_text(json.dumps(training | {"persona": value}), encoding="utf-8")


def names(started: start.Started) -> dict[str, str]:
    return {name: about.persona.name if about.persona else "" for name, about in started.about.items()}


def test_every_adapter_has_the_persona_it_was_trained_to_be(settings: Environment) -> None:
    started = start.start(settings, settings.base_model)
    assert names(started) == {"one": "one", "two": "two"}
    assert (started.persona.name, started.guests is not None) == ("one", bool(settings.hub_adapters))


@tiny.NEEDS_INT8
def test_the_page_answers_with_the_weights_that_are_set(settings: Environment) -> None:
    for dtype, product, told in (
        ("float32", Matrix, "dtype        float32: "),
        ("int8", Int8Matrix, "weights      int8: "),
    ):
        engine = start.start(replace(settings, dtype=dtype), settings.base_model).engine
        assert isinstance(engine, LocalEngine) and type(engine._decoder.head_product) is product
        assert any(line.startswith(f"{told}as asked") for line in engine.describe())


def test_persona_is_that_of_every_adapter_where_it_is_set(settings: Environment, tmp_path: Path) -> None:
    (tmp_path / "me.json").write_text('{"name": "me", "system_prompt": "You are me."}', encoding="utf-8")
    object.__setattr__(settings, "persona", str(tmp_path / "me.json"))
    started = start.start(settings, settings.base_model)
    assert names(started) == {"one": "me", "two": "me"} and started.persona.name == "me"


@pytest.mark.parametrize("value", [{"name": 3, "system_prompt": "x"}, {"system_prompt": "x", "openers": ["x" * 5000]}])
def test_a_persona_that_is_none(
    settings: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str], value: object
) -> None:
    persona(tmp_path / "adapters" / "two", {"name": "two", **value})  # type: ignore[dict-item]
    assert names(start.start(settings, settings.base_model)) == {"one": "one", "two": ""}
    assert "persona      not that of two: " in capsys.readouterr().out
    persona(tmp_path / "adapters" / "one", {"name": 3, "system_prompt": "x"})
    with pytest.raises(DataError, match="must be texts"):
        start.start(settings, settings.base_model)


def test_without_a_persona_in_training_zhen_huan_speaks(settings: Environment, tmp_path: Path) -> None:
    persona(tmp_path / "adapters" / "one", {})
    assert start.start(settings, settings.base_model).persona == personas.default()


def test_an_adopted_adapter_without_a_persona_speaks_as_nobody(settings: Environment, tmp_path: Path) -> None:
    path = tmp_path / "adapters" / "one" / layout.TRAINING
    told = json.loads(path.read_text(encoding="utf-8"))
    told |= {"adopted": {}, "persona": {"name": "one", "system_prompt": "", "greeting": "", "openers": []}}
    path.write_text(json.dumps(told), encoding="utf-8")
    started = start.start(settings, settings.base_model)
    assert started.about["one"].persona == started.persona == personas.Persona("one", "")


def test_adapters_of_the_hub_and_of_this_machine_in_the_order_that_is_set(
    settings: Environment, server: Hub, pristine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, stages = tiny.contents(pristine), list[tuple[str, dict[str, str]]]()
    commit = server.add("models/me/poet", files).commits[-1]
    server.add("models/me/broken", {layout.CONFIG: b"{}"})
    server.add("scope/me/other", files)
    wanted = "me/poet,me/none,two,nobody,me/broken,../../etc,modelscope:me/other"
    object.__setattr__(settings, "adapter", wanted)
    started = start.start(settings, settings.base_model, lambda stage, _=None, **detail: stages.append((stage, detail)))
    assert started.engine.adapters() == list(started.about) == ["me/poet", "two", "modelscope:me/other", "one"]
    said = capsys.readouterr().out
    assert [line.split()[2] for line in said.splitlines() if line.startswith("left out")] == [
        *("me/none:", "nobody:", "me/broken:", "../../etc:")
    ]
    assert (started.about["me/poet"].revision, started.about["two"].revision) == (commit, "")
    assert f"revision {commit[:12]}, active" in "\n".join(started.engine.describe())
    assert ("adapters", {}) in stages
    assert next(detail for stage, detail in stages if stage == "download")["progress"].startswith("me/poet: 0.0 of ")


def test_where_no_adapter_can_be_had_the_base_model_speaks(settings: Environment, server: Hub, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "adapters")
    object.__setattr__(settings, "adapter", "me/none")
    started = start.start(settings, settings.base_model)
    assert started.engine.adapters() == []
    assert started.command == f"python -m train.lora --base-model {settings.base_model} --name mine"


@pytest.mark.parametrize("hardware", ["l4x1", "t4-medium", "none", "cpu-basic", ""])
def test_a_gpu_that_cannot_be_used_is_not_passed_over_in_silence(
    settings: Environment, monkeypatch: pytest.MonkeyPatch, hardware: str
) -> None:
    monkeypatch.setenv("ACCELERATOR", hardware)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    asked = replace(settings, accelerator=Environment().accelerator)
    if hardware in ("l4x1", "t4-medium"):
        with pytest.raises(ModelError, match=f"this Space has {hardware}, and PyTorch .* finds no CUDA GPU"):
            start.start(asked, settings.base_model)
    else:
        assert start.start(asked, settings.base_model).engine.adapters() == ["one", "two"]


HEAVY = ("matplotlib", "sklearn", "sacrebleu", "trl", "datasets")


def test_the_chat_starts_without_what_only_training_needs(settings: Environment, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import app; from page.serving import start;"
        "from roleplay.environment import Environment; start.FOLDER = Path(sys.argv[1]) / 'adapters';"
        "started = start.start(Environment(), str(Path(sys.argv[1]) / 'base')); app.build(started, None);"
        f"print(list(started.about), [name for name in {HEAVY} if name in sys.modules])"
    )
    environment = os.environ | {"ROLEPLAY_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("['one', 'two'] []\n")


SHUTDOWN = """
import os, signal, sys, time
from page.serving.start import end_on_signals

end_on_signals(lambda: print("shut down", os.getpid(), flush=True))
if (child := os.fork()) == 0:
    time.sleep(60)
time.sleep(0.2)
os.kill(child, signal.SIGTERM)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM
print("parent", os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def test_a_forked_process_ends_without_the_shutdown_of_its_parent() -> None:
    """ZeroGPU forks one for every answer: ended by a signal, it must not push the parent's votes."""
    done = subprocess.run([sys.executable, "-c", SHUTDOWN], cwd=ROOT, capture_output=True, text=True, timeout=200)
    parent, ended = done.stdout.splitlines()
    assert ended.split() == ["shut", "down", parent.split()[1]], done.stderr
    assert done.returncode == 128 + signal.SIGTERM


def test_the_page_opens_on_the_newest_adapter_and_says_so(
    settings: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, hours in (("one", 2), ("two", 1)):
        when = time.time() - 3600 * hours
        os.utime(tmp_path / "adapters" / name / layout.CONFIG, (when, when))
    assert start.start(settings, settings.base_model).engine.adapters() == ["two", "one"]
    assert "opens on     two: the newest adapter by the time of its files" in capsys.readouterr().out
    object.__setattr__(settings, "adapter", "one")
    assert start.start(settings, settings.base_model).engine.adapters() == ["one", "two"]
    assert "opens on" not in capsys.readouterr().out


@pytest.mark.parametrize(("chat_template", "tokens"), [(None, start.BASE_TOKENS), ("{{ messages }}", 0)])
def test_only_a_base_that_does_not_stop_has_a_shorter_length(
    settings: Environment, capsys: pytest.CaptureFixture[str], chat_template: str | None, tokens: int
) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(settings.base_model)
    assert start.start(settings, settings.base_model).base_tokens == tokens
    assert "base length" in capsys.readouterr().out
