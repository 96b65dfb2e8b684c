"""Adapters on ModelScope: listed and downloaded, with what its client raises as a sentence. Nothing here inspects."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests
from modelscope_hub import HubApi, HubConfig
from modelscope_hub import errors as ms

from roleplay.errors import HubError, first_line
from roleplay.weights.hub import check_sizes
from roleplay.weights.layout import FILES


@contextmanager
def sentences(repo: str) -> Iterator[None]:
    """Whatever the client raises as one `HubError`."""
    try:
        yield
    except (ms.HubError, requests.RequestException, OSError, RuntimeError) as error:
        raise HubError(
            f"{repo} cannot be had from ModelScope ({first_line(error):.120}): check the name and MODELSCOPE_API_TOKEN"
        ) from error


def contents(repo: str, revision: str, wanted: Collection[str] = ()) -> tuple[str, dict[str, int]]:
    """40 hex digits that change with any of the `wanted` files, or of all, and their sizes; raises `HubError`.

    ModelScope's listing names no commit, so the digits are those of the files' hashes.
    """
    with sentences(repo):
        found = HubApi(HubConfig()).list_repo_files(repo, "model", revision=revision or None)
    files = {entry.path: entry for entry in found if not wanted or entry.path in wanted}
    state = sorted(f"{name} {entry.sha256 or entry.blob_id}" for name, entry in files.items())
    digits = hashlib.sha256("\n".join(state).encode()).hexdigest()[:40]
    return digits, {name: entry.size or 0 for name, entry in files.items()}


def listing(repo: str, revision: str) -> tuple[str, dict[str, int]]:
    """As `contents`, of the adapter's files; raises `HubError` as `hub.listing` does."""
    state, sizes = contents(repo, revision, FILES)
    return state, check_sizes(repo, sizes)


def download(repo: str, revision: str, sizes: Mapping[str, int], folder: Path) -> None:
    """Fetch these files, each of its size, into `folder`; raises `HubError`."""
    api = HubApi(HubConfig())
    with sentences(repo):
        for name, size in sizes.items():
            api.download_file(repo, "model", name, revision=revision or None, local_dir=folder, file_size=size)
