"""Adapter folders to the Hugging Face Hub and ModelScope, and this repository to a Space.

What goes out is an explicit list of files, goes out in one commit and is compared by hash afterwards. Nothing here
knows how an adapter is trained or served.
"""

import hashlib
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx2  # the client under huggingface_hub
import huggingface_hub
import requests
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, Volume
from huggingface_hub import errors as hf
from huggingface_hub.hf_api import RepoFile
from modelscope_hub import HubApi, HubConfig, Visibility
from modelscope_hub import errors as ms

from roleplay.errors import HubError, first_line
from roleplay.weights import inspection
from roleplay.weights.hub import REPO, check_name, sentences
from roleplay.weights.layout import CARD, CONFIG, FILES, NEEDED

ATTEMPTS, PAUSE_SECONDS = 3, 2.0  # the pause doubles from one attempt to the next
SECRETS = ("HF_TOKEN", "MODELSCOPE_API_TOKEN", "APP_AUTH", "ENGINE_KEY")  # settings that are never public
PARTS = (  # of this repository, for a Space
    *("app.py", "page", "roleplay", "train", "dataset", "assets"),
    *("requirements.txt", CARD, "LICENSE", "NOTICE"),
)
MARKER = "roleplay/weights/layout.py"  # in every Space that a push of this project made
BEGUN = {".gitattributes", CARD}  # which a repository that was made by hand on the Hub begins with
MOUNT = "/data"  # where a Space finds its storage, and `roleplay.environment` looks for it
_SECRET = re.compile(
    rb"hf_[A-Za-z0-9]{30,}|ms-[0-9a-f]{8}-[0-9a-f]{4}-|-----BEGIN [A-Z ]*PRIVATE KEY|AKIA[0-9A-Z]{16}"
    rb"|gh[opsu]_[A-Za-z0-9]{36}|sk-[A-Za-z0-9]{32,}"
)
_KINDS = {
    "data": (".jsonl", ".csv", ".tsv", ".parquet", ".arrow"),
    "a pickle, which may hold code or optimiser state": (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"),
}


@dataclass(frozen=True)
class Space:
    """A Gradio Space to create or update; `variables` are public, `secrets` are not."""

    repo: str  # user/name
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    hardware: str = ""
    storage: str = ""  # user/name of a bucket
    private: bool = True
    overwrite: bool = False  # also where it holds what no push of this project made


def adapter_files(folder: Path) -> dict[str, Path]:
    """What a push of an adapter would send, by name; raises `AdapterError` or `HubError` for what must not go out."""
    inspection.inspect(folder)
    for name in NEEDED:
        if not (folder / name).is_file():
            raise HubError(f"{folder} has no {name}: train the adapter with train.lora, which writes it")
    for path in sorted(folder.iterdir()):
        if path.name not in FILES:
            kind = next((kind for kind, endings in _KINDS.items() if path.suffix in endings), "no part of an adapter")
            raise HubError(f"{path} is {kind} and must not go out: move it elsewhere")
    files = {name: folder / name for name in FILES if (folder / name).is_file()}
    check_contents(files)
    return files


def check_contents(files: Mapping[str, Path]) -> None:
    """Raises `HubError` when a file holds a token or a key, or names the home folder of this machine."""
    home = str(Path.home()).rstrip("/")  # nothing where / itself is home, as in some containers
    own = re.compile(rb"(?<![\w.-])" + re.escape(home.encode()) + b"/")  # and no part of an address's path
    for path in files.values():
        data = b"" if path.suffix in (".safetensors", ".gguf") else path.read_bytes()
        if found := _SECRET.search(data):
            raise HubError(f"{path} holds what looks like a token ({found[0][:6].decode()}…): remove it, and revoke it")
        if home and own.search(data):
            raise HubError(f"{path} names {home}/, a folder of this machine: use paths relative to the project")


def check_public(variables: Mapping[str, str], secrets: Collection[str]) -> None:
    """Raises `HubError`, which does not show it, for a value that must not be a public variable.

    `secrets` are values that are known to be secret, whatever they look like.
    """
    for name, value in variables.items():
        if name in SECRETS or _SECRET.search(value.encode()) or any(s and s in value for s in secrets):
            raise HubError(f"{name} holds a secret, and a Space's variables are public: give it as --secrets {name}")


def push_adapter(folder: Path, hub: str = "", modelscope: str = "", private: bool = True) -> list[str]:
    """Send an adapter folder to `hub` and `modelscope` ("user/name" each, "" for none); returns their addresses.

    Raises `HubError` when something must not go out, access is missing, or what arrived differs from what was sent.
    """
    files = adapter_files(folder)
    urls = [push_files(hub, files, private, CONFIG)] if hub else []
    return urls + ([_push_modelscope(modelscope, folder, files, private)] if modelscope else [])


def push_where_asked(folder: Path, hub: str = "", modelscope: str = "", private: bool = True) -> None:
    """`push_adapter`, with a printed line for each address; nothing where neither hub is named."""
    for url in push_adapter(folder, hub, modelscope, private) if hub or modelscope else []:
        print(f"pushed and verified: {url}")


def push_files(repo: str, files: Mapping[str, Path], private: bool, kind: str) -> str:
    """Send a model's files to a repository on the Hub; returns its address.

    One that holds more than a README, but nothing whose name ends in `kind`, is another's. Raises `HubError` as
    `push_adapter`.
    """
    check_contents(files)
    api = _api(repo)
    with sentences(repo):
        if api.repo_exists(repo):
            theirs = set(api.list_repo_files(repo)) - BEGUN
            if theirs and not any(name.endswith(kind) for name in theirs):
                raise HubError(f"{repo} is taken by something without {kind} ({min(theirs)}): choose another name")
            if private and not api.repo_info(repo).private:
                raise HubError(f"{repo} is public: push with --no-private to update it, or choose another name")
        else:
            api.create_repo(repo, private=private)
        _commit(api, repo, "model", files, set(FILES) if kind == CONFIG else set())
    return f"{api.endpoint}/{repo}"


def push_space(space: Space, files: Mapping[str, Path]) -> str:
    """Create or update a Space that holds exactly `files` (path in the Space: local file); returns its address.

    Raises `HubError` as `push_adapter` does.
    """
    check_contents(files)
    check_public(space.variables, space.secrets.values())
    repo, api = space.repo, _api(space.repo)
    with sentences(repo):
        if api.repo_exists(repo, repo_type="space"):
            _check_ours(api, space)
            _set_up(api, space, _volumes(api, space))
        else:
            api.create_repo(
                repo,
                repo_type="space",
                private=space.private,
                space_sdk="gradio",
                space_hardware=space.hardware or None,  # type: ignore[arg-type]  # its values are strings
                space_variables=_pairs(space.variables),
                space_secrets=_pairs(space.secrets),
                space_volumes=_volumes(api, space),
            )
        _commit(api, repo, "space", files, None)
    return f"{api.endpoint}/spaces/{repo}"


def _check_ours(api: HfApi, space: Space) -> None:
    """Raises `HubError` where the push would drop what this project did not make."""
    theirs = set(api.list_repo_files(space.repo, repo_type="space")) - BEGUN
    foreign = sorted(name for name in theirs if name.split("/")[0] not in (*PARTS, "adapters"))
    if not foreign and MARKER not in theirs:
        foreign = sorted(theirs)
    if foreign and not space.overwrite:
        raise HubError(
            f"the Space {space.repo} holds {foreign[0]}, which no push of this project made: choose another name, or "
            "have it emptied with --overwrite"
        )


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]] | None:
    return [{"key": key, "value": value} for key, value in values.items()] or None


