"""Spaces and the push command, against `hub_server` on loopback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from roleplay.environment import ROOT
from roleplay.errors import AdapterError, HubError
from roleplay.weights import embedded, inspection, layout
from tests import tiny
from tests.hub_server import TOKEN, Hub
from train import push
from train.publishing import upload
from train.publishing.upload import Space

FAKE = "hf_" + "A" * 34


# Spaces


def test_space_holds_exactly_the_files(server: Hub, tmp_path: Path) -> None:
    files = {name: tmp_path / Path(name).name for name in ("app.py", "README.md", upload.MARKER)}
    for path in files.values():
        path.write_text("---\ntitle: t\n---\n")
    url = upload.push_space(Space("me/room", {"BASE_MODEL": "embedded"}, {"APP_AUTH": "a:b"}, "cpu-basic"), files)
    space = server.repos["spaces/me/room"]
    assert url == f"{server.url}/spaces/me/room" and space.private
    assert space.settings == {
        "variables": {"BASE_MODEL": "embedded"},
        "secrets": {"APP_AUTH": "a:b"},
        "hardware": "cpu-basic",
    }
    assert not [line for line in server.log if line.endswith(("variables", "secrets", "hardware"))]  # made with them
    space.files["page/old.py"] = b"gone from the repository"
    upload.push_space(Space("me/room"), {"app.py": tmp_path / "app.py"})
    assert set(space.files) == {"app.py"}


def test_an_existing_space_gets_its_settings(server: Hub, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("")
    space = server.add("spaces/me/room", {"README.md": b"made by hand"})
    upload.push_space(Space("me/room", {"A": "b"}, {"APP_AUTH": "a:b"}, "l4x1"), {"app.py": tmp_path / "app.py"})
    assert space.settings == {"variables": {"A": "b"}, "secrets": {"APP_AUTH": "a:b"}, "hardware": "l4x1"}


def test_a_space_is_made_with_its_storage_and_another_keeps_what_it_has(server: Hub, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("")
    files, storage = {"app.py": tmp_path / "app.py"}, {"type": "bucket", "source": "me/kept", "mountPath": "/data"}
    upload.push_space(Space("me/room", storage="me/kept"), files)
    space = server.repos["spaces/me/room"]
    assert space.settings == {"volumes": [storage]} and server.repos["buckets/me/kept"].private
    assert not [line for line in server.log if line.endswith("volumes")]  # made with it
    model = {"type": "model", "source": "me/base", "mountPath": "/models"}
    server.add("spaces/me/old", {"README.md": b""}).settings["volumes"] = [model, storage | {"source": "me/other"}]
    upload.push_space(Space("me/old", storage="me/kept"), files)
    assert server.repos["spaces/me/old"].settings == {"volumes": [model, storage]}


@pytest.mark.parametrize(
    "theirs", [{"app.py": b"", "index.html": b""}, {"app.py": b""}, {upload.MARKER: b"", "x": b""}]
)
def test_a_space_of_another_kind_is_not_emptied(server: Hub, tmp_path: Path, theirs: dict[str, bytes]) -> None:
    (tmp_path / "app.py").write_text("new")
    space = server.add("spaces/me/room", theirs)
    with pytest.raises(
        HubError, match="holds .*, which no push of this project made: choose another name, or .*--over"
    ):
        upload.push_space(Space("me/room", {"A": "b"}, hardware="l4x1"), {"app.py": tmp_path / "app.py"})
    assert (space.files, space.settings) == (theirs, {})
    upload.push_space(Space("me/room", overwrite=True), {"app.py": tmp_path / "app.py"})
    assert space.files == {"app.py": b"new"}


PUBLIC = (f"NOTE=see {TOKEN}", "HF_TOKEN=short", "APP_AUTH=me:1", "NOTE=the word is tea-at-five", FAKE)


@pytest.mark.parametrize("entry", PUBLIC)
def test_a_secret_among_the_variables_is_refused_and_not_shown(
    server: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], entry: str
) -> None:
    monkeypatch.setenv("APP_AUTH", "tea-at-five")
    with pytest.raises(HubError, match="--secrets|give each as NAME=VALUE") as caught:
        push.main(["--space", "me/room", "--variables", entry, "--secrets", "APP_AUTH"])
    said = str(caught.value) + capsys.readouterr().out
    assert server.log == [] and not [word for word in ("hf_", "tea-at", "short", "me:1") if word in said]


def test_where_the_root_is_home_addresses_are_no_paths(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text("# https://huggingface.co//x, /home and https://a.example/data/x")
    for home in ("/", "/data"):
        monkeypatch.setenv("HOME", home)
        upload.check_contents({"app.py": tmp_path / "app.py"})
    (tmp_path / "app.py").write_text("x = '/data/x'")
    with pytest.raises(HubError, match="names /data/, a folder of this machine"):
        upload.check_contents({"app.py": tmp_path / "app.py"})


def test_space_with_a_token_in_a_file(server: Hub, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(f"token = '{FAKE}'")
    with pytest.raises(HubError, match="looks like a token"):
        upload.push_space(Space("me/room"), {"app.py": tmp_path / "app.py"})
    assert server.log == []


def test_an_open_base_model_is_preloaded_and_a_gated_one_is_not(
    server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("---\ntitle: t\n---\n\nA room.\n---\n")
    monkeypatch.setattr(push, "ROOT", tmp_path)
    monkeypatch.setattr(push, "tracked_files", lambda: {"README.md": tmp_path / "README.md"})
    server.add("models/google/gemma-2b-it", {}, private=False).gated = True
    server.add("models/me/merged", {}, private=False)
    server.add("models/me/private", {}, private=True)
    for base in ("google/gemma-2b-it", "me/private", "me/nothing", "embedded", "me/merged"):
        push.main(["--space", "me/room", "--variables", f"BASE_MODEL={base}"])
        front, text = server.repos["spaces/me/room"].files["README.md"].decode().split("---\n", 2)[1:]
        expected = {"title": "t"} | ({"preload_from_hub": [base]} if base == "me/merged" else {})
        assert (yaml.safe_load(front), text) == (expected, "\nA room.\n---\n")


# GGUF


def without_persona(folder: Path) -> None:
    """As an adapter may be that another program trained: inspection takes it."""
    record = json.loads((folder / layout.TRAINING).read_text(encoding="utf-8"))
    del record["persona"]
    (folder / layout.TRAINING).write_text(json.dumps(record), encoding="utf-8")


def test_a_gguf_goes_to_a_repository_that_ollama_and_llama_cpp_read(
    server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(push, "ROOT", tmp_path)
    command = [str(folder), "--gguf", "me/tiny-gguf"]
    with pytest.raises(HubError, match="tiny was trained on .*, and a GGUF is made of the embedded one only"):
        push.main(command)
    monkeypatch.setattr(embedded, "FINGERPRINT", inspection.inspect(folder).base_fingerprint)
    with pytest.raises(HubError, match="not there or older than the adapter: python -m train.export "):
        push.main(command)
    (tmp_path / "NOTICE").write_text("terms")
    model = tmp_path / "exports" / "tiny" / "model.gguf"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"GGUF" + FAKE.encode())  # weights are not searched for tokens
    push.main([*command, "--dry-run"])
    assert server.log == []
    push.main(command)
    files = server.repos["models/me/tiny-gguf"].files
    assert set(files) == {"README.md", "NOTICE", "template", "system", "params", "tiny-BF16.gguf"}
    front, text = files["README.md"].decode().split("---\n", 2)[1:]
    assert yaml.safe_load(front)["base_model_relation"] == "finetune" and "ollama run hf.co/me/tiny-gguf" in text
    os.utime(model, (0, 0))
    with pytest.raises(HubError, match="older than the adapter"):
        push.main(command)
    os.utime(model)
    without_persona(folder)
    with pytest.raises(AdapterError, match="training.json or scoreboard.json is incomplete .*persona"):
        push.main(command)


ADAPTERS: dict[str, tuple[list[str], str, bool]] = {  # what is given, ADAPTER, whether the folder goes along
    "folder": (["{folder}"], "tiny", True),
    "repository": (["--adapter-repo", "me/zhenhuan"], "me/zhenhuan", False),
    "both": (["{folder}", "--adapter-repo", "me/a@v1,modelscope:me/b"], "me/a@v1,modelscope:me/b,tiny", True),
    "the whole way, private": (["{folder}", "--hub", "me/tiny"], "tiny", True),
    "with a token": (["{folder}", "--hub", "me/tiny", "--secrets", "HF_TOKEN"], "me/tiny", False),
    "public": (["{folder}", "--hub", "me/tiny", "--no-private"], "me/tiny", False),
    "pushed, and another": (
        ["{folder}", "--hub", "me/tiny", "--adapter-repo", "me/a", "--no-private"],
        "me/a,me/tiny",
        False,
    ),
    "pushed where it cannot be read, and another": (
        ["{folder}", "--hub", "me/tiny", "--adapter-repo", "me/a"],
        "me/a,tiny",
        True,
    ),
    "set by hand": (["{folder}", "--variables", "ADAPTER=x"], "x", True),
}


@pytest.mark.parametrize(("given", "speaks", "along"), ADAPTERS.values(), ids=ADAPTERS)
def test_what_a_space_speaks_with(
    server: Hub, folder: Path, capsys: pytest.CaptureFixture[str], given: list[str], speaks: str, along: bool
) -> None:
    push.main([*(part.format(folder=folder) for part in given), "--space", "me/room"])
    space = server.repos["spaces/me/room"]
    assert space.settings["variables"] == {"ADAPTER": speaks}
    assert (f"adapters/tiny/{layout.WEIGHTS}" in space.files) is along
    assert capsys.readouterr().out.splitlines()[-1] == f"pushed and verified: {server.url}/spaces/me/room"
    assert ("models/me/tiny" in server.repos) is ("--hub" in given)


# The script


def test_the_command_sends_and_says_where(server: Hub, folder: Path) -> None:
    environment = os.environ | {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    command = [sys.executable, "-m", "train.push", str(folder), "--hub", "me/tiny"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"pushed and verified: {server.url}/me/tiny")
    assert server.repos["models/me/tiny"].files == tiny.contents(folder)


def test_a_dry_run_writes_what_would_go_and_sends_nothing(
    server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(push, "ROOT", tmp_path)
    before, target = tiny.contents(folder), tmp_path / "runs" / "push" / "tiny"
    push.main([str(folder), "--hub", "me/tiny", "--dry-run"])
    assert (tiny.contents(folder), server.log) == (before, [])
    assert "ADAPTER=me/tiny python app.py" in (target / layout.CARD).read_text(encoding="utf-8")
    written = tiny.contents(target)
    push.main([str(folder), "--hub", "me/tiny"])
    assert server.repos["models/me/tiny"].files == written


COMMANDS: dict[str, tuple[list[str], str]] = {
    "nowhere": (["adapters/x"], "nowhere to push to: give --hub"),
    "nothing": (["--hub", "me/tiny"], "no adapter to push: give its folder"),
    "two": (["a", "b", "--hub", "me/tiny"], "one adapter at a time"),
    "no repository": (["--space", "me/room", "--adapter-repo", "zhenhuan"], "'zhenhuan' names no repository"),
    "variable": (["--space", "me/room", "--variables", "BASE_MODEL"], "give each as NAME=VALUE"),
    "secret": (["--space", "me/room", "--secrets", "UNSET_SECRET"], "UNSET_SECRET has no value"),
    "storage": (["--space", "me/room", "--storage", "/data"], "'/data' names no repository"),
}


@pytest.mark.parametrize(("arguments", "sentence"), COMMANDS.values(), ids=COMMANDS)
def test_the_command_told_badly(arguments: list[str], sentence: str) -> None:
    with pytest.raises(HubError, match=sentence):
        push.main(arguments)


def test_hardware_that_spaces_do_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        push.main(["--space", "me/room", "--hardware", "l4x9"])
    assert "--hardware: invalid choice: 'l4x9' (choose from '', 'cpu-basic'" in capsys.readouterr().err


def test_two_adapters_of_one_name_are_refused(server: Hub, folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other" / folder.name)
    with pytest.raises(HubError, match="two adapters are called tiny"):
        push.main([str(folder), str(other), "--space", "me/room"])
    assert server.log == []


@pytest.mark.parametrize(
    ("given", "title"),
    [
        (["{folder}"], "甄嬛 · Zhen Huan beside the base model"),
        (["--adapter-repo", "you/mara@v1"], "mara beside the base model"),
        ([], "Zhen Huan beside her base model"),
    ],
)
def test_a_space_is_called_after_who_speaks_in_it(
    server: Hub, folder: Path, tmp_path: Path, given: list[str], title: str
) -> None:
    push.main([*(part.format(folder=folder) for part in given), "--space", "me/room"])
    front = yaml.safe_load(server.repos["spaces/me/room"].files["README.md"].decode().split("---\n", 2)[1])
    assert front["title"] == title and len(front["short_description"]) <= 60
    assert ("consort" in front["short_description"]) is (not given)


def test_a_space_whose_adapter_does_not_say_who_it_is_is_called_after_the_folder(server: Hub, folder: Path) -> None:
    without_persona(folder)
    push.main([str(folder), "--space", "me/room"])
    assert 'title: "tiny beside the base model"' in server.repos["spaces/me/room"].files["README.md"].decode()
