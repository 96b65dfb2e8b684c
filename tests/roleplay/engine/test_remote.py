"""The remote engine against a small server on loopback that speaks the completions protocol as vLLM does."""

import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from roleplay.engine import remote
from roleplay.engine.loops import repeats
from roleplay.engine.protocol import (
    ADAPTER,
    BASE,
    CANDIDATES,
    CONSIDERED,
    LOOP,
    SCORE,
    STRENGTH,
    Answer,
    Question,
    Request,
    Sampling,
    Speaker,
)
from roleplay.engine.remote import RemoteEngine
from roleplay.errors import ModelError, RoleplayError
from roleplay.text.prompts import PromptEncoder
from roleplay.weights.adapters import Adapter
from tests import tiny

TOKENIZER = tiny.tokenizer()
BOTH = {side: Question("You are T.", (("hi", "ho"),), "Who are you?") for side in (ADAPTER, BASE)}


class Server(ThreadingHTTPServer):
    """Serves `base` and its adapters `tiny` and `odd`; `script` says what a model's answer looks like."""

    daemon_threads = True
    script: dict[str, list[Any]]
    key = ""  # what it wants to be told before it answers
    asked: list[dict[str, Any]]
    gone: threading.Event  # set when a client hung up in the middle of an answer
    left: threading.Semaphore  # released when a client hung up before a word came
    both: threading.Barrier

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def reply(self, status: int, value: Any) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stranger(self) -> bool:
        if not self.server.key or self.headers["Authorization"] == f"Bearer {self.server.key}":
            return False
        self.reply(401, {"error": "Unauthorized"})
        return True

    def do_GET(self) -> None:
        if self.stranger():
            return
        cards = [{"id": "base", "parent": None, "max_model_len": 512}]
        cards += [{"id": name, "parent": "base"} for name in ("odd", "tiny", "unknown")]
        self.reply(*self.server.script.get("models", [200, {"object": "list", "data": cards}]))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        if self.stranger():
            return
        steps = self.server.script[body["model"]]
        if isinstance(steps[0], int):
            return self.reply(*steps)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for step in steps:
                self.step(step)
        except (OSError, threading.BrokenBarrierError):
            self.server.gone.set()

    def step(self, step: Any) -> None:
        if isinstance(step, float):
            time.sleep(step)
        elif step == "meet":
            self.server.both.wait(60)  # nobody goes on before both sides are being answered
        elif step == "for ever":
            while True:
                self.event({"choices": [{"text": "a"}]})
                time.sleep(0.01)
        elif step == "silent":
            if not self.connection.recv(1, socket.MSG_PEEK):  # the client hung up
                self.server.left.release()
        elif step == "vanish":
            self.connection.close()
            self.close_connection = True
        elif isinstance(step, bytes):
            self.chunk(step)
        else:
            self.event(step)

    def event(self, value: dict[str, Any]) -> None:
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def words(*texts: str, end: str = "stop", tokens: int = 1) -> list[Any]:
    """The events of a whole answer, `tokens` in each."""
    events: list[Any] = [
        {"choices": [{"text": text, "finish_reason": None}], "usage": {"completion_tokens": tokens * number}}
        for number, text in enumerate(texts, 1)
    ]
    events[-1]["choices"][0]["finish_reason"] = end
    usage = {"choices": [], "usage": {"completion_tokens": tokens * len(texts)}}
    return [*events, usage, b"data: [DONE]\n\n", b""]  # an empty chunk ends the body


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked, server.gone, server.both = [], threading.Event(), threading.Barrier(2)
        server.left = threading.Semaphore(0)
        server.script = {"base": words("I am ", "a model."), "tiny": words("I am", " T", "."), "odd": words("hm")}
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def adapter(name: str, template: str = "gemma") -> Adapter:
    return Adapter(name, Path(name), 4, 2.0, "base", "", template, "You are T.", {})


@pytest.fixture
def engine(server: Server) -> RemoteEngine:
    return RemoteEngine(server.url + "/", TOKENIZER, [adapter("tiny"), adapter("absent"), adapter("odd", "tutorial")])


def last(engine: RemoteEngine, request: Request) -> dict[str, Answer]:
    *_, answers = engine.answer(request)
    return answers


def test_both_sides_are_streamed_at_once(server: Server, engine: RemoteEngine) -> None:
    server.script = {name: ["meet", *script] for name, script in server.script.items()}
    growing = list(engine.answer(Request(BOTH)))
    assert (growing[-1][ADAPTER].text, growing[-1][BASE].text) == ("I am T.", "I am a model.")
    assert {answer.stop for answer in growing[-1].values()} == {"end"}
    for side in BOTH:
        texts = [answers[side].text for answers in growing]
        assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
    assert 0 < growing[-1][BASE].seconds_to_first_token <= growing[-1][BASE].seconds


