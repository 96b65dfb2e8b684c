"""What several test modules need: an adapter folder to read, one to spoil, and a hub that answers on loopback."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny
from tests.hub_server import Hub, hub_server
from train.publishing import upload

# `make test` runs two processes of pytest: each looks for free ports in a hundred of its own.
os.environ["GRADIO_SERVER_PORT"] = str(
    7860 + 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.adapter(tmp_path_factory.mktemp("pristine") / "tiny")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "adapters" / "tiny"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setattr(upload, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope"))
    with hub_server(monkeypatch) as server:
        yield server
