"""The ZeroGPU engine: what it asks for and what it says, alone and with the real `spaces` package as on a Space."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty
from typing import Any

import gradio as gr
import pytest

from roleplay.engine.lent_gpu import LONGEST, ZeroEngine
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE, Answer, Question, Request, Sampling
from roleplay.environment import ROOT
from roleplay.errors import ModelError, RoleplayError
from roleplay.weights import base_models, inspection
from tests import space, tiny
from tests.scripted import ScriptedEngine

BOTH = dict.fromkeys((ADAPTER, BASE), Question("", (), "?"))


class Lent:
    """`spaces.GPU` in this process; `refuses` is what it raises."""

    def __init__(self) -> None:
        self.refuses: Exception | None = None
        self.seconds = list[int]()

    def __call__(self, task: Callable[..., Iterator[Any]], duration: Callable[..., int]) -> Callable[..., Any]:
        def lend(*asked: Any) -> Iterator[Any]:
            self.seconds.append(duration(*asked))
            if self.refuses:
                raise self.refuses
            yield from task(*asked)

        return lend


def ask(zero: ZeroEngine, tokens: int = 256) -> dict[str, Answer]:
    *_, last = zero.answer(Request(BOTH, Sampling(max_new_tokens=tokens)))
    return last


def test_the_time_asked_for_follows_length_and_measured_speed() -> None:
    lent, slow = Lent(), ScriptedEngine(pause=0.02)
    zero = ZeroEngine(slow, lent)  # type: ignore[arg-type]  # it answers like one
    for tokens in (1, 256, 1024):
        ask(zero, tokens)
    assert lent.seconds[0] < lent.seconds[1] < lent.seconds[2]
    first = zero.duration(Request(BOTH))
    slow.pause = 0.1
    for _ in range(3):
        ask(zero)
    assert zero.duration(Request(BOTH)) > 1.2 * first
    assert len(slow.requests) == len(lent.seconds) == 6  # one call for both sides
    slow.pause = 0.5
    ask(zero)
    assert zero.duration(Request(BOTH, Sampling(max_new_tokens=2048))) == LONGEST


def test_a_score_asks_for_little_time_and_fails_in_a_sentence() -> None:
    lent, engine = Lent(), ScriptedEngine()
    zero, said = ZeroEngine(engine, lent), Answer("ab", stop="end")  # type: ignore[arg-type]  # it answers like one
    assert zero.score(Request(BOTH), said) == engine.score(Request(BOTH), said)
    assert lent.seconds[0] < zero.duration(Request(BOTH))
    engine.error = "the answer takes 9 tokens"
    with pytest.raises(RoleplayError, match="takes 9 tokens"):
        zero.score(Request(BOTH), said)
    lent.refuses = RuntimeError("no quota")
    with pytest.raises(ModelError, match="no GPU just now: no quota"):
        zero.score(Request(BOTH), said)


def test_errors_cross_as_sentences() -> None:
    lent, engine = Lent(), ScriptedEngine(error="no adapter 'x' is loaded")
    zero = ZeroEngine(engine, lent)  # type: ignore[arg-type]
    with pytest.raises(RoleplayError, match="no adapter 'x' is loaded"):
        ask(zero)
    refusals = {
        gr.Error("You have exceeded your quota. Try again in 1:00:00"): "You have exceeded your quota. .* 1:00:00",
        RuntimeError("Connection closed by visitor while queueing"): "Connection closed by visitor while queueing",
        AssertionError(): "AssertionError",
        Empty(): "Empty",
    }
    for lent.refuses, sentence in refusals.items():
        with pytest.raises(ModelError, match=f"^no GPU just now: {sentence}$"):
            ask(zero)


def test_a_space_as_far_as_it_goes_without_a_gpu(tmp_path: Path) -> None:
    folder = tiny.looking_up(tiny.adapter(tmp_path / "tiny"))  # by meaning, which the process with the GPU reads
    command = [sys.executable, "-W", "ignore", "-m", "tests.zero_space", str(folder), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])

    chosen = ("cpu", "test"), ("float32", "test"), ("sdpa", "test")
    base = base_models.BaseModel(tiny.gemma(), tiny.tokenizer(), tiny.BASE_NAME, "random", *chosen)
    local = LocalEngine(base, [inspection.inspect(folder)], 400)
    greedy = Sampling(temperature=0.0, repetition_penalty=1.0, frequency_penalty=0.0, max_new_tokens=8)
    *_, last = local.answer(Request(BOTH, greedy))
    same = {side: [answer.text, [list(row) for row in answer.shown_rows]] for side, answer in last.items()}
    assert found["first"] == found["again"] == found["after"] == same  # a new process, the same one, after a stop
    assert last[ADAPTER].shown_rows and not last[BASE].shown_rows
    assert found["moves"] == pytest.approx(local.kl_to_base("tiny"), rel=1e-3)
    assert "8 tokens" in found["page"] and "tok/s" in found["page"]
    assert 0 < found["stopped"] < 100
    assert "shorten it" in found["too long"]
    assert "no GPU just now: Space app has reached its GPU limit" in found["quota"]
    assert "no GPU just now: No GPU was available" in found["no gpu"]
    assert len(found["seconds"]) == 8 and found["seconds"][3] > found["seconds"][0]
    assert found["released"] == 6  # every GPU that was lent came back
    assert found["kept in the main process"] == 0


@pytest.fixture
def engine_url(tmp_path: Path) -> Iterator[str]:
    """A server that has a base model and no adapter, as far as a start asks it."""
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "models").write_text('{"data": [{"id": "base", "max_model_len": 512}]}')
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


@pytest.mark.parametrize("remote", [False, True])
def test_a_space_reports_its_start_and_serves_nothing_before(tmp_path: Path, engine_url: str, remote: bool) -> None:
    """ZeroGPU starts no Space in which nothing is decorated, as with ENGINE_URL alone."""
    tiny.gemma().save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "app").mkdir()
    command = [sys.executable, "-W", "ignore", "-m", "tests.zero_space", "app", str(tmp_path)]
    settings = {"BASE_MODEL": str(tmp_path / "base"), "SYSTEM": "spaces", "CPU_CORES": "1", "GRADIO_SSR_MODE": "True"}
    settings |= {"ENGINE_URL": engine_url if remote else "", "PYTHONPATH": str(ROOT)}
    with space.running(command, tmp_path / "app", 240, **settings):
        said = (tmp_path / "said.txt").read_text()
    assert "opens when all is loaded" in said and said.count("startup report") == 1
    assert ("server       " in said) is remote
    assert "GRADIO_HOT_RELOAD" not in said  # it has found the page by its name


def test_a_stop_gives_the_lent_gpu_back_at_once() -> None:
    """Whatever else still holds the call: without a word to it, it would go on to its end."""
    held = list[Iterator[Any]]()

    class Held(Lent):
        def __call__(self, task: Callable[..., Iterator[Any]], duration: Callable[..., int]) -> Callable[..., Any]:
            lend = super().__call__(task, duration)
            return lambda request: held.append(lend(request)) or held[-1]  # type: ignore[func-returns-value]

    engine = ScriptedEngine()
    stream = ZeroEngine(engine, Held()).answer(Request(BOTH, Sampling()))  # type: ignore[arg-type]
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert (len(held), engine.closed_early) == (1, 1)
