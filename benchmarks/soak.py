"""Let eight people use the real app for half an hour, badly, and see that it stays as it was.

    python -m benchmarks.soak --minutes 30 --json runs/soak.json
    python -m benchmarks.soak --minutes 1 --base-model tiny

The app runs in a process of its own. Clients speak the page's protocol (benchmarks/headless.py): they chat, compare,
stop, close the tab in the middle of an answer, and reload, at random. Every answer that was left to end is greedy and
is compared with what the engine says to one user alone, computed beforehand. Memory is the app's resident set, its
median in the second quarter of the run against that in the last: the first quarter warms up. Ends with status 1 when a
request was stuck, refused or failed, no answer was left to end or one was wrong, or memory grew by more than 2 %.
"""

import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path

import httpx
import psutil

from benchmarks import fuzz_http
from benchmarks.headless import Refused, Stuck, Tab
from benchmarks.report import write
from page.chat import exchanges
from page.chat.choices import NUMBERS, Choices
from page.chat.exchanges import Exchange
from page.serving import start
from roleplay.engine.protocol import Engine
from roleplay.environment import ROOT, Environment
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from roleplay.text import personas
from roleplay.weights import embedded

QUESTIONS = ("你是谁？", "Who are you?", "今夜月色如何？", "Tell me about your home.")
TURNS = 2  # messages of a conversation at most; then it is cleared
TINY = "tiny"
GROWTH = 0.02
SAMPLE_SECONDS = 2.0
GREEDY = (
    0,
    1,
    0,
    1,
    0,
    1,
    24,
    0,
)  # the sliders of "Sampling", the last ones, in their order; a reply has 24 tokens at most
Script = tuple[bool, tuple[str, ...]]  # compared or not, and the messages so far


@dataclass(frozen=True)
class Flags:
    minutes: float = flag(30.0, "how long the clients go on", within=(0, inf))
    clients: int = flag(8, "people at once", within=(1, inf))
    base_model: str = flag(embedded.NAME, f"that the app runs, or {TINY} for the tests' random one")
    tabs: int = flag(
        300,
        "pages opened and closed first, so that what the server keeps of past pages is at its most",
        within=(0, inf),
    )
    seed: int = flag(0, "of what the clients do")
    json: str = flag("", "file for the figures")


def scripts() -> list[Script]:
    """Every conversation that a client may have."""
    runs = [QUESTIONS[n : n + length] for n in range(len(QUESTIONS)) for length in range(1, TURNS + 1)]
    return [(compare, run) for compare in (True, False) for run in runs if run]


def alone(engine: Engine, persona: str, compare: bool, messages: tuple[str, ...]) -> dict[str, str]:
    """What each side says to the last message when nobody else asks."""
    record: list[Exchange] = []
    for message in messages:
        greedy = dict(zip(NUMBERS, GREEDY, strict=True))
        chosen = Choices(compare, persona=persona, adapter=engine.adapters()[0], seed="0", numbers=greedy)
        *_, last = exchanges.grow(engine, record, exchanges.begin(message, chosen), "en")
        record.append(last)
    return {side: answer.text for side, answer in record[-1].answers.items()}


@dataclass
class Tally:
    """What the clients did and what went wrong."""

    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of the answers that were left to end


def sound(tally: Tally, alive: bool, growth: float) -> bool:
    """Whether answers came and all were right, nothing failed, and the app still runs and is no larger."""
    amiss = tally.wrong or tally.failed or tally.stuck
    return bool(tally.seconds) and not amiss and alive and growth <= GROWTH


class Left(Exception):
    """The tab was closed in the middle of an answer."""


