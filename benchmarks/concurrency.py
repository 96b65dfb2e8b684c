"""How many people one server answers: 1, 4, 8 and 16 users who each compare adapter and base, here and through vLLM.

    python -m benchmarks.concurrency --json runs/concurrency.json
    python -m benchmarks.concurrency --vllm .venv-vllm/bin/python    # see tests/vllm/run.py for that environment
    python -m benchmarks.concurrency --engine-url http://gpu-box:8000/v1

It prints, per engine and number of users, tokens per second over all of them and the time to the first token (95th
percentile), and writes the same as JSON; exits with status 1 when an answer failed.
"""

import statistics
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

from benchmarks.report import write
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE, Answer, Engine, Question, Request, Sampling
from roleplay.engine.remote import RemoteEngine
from roleplay.environment import Environment
from roleplay.errors import RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.weights import base_models, inspection

QUESTIONS = ("你是谁？", "今夜月色如何？", "Who are you?", "可否作两句诗？", "你最怕什么？", "Tell me about your home.")


@dataclass(frozen=True)
class Flags:
    adapter: str = flag("adapters/zhenhuan-alone-gemma3-270m", "the adapter that is compared with its base")
    users: list[int] = flag([1, 4, 8, 16], "numbers of users at once")
    questions: int = flag(3, "messages that each user sends, one after the other's answer", within=(1, inf))
    tokens: int = flag(64, "longest reply, in tokens", within=(1, inf))
    vllm: str = flag("", "interpreter of an environment with vLLM, to start a server on loopback and measure it too")
    engine_url: str = flag("", "a running server to measure as well")
    json: str = flag("", "file for the figures")


@dataclass(frozen=True)
class Figures:
    engine: str
    users: int
    tokens: int
    seconds: float
    tokens_per_second: float  # over all users and both sides
    first_token_p95: float  # seconds, of which those spent waiting for other people's answers are a part
    failed: int  # answers that ended neither by a stop token nor at the length limit


class User(threading.Thread):
    """One person: asks, waits for both sides to end, asks again."""

    def __init__(self, engine: Engine, persona: str, number: int, settings: Flags) -> None:
        super().__init__()
        self.engine, self.persona, self.number, self.settings = engine, persona, number, settings
        self.answers: list[Answer] = []
        self.waits: list[float] = []  # seconds from sending a message to the first token of either side

    def run(self) -> None:
        for turn in range(self.settings.questions):
            user = QUESTIONS[(self.number + turn) % len(QUESTIONS)]
            questions = {side: Question(self.persona, (), user) for side in (ADAPTER, BASE)}
            sampling = Sampling(max_new_tokens=self.settings.tokens, seed=self.number)
            try:
                last, asked, waits = dict[str, Answer](), time.monotonic(), list[float]()
                for last in self.engine.answer(Request(questions, sampling)):
                    if not waits and any(answer.tokens for answer in last.values()):
                        waits.append(time.monotonic() - asked)
                self.answers += last.values()
                self.waits += waits
            except RoleplayError as error:
                self.answers += [Answer(stop=str(error))] * len(questions)


def measure(name: str, engine: Engine, persona: str, count: int, settings: Flags) -> Figures:
    users = [User(engine, persona, number, settings) for number in range(count)]
    started = time.monotonic()
    for user in users:
        user.start()
    for user in users:
        user.join()
    seconds = time.monotonic() - started
    answers = [answer for user in users for answer in user.answers]
    good = [answer for answer in answers if answer.stop in ("end", "length")]
    tokens = sum(answer.tokens for answer in good)
    firsts = [seconds for user in users for seconds in user.waits]
    p95 = statistics.quantiles(firsts, n=20, method="inclusive")[-1] if len(firsts) > 1 else float("nan")
    return Figures(name, count, tokens, seconds, tokens / seconds, p95, len(answers) - len(good))


def main() -> int:
    settings, environment = parse(Flags, __doc__), Environment()
    adapter = inspection.inspect(Path(settings.adapter))
    base = base_models.load(environment.base_model, environment.cache)
    engines: dict[str, Engine] = {"in-process": LocalEngine(base, [adapter])}
    print(*engines["in-process"].describe(), sep="\n")
    figures = []
    with ExitStack() as stack:
        if settings.vllm:
            from tests.vllm.run import serving  # only this flag needs the tests' server

            folder, _ = base_models.fetch(base.name, environment.cache)
            engines["vLLM"] = RemoteEngine(
                stack.enter_context(serving(settings.vllm, folder, adapter)), base.tokenizer, [adapter]
            )
        if settings.engine_url:
            engines[settings.engine_url] = RemoteEngine(settings.engine_url, base.tokenizer, [adapter])
        print(f"{'engine':<16} {'users':>5} {'tokens/s':>9} {'first token p95':>16} {'failed':>7}")
        for name, engine in engines.items():
            for count in settings.users:
                row = measure(name, engine, adapter.persona, count, settings)
                figures.append(asdict(row))
                speed = f"{row.tokens_per_second:>9.1f} {row.first_token_p95:>14.2f} s {row.failed:>7}"
                print(f"{name:<16} {count:>5} {speed}", flush=True)
    if settings.json:
        write({"settings": asdict(settings), "dtype": base.dtype[0], "figures": figures}, settings.json)
    return int(any(row["failed"] for row in figures))


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
