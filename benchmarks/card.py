"""Measure on a graphics card what no CPU can tell, within some minutes, and leave nothing running.

    python -m benchmarks.card --out runs/card --minutes 8
    python -m benchmarks.card --out runs/card --minutes 8 --wheels wheels    # where packages are missing
    python -m benchmarks.card --out runs/card --minutes 15 --device cpu --shape tiny    # to see that it works

It needs a checkout, an installed PyTorch, and Linux. The tests of the card, generation, training and the tests of
training run one after the other, each a process of its own with a share of the time, what matters most first. After
each, `card.json` in the folder holds the card, the versions, and every part's figures or why there are none; what a
part printed is in a file of its own. It ends with status 1 where a part has failed.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from roleplay.environment import ROOT
from roleplay.errors import RoleplayError, one_line_errors
from roleplay.flags import flag, parse

EMBEDDED = "embedded"
MARK = "ROLEPLAY_CARD_RUN"  # in the environment of all that a run starts, by which it finds them again
PATIENCE = 2  # times its usual seconds, after which a part is ended
FIRST = "facts"
SHOWN = 4000  # characters of what a part printed that are kept in card.json
FACTS = """
import importlib.metadata, json, platform, sys, torch
names = ("torch", "transformers", "peft", "trl", "accelerate", "flash-attn")
found = {d.name.lower(): d.version for d in importlib.metadata.distributions() if d.name.lower() in names}
facts = {"versions": {"python": platform.python_version(), **found}}
if torch.cuda.is_available():
    own = torch.cuda.get_device_properties(0)
    facts |= {"card": own.name, "memory_gb": round(own.total_memory / 1e9, 1), "capability": f"{own.major}.{own.minor}"}
    facts["cuda"] = torch.version.cuda
