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

from page.build import build, launch_options
from page.serving.loading_page import loading
from page.serving.start import Started
from page.words import WORDS
from roleplay.environment import ROOT
from roleplay.errors import RoleplayError
from roleplay.results.votes import Box
from roleplay.weights import base_models as models
from tests import tiny
from tests.scripted import ScriptedEngine

pytest_plugins = ("pages",)


@pytest.fixture
def port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def get(port: int, path: str, language: str = "en") -> str:
    asked = Request(f"http://127.0.0.1:{port}/{path}", headers={"Accept-Language": language})
    with urlopen(asked, timeout=60) as answer:
        return str(answer.read().decode())


def test_the_stage_is_told_in_both_languages(port: int) -> None:
    with loading("127.0.0.1", port) as tell:
        assert get(port, "?stage") == "Starting…"
        for stage in ("fetch", "load", "adapters"):
            tell(stage)
            assert get(port, "?stage") == WORDS["en"][f"stage_{stage}"]
            assert get(port, "?stage", "zh-CN,zh;q=0.9") == WORDS["zh"][f"stage_{stage}"]
            assert WORDS["zh"][f"stage_{stage}"] in get(port, "", "zh-CN")
        tell("download", progress="me/poet: 3.0 of 8.0 MB")
        assert get(port, "?stage") == "Fetching the adapter me/poet: 3.0 of 8.0 MB…"


def test_an_ipv6_address_is_served_first_by_one_then_by_the_other(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET6) as one:
        one.bind(("::1", 0))
        port = int(one.getsockname()[1])
    with loading("::1", port), urlopen(f"http://[::1]:{port}/?stage", timeout=60) as answer:
        assert answer.read().decode() == "Starting…"
    demo = build(Started(ScriptedEngine()), Box(tmp_path))
    demo.launch(server_name="[::1]", server_port=port, prevent_thread_lock=True, quiet=True, **launch_options())
    with urlopen(f"http://[::1]:{port}/config", timeout=60) as answer:
        assert answer.status == 200
    demo.close()


def test_a_client_of_the_api_is_told_to_wait(port: int) -> None:
    with loading("127.0.0.1", port), pytest.raises(HTTPError, match="503"):
        get(port, "config")


def test_loading_a_model_says_where_it_is(tmp_path: Path) -> None:
    stages = list[str]()
    tiny.gemma().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    models.load(str(tmp_path), tmp_path, tell=stages.append)
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
            expect(page.get_by_role("status")).to_have_text(WORDS["en"]["stage_load"])
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
        tell("train", 0.25, update="5", updates="20", left="0:09", loss="3.21")
        said = "one is trained, once: update 5 of 20, 0:09 left, loss 3.21"
        expect(page.get_by_role("status")).to_contain_text(said)
        expect(page.get_by_role("progressbar")).to_have_js_property("value", 0.25)
        tell("adapters")
        expect(page.get_by_role("status")).to_have_text(WORDS["en"]["stage_adapters"])
        expect(page.get_by_role("progressbar")).to_be_hidden()
        demo = build(Started(ScriptedEngine()), Box(tmp_path))
    demo.launch(server_port=port, prevent_thread_lock=True, quiet=True, **launch_options())
    expect(page.locator("#ask textarea")).to_be_enabled()
    page.close()
    demo.close()
    assert errors == []


def test_a_shutdown_ends_what_is_being_generated() -> None:
    """A thread that would generate for ever, and that no interpreter would leave behind."""
    script = """
import threading, time
from page.serving.start import end_on_signals
threading.Thread(target=lambda: [time.sleep(0.01) for _ in iter(int, 1)]).start()
end_on_signals(lambda: print("sent", flush=True))
print("ready", flush=True)
while True:
    time.sleep(0.1)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0] == "sent\n"
    assert process.returncode == 128 + signal.SIGINT
