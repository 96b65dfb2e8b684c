"""What is served before the page: the stage in the browser's language, a failure as one sentence, then the page."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, expect

import app
from roleplay.environment import ROOT
from roleplay.errors import RoleplayError
from roleplay.loading import loading
from roleplay.results.votes import Box
from roleplay.results.wording import TEXTS
from roleplay.weights import base_models
from tests import tiny
from tests.scripted import ScriptedEngine
from tests.tiny import ZHEN_HUAN

pytest_plugins = ("pages",)


@pytest.fixture
def port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def get(port: int, path: str, language: str = "en") -> str:
    asked = Request(f"http://127.0.0.1:{port}/{path}", headers={"Accept-Language": language})
    with urlopen(asked, timeout=10) as answer:
        return str(answer.read().decode())


def test_the_stage_is_told_in_both_languages(port: int) -> None:
    with loading("127.0.0.1", port) as tell:
        assert get(port, "?stage") == "Starting…"
        for stage in ("fetch", "load", "adapters"):
            tell(stage)
            assert get(port, "?stage") == TEXTS["en"][f"stage_{stage}"]
            assert get(port, "?stage", "zh-CN,zh;q=0.9") == TEXTS["zh"][f"stage_{stage}"]
            assert TEXTS["zh"][f"stage_{stage}"] in get(port, "", "zh-CN")


def test_a_client_of_the_api_is_told_to_wait(port: int) -> None:
    with loading("127.0.0.1", port), pytest.raises(HTTPError, match="503"):
        get(port, "config")


def test_loading_a_model_says_where_it_is(tmp_path: Path) -> None:
    stages = list[str]()
    tiny.gemma().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    base_models.load(str(tmp_path), tmp_path, tell=stages.append)
    assert stages == ["fetch", "load"]


def test_an_address_in_use_is_one_line(port: int) -> None:
    with (
        loading("127.0.0.1", port),
        pytest.raises(RoleplayError, match=f"127.0.0.1:{port} cannot be served"),
        loading("127.0.0.1", port),
    ):
        pass


def test_a_failure_is_shown_and_goes_on(browser: Browser, port: int) -> None:
    page = browser.new_page()

    def fail() -> None:
        with loading("127.0.0.1", port) as tell:
            page.goto(f"http://127.0.0.1:{port}")
            tell("load")
            expect(page.get_by_role("status")).to_have_text(TEXTS["en"]["stage_load"])
            raise RoleplayError("no base model '<b>': give another")

    with pytest.raises(RoleplayError, match="no base model"):
        fail()
    expect(page.get_by_role("status")).to_have_text("It cannot start: no base model '<b>': give another")
    page.close()


def test_the_page_opens_by_itself(browser: Browser, port: int, tmp_path: Path) -> None:
    page, errors = browser.new_page(), list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    with loading("127.0.0.1", port) as tell:
        page.goto(f"http://127.0.0.1:{port}")
        tell("adapters")
        expect(page.get_by_role("status")).to_have_text(TEXTS["en"]["stage_adapters"])
        demo = app.build_demo(ScriptedEngine(), [ZHEN_HUAN], Box(tmp_path), {})
    demo.launch(server_port=port, prevent_thread_lock=True, quiet=True, **app.look(), **app.doors())
    expect(page.locator("#ask textarea")).to_be_enabled()
    page.close()
    demo.close()
    assert errors == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_shutdown_ends_what_is_being_generated(number: signal.Signals) -> None:
    """A thread that would generate for ever, and that no interpreter would leave behind."""
    script = """
import threading, time
from roleplay.startup import end_on_signals
threading.Thread(target=lambda: [time.sleep(0.01) for _ in iter(int, 1)]).start()
end_on_signals(lambda: print("sent", flush=True))
print("ready", flush=True)
while True:
    time.sleep(0.1)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.communicate(timeout=30)[0] == "sent\n"
    assert process.returncode == 128 + number