def test_what_is_asked_for(server: Server, engine: RemoteEngine) -> None:
    last(engine, Request(BOTH, Sampling(0.5, top_k=7, frequency_penalty=0.4, max_new_tokens=9, seed=3), "odd"))
    asked = {body.pop("model"): body for body in server.asked}
    encoder = PromptEncoder(TOKENIZER, "tutorial")  # the adapter's, for both sides
    for body in asked.values():
        assert body.pop("prompt") == encoder.prompt("You are T.", (("hi", "ho"),), "Who are you?")
    assert asked["odd"] == asked["base"]
    expected = dict(stream=True, max_tokens=9, temperature=0.5, top_p=0.8, top_k=7, seed=3)
    expected |= dict(repetition_penalty=1.0, frequency_penalty=0.4)
    assert asked["odd"].items() >= expected.items()
    assert asked["odd"]["stop_token_ids"] == TOKENIZER.convert_tokens_to_ids(["<end_of_turn>", "<eos>"])


def test_tokens_are_the_servers_count_or_the_events(server: Server, engine: RemoteEngine) -> None:
    without = words("a", "b", "c", end="length")
    for event in without[:-2]:
        event.pop("usage")
    server.script = {"tiny": words("ab", "cd", tokens=5), "base": without}
    answers = last(engine, Request(BOTH))
    assert (answers[ADAPTER].tokens, answers[BASE].tokens) == (10, 3)
    assert (answers[ADAPTER].stop, answers[BASE].stop) == ("end", "length")


def test_oldest_turns_go_when_the_context_is_full(engine: RemoteEngine) -> None:
    question = Question("T", tuple((str(n) * 30, "x" * 30) for n in range(5)), "now")
    answer = last(engine, Request({BASE: question}, Sampling(max_new_tokens=400)))[BASE]
    assert answer.dropped_turns == 4 and answer.stop == "end"


def test_closing_hangs_up_though_the_server_would_go_on(server: Server, engine: RemoteEngine) -> None:
    server.script["tiny"] = server.script["base"] = ["for ever"]
    answers = engine.answer(Request(BOTH))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert server.gone.wait(60)


def test_closing_ends_a_request_that_still_waits(server: Server, engine: RemoteEngine) -> None:
    server.script["tiny"], server.script["base"] = words("x"), ["meet"]  # the base side never gets a word
    answers = engine.answer(Request(BOTH))
    next(answers)
    before = threading.active_count()
    answers.close()  # type: ignore[attr-defined]
    for _ in range(100):
        if threading.active_count() < before:
            break
        time.sleep(0.02)
    assert threading.active_count() < before
    server.both.abort()


@pytest.mark.timeout(20)
def test_a_stop_before_the_first_word_ends_both_requests_at_once(server: Server, engine: RemoteEngine) -> None:
    server.script["tiny"] = server.script["base"] = ["silent"]
    started = time.monotonic()
    answers = engine.answer(Request(BOTH))
    assert not any(answer.text or answer.stop for answer in next(answers).values())
    while len(server.asked) < 2:
        next(answers)
    answers.close()  # type: ignore[attr-defined]
    for _ in BOTH:
        assert server.left.acquire(timeout=60)
    assert time.monotonic() - started < 5


FAILURES: dict[str, tuple[list[Any], str]] = {
    "refused": ([400, {"error": {"message": "prompt is too long", "code": 400}}], "refuses with status 400 .*too long"),
    "older form": ([404, {"object": "error", "message": "no such model"}], "status 404 .*no such model"),
    "not JSON": ([502, b"<html>Bad gateway\n</html>"], "answers 502 .*Bad gateway"),
    "mid-stream": ([*words("a")[:1], {"error": {"message": "out of memory"}}], "out of memory"),
    "no choices": ([{"object": "chunk"}, b""], "does not stream completions"),
    "broken JSON": ([b"data: {]\n\n", b""], "does not stream completions"),
    "cut off": ([{"choices": [{"text": "a"}]}, b""], "ended the stream before the answer was whole"),
    "vanished": (
        [{"choices": [{"text": "a"}]}, "vanish"],
        "connection to the server was lost|before the answer was whole",
    ),
    "aborted": (words("a", end="abort"), r"ended the answer \(abort\)"),
}


@pytest.mark.parametrize(("script", "sentence"), FAILURES.values(), ids=FAILURES)
@pytest.mark.timeout(20)
def test_one_side_fails_with_a_sentence(server: Server, engine: RemoteEngine, script: list[Any], sentence: str) -> None:
    server.script["tiny"] = script
    answers = last(engine, Request(BOTH))
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(answers[ADAPTER].stop)
    assert "\n" not in answers[ADAPTER].stop
    assert (answers[BASE].text, answers[BASE].stop) == ("I am a model.", "end")


