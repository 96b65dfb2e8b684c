"""A Space whose base model has no adapter: it trains one at its start, shows how far it is, keeps it and speaks."""

import html
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from page.build import build
from page.look import I18N
from page.serving import start, training
from page.serving.loading_page import say_nothing
from page.serving.start import Started
from page.serving.training import Trained
from page.words import WORDS
from roleplay.environment import Environment
from roleplay.errors import RoleplayError, StaleRunError
from roleplay.results.votes import Box
from roleplay.weights import layout
from tests import space, tiny
from tests.hub_server import TOKEN, Hub
from tests.scripted import ScriptedEngine
from train import push

APP = [sys.executable, "app.py"]
MARA = {"name": "Mara", "system_prompt": "You are Mara.", "openers": ["Who are you?"]}


@pytest.fixture
def room(server: Hub, folder: Path, tmp_path: Path) -> Path:
    """A Space with an adapter for another base model, rows for some updates, and a tiny base beside it."""
    push.main([str(folder), "--space", "me/lessons"])
    room = space.take_out(server.repos["spaces/me/lessons"], tmp_path / "space" / "app")
    rows = [{"instruction": f"How are you, {n}?", "output": f"Well, {n}."} for n in range(300)]
    (room / "dataset/zhenhuan/rows.json").write_text(json.dumps(rows))
    (room / "dataset/zhenhuan/persona.json").write_text(json.dumps(MARA))
    tiny.gemma(hidden_size=8).save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    return room


def said(room: Path) -> str:
    return (room.parent / "said.txt").read_text()


def wait_for(found: Callable[[], object], room: Path) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert time.monotonic() < deadline and "Traceback" not in said(room), said(room)[-3000:]
        time.sleep(0.05)


def stage(url: str) -> str:
    try:
        with urlopen(f"{url}/?stage", timeout=60) as answer:
            return str(answer.read().decode()) + f" {answer.headers['share-done']}"
    except OSError:  # nothing there yet, or no longer, or a busy machine
        return ""


