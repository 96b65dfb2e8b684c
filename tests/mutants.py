"""Damage the product on purpose, one line at a time, and see that the tests notice.

    python -m tests.mutants
    python -m tests.mutants --only votes.py fsync

Each of `tests.damages` is applied in a temporary copy of the tree, where the tests that are named with it run, two at
a time and without a network. Prints what survived: a test has to be written for that. Exits with status 1 when
anything did, when a damage no longer fits the code, and when no test ran.
"""

import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from roleplay.environment import ROOT
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from tests.damages import DAMAGES, Damage

AT_ONCE = 2
TEST_SECONDS, LONGEST = 120, 400.0  # of one test, and of all that are run for a damage
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "runs", "votes", "exports", "__pycache__", ".*_cache", "screenshots"
)
# Loopback is all there is.
OFFLINE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost"}
ALONE = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONDONTWRITEBYTECODE": "1"}
LIBRARIES = ("torch", "transformers", "peft", "gradio", "huggingface_hub", "modelscope", "playwright.sync_api")
ROOMS = ("app", "roleplay", "page", "train", "dataset", "benchmarks", "tests")


@dataclass(frozen=True)
class Flags:
    only: list[str] = flag([], "run those alone whose file or promise has one of these in it")


def fits(damage: Damage, root: Path = ROOT) -> bool:
    """Whether what is to be damaged stands in the code."""
    return damage.old in (root / damage.file).read_text(encoding="utf-8")


def run_tests(damage: Damage, tree: Path, said: Path) -> None:
    """Run the damage's tests in `tree`, in this forked process, which has the libraries and forgets the project."""
    os.setsid()
    log = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(tree)
    for name in [name for name in sys.modules if name.split(".")[0] in ROOMS]:
        del sys.modules[name]
    sys.path[:] = [str(tree), *(place for place in sys.path if place not in ("", str(ROOT)))]
    os.environ["TMPDIR"] = tempfile.tempdir = str(tree.parent)
    files = [f"tests/{name}" for name in damage.tests.split()]
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--timeout={TEST_SECONDS}", "-k", damage.chosen]
    os._exit(pytest.main([*options, *files]))


@dataclass
class Trial:
    """One damage in a copy of its own, while its tests run."""

    damage: Damage
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="mutant-")))
    started: float = field(default_factory=time.monotonic)

    def begin(self) -> BaseProcess:
        """Damage a copy of the tree, and fork the process that tests it."""
        tree = Path(shutil.copytree(ROOT, self.folder / "tree", ignore=LEFT_OUT, symlinks=True))
        target = tree / self.damage.file
        damaged = target.read_text(encoding="utf-8").replace(self.damage.old, self.damage.new)
        target.write_text(damaged, encoding="utf-8")
        arguments = (self.damage, tree, self.folder / "said.txt")
        self.process = multiprocessing.get_context("fork").Process(target=run_tests, args=arguments)
        self.process.start()
        return self.process

    def end(self, late: bool) -> str:
        """ "" where a test failed, else what happened instead; the copy is gone. One that is `late` is killed."""
        if late:
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.join()
        said = (self.folder / "said.txt").read_text(encoding="utf-8", errors="replace")
        shutil.rmtree(self.folder, ignore_errors=True)
        if late:
            return f"ran into the limit of {LONGEST:.0f} s"
        known: dict[int | None, str] = {int(pytest.ExitCode.TESTS_FAILED): "", int(pytest.ExitCode.OK): "SURVIVED"}
        last = (said.strip().splitlines() or ["nothing"])[-1]
        return known.get(self.process.exitcode, f"status {self.process.exitcode}: {last[:160]}")


def trials(damages: Sequence[Damage]) -> Iterator[tuple[Damage, str]]:
    """Every damage with what its tests made of it, "" where one failed, as they end."""
    waiting, running = list(damages), dict[int, Trial]()
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            trial = Trial(waiting.pop(0))
            running[trial.begin().sentinel] = trial
        ended = wait(list(running), timeout=1)
        for sentinel, trial in list(running.items()):
            if sentinel in ended or time.monotonic() - trial.started > LONGEST:
                del running[sentinel]
                yield trial.damage, trial.end(late=sentinel not in ended)


def main() -> int:
    flags, started = parse(Flags, __doc__), time.monotonic()
    chosen = [d for d in DAMAGES if not flags.only or any(word in f"{d.file} {d.broken}" for word in flags.only)]
    stale = [damage for damage in chosen if not fits(damage)]
    os.environ.update(OFFLINE | ALONE)
    for name in LIBRARIES:  # once, and not for every damage
        importlib.import_module(name)
    alive = [f"no longer fits: {damage.broken} ({damage.file})" for damage in stale]
    runnable = [damage for damage in chosen if damage not in stale]
    for number, (damage, found) in enumerate(trials(runnable), 1):
        line = f"{found or 'noticed'}: {damage.broken} ({damage.file})"
        alive += [line] if found else []
        print(f"{number:>3} of {len(runnable)}  {line}", flush=True)
    minutes = (time.monotonic() - started) / 60
    print(*alive, f"{len(chosen) - len(alive)} of {len(chosen)} damages noticed in {minutes:.1f} minutes", sep="\n")
    return int(bool(alive) or not chosen)


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
