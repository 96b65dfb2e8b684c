"""Damage the product on purpose, one line at a time, and see that the tests notice.

    python -m tests.mutants
    python -m tests.mutants --only votes.py fsync

Each of `tests.damages` is applied in a temporary copy of the tree, where the tests that are named with it run, two at
a time and without a network. Prints what survived: a test has to be written for that. Exits with status 1 when
anything did, when a damage no longer fits the code, and when no test ran.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from roleplay.environment import ROOT
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from tests.damages import DAMAGES, Damage

AT_ONCE = 2
NOTICED, TEST_SECONDS, LONGEST = 1, 120, 400  # pytest's status where a test failed; seconds of one test, and of all
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "runs", "votes", "exports", "__pycache__", ".*_cache", "screenshots"
)
# Loopback is all there is.
OFFLINE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost"}


@dataclass(frozen=True)
class Flags:
    only: list[str] = flag([], "run those alone whose file or promise has one of these in it")


def fits(damage: Damage, root: Path = ROOT) -> bool:
    """Whether what is to be damaged stands in the code."""
    return damage.old in (root / damage.file).read_text(encoding="utf-8")


def survives(damage: Damage) -> str:
    """ "" where a test fails with the damage, else what happened instead."""
    if not fits(damage):
        return f"no longer fits {damage.file}"
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(shutil.copytree(ROOT, Path(folder) / "tree", ignore=LEFT_OUT, symlinks=True))
        target = tree / damage.file
        target.write_text(target.read_text(encoding="utf-8").replace(damage.old, damage.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--timeout={TEST_SECONDS}"]
        command += [*f"tests/{damage.tests}".split(), "-k", damage.chosen]
        environment = os.environ | OFFLINE | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": folder}
        try:
            done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LONGEST)
        except subprocess.TimeoutExpired:
            return f"ran into the limit of {LONGEST} s"
    if done.returncode == NOTICED:
        return ""
    last = (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1]
    return "SURVIVED" if done.returncode == 0 else f"status {done.returncode}: {last[:160]}"


def main() -> int:
    flags, started = parse(Flags, __doc__), time.monotonic()
    chosen = [d for d in DAMAGES if not flags.only or any(word in f"{d.file} {d.broken}" for word in flags.only)]
    alive = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number, (damage, found) in enumerate(zip(chosen, pool.map(survives, chosen), strict=True), 1):
            alive += bool(found)
            print(f"{number:>3} of {len(chosen)}  {found or 'noticed':<10} {damage.broken} ({damage.file})", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} damages noticed in {(time.monotonic() - started) / 60:.1f} minutes")
    return int(alive > 0)


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