def test_a_training_of_other_rows_is_begun_anew_and_one_that_was_stopped_goes_on_and_is_kept(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, kept = tmp_path / "volume", tmp_path / "volume" / "runs" / "zhenhuan-base"
    (kept / "checkpoint-9999").mkdir(parents=True)
    (kept / "checkpoint-9999" / "trainer_state.json").write_text("{}")
    (kept / training.RUN).write_text('{"rows.json": "before the Space got other rows"}')
    settings = {"BASE_MODEL": str(tmp_path / "base"), "TRAIN_MISSING": "always", "STORAGE": str(tmp_path / "volume")}
    with space.started(APP, room, **settings) as (url, process):
        told = re.compile(r"update (?:[2-9]|\d\d) of (\d+), [\d:]+ left, loss [\d.]+ 0\.\d+")
        wait_for(lambda: told.search(stage(url)), room)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
    assert re.search(r"error: .* but was .* set it back, .*\n.* begins anew: .*zhenhuan-base-set-aside", said(room))
    assert list(room.glob("runs/*-set-aside-1/checkpoint-9999"))
    assert "the next start goes on from" in said(room) and list(kept.glob("checkpoint-*"))
    assert not (kept / "checkpoint-9999").exists()

    shutil.rmtree(room / "runs")  # a restart has a new container
    with space.running(APP, room, 240, **settings):
        assert "--resume" in said(room) and "kept         zhenhuan-base: storage" in said(room)
        assert "adapter      zhenhuan-base: rank" in said(room)
    record = json.loads((volume / "adapters" / "zhenhuan-base" / layout.TRAINING).read_text())
    assert record["persona"]["name"] == "Mara" and not kept.exists()

    monkeypatch.setattr(training, "ROOT", tmp_path / "next")
    training.bring_back(volume)
    brought, whole = (tiny.contents(root / "adapters" / "zhenhuan-base") for root in (tmp_path / "next", room))
    assert brought == whole and layout.CONFIG in whole


def begun(folder: Path, monkeypatch: pytest.MonkeyPatch, adapter: str = "", **settings: str) -> Started:
    """A start in this process, with the base model in `folder`."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    environment = Environment(cache=folder / "cache", engine_url="", persona="", adapter=adapter)
    return start.start(environment, str(folder / "base"))


def test_a_token_that_may_write_keeps_it_in_a_repository_that_the_next_start_finds(
    room: Path, server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = {"HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    settings = {"BASE_MODEL": str(tmp_path / "base"), "TRAIN_MISSING": "always", "ADAPTER_REPO": "me/own"} | hub
    with space.running(APP, room, 240, **settings):
        assert "kept         zhenhuan-base: repo" in said(room)
    assert server.repos["models/me/own"].private and layout.WEIGHTS in server.repos["models/me/own"].files
    monkeypatch.setattr(start, "FOLDER", tmp_path / "adapters")
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("trained again"))
    assert begun(tmp_path, monkeypatch, TRAIN_MISSING="always", ADAPTER_REPO="me/own").engine.adapters() == ["me/own"]


KEPT: dict[str, tuple[bool, bool, str, bool]] = {  # holds an adapter of another base, is reached, ADAPTER, trains
    "empty": (False, True, "", True),
    "for another base model": (True, True, "", True),
    "not reached": (True, False, "", False),
    "beside what ADAPTER names": (False, True, "me/none", False),
}


@pytest.mark.parametrize(("holds", "reached", "named", "trains"), KEPT.values(), ids=KEPT)
def test_a_repository_without_an_adapter_that_fits(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: bool, reached: bool, named: str, trains: bool
) -> None:
    tiny.gemma(hidden_size=8).save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    server.add("models/me/own", tiny.contents(tiny.adapter(tmp_path / "other")) if holds else {})
    if not reached:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    trained = list[str]()
    monkeypatch.setattr(start, "FOLDER", tmp_path / "adapters")
    monkeypatch.setattr(training, "train", lambda name, *_: trained.append(name) or Trained())
    begun(tmp_path, monkeypatch, named, TRAIN_MISSING="always", ADAPTER_REPO="me/own")
    assert bool(trained) is trains


def test_a_training_ends_with_the_server_that_started_it(room: Path, tmp_path: Path) -> None:
    settings = {"BASE_MODEL": str(tmp_path / "base"), "TRAIN_MISSING": "always"}
    with space.started(APP, room, **settings) as (url, process):
        wait_for(lambda: re.search(r"update \d+ of", stage(url)), room)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.wait()
        wait_for(lambda: not any(os.path.exists(f"/proc/{child}") for child in children), room)
    assert children


def test_a_failure_leaves_the_page_with_one_sentence(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (room / "dataset/zhenhuan/rows.json").write_text("[]")
    monkeypatch.setattr(training, "ROOT", room)
    monkeypatch.setattr(start, "FOLDER", room / "adapters")
    shown = values(begun(tmp_path, monkeypatch, TRAIN_MISSING="always"), tmp_path)
    assert "holds no rows" in html.unescape(shown["problem"]) and "make" in shown
    assert str(I18N("train_failed")) in shown.values()


SAYS: dict[str, tuple[str, str]] = {  # what a command does, and the sentence that it fails with
    "a sentence": ("print('so far'); sys.exit('error: the disk is full: free some')", "^the disk is full: free some$"),
    "a crash": ("raise MemoryError('CUDA out of memory')", "^MemoryError: CUDA out of memory$"),
    "killed": ("os.kill(os.getpid(), 9)", "was killed \\(SIGKILL\\), often for its memory"),
    "silence": ("sys.exit(3)", "^it said nothing$"),
}


@pytest.mark.parametrize(("code", "sentence"), SAYS.values(), ids=SAYS)
def test_a_command_that_fails_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, sentence: str
) -> None:
    (tmp_path / "command.py").write_text(f"import os, sys\n{code}\n")
    monkeypatch.setattr(training, "PYTHON", (sys.executable, "-u"))
    with pytest.raises(RoleplayError, match=sentence):
        training._run([str(tmp_path / "command.py")], say_nothing)


def test_a_command_that_cannot_be_started_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training, "PYTHON", (str(tmp_path / "python"),))
    monkeypatch.setattr(training, "ROOT", tmp_path)
    problem = training.train("mara", Environment(), say_nothing).problem
    assert problem == "cannot start train.lora (No such file or directory): free some memory"


def test_a_run_that_is_set_aside_takes_the_place_of_no_other(tmp_path: Path) -> None:
    run = tmp_path / "mara"
    for text in ("first", "second"):
        run.mkdir()
        (run / training.RUN).write_text(text)
        training._set_aside(run)
    kept = [(tmp_path / f"mara-set-aside-{number}" / training.RUN).read_text() for number in (1, 2)]
    assert kept == ["first", "second"] and not run.exists()


def test_a_run_that_cannot_be_set_aside_leaves_the_page_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stale = (sys.executable, "-c", f"import sys; sys.exit({StaleRunError.status})")  # and its run is not there
    monkeypatch.setattr(training, "PYTHON", stale)
    monkeypatch.setattr(training, "ROOT", tmp_path)
    problem = training.train("mara", Environment(), say_nothing).problem
    assert re.fullmatch(r"cannot set .*zhenhuan-mara aside as zhenhuan-mara-set-aside-1 \(No such file.*again", problem)


def test_the_bar_of_a_command_is_told_and_not_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = """
from tqdm import tqdm
for _ in tqdm(range(3), desc="Loading weights"): pass
bar = tqdm(total=4, unit="update", mininterval=0)
for update in range(4):
    bar.update()
    bar.set_postfix({"held-out": "5.630", "loss": f"{update}.5", "rows/s": 12.3})
bar.close()
tqdm.write("  Who are you?  →  Mara.")
"""
    (tmp_path / "command.py").write_text(script)
    monkeypatch.setattr(training, "PYTHON", (sys.executable, "-u"))
    told = list[tuple[Any, ...]]()
    training._run(
        [str(tmp_path / "command.py")], lambda stage, share=None, /, **detail: told.append((stage, share, detail))
    )
    assert told[0][:2] == ("train", 0.0) and told[0][2]["loss"] == "–"
    stage, share, detail = told[-1]
    assert (stage, share, detail["update"], detail["updates"], detail["loss"]) == ("train", 1.0, "4", "4", "3.5")
    assert capsys.readouterr().out == "  Who are you?  →  Mara.\n"


def values(started: Started, folder: Path) -> dict[str, str]:
    """What stands on a page, by the name of its element."""
    blocks = build(started, Box(folder)).blocks.values()
    return {str(block.elem_id or block._id): str(getattr(block, "value", "")) for block in blocks}


@pytest.mark.parametrize("kept", ["folder", "storage", "repo", "restart"])
def test_the_page_says_where_an_adapter_is_kept(tmp_path: Path, kept: str) -> None:
    shown = values(Started(ScriptedEngine(), trained=Trained(kept)), tmp_path)
    assert shown["kept"] == str(I18N(f"kept_{kept}")) and "trained at the start" in WORDS["en"][f"kept_{kept}"]


@pytest.mark.parametrize(
    ("setting", "gpu", "lent", "trains"),
    [
        *[("auto", True, False, True), ("auto", True, True, False), ("auto", False, False, False)],
        *[("never", True, False, False), ("always", False, False, True), ("always", False, True, False)],
    ],
)
def test_when_an_adapter_is_trained(
    monkeypatch: pytest.MonkeyPatch, setting: str, gpu: bool, lent: bool, trains: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setenv("TRAIN_MISSING", setting)
    assert training.wanted(Environment(), lent) is trains


@pytest.mark.parametrize(
    ("name", "value", "choices"),
    [("TRAIN_MISSING", "yes", "auto, always or never"), ("DTYPE", "int4", "float32, bfloat16 or int8")],
)
def test_a_setting_that_is_none_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, choices: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(RoleplayError, match=f"^{name} is '{value}'; give {choices}$"):
        Environment()


def test_names_of_adapters() -> None:
    named = [training.name_of(base) for base in ("google/gemma-2b-it", "modelscope:Lucachen/gemma2b", "embedded")]
    assert named == ["zhenhuan-gemma-2b-it", "zhenhuan-gemma2b", "zhenhuan-embedded"]
