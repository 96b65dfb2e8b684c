"""Stop answers at random moments and see that nothing is left behind.

    python -m benchmarks.cancel --json runs/cancel.json

Prints threads, memory and the lock as it goes, and at the end whether an undisturbed answer still says what it said
before; writes the figures as one JSON object. Exits with status 1 where one does not, or a thread or the lock is left.
"""

import random
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

import psutil

from benchmarks.generation import EMBEDDED, random_adapter
from benchmarks.report import write
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE, Question, Request, Sampling
from roleplay.environment import Environment
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from roleplay.weights import base_models

EVERY = 20  # stops between two lines


@dataclass(frozen=True)
class Flags:
    json: str = flag("runs/cancel.json", "file that the figures are written to")
    stops: int = flag(200, "answers that are stopped; more would show a slower leak", within=(1, inf))
    longest: int = flag(6, "updates after which an answer is stopped at the latest", within=(1, inf))
    seed: int = flag(0, "of the moments, the sides and the messages")


def stop_one(engine: LocalEngine, chance: random.Random, longest: int) -> None:
    """Ask one side or both, take some updates, and close; the thread that closes is not the one that began."""
    sides = chance.choice([(ADAPTER,), (BASE,), (ADAPTER, BASE)])
    question = Question("", (), "word " * chance.randint(1, 40))
    answer = engine.answer(Request(dict.fromkeys(sides, question), Sampling(seed=chance.getrandbits(32))))
    for _ in range(chance.randint(0, longest)):
        next(answer, None)
    closing = threading.Thread(target=answer.close)
    closing.start()
    closing.join()


def undisturbed(engine: LocalEngine) -> dict[str, str]:
    question = Question("", (), "Who are you?")
    sampling = Sampling(temperature=0.0, max_new_tokens=12)
    *_, final = engine.answer(Request({ADAPTER: question, BASE: question}, sampling))
    return {side: answer.text for side, answer in final.items()}


def main() -> int:
    flags = parse(Flags, __doc__)
    base, process, chance = base_models.load(EMBEDDED, Environment().cache), psutil.Process(), random.Random(flags.seed)
    print(*base.describe(), sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        engine = LocalEngine(base, [random_adapter(base, Path(folder) / "random")])
    before, lines = undisturbed(engine), []
    for number in range(flags.stops + 1):
        if number % EVERY == 0:
            line = {
                "stops": number,
                "python_threads": threading.active_count(),
                "all_threads": process.num_threads(),
                "rss_mb": round(process.memory_info().rss / 1e6),
                "kept_cache_mb": round(engine.kept_bytes / 1e6),
                "locked": engine.busy,
            }
            lines.append(line)
            print(*(f"{name} {value}" for name, value in line.items()), sep="  ", flush=True)
        stop_one(engine, chance, flags.longest)
    same, left = undisturbed(engine) == before, lines[-1]["python_threads"] > lines[0]["python_threads"]
    free = not any(line["locked"] for line in lines)
    told = {"dtype": base.dtype[0], "same_answer": same, "no_thread_left": not left, "no_lock_left": free}
    print(*(f"{name.replace('_', ' ')}: {value}" for name, value in told.items()), sep="\n")
    write({"settings": asdict(flags), "lines": lines, **told}, flags.json)
    return int(left or not (same and free))


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