def _volumes(api: HfApi, space: Space) -> list[Volume]:
    """The Space's storage, a private bucket that is made where it is missing; none where none is named."""
    if not space.storage:
        return []
    api.create_bucket(space.storage, private=True, exist_ok=True)
    return [Volume(type="bucket", source=space.storage, mount_path=MOUNT)]


def _set_up(api: HfApi, space: Space, volumes: list[Volume]) -> None:
    """An existing Space's variables, secrets, storage and hardware; what is mounted elsewhere stays."""
    for key, value in space.variables.items():
        api.add_space_variable(space.repo, key, value)
    for key, value in space.secrets.items():
        api.add_space_secret(space.repo, key, value)
    if volumes:
        theirs = api.get_space_runtime(space.repo).volumes or []
        api.set_space_volumes(space.repo, [*(v for v in theirs if v.mount_path != MOUNT), *volumes])
    if space.hardware:
        api.request_space_hardware(space.repo, space.hardware)  # type: ignore[arg-type]  # its values are strings


def is_open(repo: str) -> bool:
    """Whether the Hub has a model that anyone may download without a token, as the build of a Space has to."""
    if not REPO.fullmatch(repo):
        return False
    try:
        HfApi().auth_check(repo, token=False)
    except (httpx2.TransportError, hf.HfHubHTTPError, hf.OfflineModeIsEnabled):
        return False
    return True


