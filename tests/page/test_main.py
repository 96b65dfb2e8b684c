"""`app.main` itself, in a process of its own, with all that guards an open page: password, proxies, rate, votes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener, install_opener

import pytest

from roleplay.environment import ROOT
from roleplay.results.votes import Box
from tests import tiny
from tests.hub_server import TOKEN, Hub
from tests.raw import Visitor
from tests.roleplay.results.test_ballots import vote
from tests.space import free_port

# The project's own folder gets no votes.
START = "import sys; from pathlib import Path; import app; app.ROOT = Path(sys.argv.pop(1)); app.main()"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def status(url: str) -> int:
    try:
        return Visitor(None, url).ask("config")[0]  # type: ignore[arg-type]
    except OSError:
        return 0


class Outside(ThreadingHTTPServer):
    """A proxy that notes who was to be reached, and reaches nobody."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Refuse)
        self.asked: list[str] = []


class Refuse(BaseHTTPRequestHandler):
    server: Outside

    def refuse(self) -> None:
        self.server.asked.append(self.requestline)
        self.send_error(503)

    do_GET = do_HEAD = do_POST = do_CONNECT = refuse

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def outside() -> Iterator[Outside]:
    with Outside() as proxy:
        Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
        yield proxy
        proxy.shutdown()


@pytest.fixture
def url(server: Hub, folder: Path, tmp_path: Path, outside: Outside) -> Iterator[str]:
    """The running app with an adapter from the hub, behind a proxy; at its end it has sent its votes."""
    tiny.gemma(max_position_embeddings=4096).save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    server.add("models/me/tiny", tiny.contents(folder))
    server.add("models/you/slow", tiny.contents(folder), private=False)
    server.faults = {"GET /you/slow/resolve/": [300.0] * 100}
    early = Box.on_hub(tmp_path / "early", "me/votes")
    early.add(replace(vote("tie"), adapter="me/tiny"))
    early.close()
    port = str(free_port())
    told = {"PORT": port, "HOST": "127.0.0.1", "BASE_MODEL": str(tmp_path / "base"), "ADAPTER": "me/tiny"}
    told |= {"APP_AUTH": "me:secret", "MESSAGES_PER_MINUTE": "1", "FORWARDED_ALLOW_IPS": "127.0.0.1"}
    told |= {"VOTES_REPO": "me/votes", "HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    told |= {"ROLEPLAY_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1"}
    proxy = f"http://127.0.0.1:{outside.server_address[1]}"
    told |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), proxy)
    told |= {"NO_PROXY": "", "no_proxy": "", "GRADIO_ANALYTICS_ENABLED": "True"}  # as it is where nobody sets anything
    command = [sys.executable, "-c", START, str(tmp_path / "home")]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | told, stdout=subprocess.PIPE, text=True) as process:
        address, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + 240
        try:
            while status(address) in (0, 503):  # nobody yet, then the page that says what is loading
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.5)
            yield address
            process.terminate()
            assert process.wait(60) == 128 + signal.SIGTERM
            assert not (tmp_path / "cache" / "guests").exists()  # though one was arriving
        finally:
            process.kill()


@pytest.mark.timeout(600)
def test_the_app_asks_for_a_password_believes_its_proxy_and_counts_the_votes(
    url: str, server: Hub, outside: Outside
) -> None:
    stranger = Visitor(None, url)  # type: ignore[arg-type]
    assert stranger.ask("config")[0] == 401
    assert stranger.ask("login", b"username=me&password=wrong", **FORM)[0] == 400
    install_opener(build_opener(HTTPCookieProcessor()))
    try:
        right = urlencode({"username": "me", "password": "secret"}).encode()
        assert stranger.ask("login", right, **FORM)[0] == 200
        config: dict[str, Any] = json.loads(stranger.ask("config")[1])
        fns = {event["id"]: SimpleNamespace(name=event["api_name"]) for event in config["dependencies"]}
        demo: Any = SimpleNamespace(fns=fns)
        said = [
            Visitor(demo, url, {"X-Forwarded-For": seen}).say("hi", "me/tiny")
            for seen in ("8.8.8.8", "8.8.8.8", "9.9.9.9")
        ]
        assert ["At most 1 messages a minute" in text for text in said] == [False, True, False]
        board = json.dumps(Visitor(demo, url).call("show_scoreboard", ["me/tiny"])[-1])
        assert Visitor(demo, url, {"X-Forwarded-For": "7.7.7.7"}).join("load_from_hub", ["you/slow"])[0] == 200
        while not [line for line in server.log if line.startswith("GET /you/slow/resolve/")]:
            time.sleep(0.1)
    finally:
        install_opener(build_opener())
    assert "1 ties, 0 both bad" in board
    assert f"revision {server.repos['models/me/tiny'].commits[-1][:7]} · " in said[0]
    assert outside.asked == []  # no telemetry: nothing outside was wanted, and this machine was found without a proxy
