"""The HTTP layer of benchmarks.fuzz: the real page in a process of its own, and requests that no page would send."""

import json
import multiprocessing
import random
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx

from benchmarks.headless import API, Tab
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE
from roleplay.results.votes import Box
from roleplay.weights import base_models as models
from roleplay.weights import inspection

# What Python, and the libraries under the page, say of themselves.
INSIDES = re.compile(r"Traceback|File \\?\"/|\w\.py\b|[a-z](Error|Exception)\b|object has no|NoneType|\bpydantic")
FULL = 503  # the queue's own refusal
READING_SECONDS = 4.0
METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS")
ODD = ("..%2f..%2fetc%2fpasswd", "%00", "☃", "a" * 3000, "/etc/passwd", "http:%2f%2f127.0.0.1%2f", "-1", "<b>")


@dataclass(frozen=True)
class Served:
    url: str
    routes: list[str]
    process: BaseProcess


def tiny_engine(folder: Path) -> LocalEngine:
    """The real engine on the tests' random model and adapter."""
    from tests import tiny  # whoever runs a benchmark on a real model needs no tests

    chosen = ("cpu", "tiny"), ("float32", "tiny"), ("sdpa", "tiny")
    base = models.BaseModel(tiny.gemma(max_position_embeddings=4096), tiny.tokenizer(), tiny.BASE_NAME, "", *chosen)
    return LocalEngine(base, [inspection.inspect(tiny.adapter(folder / "tiny"))])


def serve(echo: bool, folder: str, pipe: Connection) -> None:
    """The real page in this process, on the tiny engine or on one that repeats what it is told."""
    from page.build import build, launch_options  # this process alone needs the page
    from page.serving.start import Started
    from tests.scripted import ScriptedEngine

    repeats = {ADAPTER: "{user}", BASE: "{user}"}
    engine: Any = ScriptedEngine(pause=0.002, replies=repeats) if echo else tiny_engine(Path(folder))
    demo = build(Started(engine), Box(Path(folder) / "votes"))
    server, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    pipe.send((url, sorted(server.openapi()["paths"])))
    demo.block_thread()


@contextmanager
def served(echo: bool) -> Iterator[Served]:
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        here, there = spawn.Pipe()
        process = spawn.Process(target=serve, args=(echo, folder, there), daemon=True)
        process.start()
        yield Served(*here.recv(), process)
        process.terminate()
        process.join(10)


@dataclass
class Prober:
    """Sends requests, reads the answers, and keeps what must not have been in them."""

    client: httpx.Client
    sent: int = 0
    failed: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def send(self, method: str, path: str, **options: Any) -> int:
        """The status of the answer; a stream is left after its first event that is no heartbeat."""
        self.sent += 1
        text, status = "", 0
        with suppress(httpx.TransportError), self.client.stream(method, path, **options) as answer:
            status, kind = answer.status_code, answer.headers.get("content-type", "")
            started = time.monotonic()
            if kind.startswith("text/event-stream"):
                for line in answer.iter_lines():
                    text += line
                    over = time.monotonic() - started > READING_SECONDS
                    if over or re.search("ALIVE|process_(generating|completed)|unexpected_error", line):
                        break
            else:
                text = answer.read().decode("utf-8", "replace")
            kept = f"{method} {path:.80} {str(options)[:400]} -> {status} {text[:300]}"
            if status >= 500 and status != FULL:
                self.failed.append(kept)
            front_end = path.startswith(("/assets", "/static", "/svelte")) or "text/html" in kind
            if not front_end and (found := INSIDES.search(text)):  # the front end's own files name many an error
                self.told.append(f"{text[max(0, found.start() - 200) : found.end() + 200]} <- {kept}")
        return status


