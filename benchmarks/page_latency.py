"""How long a token takes from the engine to a browser, and how often the page is updated.

    python -m benchmarks.page_latency
    python -m benchmarks.page_latency --tokens 600 --pause 0.005 --json page_latency.json

An engine that writes the time into every token speaks through the real page. A reader in another process asks as the
page's own front end does (`queue/join`, then the event stream of `queue/data`) and notes when each token comes. Both
read the machine's monotonic clock. A token counts from when it existed until the first update that carries it, the
page's own wait between two updates included. It writes nothing but the file that --json names.
"""

import multiprocessing
import re
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import gradio as gr
import httpx
import numpy as np

from benchmarks.report import write
from page.build import build, launch_options
from page.chat.choices import Choices
from page.serving.start import About, Started
from page.state import CHOSEN
from roleplay.engine.protocol import Answer, Request, Sampling
from roleplay.errors import RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.results.votes import Box
from roleplay.text import personas

NAME = "stamped"
GOAL_MS, GOAL_UPDATES = 50, 30


@dataclass(frozen=True)
class Flags:
    tokens: int = flag(400, "tokens of an answer; both sides are answered", within=(1, inf))
    pause: float = flag(0.01, "seconds between two tokens; shorter is a faster model", within=(0, inf))
    json: str = flag("", "file to write the figures to")


@dataclass
class StampedEngine:
    """Answers both sides with tokens that are the nanosecond in which they came to be."""

    tokens: int
    pause: float

    def describe(self) -> list[str]:
        return ["engine       stamped"]

    def adapters(self) -> list[str]:
        return [NAME]

    def problem(self) -> str:
        return ""

    def lacks(self) -> dict[str, str]:
        return {}

    def kl_to_base(self, adapter: str) -> None:
        return None

    def answer(self, request: Request) -> Iterator[dict[str, Answer]]:
        text, started = "", time.monotonic()
        for number in range(1, self.tokens + 1):
            time.sleep(self.pause)
            text += f" t{time.monotonic_ns()}"
            stop = "end" if number == self.tokens else ""
            answer = Answer(text, number, self.pause, time.monotonic() - started, stop)
            yield dict.fromkeys(request.questions, answer)


def number_of(demo: gr.Blocks, name: str) -> int:
    """The number under which the front end calls the first function of this name."""
    return next(number for number, fn in demo.fns.items() if fn.name == name)


def read(url: str, submit: int, answer: int, settings: list[Any]) -> tuple[list[float], list[float]]:
    """Ask once; returns every token's way in milliseconds, and the seconds at which an update came."""
    ways, arrivals, seen, session = list[float](), list[float](), set[str](), uuid4().hex
    with httpx.Client(base_url=f"{url}gradio_api/", timeout=60) as client:
        # States (None) stay on the server: the message that is asked, and the record.
        for function, data in ((submit, ["hello", None, *settings]), (answer, [None, None, *settings])):
            asked = {"data": data, "fn_index": function, "session_hash": session, "event_data": None}
            client.post("queue/join", json=asked).raise_for_status()
            with client.stream("GET", "queue/data", params={"session_hash": session}) as stream:
                for line in stream.iter_lines():
                    now = time.monotonic_ns()
                    if fresh := set(re.findall(r" t(\d+)", line)) - seen:
                        seen |= fresh
                        arrivals.append(now / 1e9)
                        ways += [(now - int(stamp)) / 1e6 for stamp in fresh]
                    if '"process_completed"' in line:
                        break
    return ways, arrivals


def measure(flags: Flags) -> dict[str, float]:
    """Serve the page, ask once to warm up and once to measure."""
    engine = StampedEngine(flags.tokens, flags.pause)
    with TemporaryDirectory() as folder:
        demo = build(Started(engine, {NAME: About(Path(folder))}), Box(Path(folder)))
        url = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1]
        chosen = Choices(persona=personas.default().system_prompt, adapter=NAME)
        settings = [(asdict(Sampling()) | vars(chosen))[name] for name in CHOSEN]
        arguments = (url, number_of(demo, "send"), number_of(demo, "answer"), settings)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(read, *arguments).result()
            ways, arrivals = pool.submit(read, *arguments).result()
        demo.close()
    if len(ways) != flags.tokens:
        raise RoleplayError(f"{len(ways)} of {flags.tokens} tokens arrived: the page loses some")
    middle, high = np.percentile(ways, [50, 95])
    return {
        "tokens": len(ways),
        "tokens_per_second": 1 / flags.pause,
        "median_ms": round(float(middle), 1),
        "p95_ms": round(float(high), 1),
        "longest_ms": round(max(ways), 1),
        "updates": len(arrivals),
        "updates_per_second": round((len(arrivals) - 1) / (arrivals[-1] - arrivals[0]), 1),
    }


def main() -> None:
    flags = parse(Flags, __doc__)
    found = measure(flags)
    for name, value in found.items():
        goal = {"p95_ms": f"  (goal: at most {GOAL_MS})", "updates_per_second": f"  (goal: at most {GOAL_UPDATES})"}
        print(f"{name:20}{value:10,g}{goal.get(name, '')}")
    if flags.json:
        write(found, flags.json)


if __name__ == "__main__":
    with one_line_errors():
        main()
