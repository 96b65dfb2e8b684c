"""The page behind a server that puts it under a path: nginx, set as docs/install.md says."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from roleplay.environment import ROOT
from tests.pages import Served, ask, bots, opened
from tests.space import free_port

pytest_plugins = ("pages",)

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
SERVER = """
daemon off; pid {folder}/pid; error_log {folder}/errors;
events {{}}
http {{
  access_log {folder}/asked;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxied;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; {location} }}
}}
"""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a page under /room; beside it, `asked` lists what the browser asked for."""
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/room")
    served, port = Served(tmp_path, ["zhenhuan"]), free_port()
    documented = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").partition("```nginx\n")[2]
    location = documented.partition("```")[0].replace("http://127.0.0.1:7860/", served.url)
    settings = tmp_path / "nginx.conf"
    settings.write_text(SERVER.format(folder=tmp_path, port=port, location=location), encoding="utf-8")
    server = subprocess.Popen([str(NGINX), "-c", str(settings), "-e", str(tmp_path / "errors")])
    try:
        while not (tmp_path / "pid").exists():
            assert server.poll() is None, (tmp_path / "errors").read_text(encoding="utf-8")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/room/"
    finally:
        server.terminate()
        server.wait()
        served.demo.close()


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (nginx-light of Debian)")
def test_under_a_path_nothing_is_asked_for_outside_of_it(room: str, browser: Browser, tmp_path: Path) -> None:
    with opened(browser, room) as page:
        ask(page, "Who are you?")
        expect(bots(page, "left")).to_have_count(1)
        expect(bots(page, "right")).to_have_count(1)
        assert not page.evaluate("[...document.images].filter(image => image.complete && !image.naturalWidth).length")
        page.reload()
        expect(page.locator("#left .user.message")).to_have_text("Who are you?")
    asked = [line.split('"')[1].split()[1] for line in (tmp_path / "asked").read_text(encoding="utf-8").splitlines()]
    assert len(asked) > 10 and {path for path in asked if not path.startswith("/room/")} <= {"/favicon.ico"}
