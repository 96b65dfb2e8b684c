"""Cards, pushes and downloads: the real Hub and ModelScope clients against `hub_server` on loopback."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from roleplay.errors import AdapterError, HubError, ModelError
from roleplay.weights import adapters, base_models, hub, inspection, layout, sources
from tests import tiny
from tests.hub_server import READ_ONLY, Hub
from train.publishing import upload

# To the Hub


def test_push_is_private_whole_and_one_commit(server: Hub, folder: Path) -> None:
    assert upload.push_adapter(folder, hub="me/tiny") == [f"{server.url}/me/tiny"]
    repo = server.repos["models/me/tiny"]
    assert repo.private and repo.files == tiny.contents(folder)
    assert len(repo.commits) == 2  # the empty one that made it, and ours
    assert hashlib.sha256((folder / layout.WEIGHTS).read_bytes()).hexdigest() in server.stored


def test_second_push_sends_what_changed_and_drops_what_is_gone(server: Hub, folder: Path) -> None:
    upload.push_adapter(folder, hub="me/tiny")
    server.repos["models/me/tiny"].files["notes.txt"] = b"by hand"
    (folder / layout.CURVE).unlink()
    server.log.clear()
    upload.push_adapter(folder, hub="me/tiny")
    assert server.repos["models/me/tiny"].files == tiny.contents(folder) | {"notes.txt": b"by hand"}
    assert not [line for line in server.log if line.startswith("PUT")]


@pytest.mark.parametrize("theirs", [{}, {".gitattributes": b"*.png", "README.md": b"---\nlicense: gemma\n---\n"}])
def test_a_repository_that_was_just_made_by_hand_is_taken(server: Hub, folder: Path, theirs: dict[str, bytes]) -> None:
    server.add("models/me/own", theirs)
    upload.push_adapter(folder, hub="me/own")
    assert server.repos["models/me/own"].files == theirs | tiny.contents(folder)


FAULTS: dict[str, tuple[str, list[int | str]]] = {
    "asking how to send": ("/preupload/", ["hang up"]),
    "while weights go out": ("/store/", ["hang up", 503]),
    "server error at the commit": ("/commit/", [500]),
    "lost at the commit": ("/commit/", ["hang up"]),
    "lost while checking": ("/paths-info/", ["hang up"]),
}


@pytest.mark.parametrize(("path", "faults"), FAULTS.values(), ids=FAULTS)
def test_a_lost_connection_is_taken_up_again(server: Hub, folder: Path, path: str, faults: list[int | str]) -> None:
    server.faults = {path: list(faults)}
    upload.push_adapter(folder, hub="me/tiny")
    assert server.faults[path] == []
    assert server.repos["models/me/tiny"].files == tiny.contents(folder)
    assert len(server.repos["models/me/tiny"].commits) == 2


def test_push_again_after_it_broke_off_for_good(server: Hub, folder: Path) -> None:
    server.faults = {"/commit/": [502] * 3}
    with pytest.raises(HubError, match="the Hub answers 502 .*try again later"):
        upload.push_adapter(folder, hub="me/tiny")
    assert server.repos["models/me/tiny"].files == {}  # nothing by halves
    server.log.clear()
    upload.push_adapter(folder, hub="me/tiny")
    assert server.repos["models/me/tiny"].files == tiny.contents(folder)
    assert not [line for line in server.log if line.startswith("PUT")]  # the weights had arrived


@pytest.mark.parametrize("kind", ["corrupt", "spoil"], ids=["large", "small"])
def test_damage_on_the_way_is_noticed(server: Hub, folder: Path, kind: str) -> None:
    setattr(server, kind, lambda data: data[:-1] + b"?")
    with pytest.raises(HubError, match="arrived at me/tiny with another hash"):
        upload.push_adapter(folder, hub="me/tiny")


def no_token(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent")


def with_token(token: str) -> Callable[[Hub, pytest.MonkeyPatch], None]:
    return lambda server, monkeypatch: monkeypatch.setenv("HF_TOKEN", token)


def there(files: dict[str, bytes], private: bool = True) -> Callable[[Hub, pytest.MonkeyPatch], Any]:
    return lambda server, monkeypatch: server.add("models/me/tiny", files, private)


def gone(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


NO_ACCESS: dict[str, tuple[Callable[[Hub, pytest.MonkeyPatch], Any], str, str]] = {
    "no token": (no_token, "me/tiny", "no token to push me/tiny with: set HF_TOKEN"),
    "wrong token": (with_token("hf_wrong"), "me/tiny", "answers 401 .*not valid"),
    "may only read": (with_token(READ_ONLY), "me/tiny", "answers 403 .*write access"),
    "name of another": (lambda s, m: None, "google/tiny", "answers 403 .*your own name"),
    "taken by a model": (there({"model.safetensors": b""}), "me/tiny", "taken by something without adapter_config"),
    "public already": (there({layout.CONFIG: b"{}"}, False), "me/tiny", "is public: push with --no-private"),
    "no name": (lambda s, m: None, "tiny", "'tiny' names no repository"),
    "path as name": (lambda s, m: None, "../me/tiny", "names no repository"),
    "no network": (gone, "me/tiny", "connection to the Hub was lost"),
}


@pytest.mark.parametrize(("before", "repo", "sentence"), NO_ACCESS.values(), ids=NO_ACCESS)
def test_no_access_is_a_sentence(
    server: Hub,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: Callable[[Hub, pytest.MonkeyPatch], Any],
    repo: str,
    sentence: str,
) -> None:
    before(server, monkeypatch)
    with pytest.raises(HubError, match=sentence) as caught:
        upload.push_adapter(folder, hub=repo)
    assert "\n" not in str(caught.value)


FAKE = "hf_" + "A" * 34
MUST_STAY: dict[str, tuple[str, bytes, str]] = {
    "data": ("rows.jsonl", b"{}", "not accepted"),
    "pickle": ("optimizer.pt", b"", "not accepted"),
    "notes": ("notes.txt", b"", "no part of an adapter and must not go out"),
    "unfinished run": ("trainer_state.json", b"{}", "no part of an adapter"),
    "environment": (".env", b"X=1", "no part of an adapter"),
    "token in the card": ("README.md", FAKE.encode(), "looks like a token \\(hf_AAA…\\)"),
    "key in the settings": ("training.json", b'{"settings": "-----BEGIN RSA PRIVATE KEY"}', "looks like a token"),
    "home folder": ("README.md", f"see {Path.home()}/secret".encode(), "a folder of this machine"),
}


@pytest.mark.parametrize(("name", "data", "sentence"), MUST_STAY.values(), ids=MUST_STAY)
def test_what_must_not_go_out(server: Hub, folder: Path, name: str, data: bytes, sentence: str) -> None:
    (folder / name).write_bytes(data)
    with pytest.raises((HubError, AdapterError), match=sentence):
        upload.push_adapter(folder, hub="me/tiny", modelscope="me/tiny")
    assert server.log == []


def test_a_folder_inside_must_not_go_out_either(server: Hub, folder: Path) -> None:
    (folder / "checkpoint-100").mkdir()
    with pytest.raises(HubError, match="checkpoint-100 is no part of an adapter"):
        upload.push_adapter(folder, hub="me/tiny")


# To ModelScope


def test_push_to_modelscope(server: Hub, folder: Path) -> None:
    upload.push_adapter(folder, modelscope="me/tiny")
    repo = server.repos["scope/me/tiny"]
    assert repo.private and repo.files == tiny.contents(folder) and repo.settings == {"licence": "gemma"}
    assert list(folder.glob(".ms*")) == []


def test_a_licence_that_modelscope_does_not_know_is_another(server: Hub, folder: Path) -> None:
    server.licences.remove("gemma")
    upload.push_adapter(folder, modelscope="me/tiny")
    assert server.repos["scope/me/tiny"].settings == {"licence": "other"}
    server.licences.clear()
    with pytest.raises(HubError, match="the license is not valid"):
        upload.push_adapter(folder, modelscope="me/other")


@pytest.mark.parametrize(("token", "sentence"), [("", "no token to push me/tiny"), ("wrong", "not accept the token")])
def test_modelscope_without_access(
    server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, token: str, sentence: str
) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", token)
    with pytest.raises(HubError, match=f"{sentence}.*MODELSCOPE_API_TOKEN"):
        upload.push_adapter(folder, modelscope="me/tiny")


def test_modelscope_public_already(server: Hub, folder: Path) -> None:
    server.add("scope/me/tiny", {}, private=False)
    with pytest.raises(HubError, match="on ModelScope is public: push with --no-private"):
        upload.push_adapter(folder, modelscope="me/tiny")
    upload.push_adapter(folder, modelscope="me/tiny", private=False)
    assert server.repos["scope/me/tiny"].files == tiny.contents(folder)


def test_modelscope_damage_is_noticed(server: Hub, folder: Path) -> None:
    server.corrupt = lambda data: data[:-1] + b"?"
    with pytest.raises(HubError, match="on ModelScope with another hash"):
        upload.push_adapter(folder, modelscope="me/tiny")


# And back


def test_what_was_pushed_comes_back_and_is_inspected(server: Hub, folder: Path, tmp_path: Path) -> None:
    upload.push_adapter(folder, hub="me/tiny")
    adapter = hub.fetch_adapter("me/tiny", tmp_path / "cache")
    assert adapter.name == "me--tiny" and adapter.persona == "你是甄嬛。"
    ours, theirs = adapters.read_weights(inspection.inspect(folder)), adapters.read_weights(adapter)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert adapters.local_adapters(tmp_path / "cache") == ["me--tiny"]


def test_only_an_adapters_files_are_fetched(server: Hub, folder: Path, tmp_path: Path) -> None:
    tiny.looking_up(folder)
    server.add("models/me/odd", tiny.contents(folder) | {"evil.py": b"import os", "sub/model.bin": b"x"}, private=False)
    adapter = hub.fetch_adapter("me/odd", tmp_path / "cache")
    names = {path.name for path in adapter.folder.rglob("*") if path.is_file() and ".cache" not in path.parts}
    assert names == set(layout.FILES)


STRANGE: dict[str, tuple[dict[str, bytes], str]] = {
    "no weights": ({layout.CONFIG: b"{}"}, "has no adapter_model.safetensors"),
    "config too large": ({layout.CONFIG: b" " * (2 << 20)}, "2 MB, 1 MB are the limit"),
    "no LoRA": ({layout.CONFIG: b'{"peft_type": "IA3", "r": 1, "lora_alpha": 1, "target_modules": []}'}, "peft_type"),
    "foreign template": ({layout.TEMPLATE: b"{{ 1 }}"}, "none of this project's own"),
}


@pytest.mark.parametrize(("files", "sentence"), STRANGE.values(), ids=STRANGE)
def test_a_strangers_repository_is_refused(
    server: Hub, folder: Path, tmp_path: Path, files: dict[str, bytes], sentence: str
) -> None:
    whole = {} if sentence.startswith("has no") else tiny.contents(folder)
    server.add("models/you/x", whole | files, private=False)
    with pytest.raises((HubError, AdapterError), match=sentence):
        hub.fetch_adapter("you/x", tmp_path / "cache")
    assert adapters.local_adapters(tmp_path / "cache") == []


@pytest.mark.parametrize(("repo", "sentence"), [("me/none", "not on the Hub"), ("../../etc", "names no repository")])
def test_fetching_what_is_not_there(server: Hub, tmp_path: Path, repo: str, sentence: str) -> None:
    with pytest.raises(HubError, match=sentence):
        hub.fetch_adapter(repo, tmp_path)


def test_listing_is_for_one_base(server: Hub) -> None:
    ours = f" {hub.ADAPTER_TAG}".encode()
    server.add("models/a/x", {"tags": b"base_model:adapter:google/gemma-2b-it" + ours}, private=False)
    server.add("models/a/y", {"tags": b"base_model:adapter:other/model" + ours}, private=False)
    server.add("models/a/z", {"tags": b"base_model:adapter:google/gemma-2b-it lora"}, private=False)  # of any trainer
    assert hub.hub_adapters("google/gemma-2b-it", hub.ADAPTER_TAG) == ["a/x"]


@pytest.fixture
def with_storage(server: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """As users have it, with the Hub's Xet storage on: its client would try for six minutes."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    server.add("models/me/poet", tiny.contents(folder))
    server.add("models/me/base", {"config.json": b"{}", "model.safetensors": b"weights"})
    return server


@pytest.mark.timeout(120)
def test_storage_that_is_not_reached_is_a_sentence_and_soon(with_storage: Hub, tmp_path: Path) -> None:
    with_storage.storage = "http://127.0.0.1:9"
    with pytest.raises(HubError, match="the connection to the Hub was lost") as lost:
        hub.fetch_adapter("me/poet", tmp_path)
    assert isinstance(lost.value.__cause__, sources.LOST) and upload._passing(lost.value.__cause__)


@pytest.mark.timeout(120)
def test_storage_that_is_broken_is_a_sentence_and_soon(with_storage: Hub, tmp_path: Path) -> None:
    with_storage.storage = f"{with_storage.url}/broken-storage"
    with pytest.raises(ModelError, match="me/base cannot be fetched and is not in the cache"):
        base_models.fetch("me/base", tmp_path)