class Client(threading.Thread):
    """One person at one tab after another."""

    def __init__(self, url: str, seed: int, until: float, expected: dict[Script, dict[str, str]], tally: Tally) -> None:
        super().__init__(daemon=True)
        self.url, self.dice, self.until, self.expected, self.tally = url, random.Random(seed), until, expected, tally
        self.ended = False
        self.said: list[str] = []
        self.known = True  # whether the conversation is one of the scripts: nothing in it was stopped

    def run(self) -> None:
        try:
            tab = self.open(None)
            while time.monotonic() < self.until:
                tab = self.turn(tab)
            tab.close()
            self.ended = True
        except Stuck as error:
            self.tally.stuck.append(str(error))
        except (Refused, httpx.HTTPError) as error:
            self.tally.failed.append(repr(error))

    def open(self, kept: str | None) -> Tab:
        """A tab with greedy settings, and with what a tab kept."""
        tab = Tab(self.url, kept)
        for slider, value in zip(tab.find_all("slider")[-len(GREEDY) :], GREEDY, strict=True):
            tab.values[slider] = value
        return tab

    def turn(self, tab: Tab) -> Tab:
        """One message and what follows it; the tab to go on with."""
        composer, compare = tab.find("textbox", "submit"), tab.find("checkbox", elem_id="compare")
        if len(self.said) == TURNS or not self.known:
            tab.fire(tab.find("chatbot", elem_id="left"), "clear")
            self.said, self.known = [], True
        if not self.said:
            tab.values[compare] = self.dice.random() < 0.5
            tab.fire(compare, "change")
        start = QUESTIONS.index(self.said[-1]) + 1 if self.said else self.dice.randrange(len(QUESTIONS) - TURNS + 1)
        self.said.append(QUESTIONS[start])
        tab.values[composer] = self.said[-1]
        plan = self.dice.choices(["end", "stop", "leave"], [6, 2, 1])[0]
        after, began = self.dice.randrange(2, 8), time.monotonic()
        if plan == "leave":
            self.tally.done["left in the middle"] += 1
            kept = tab.values[tab.storage]  # as it was before this message
            self.said.pop()
            with suppress(Left):
                tab.fire(composer, "submit", countdown(after, leave))
            tab.close()
            return self.open(kept)
        ended = tab.fire(composer, "submit", countdown(after) if plan == "stop" else lambda: False)
        if not ended:
            self.tally.done["stopped"] += 1
            self.known = False
            tab.fire(composer, "stop")
        elif tab.error:
            self.tally.failed.append(tab.error)
        else:
            self.tally.seconds.append(time.monotonic() - began)
            self.check(tab, bool(tab.values[compare]))
        if self.dice.random() < 0.25:
            self.tally.done["reloaded"] += 1
            kept = tab.values[tab.storage]
            tab.close()
            return self.open(kept)
        return tab

    def check(self, tab: Tab, compare: bool) -> None:
        answers = tab.record()[-1]["answers"]
        said = {side: answer["text"] for side, answer in answers.items()}
        self.tally.done["compared" if compare else "chatted"] += 1
        if said != self.expected[compare, tuple(self.said)]:
            self.tally.wrong.append(f"{self.said}: {said}, alone {self.expected[compare, tuple(self.said)]}")


def countdown(updates: int, then: Callable[[], bool] = lambda: True) -> Callable[[], bool]:
    """What `then` says at that update of an answer, False at every other."""
    left = iter(range(updates, -1, -1))
    return lambda: next(left, -1) == 0 and then()


def leave() -> bool:
    raise Left


@contextmanager
def app_on(base_model: str) -> Iterator[tuple[str, int]]:
    """The app's address and process id: app.py itself, or for `tiny` the page that benchmarks.fuzz tries."""
    if base_model == TINY:
        with fuzz_http.served(echo=False) as page:
            yield page.url, page.process.pid or 0
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--base-model", base_model]
    told = {"PORT": str(port), "HOST": "127.0.0.1", "MESSAGES_PER_MINUTE": "0"}  # all clients share one address
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | told)
    try:
        url = f"http://127.0.0.1:{port}"
        Tab.when_up(url, server).close()
        yield url, server.pid
    finally:
        server.terminate()
        server.wait(60)


def expectations(base_model: str) -> dict[Script, dict[str, str]]:
    if base_model == TINY:
        with tempfile.TemporaryDirectory() as folder:
            engine: Engine = fuzz_http.tiny_engine(Path(folder))
        persona = personas.default().system_prompt
    else:
        started = start.start(Environment(engine_url=""), base_model)
        engine, persona = started.engine, started.persona.system_prompt
    return {(compare, messages): alone(engine, persona, compare, messages) for compare, messages in scripts()}


def main() -> int:
    flags = parse(Flags, __doc__)
    expected = expectations(flags.base_model)
    print(f"{len(expected)} conversations computed for one user alone", flush=True)
    tally, memory = Tally(), list[int]()
    with app_on(flags.base_model) as (url, pid):
        process = psutil.Process(pid)
        for _ in range(flags.tabs):
            Tab(url).close()
        began, until = time.monotonic(), time.monotonic() + flags.minutes * 60
        clients = [Client(url, flags.seed + n, until, expected, tally) for n in range(flags.clients)]
        for client in clients:
            client.start()
        while time.monotonic() < until:
            time.sleep(SAMPLE_SECONDS)
            memory.append(process.memory_info().rss)
        for client in clients:
            client.join(2 * 60)
        tally.stuck += ["a client did not come to its end" for client in clients if not client.ended]
        seconds, alive = time.monotonic() - began, process.is_running()
    quarter = len(memory) // 4
    early, late = (statistics.median(part) for part in (memory[quarter : 2 * quarter], memory[-quarter:]))
    figures = {
        "minutes": round(seconds / 60, 1),
        "clients": flags.clients,
        **tally.done,
        "median seconds to a whole answer": round(statistics.median(tally.seconds), 2) if tally.seconds else None,
        "wrong answers": len(tally.wrong),
        "failed requests": len(tally.failed),
        "stuck requests": len(tally.stuck),
        "restarts": int(not alive),
        "memory after warm-up, MB": round(early / 1e6),
        "memory at the end, MB": round(late / 1e6),
        "growth": round(late / early - 1, 4),
    }
    print(*(f"{name:<34} {value!s:>9}" for name, value in figures.items()), sep="\n")
    print(*(tally.wrong + tally.failed + tally.stuck)[:5], sep="\n", file=sys.stderr)
    if flags.json:
        report = {"settings": asdict(flags), "figures": figures, "memory": memory, **vars(tally)}
        write(report, flags.json)
    return int(not sound(tally, alive, late / early - 1))


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
