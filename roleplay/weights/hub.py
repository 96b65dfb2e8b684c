"""Adapters on the Hugging Face Hub: found, fetched, inspected; and what the Hub's errors mean, in a sentence.

What comes in is inspected before anything uses it. Nothing here knows who asked, and nothing here sends.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2  # the client under huggingface_hub
import huggingface_hub
import socksio  # what that speaks to a SOCKS proxy with
from huggingface_hub import HfApi
from huggingface_hub import errors as hf

from roleplay.environment import bound_storage
from roleplay.errors import AdapterError, HubError
from roleplay.weights import inspection
from roleplay.weights.adapters import Adapter
from roleplay.weights.layout import FILES, MAX_BYTES, NEEDED

MAX_LISTED = 50
ADAPTER_TAG = "roleplay-adapter"  # on the card of every adapter of this project
REPO = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)

KNOWN: dict[type[Exception], str] = {  # what keeps the Hub from being asked, and what to do
    hf.OfflineModeIsEnabled: "HF_HUB_OFFLINE is set, so that no hub is asked: unset it",
    json.JSONDecodeError: "what answers is no hub, as a network's login page: log in there, or see to HF_ENDPOINT",
    socksio.SOCKSError: "the proxy does not answer as SOCKS does: see to ALL_PROXY and HTTPS_PROXY",
}
# A RuntimeError is of the client of the Hub's storage.
UNREACHABLE = (httpx2.TransportError, OSError, RuntimeError, json.JSONDecodeError, socksio.SOCKSError)

bound_storage()


def known_reason(error: BaseException | None) -> str:
    """What of `KNOWN` is behind an error, "" for nothing."""
    while error:
        for kind, reason in KNOWN.items():
            if isinstance(error, kind):
                return reason
        error = error.__cause__
    return ""


def check_name(repo: str) -> None:
    """Raises `HubError` unless `repo` is of the form user/name."""
    if not REPO.fullmatch(repo):
        raise HubError(f"{repo!r:.80} names no repository: give it as user/name")


@contextmanager
def sentences(repo: str) -> Iterator[None]:
    """Whatever the client raises as one `HubError`."""
    try:
        yield
    except hf.GatedRepoError as error:
        raise HubError(f"{repo} is gated: accept its terms on its page, then try again") from error
    except hf.RevisionNotFoundError as error:
        raise HubError(f"{repo} has no such revision: give a branch, a tag or a commit of it") from error
    except hf.RepositoryNotFoundError as error:
        raise HubError(f"{repo} is not on the Hub, or the token may not see it: check the name and HF_TOKEN") from error
    except hf.HfHubHTTPError as error:
        status, said = error.response.status_code, (error.server_message or str(error)).splitlines()[0]
        advice = {
            401: "the token is not valid, set HF_TOKEN to another",
            403: "the token may not write there, set HF_TOKEN to one with write access or choose your own name",
            409: "the name is taken, choose another",
            402: "that needs a paid plan or credits, see the page of your account",
            429: "too many requests, wait a few minutes",
        }.get(status, "try again later")
        raise HubError(f"{repo}: the Hub answers {status} ({said:.120}): {advice}") from error
    except UNREACHABLE as error:
        if known := known_reason(error):
            raise HubError(f"{repo}: {known}") from error
        reason = error.__cause__ or error
        raise HubError(
            f"{repo}: the connection to the Hub was lost ({type(reason).__name__}): run the same command again, "
            "what has arrived is not sent twice"
        ) from error
    except ValueError as error:  # the Hub's verdict on the card's metadata
        raise HubError(f"{repo}: {' '.join(str(error).split())[:200]}: correct it") from error


def hub_adapters(base: str, *tags: str) -> list[str]:
    """Adapters on the Hub with all `tags` that say they are for `base`, such as google/gemma-2b-it; the most downloaded
    first."""
    with sentences(base):
        found = HfApi().list_models(filter=[f"base_model:adapter:{base}", *tags], sort="downloads", limit=MAX_LISTED)
        return [model.id for model in found]


def exists(repo: str) -> bool | None:
    """Whether a repository is on the Hub, None where that cannot be told; raises `HubError` for a name that is none."""
    check_name(repo)
    try:
        return HfApi().repo_exists(repo)
    except UNREACHABLE:
        return None


def check_sizes(repo: str, sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes in bytes of an adapter's files; raises `HubError` for one that is missing or too large to be fetched."""
    for name in NEEDED[:3]:
        if name not in sizes:
            advice = inspection.ADOPT if name == NEEDED[2] else "choose another"
            raise HubError(f"{repo} has no {name}: it is no adapter of this project, {advice}")
    for name, limit in MAX_BYTES.items():
        if sizes.get(name, 0) > limit:
            raise HubError(f"{repo}: its {name} has {sizes[name] / 1e6:,.0f} MB, {limit / 1e6:,.0f} MB are the limit")
    return dict(sizes)


def contents(repo: str, revision: str = "") -> tuple[str, dict[str, int]]:
    """The commit that `revision` means, "" for the newest, and the sizes of all files there; raises `HubError`."""
    check_name(repo)
    with sentences(repo):
        info = HfApi().model_info(repo, revision=revision or None, files_metadata=True)
    return str(info.sha), {entry.rfilename: entry.size or 0 for entry in info.siblings or []}


def listing(repo: str, revision: str = "") -> tuple[str, dict[str, int]]:
    """The commit that `revision` means, "" for the newest, and the sizes of the adapter's files there.

    Raises `HubError`, also for what is no adapter or too large.
    """
    commit, sizes = contents(repo, revision)
    return commit, check_sizes(repo, {name: size for name, size in sizes.items() if name in FILES})


def download(repo: str, commit: str, sizes: Mapping[str, int], folder: Path) -> None:
    """Fetch these files of a commit into `folder`; raises `HubError`."""
    with sentences(repo):
        huggingface_hub.snapshot_download(repo, revision=commit, allow_patterns=list(sizes), local_dir=folder)


def fetch_adapter(repo: str, root: Path) -> Adapter:
    """Download an adapter from the Hugging Face Hub into `root` and inspect it.

    Sizes are checked before anything is fetched, and a refused folder is removed again. Raises `HubError` or
    `AdapterError`.
    """
    commit, sizes = listing(repo)
    folder = root / repo.replace("/", "--")
    shutil.rmtree(folder, ignore_errors=True)  # an earlier version
    download(repo, commit, sizes, folder)
    try:
        return replace(inspection.inspect(folder), revision=commit)
    except AdapterError:
        shutil.rmtree(folder)
        raise
