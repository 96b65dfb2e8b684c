"""Checkpoints that are whole or absent, and the settings under which a run may be gone on from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers.trainer_utils import get_last_checkpoint

from roleplay.disk import read_json, write_json
from roleplay.errors import RoleplayError, StaleRunError

KEPT_CHECKPOINTS = 2
RESUME = " and go on with --resume"  # what to do once the disk has room again
MAY_CHANGE = (  # what names it, what is compared by content, where it goes
    *("name", "character", "data", "persona", "resume", "overwrite"),
    *("push", "push_modelscope", "trackio", "trackio_space"),
    *("adapter", "votes", "pairs", "keep_anyway"),
)


def what_must_stay(
    settings: Mapping[str, Any], persona: str, files: Sequence[Mapping[str, Any]], base: str
) -> dict[str, Any]:
    """What a run that goes on must have in common with the one that began, by name."""
    hashes: dict[str, str] = {}  # two files of one name have both
    for file in files:
        hashes[file["file"]] = " ".join(filter(None, (hashes.get(file["file"]), file["sha256"])))
    return hashes | {
        "base model": base,
        "persona": persona,
        **{key: value for key, value in settings.items() if key not in MAY_CHANGE},
    }


def last_checkpoint(run: Path, resume: bool) -> str | None:
    """The checkpoint to go on from, or None for a new run; raises `RoleplayError` when `resume` says otherwise."""
    checkpoint = get_last_checkpoint(str(run)) if run.is_dir() else None
    if resume and checkpoint is None:
        raise RoleplayError(f"{run} holds no checkpoint to resume from: start without --resume")
    if checkpoint and not resume:
        raise RoleplayError(f"{run} holds an unfinished run: go on with --resume, or remove the folder to start anew")
    return checkpoint


def check_resume(run: Path, record: dict[str, Any], resume: bool) -> str | None:
    """As `last_checkpoint`; a new run gets its folder and `record`.

    Raises `StaleRunError` when something of `record` has changed since.
    """
    checkpoint = last_checkpoint(run, resume)
    if checkpoint is None:
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "run.json", record)
        return None
    before = read_json(run / "run.json", advice=f"remove {run} to start anew", kind=StaleRunError)
    for key, value in record.items():
        if before.get(key) != value:
            change = f"{key} is {value!r:.80} but was {before.get(key)!r:.80}"
            raise StaleRunError(f"{change} when {checkpoint} was written: set it back, or remove {run} to start anew")
    return checkpoint
