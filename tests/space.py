"""A Space as it is: what `train.push` sends arrives in an empty folder, and its app.py is started there.

    python -m tests.space --python .venv-space/bin/python

The environment of that Python gets the Space's requirements and nothing else; the page has to open on the embedded
model and answer in a browser. `test_space.py` does the same with this environment and a tiny model.
"""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, expect

from roleplay.environment import Environment
from roleplay.flags import flag, parse
from tests.hub_server import Repo, hub_server
from tests.pages import ask, bots, chromium, footer, opened
from train import push


@dataclass(frozen=True)
class Flags:
    python: str = flag(".venv-space/bin/python", "the interpreter whose environment gets the Space's requirements")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def take_out(repo: Repo, folder: Path) -> Path:
    """Write what arrived to `folder`."""
    for name, data in repo.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@contextmanager
def running(
    command: list[str], folder: Path, seconds: float, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`command` in `folder` as a Space runs it, once its page answers; yields the page's address and the process."""
    with started(command, folder, **environment) as (url, process):
        deadline = time.monotonic() + seconds
        while not answers(f"{url}/config"):
            said = (folder.parent / "said.txt").read_text()
            assert process.poll() is None and time.monotonic() < deadline, said[-3000:]
            time.sleep(0.5)
        yield url, process


@contextmanager
def started(command: list[str], folder: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The same without waiting; what it says goes to `folder`/../said.txt."""
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_TOKEN")}
    own = {"SPACE_ID": "me/room", "PORT": str(port), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    own |= {"ROLEPLAY_CACHE": str(folder.parent / "cache")}  # and not that of whoever runs the tests
    with (
        (folder.parent / "said.txt").open("w") as out,
        subprocess.Popen(
            command, cwd=folder, env=kept | own | environment, stdout=out, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        try:
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # nothing there yet, or the loading page with its 503
        return False


def chat(browser: Browser, url: str) -> None:
    """Say something to the page, and print what both sides answer and what stands under it."""
    with opened(browser, url) as page:
        ask(page, "你是谁？")
        for side in ("left", "right"):
            print(f"{side} {bots(page, side).last.locator('.message').first.inner_text()!r}")
            expect(footer(page, side)).to_contain_text("seed")


def main() -> None:
    python = Path(parse(Flags, __doc__).python).absolute()
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch, hub_server(patch) as hub:
        push.main(["--space", "me/room", "--hardware", "cpu-basic"])
        folder = take_out(hub.repos["spaces/me/room"], Path(scratch) / "app")
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", folder / "requirements.txt"], check=True)
        cache = str(Environment().cache)
        with running([str(python), "app.py"], folder, 900, ROLEPLAY_CACHE=cache, CUDA_VISIBLE_DEVICES="") as (url, _):
            print(f"{url} opened from {len(hub.repos['spaces/me/room'].files)} files")
            with chromium() as browser:
                chat(browser, url)
        print((Path(scratch) / "said.txt").read_text())


if __name__ == "__main__":
    main()
