"""Files that are whole or absent, whatever the disk does meanwhile, and JSON in and out. It knows no model."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError

from roleplay.errors import DataError, RoleplayError, first_line


def read_json(
    path: Path, fault: str = "not JSON in UTF-8", advice: str = "save it again", kind: type[RoleplayError] = DataError
) -> Any:
    """The value of a JSON file in UTF-8; raises `kind` with the `fault` and the `advice` where it cannot be had."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows put a mark before the text
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8 is a ValueError too
        raise kind(f"{path}: {fault} ({first_line(error):.100}); {advice}") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON that a person can read, as `write_text` does; an infinite number is a `RoleplayError`."""
    try:
        text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    except ValueError as error:
        raise RoleplayError(
            f"cannot write {path} ({first_line(error)}): take Infinity and NaN, which JSON does not have, out of it"
        ) from error
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8, which half an emoji does not have: it is a `RoleplayError` too."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise RoleplayError(f"cannot write {path} (half an emoji, {half!r}): write it whole or take it out") from error
    write_bytes(path, data)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or leave what was there; raises `RoleplayError` where the disk does not take it."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a device or a pipe, or a folder, which refuses
            path.write_bytes(data)
            return
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise RoleplayError(
            f"cannot write {path} ({error.strerror}): free some disk or choose another place"
        ) from error


def sync_names(folder: Path) -> None:
    """Have the names of new files in `folder` survive a power cut, where the system and the disk can be asked to."""
    if os.name != "posix":  # Windows opens no folder
        return
    directory = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # nor does every disk that another machine lends take it
            os.fsync(directory)
    finally:
        os.close(directory)


def check_writable(folder: Path) -> None:
    """Raises `RoleplayError` for a folder that cannot be written to, before a run that would end there."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(1 << 20))  # an empty file fits on a full disk
    except OSError as error:
        raise RoleplayError(
            f"cannot write to {folder} ({error.strerror}): mend its permissions, or free some disk"
        ) from error


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """One process at a time, and one thread of it, is in such a block for the same `place`; the others wait.

    The lock lies in the system's temporary folder: it outlives its use, and `place` is to hold its own things alone.
    """
    name = hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"roleplay-{name}.lock"):
        yield


@contextmanager
def removed_on_failure(staging: Path, folder: Path, then: str = "") -> Iterator[None]:
    """`staging` is removed where the block fails; `RoleplayError` says that `folder` was not written, and what `then`.

    A full disk is an `OSError`, a `SafetensorError` or a `RuntimeError`, as Python, safetensors or torch say it.
    """
    try:
        yield
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        cause = error.__cause__ if type(error) is RoleplayError else error  # `write_bytes` has told of one file
        if not isinstance(cause, OSError | SafetensorError | RuntimeError):
            raise
        raise RoleplayError(f"cannot write {folder} ({first_line(cause)}): free some disk{then}") from error


@contextmanager
def written_whole(folder: Path, then: str = "") -> Iterator[Path]:
    """Yields an empty folder of the same name, built aside; it takes the place of `folder` when the block has ended.

    Raises `RoleplayError` as `removed_on_failure` does; whatever ends the block early leaves nothing behind.
    """
    staging = folder.with_name(f".{folder.name}.part")
    part = staging / folder.name
    with alone(folder), removed_on_failure(staging, folder, then):  # two at once would clear away each other's work
        shutil.rmtree(staging, ignore_errors=True)  # left by one that was killed
        part.mkdir(parents=True)
        yield part
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
        shutil.rmtree(staging)
