"""Spaces and the push command, against `hub_server` on loopback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from roleplay.environment import ROOT
from roleplay.errors import HubError
from tests import tiny
from tests.hub_server import TOKEN, Hub
from train import push
from train.publishing import upload
from train.publishing.upload import Space

FAKE = "hf_" + "A" * 34


# Spaces


def test_space_holds_exactly_the_files(server: Hub, tmp_path: Path) -> None:
    for name in ("app.py", "README.md"):
        (tmp_path / name).write_text("---\ntitle: t\n---\n")
    files = {"app.py": tmp_path / "app.py", "README.md": tmp_path / "README.md"}
    url = upload.push_space(Space("me/room", {"BASE_MODEL": "embedded"}, {"APP_AUTH": "a:b"}, "cpu-basic"), files)
    space = server.repos["spaces/me/room"]
    assert url == f"{server.url}/spaces/me/room" and space.private
    assert space.settings == {
        "variables": {"BASE_MODEL": "embedded"},
        "secrets": {"APP_AUTH": "a:b"},
        "hardware": "cpu-basic",
    }
    space.files["old.py"] = b"gone from the repository"
    upload.push_space(Space("me/room"), {"app.py": tmp_path / "app.py"})
    assert set(space.files) == {"app.py"}


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
    push.main([str(folder), "--hub", "me/tiny", "--dry-run"])
    assert tiny.contents(tmp_path / "runs" / "push" / "tiny") == tiny.contents(folder)
    assert server.log == []


COMMANDS: dict[str, tuple[list[str], str]] = {
    "nowhere": (["adapters/x"], "nowhere to push to: give --hub"),
    "nothing": (["--hub", "me/tiny"], "no adapter to push: give its folder"),
    "variable": (["--space", "me/room", "--variables", "BASE_MODEL"], "give each as NAME=VALUE"),
    "secret": (["--space", "me/room", "--secrets", "UNSET_SECRET"], "UNSET_SECRET has no value"),
    "hardware": (["--space", "me/room", "--hardware", "h9000"], "unknown hardware 'h9000'"),
}


@pytest.mark.parametrize(("arguments", "sentence"), COMMANDS.values(), ids=COMMANDS)
def test_the_command_told_badly(arguments: list[str], sentence: str) -> None:
    with pytest.raises(HubError, match=sentence):
        push.main(arguments)
