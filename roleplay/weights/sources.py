"""Where an adapter comes from, as ADAPTER names it: a folder here, or a repository whose revisions the cache keeps.

A source is a folder name, `user/repo`, `user/repo@revision` or `modelscope:user/repo`. What comes in is inspected.
"""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2  # the client under huggingface_hub
import requests
from huggingface_hub import errors as hf
from modelscope_hub import errors as ms

from roleplay.disk import alone, written_whole
from roleplay.errors import AdapterError, HubError
from roleplay.weights import hub, inspection, scope
from roleplay.weights.adapters import Adapter
from roleplay.weights.base_models import MODELSCOPE

LOOK_SECONDS = 0.5  # between two looks at how much has arrived
WHOLE = re.compile(r"[0-9a-f]{40}")  # a revision that can't come to mean another
# ModelScope's client raises a ConnectionError of Python's, the client of the Hub's storage a RuntimeError.
LOST = (
    *(httpx2.TransportError, requests.ConnectionError, requests.Timeout, hf.OfflineModeIsEnabled),
    *(ConnectionError, ms.ServerError, RuntimeError),
)

Say = Callable[[str], None]  # is told how far it is: "me/poet: 3 of 8 MB"


@dataclass(frozen=True)
class Source:
    """One adapter as it was named; `repo` is "" for a folder of this machine."""

    text: str
    repo: str = ""
    revision: str = ""

    @property
    def at_modelscope(self) -> bool:
        return self.text.startswith(MODELSCOPE)


def parse(setting: str) -> list[Source]:
    """The sources that a setting names, separated by commas, each once; whether they exist is not known yet."""
    return [_parse(text) for text in dict.fromkeys(part.strip() for part in setting.split(",")) if text]


def _parse(text: str) -> Source:
    repo, _, revision = text.removeprefix(MODELSCOPE).partition("@")
    return Source(text, repo, revision) if "/" in repo or text.startswith(MODELSCOPE) else Source(text)


def fetch(source: Source, cache: Path, say: Say = lambda progress: None) -> Adapter:
    """The inspected adapter of a repository, called what the source is called, from `cache` or the hub.

    Where no hub can be reached, or it fails itself, the revision that was fetched last. Raises `RoleplayError` where
    there is none, and for what is no adapter of this project.
    """
    hub.check_name(source.repo)
    home = cache / "adapters" / source.repo.replace("/", "--")
    if source.at_modelscope:
        home = home.with_name(f"modelscope--{home.name}")
    try:
        folder = home / source.revision
        if not (WHOLE.fullmatch(source.revision) and folder.is_dir()):
            folder = _download(source, home, say)
    except HubError as error:
        kept = sorted(home.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime)
        if source.revision or not kept or not _is_lost(error.__cause__):
            raise
        folder = kept[-1]
        print(f"adapter      {source.text}: revision {folder.name[:12]} from the cache; {error}")
    try:
        return replace(inspection.inspect(folder), name=source.text, revision=folder.name)
    except AdapterError as error:
        shutil.rmtree(folder)
        raise AdapterError(str(error).replace(f"{home}/", "")) from error


def _is_lost(error: BaseException | None) -> bool:
    """Whether a hub was not reached or failed itself (500 and up), so that it says nothing of the repository."""
    return isinstance(error, LOST) or (isinstance(error, hf.HfHubHTTPError) and error.response.status_code >= 500)


def _download(source: Source, home: Path, say: Say) -> Path:
    """The folder of the source's present revision, which is fetched where it is not there yet."""
    at = scope if source.at_modelscope else hub
    revision, sizes = at.listing(source.repo, source.revision)
    folder, total = home / revision, sum(sizes.values())
    with alone(home):  # another start may be fetching it
        if not folder.is_dir():
            with written_whole(folder) as part, _watched(part, total, lambda s: say(f"{source.text}: {s}")):
                at.download(source.repo, source.revision if source.at_modelscope else revision, sizes, part)
    return folder


@contextmanager
def _watched(folder: Path, total: int, say: Say) -> Iterator[None]:
    """While the block fills `folder`, says how much of `total` bytes is there."""
    ended = threading.Event()

    def look() -> None:
        there = 0
        while True:
            say(f"{min(there, total) / 1e6:,.1f} of {total / 1e6:,.1f} MB")
            if ended.wait(LOOK_SECONDS):
                return
            with suppress(OSError):  # a file that was just renamed
                there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
