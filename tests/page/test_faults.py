"""Requests that no page sends: a sentence comes back, and the server goes on."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from page.build import build, launch_options
from page.serving.middleware import SENTENCE, Faults
from page.serving.start import Started
from roleplay.environment import ROOT
from roleplay.results.votes import Box
from tests.raw import Visitor
from tests.scripted import ScriptedEngine


def answer(app: Any, body: bytes = b"{}", parts: int = 1) -> tuple[int, bytes, dict[str, Any]]:
    """Status and body that a client gets, and the message that the app behind `Faults` read."""
    size = -(-len(body) // parts)
    pieces = [body[n : n + size] for n in range(0, len(body), size)]
    sent, read = list[dict[str, Any]](), dict[str, Any]()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        read.update(await receive())
        await app(send)

    scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
    asyncio.run(Faults(behind)(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], sent[1]["body"], read


def says(status: int, body: bytes) -> Any:
    async def app(send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


async def crashes(send: Any) -> None:
    raise KeyError("a name of ours")


@pytest.mark.parametrize("app", [crashes, says(500, b'{"error": null}'), says(400, b"'int' object has no attribute")])
def test_what_fails_is_one_sentence(app: Any) -> None:
    status, body, _ = answer(app)
    assert (status, json.loads(body)) == (400, SENTENCE)


def test_a_crash_is_one_short_line_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    async def fails(send: Any) -> None:
        raise ValueError("\x1b[31m" + "x" * 100_000 + "\nand more")

    answer(fails)
    out, err = capsys.readouterr()
    assert (out[:35], out.count("\n"), err) == ("fault        ValueError: '\\x1b[31mx", 1, "")
    assert len(out) < 300 and "test_faults.py:" in out


def test_what_gradio_refuses_is_one_short_line_of_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    demo = build(Started(ScriptedEngine()), Box(tmp_path))
    url = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1]
    visitor = Visitor(demo, url)
    visitor.call("show_scoreboard", ["no adapter " + "x" * 100_000])
    visitor.ask("gradio_api/run/predict", {"fn_index": 10**9, "data": []})
    visitor.ask("gradio_api/queue/join", b'["' + b"x" * 100_000 + b'", NaN]')
    visitor.join("send", ["\n" + "x" * 100_000])
    demo.close()
    out, err = capfd.readouterr()
    faults = [line for line in out.splitlines() if line.startswith("fault ")]
    assert len(faults) == 4 and all(len(line) < 300 for line in faults), out
    assert "Traceback" not in out + err and "x" * 300 not in out + err


def test_behind_a_proxy_the_page_says_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy takes /room off; what the page then asks for has to have it again, at the address in the browser."""
    seen = {"$http_host": "you.example:8443", "$scheme": "https", "$remote_addr": "192.0.2.1"}
    documented = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    told = {name: seen[value] for name, value in re.findall(r"proxy_set_header (\S+) (\S+);", documented)}
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/room")
    demo = build(Started(ScriptedEngine()), Box(tmp_path))
    url = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1]
    config = json.loads(Visitor(demo, url).ask("config")[1])
    page = Visitor(demo, url).ask("")[1]
    behind = json.loads(Visitor(demo, url, told).ask("config")[1])
    demo.close()
    assert config["root"] == f"{url}room" and f'"root":"{url}room"' in page
    assert behind["root"] == "https://you.example:8443/room"


@pytest.mark.parametrize("status", [200, 404, 413, 422, 503])
def test_everything_else_passes(status: int) -> None:
    assert answer(says(status, b"as it was"))[:2] == (status, b"as it was")


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b'{"a": "\\ud800 \\ud83d\\ude00"}', {"a": "? 😀"}),
        (b'{"a": "\\u4e00"}', {"a": "一"}),
    ],
)
def test_half_characters_become_question_marks(body: bytes, read: dict[str, str], parts: int) -> None:
    message = answer(says(200, b""), body, parts)[2]
    assert json.loads(message["body"]) == read and not message["more_body"]


def test_what_is_no_json_is_left_for_others_to_refuse() -> None:
    assert answer(says(422, b"no JSON"), b'{"\\ud800')[2]["body"] == b'{"\\ud800'
