"""Kill training at random instants, resume it, and compare the adapter with that of a run that was never killed.

    python -m benchmarks.kill_resume --kills 30

A tiny random Gemma learns a few rows with dropout, with a checkpoint after every update, in a temporary folder; a kill
is SIGKILL at a random instant of the training, often while a checkpoint is being written. Prints every kill and how
many adapters are the same bit for bit; exits with status 1 unless all are. It writes nothing else.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf
from pathlib import Path

from roleplay.environment import ROOT
from roleplay.errors import RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.rows import file_sha256
from tests import tiny

NAME = "killed"
# train.lora with its folders of adapters and runs under the first argument instead of the repository.
LORA = "import sys; from pathlib import Path; from train import lora; lora.ROOT = Path(sys.argv.pop(1)); lora.main()"
WORDS = ("snow", "plum", "tea", "silk", "moon", "jade", "crane", "lotus", "amber", "willow", "ink", "gate", "lamp")


@dataclass(frozen=True)
class Flags:
    kills: int = flag(30, "runs that are killed once and resumed", within=(1, inf))
    jobs: int = flag(os.cpu_count() or 1, "runs at the same time", within=(1, inf))
    seed: int = flag(0, "of the instants")


def make_base(folder: Path) -> None:
    tiny.gemma(max_position_embeddings=1024).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)


def make_rows(path: Path) -> None:
    lot = random.Random(0)

    def say(count: int) -> str:
        return " ".join(lot.choices(WORDS, k=count))

    rows = [{"instruction": f"{say(4)}?", "output": f"{say(7)}.", "scene": f"scene-{n // 2}"} for n in range(60)]
    path.write_text(json.dumps(rows), encoding="utf-8")


def start(home: Path, *more: str) -> subprocess.Popen[str]:
    """`train.lora` on the tiny model beside `home`, writing into `home`."""
    command = [sys.executable, "-c", LORA, str(home), "--name", NAME, "--base-model", str(home.parent / "base")]
    command += ["--data", str(home.parent / "rows.json"), "--max-length", "1024", "--batch-size", "8"]
    command += ["--save-every", "1", "--evaluate-every", "5", *more]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def run_folder(home: Path) -> Path:
    return home / "runs" / NAME


def wait_for_training(home: Path, process: subprocess.Popen[str]) -> None:
    """Returns when the run has its folder, which is just before the first update."""
    while not (run_folder(home) / "run.json").exists():
        if process.poll() is not None:
            finish(process)
            return
        time.sleep(0.005)


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for the end; raises `RoleplayError` with the last line of what it printed when it failed."""
    _, printed = process.communicate()
    if process.returncode != 0:
        raise RoleplayError(f"train.lora ended with status {process.returncode}: {printed.strip().splitlines()[-1]}")


def adapter_sha256(home: Path) -> str:
    return file_sha256(home / "adapters" / NAME / "adapter_model.safetensors")


def kill_once(home: Path, instant: float) -> str:
    """Start a run and kill it `instant` seconds into its training; says what stood on the disk then, "" if too late."""
    process = start(home)
    wait_for_training(home, process)
    time.sleep(instant)
    process.kill()
    process.communicate()
    run = run_folder(home)
    if not run.exists() or (home / "adapters" / NAME).exists():
        return ""
    checkpoints = [int(path.name.removeprefix("checkpoint-")) for path in run.glob("checkpoint-*")]
    at = f"after update {max(checkpoints)}" if checkpoints else "before the first checkpoint"
    return at + (", while a checkpoint was being written" if (run / "incomplete").exists() else "")


def kill_and_resume(root: Path, chance: random.Random, longest: float) -> tuple[str, str]:
    """One run that is killed before it ends, then resumed: when that was, and the adapter's SHA-256."""
    state = ""
    while not state:  # the last run had ended before the kill
        home, instant = Path(tempfile.mkdtemp(dir=root)), chance.uniform(0, longest)
        state = kill_once(home, instant)
    finish(start(home, *(["--resume"] if list(run_folder(home).glob("checkpoint-*")) else [])))
    return f"{instant:5.2f} s, {state}", adapter_sha256(home)


def main() -> None:
    flags = parse(Flags, __doc__)
    matched = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(flags.jobs) as pool:
        root = Path(folder)
        make_base(root / "base")
        make_rows(root / "rows.json")
        undisturbed = start(root / "whole")
        wait_for_training(root / "whole", undisturbed)
        started = time.monotonic()
        finish(undisturbed)
        longest = time.monotonic() - started
        expected = adapter_sha256(root / "whole")
        chances = (random.Random(f"{flags.seed} {number}") for number in range(flags.kills))
        trials = pool.map(lambda chance: kill_and_resume(root, chance, longest), chances)
        for number, (at, found) in enumerate(trials, 1):
            matched += found == expected
            same = "the same bits" if found == expected else "DIFFERENT"
            print(f"kill {number:>3} of {flags.kills} at {at}: {same}", flush=True)
    print(f"{matched} of {flags.kills} resumed runs match the run that was never killed, bit for bit")
    if matched < flags.kills:
        sys.exit(1)


if __name__ == "__main__":
    with one_line_errors():
        main()