def test_a_queued_answer_is_waited_for_but_not_for_ever(
    server: Server, engine: RemoteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CONNECT_SECONDS", 0.2)
    server.script["tiny"] = [0.5, *words("late")]
    assert last(engine, Request(BOTH))[ADAPTER].text == "late"
    monkeypatch.setattr(remote, "SILENCE_SECONDS", 0.2)
    answers = last(engine, Request(BOTH))
    assert "the server sent nothing for" in answers[ADAPTER].stop and answers[BASE].stop == "end"


def test_health(server: Server, engine: RemoteEngine) -> None:
    assert engine.adapters() == ["tiny", "odd"]
    lines = "\n".join(engine.describe())
    assert server.url in lines and "base " in lines and "tiny, odd" in lines and "512 tokens" in lines
    server.script["models"] = [500, {"error": {"message": "loading"}}]
    assert "status 500 ('loading')" in engine.describe()[0]
    server.script["models"] = [200, {"data": []}]
    assert "no list of models" in engine.describe()[0]


def test_a_server_with_a_key(server: Server) -> None:
    server.key = "secret"
    request = Request(BOTH)
    engine = RemoteEngine(server.url, TOKENIZER, [adapter("tiny")], "secret")
    assert engine.problem() == ""
    assert last(engine, request)[ADAPTER].text == "I am T."
    for key in ("", "wrong"):
        engine = RemoteEngine(server.url, TOKENIZER, [adapter("tiny")], key)
        assert "status 401 ('Unauthorized'): set ENGINE_KEY" in engine.problem()
        with pytest.raises(ModelError, match="set ENGINE_KEY"):
            last(engine, request)


def test_the_problem_is_told_and_goes(server: Server, engine: RemoteEngine) -> None:
    assert engine.problem() == ""
    server.script["models"] = [503, b"loading"]
    assert "the server answers 503" in engine.problem()
    del server.script["models"]
    assert engine.problem() == ""


def test_no_server() -> None:
    engine = RemoteEngine("http://127.0.0.1:9/v1", TOKENIZER)
    assert "no server answers at http://127.0.0.1:9/v1 (Connection refused)" in engine.describe()[0]
    with pytest.raises(ModelError, match="start it, or unset ENGINE_URL"):
        last(engine, Request(BOTH))


def test_adapter_that_is_not_served(engine: RemoteEngine) -> None:
    for name in ("absent", "unknown", "base"):
        with pytest.raises(RoleplayError, match=f"no adapter '{name}': choose one of tiny, odd"):
            last(engine, Request(BOTH, adapter=name))


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "file:///etc/passwd", "http://", "http://a b/v1", "http://h:x/v1"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ModelError, match="ENGINE_URL is"):
        RemoteEngine(url, TOKENIZER)


def test_each_side_has_its_length_and_a_loop_is_cut(engine: RemoteEngine, server: Server) -> None:
    server.script["base"] = ["for ever"]
    request = Request(BOTH, Sampling(max_new_tokens=40, base_max_new_tokens=20), "tiny", cut_loops=True)
    answers = last(engine, request)
    assert (answers[ADAPTER].stop, answers[BASE].stop) == ("end", LOOP)
    assert repeats(answers[BASE].text) and server.gone.wait(60)
    assert {body["model"]: body["max_tokens"] for body in server.asked} == {"tiny": 40, "base": 20}


def test_another_adapter_may_be_compared_and_no_strength_be_chosen(engine: RemoteEngine, server: Server) -> None:
    *_, last = engine.answer(Request(BOTH, adapter="tiny", other=Speaker("odd")))
    assert [last[side].text for side in (ADAPTER, BASE)] == ["I am T.", "hm"]
    with pytest.raises(RoleplayError, match="candidates is 8, but a server weighs no answers"):
        next(engine.answer(Request(BOTH, CONSIDERED, "tiny")))
    with pytest.raises(RoleplayError, match="strength is 0.5, but a server's adapters speak at the strength that they"):
        next(engine.answer(Request(BOTH, adapter="tiny", strength=0.5)))


def test_a_finished_answer_is_scored_where_the_server_gives_token_probabilities(
    engine: RemoteEngine, server: Server
) -> None:
    assert set(engine.lacks()) == {STRENGTH, CANDIDATES, SCORE}  # it streams, and says nothing of the prompt
    a, b = TOKENIZER("ab").input_ids

    def told(*logprobs: tuple[float, float]) -> list[Any]:
        entries = [{str(t): {"logprob": p} for t, p in zip((a, b), pair, strict=True)} for pair in logprobs]
        return [200, {"choices": [{"text": "x", "prompt_logprobs": [None, *entries]}]}]

    server.script |= {"tiny": told((-9, -9), (-0.1, -3), (-2, -0.2)), "base": told((-9, -9), (-0.3, -2), (-0.4, -1))}
    server.asked.clear()
    found = engine.score(Request(BOTH, adapter="tiny"), Answer("ab", stop="length"))
    assert [piece.text for piece in found] == ["a", "b"]
    assert [piece.logprobs for piece in found] == [{ADAPTER: -0.1, BASE: -0.3}, {ADAPTER: -0.2, BASE: -1.0}]
    assert [piece.same_choice for piece in found] == [True, False]
    assert found[1].likeliest[BASE] == [("a", pytest.approx(0.67, abs=0.01)), ("b", pytest.approx(0.37, abs=0.01))]
    assert [body["prompt"][-2:] for body in server.asked] == [[a, b]] * 2
    start = PromptEncoder(TOKENIZER).prefix("")
    entries = [None, *({str(token): {"logprob": -1.0}} for token in start[1:])]
    server.script["base"] = [200, {"choices": [{"text": "x", "prompt_logprobs": entries}]}]
    assert engine.lacks().keys() == {STRENGTH, CANDIDATES}
