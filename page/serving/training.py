"""An adapter for a base model that has none: trained at the start by `train.lora` in a process of its own, and kept.

The default character's rows and the command's own recipe; a stop or a restart goes on from the last checkpoint, unless
rows or recipe have changed since. Nothing here knows a model.
"""

import itertools
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch

from page.serving.loading_page import Tell
from roleplay.environment import ROOT, Environment
from roleplay.errors import RoleplayError, StaleRunError, first_line
from roleplay.text.personas import CHARACTER
from roleplay.weights.layout import CONFIG

RUN = "run.json"  # in every folder of a training that has begun
STOP_SECONDS = 60  # in which a training that is stopped has written its checkpoint
PYTHON = (sys.executable, "-u", "-X", "utf8", "-m")
_BAR = re.compile(  # as tqdm draws the bar of `train.lora`; the loss is there from the first update on
    r"(?P<update>\d+)/(?P<updates>\d+) \[[\d:]+<(?P<left>[\d:?]+), +[\d.?]+(update/s|s/update)"
    r"(.* loss=(?P<loss>[\d.]+))?"
)


@dataclass(frozen=True)
class Trained:
    """What a training at the start came to: where the adapter is `kept` (the end of a `kept_` key in page.words, ""
    where there is none), and why it failed or is kept no longer, in a sentence."""

    kept: str = ""
    problem: str = ""


def wanted(settings: Environment, lent: bool) -> bool:
    """Whether a base model that has no adapter gets one trained; `lent` says that GPUs are lent an answer at a time."""
    if settings.train_missing == "auto":
        return torch.cuda.is_available() and not lent
    return settings.train_missing == "always" and not lent


def name_of(base: str) -> str:
    """What the adapter for a base model is called, from the name that a user gives the model."""
    return f"{CHARACTER}-{re.sub(r'[^A-Za-z0-9.-]', '-', Path(base.rpartition(':')[2]).name)[:64]}"


def bring_back(storage: Path) -> None:
    """Copy to adapters/ and runs/ what an earlier start kept in the storage, where it is not there yet."""
    try:
        for kept in (*storage.glob(f"adapters/*/{CONFIG}"), *storage.glob(f"runs/*/{RUN}")):
            target = ROOT / kept.parent.relative_to(storage)
            if not target.exists():
                _copy(kept.parent, target)
    except OSError as error:
        print(f"storage      {storage} cannot be brought back ({error.strerror}): what it keeps is left out")


def train(base: str, settings: Environment, tell: Tell) -> Trained:
    """Train and keep an adapter for the base model of this name; what fails is told in the result and printed.

    Ctrl-C and SIGTERM stop the training with a checkpoint, and end this process.
    """
    name = name_of(base)
    run = ROOT / "runs" / name
    command = ["train.lora", "--name", name, "--base-model", base]
    resume = ["--resume"] * any(run.glob("checkpoint-*"))
    print(f"training     the base model has no adapter: python -m {' '.join(command + resume)}")
    try:
        with _saved_on_stop(run, settings.storage):
            try:
                _run(command + resume, tell)
            except StaleRunError:
                _set_aside(run)
                _run(command, tell)
    except RoleplayError as error:
        print(f"training     failed: {error}")
        return Trained(problem=str(error))
    tell("keep")
    trained = _keep(ROOT / "adapters" / name, settings, tell)
    print(f"kept         {name}: {trained.kept}" + (f"; {trained.problem}" if trained.problem else ""))
    return trained


def _set_aside(run: Path) -> None:
    """Somebody may have begun it by hand: `train.lora` goes on with it under its new name, which no other run has.

    Raises `RoleplayError` where it cannot be renamed.
    """
    names = (run.with_name(f"{run.name}-set-aside-{number}") for number in itertools.count(1))
    aside = next(path for path in names if not path.exists())
    try:
        run.rename(aside)
    except OSError as error:
        raise RoleplayError(
            f"cannot set {run} aside as {aside.name} ({error.strerror}): move or remove it, and start again"
        ) from error
    print(f"training     begins anew: the unfinished one is now in {aside}")


def _keep(folder: Path, settings: Environment, tell: Tell) -> Trained:
    """In the storage, else in ADAPTER_REPO, else in adapters/, which on a Space is there until it restarts."""
    here = "restart" if settings.space else "folder"
    try:
        if settings.storage:
            _copy(folder, settings.storage / "adapters" / folder.name)
            shutil.rmtree(settings.storage / "runs" / folder.name, ignore_errors=True)
            return Trained("storage")
        if settings.adapter_repo and huggingface_hub.get_token():
            _run(["train.push", str(folder), "--hub", settings.adapter_repo], tell)
            return Trained("repo")
    except (RoleplayError, OSError) as error:
        return Trained(here, first_line(error))
    return Trained(here)


def _run(command: Sequence[str], tell: Tell) -> None:
    """Run one of the project's commands and print what it says; `tell` hears of its bar.

    Raises `RoleplayError` with its last line where it fails, `StaleRunError` where an unfinished run cannot go on.
    """
    said = "it said nothing"
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        process = subprocess.Popen([*PYTHON, *command], cwd=ROOT, encoding="utf-8", errors="replace", **output)
    except OSError as error:  # no memory for another process
        raise RoleplayError(f"cannot start {command[0]} ({error.strerror}): free some memory") from error
    with process:
        assert process.stdout
        try:
            for line in process.stdout:
                if bar := _BAR.search(line):
                    told = {key: value or "–" for key, value in bar.groupdict().items()}
                    tell("train", int(told["update"]) / int(told["updates"]), **told)
                elif line.strip() and "%|" not in line:
                    said = line.strip()
                    print(line, end="")
        except BaseException:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
            raise
    if process.returncode < 0:
        raise RoleplayError(
            f"{command[0]} was killed ({signal.Signals(-process.returncode).name}), often for its memory"
        )
    if process.returncode:
        kind = StaleRunError if process.returncode == StaleRunError.status else RoleplayError
        raise kind(said.removeprefix("error: ")[:300])


@contextmanager
def _saved_on_stop(run: Path, storage: Path | None) -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does; either keeps the checkpoint in the storage too, and ends the process."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        if storage:
            shutil.rmtree(storage / "runs" / run.name, ignore_errors=True)
            with suppress(OSError):
                _copy(run, storage / "runs" / run.name)
        print(f"training     stopped: the next start goes on from {run}")
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)


def _copy(source: Path, target: Path) -> None:
    """Every file, last the one by which a folder is known: a copy in part is none. A mounted bucket cannot rename."""
    for path in sorted(source.rglob("*"), key=lambda path: path.name in (CONFIG, RUN)):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.relative_to(source))