open(sys.argv[1], "w").write(json.dumps(facts))
"""
PREPARE = (
    "from roleplay.environment import Environment; from roleplay.weights import embedded; "
    "embedded.prepare(Environment().cache)"
)


@dataclass(frozen=True)
class Flags:
    out: str = flag("runs/card", "folder for the figures")
    minutes: float = flag(8.0, "in which all has to be over", within=(0, inf))
    wheels: str = flag("", "folder of wheels, which are put before the installed packages for this run")
    device: str = flag("cuda", "cpu to try the command out", ("cuda", "cpu"))
    shape: str = flag("gemma-2b", "of the random weights that are measured beside the embedded model")


@dataclass(frozen=True)
class Part:
    """One process: what python is told, and how long that usually takes on an H100."""

    name: str
    arguments: Sequence[str]
    seconds: float
    json: str = ""  # file of the figures that it leaves


def parts(flags: Flags) -> list[Part]:
    """All that is to be run, what matters most first."""
    out, quick = Path(flags.out).resolve(), flags.device == "cpu"
    tests = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "tests").rglob("test_train*.py"))]
    pytest = ("-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider")
    first, second = flags.shape, () if quick else (EMBEDDED,)

    def measured(name: str, shape: str, seconds: float, *more: str) -> Part:
        file = str(out / f"{name} {shape}.json".replace(" ", "-"))
        module = f"benchmarks.{name.split()[0]}"
        return Part(f"{name}, {shape}", ("-m", module, "--shape", shape, "--json", file, *more), seconds, file)

    def measurements(shape: str) -> Iterator[Part]:
        once = ("--repeats", "1")
        yield measured("generation", shape, 45, *(("--tokens", "4", "--turns", "2", *once) if quick else ()))
        yield measured("step", shape, 30, "--rows", "1", "2", "8", "32", *(once if quick else ()))
        few = (*once, "--updates", "1") if quick else once
        yield measured("training ours", shape, 50, "--arms", "ours", "lean", *few)
        yield measured("training others", shape, 70, "--arms", "tutorial", "trl", "trl_tuned", *few)

    return [
        Part(FIRST, ("-c", FACTS, str(out / "facts.json")), 10, str(out / "facts.json")),
        Part("tests of the card", (*pytest, "tests/train/test_cuda.py"), 40),
        Part("embedded model", ("-c", PREPARE), 30),
        *measurements(first),
        *(part for shape in second for part in measurements(shape)),
        Part("tests of training", (*pytest, *tests), 60),
    ]


def run(part: Part, limit: float, out: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run a part for at most `limit` seconds; afterwards nothing that it started is alive."""
    printed, started = out / f"{part.name.replace(', ', '-').replace(' ', '-')}.txt", time.monotonic()
    if part.json:
        Path(part.json).unlink(missing_ok=True)  # of an earlier run
    mark, status = secrets.token_hex(8), None
    with printed.open("w", encoding="utf-8") as file, ended(mark):
        process = subprocess.Popen(
            [sys.executable, *part.arguments],
            cwd=ROOT,
            env=environment | {MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the other
        )
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(limit)
    process.wait()
    result: dict[str, Any] = {"seconds": round(time.monotonic() - started, 1)}
    result["result"] = f"ended after {limit:.0f} seconds" if status is None else "failed" if status else "done"
    result["printed"] = printed.read_text(encoding="utf-8", errors="replace")[-SHOWN:]
    with suppress(OSError, ValueError):
        result["figures"] = json.loads(Path(part.json).read_text(encoding="utf-8")) if part.json else None
    return result


@contextmanager
def ended(mark: str) -> Iterator[None]:
    """At the end every process with this mark is killed, whatever its parent and group: `accelerate` leaves both."""
    try:
        yield
    finally:
        while marked := [pid for pid in processes() if f"{MARK}={mark}".encode() in environment_of(pid)]:
            for pid in marked:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def environment_of(pid: int) -> list[bytes]:
    """The variables with which a process began; none of one that is over, or somebody else's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def run_all(todo: Sequence[Part], flags: Flags, environment: dict[str, str]) -> dict[str, Any]:
    """Every part's result by its name, written to card.json after each; a part that would not be over is left out.

    Raises `RoleplayError` where there is no card and none is done without.
    """
    out, deadline, results = Path(flags.out), time.monotonic() + 60 * flags.minutes, dict[str, Any]()
    out.mkdir(parents=True, exist_ok=True)
    for part in todo:
        if flags.device == "cuda" and "card" not in results.get(FIRST, {}).get("figures", {"card": "not asked yet"}):
            raise RoleplayError("PyTorch finds no CUDA GPU: give --device cpu --shape tiny to try this out without one")
        left = deadline - time.monotonic()
        if left < part.seconds:
            results[part.name] = {"result": f"left out: it takes {part.seconds:.0f} seconds, and {left:.0f} are left"}
        else:
            results[part.name] = run(part, min(left, PATIENCE * part.seconds), out, environment)
        print(
            f"{part.name:<32} {results[part.name].get('seconds', 0):>6.1f} s  {results[part.name]['result']}",
            flush=True,
        )
        # Not by `roleplay.disk`, whose packages may be among the wheels.
        (aside := out / ".card.json").write_text(json.dumps(results, ensure_ascii=False, indent=1), encoding="utf-8")
        aside.replace(out / "card.json")
    return results


def main() -> int:
    flags, todo = parse(Flags, __doc__), list[Part]()
    if not Path("/proc/self/environ").exists():
        raise RoleplayError("this command needs Linux, whose /proc tells which processes it has to end")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    environment = dict(os.environ)
    if flags.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as packages:
        if flags.wheels:
            wheels = [str(path) for path in sorted(Path(flags.wheels).resolve().glob("*.whl"))]
            pip = ("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", packages)
            todo.append(Part("packages", (*pip, *wheels), 30))
            environment["PYTHONPATH"] = os.pathsep.join([packages, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        results = run_all([*todo, *parts(flags)], flags, environment)
    return int(any(result["result"] == "failed" for result in results.values()))


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