def _api(repo: str) -> HfApi:
    check_name(repo)
    if huggingface_hub.get_token() is None:
        raise HubError(f"no token to push {repo} with: set HF_TOKEN (https://huggingface.co/settings/tokens, write)")
    return HfApi()


def _commit(api: HfApi, repo: str, kind: str, files: Mapping[str, Path], ours: set[str] | None) -> None:
    """One commit after which the repository holds `files`; of the rest it drops `ours`, or everything for None.

    A repeated attempt sends only what has not arrived: finished uploads are kept by the Hub, and unchanged files make
    no second commit.
    """
    for attempt in range(ATTEMPTS):
        try:
            theirs = set(api.list_repo_files(repo, repo_type=kind)) - {".gitattributes"}
            stale = (theirs if ours is None else theirs & ours) - set(files)
            additions = [CommitOperationAdd(name, path) for name, path in files.items()]
            deletions = [CommitOperationDelete(name) for name in sorted(stale)]
            message = f"Upload {len(files)} files"
            commit = api.create_commit(repo, [*additions, *deletions], commit_message=message, repo_type=kind)
            return _verify(api, repo, kind, files, str(commit.oid))
        except (httpx2.TransportError, hf.HfHubHTTPError, RuntimeError) as error:
            if attempt == ATTEMPTS - 1 or not _passing(error):
                raise
            time.sleep(PAUSE_SECONDS * 2**attempt)


def _passing(error: Exception) -> bool:
    """Whether trying again may help: a lost connection, also while a large file went out, or a server's own error."""
    if isinstance(error, hf.HfHubHTTPError):
        return error.response.status_code >= 500
    # The client of the Hub's storage raises a RuntimeError without a cause.
    return isinstance(error, httpx2.TransportError) or isinstance(error.__cause__, httpx2.HTTPError | OSError | None)


def _verify(api: HfApi, repo: str, kind: str, files: Mapping[str, Path], commit: str) -> None:
    there = api.get_paths_info(repo, list(files), revision=commit, repo_type=kind)
    found = {entry.path: entry for entry in there if isinstance(entry, RepoFile)}
    for name, path in files.items():
        entry, data = found.get(name), path.read_bytes()
        same = entry is not None and (
            entry.lfs.sha256 == hashlib.sha256(data).hexdigest() if entry.lfs else entry.blob_id == _git_hash(data)
        )
        if not same:
            raise HubError(f"{name} arrived at {repo} with another hash than it left with: push again")


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _create_on_modelscope(api: HubApi, repo: str, visibility: str) -> None:
    """Under Gemma's licence, or "other" where ModelScope does not take that one."""
    try:
        api.create_repo(repo, "model", visibility=visibility, license="gemma")
    except ms.AlreadyExistsError:
        raise
    except ms.InvalidParameter:
        api.create_repo(repo, "model", visibility=visibility, license="other")


def _push_modelscope(repo: str, folder: Path, files: Mapping[str, Path], private: bool) -> str:
    check_name(repo)
    config = HubConfig()
    if not config.token:
        raise HubError(f"no token to push {repo} with: set MODELSCOPE_API_TOKEN to your access token")
    api = HubApi(config)
    try:
        if api.repo_exists(repo, "model"):
            if private and api.get_repo(repo, "model").visibility is Visibility.PUBLIC:
                raise HubError(f"{repo} on ModelScope is public: push with --no-private, or choose another name")
        else:
            _create_on_modelscope(api, repo, "private" if private else "public")
        api.upload_folder(repo, "model", folder, allow_patterns=list(files), use_cache=False, commit_message="Upload")
        there = {entry.path: entry.sha256 for entry in api.list_repo_files(repo, "model")}
    except ms.AuthenticationError as error:
        raise HubError("ModelScope does not accept the token: set MODELSCOPE_API_TOKEN to a valid one") from error
    except ms.PermissionDeniedError as error:
        raise HubError(f"the token may not write to {repo} on ModelScope: choose a name of your own") from error
    except (ms.HubError, requests.RequestException, OSError, RuntimeError) as error:
        said = first_line(error)
        raise HubError(f"{repo}: ModelScope took it only in part ({said}): run the same command again") from error
    for name, path in files.items():
        if there.get(name) != hashlib.sha256(path.read_bytes()).hexdigest():
            raise HubError(f"{name} arrived at {repo} on ModelScope with another hash than it left with: push again")
    return f"{config.endpoint}/models/{repo}"
