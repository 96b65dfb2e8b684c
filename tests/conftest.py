"""What several test modules need: an adapter folder to read, one to spoil, and a hub that answers on loopback."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from roleplay.environment import ROOT
from tests import tiny
from tests.hub_server import Hub, hub_server
from train.publishing import upload

# `make test` runs three processes of pytest: each looks for free ports in a hundred of its own.
os.environ["GRADIO_SERVER_PORT"] = str(
    7860 + 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Trainings first, then browsers, so that no process is left alone with one of these slow files at the end."""
    slow = [ROOT / "tests" / room for room in ("train", "page")]
    items.sort(key=lambda item: next((place for place, room in enumerate(slow) if room in item.path.parents), 2))


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