def value(dice: random.Random, texts: Iterator[str]) -> Any:
    """One JSON value of any kind, also such as the page would nearly send."""
    message = {"role": dice.choice(["user", "assistant", "system", 7]), "content": next(texts)}
    parts = {
        **message,
        "content": [{"type": dice.choice(["text", "file", "x"]), "text": dice.choice([3, next(texts)])}],
    }
    file = {"path": "/etc/passwd", "url": "http://127.0.0.1/hit", "meta": {"_type": "gradio.FileData"}}
    figures = {"tokens": dice.choice([1e400, "7", None]), "seconds_to_first_token": "nan", "seconds": 0}
    answer = {"text": next(texts), "stop": "", "dropped_turns": 0, **figures}
    exchange = {"user": next(texts), "answers": {BASE: answer}, "personas": {}, "adapter": "../..", "sampling": {}}
    exchanges = [exchange | {"order": [ADAPTER, BASE], "verdict": ""}] * dice.choice([1, 300])
    kept = {"record": dice.choice([exchanges, [{"user": 1}], 3]), "compare": "x", "persona": 3, "given": []}
    plain: list[Any] = [None, True, 0, -1, 2**63, 1e308, float("nan"), float("inf"), "", [], {}, [[]], {"a": None}]
    near = [
        next(texts),
        [next(texts)] * 3,
        [message] * 2,
        [parts],
        [{**message, "content": file}],
        [[None, None]],
        kept,
    ]
    return dice.choice([*plain, *near, file, {"__type__": "update", "value": next(texts)}])


def body(dice: random.Random, tab: Tab, texts: Iterator[str], session: Any) -> dict[str, Any]:
    """A request for one of the page's events, right but for some of its parts."""
    event = dice.choice([*tab.events.values()])
    data: Any = [tab.values[one] if dice.random() < 0.6 else value(dice, texts) for one in event["inputs"]]
    if dice.random() < 0.2:
        data = dice.choice([value(dice, texts), data[:-1], [*data, *data], [value(dice, texts)] * 40])
    made = {"data": data, "fn_index": event["id"], "session_hash": session, "event_data": value(dice, texts)}
    extra = ("trigger_id", "event_id", "batched", "simple_format", "oauth_token", "fn_index", "session_hash")
    made |= {name: value(dice, texts) for name in dice.sample(extra, dice.choice([0, 0, 0, 1, 2]))}
    if dice.random() < 0.1:
        made.pop(dice.choice([*made]))
    return made


def fuzz(page: Served, count: int, texts: Iterator[str], seed: int) -> Prober:
    """Every route with every method, then `count` requests for the page's events."""
    prober, dice = Prober(httpx.Client(base_url=page.url.rstrip("/"), timeout=READING_SECONDS)), random.Random(seed)
    tab = Tab(page.url)
    sessions = [tab.session, "", "x" * 5000, "../..", "\x00", "null", "☃", "' or 1=1"]
    for route in page.routes:
        for method in METHODS:
            path = re.sub(r"\{[^}]*\}", lambda _: dice.choice(ODD), route)
            prober.send(method, path, **({"content": json.dumps(value(dice, texts))} if method == "POST" else {}))
    for event in tab.events.values():
        for verb in ("run", "api", "call", "call/v2"):
            sent = {"data": [value(dice, texts)], "session_hash": dice.choice(sessions)}
            prober.send("POST", f"{API}/{verb}/{event['api_name']}", content=json.dumps(sent))
    json_type = {"Content-Type": "application/json"}
    for number in range(count):
        session = dice.choice(sessions)
        path = f"{API}/{dice.choice(['queue/join'] * 4 + ['run/predict', 'run/predict', 'cancel', 'component_server'])}"
        if number % 50 == 0:
            raw = dice.choice([b"{", b"\xff\xfe", b"[" * 100_000, b'"' + b"a" * 20_000_000 + b'"', b"", b"1" * 5000])
            prober.send("POST", path, content=raw, headers=dice.choice([json_type, {"Content-Type": "x/y"}, {}]))
        sent = body(dice, tab, texts, session)
        status = prober.send("POST", path, content=json.dumps(sent), headers=json_type)
        if path.endswith("join") and status in (httpx.codes.OK, FULL):
            # What the server makes of a lone surrogate; no address can hold one.
            session = str(sent.get("session_hash"))[:5000].encode("utf-8", "replace").decode()
            prober.send("GET", f"{API}/queue/data", params={"session_hash": session})
    return prober


def answers(url: str) -> bool:
    """Whether the page still answers a plain message."""
    tab = Tab(url)
    text = tab.find("textbox", "submit")
    tab.values[text] = "still there?"
    ended = tab.fire(text, "submit")
    last = tab.record()[-1]
    tab.close()
    return ended and not tab.error and all(one["stop"] in ("end", "length") for one in last["answers"].values())
