"""What the server refuses: other addresses, long requests, too many messages, visitors without the password."""

import asyncio
import gc
import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
from gradio.blocks import Block
from gradio.server_messages import EstimationMessage, ProcessCompletedMessage

from page import unfetched
from page.build import build, launch_options
from page.serving import logins, middleware, rate_limit
from page.serving.rate_limit import Places, Rate
from page.serving.start import Started
from page.unfetched import BoundedQueue, Unfetched
from roleplay.environment import PRIVATE, Environment
from roleplay.errors import RoleplayError
from roleplay.results.votes import Box
from roleplay.text import personas
from tests.page.test_transcript import worst
from tests.raw import Visitor
from tests.scripted import ScriptedEngine

PER_MINUTE = 3
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(rate_limit.time, "monotonic", lambda: now[0])
    return now


def test_a_minute_slides(clock: list[float]) -> None:
    rate = Rate(2)
    assert [rate.take("1.2.3.4"), rate.take("1.2.3.4"), rate.take("1.2.3.4")] == [0, 0, 60]
    assert rate.take("1.2.3.5") == 0
    clock[0] += 45
    assert rate.wait("1.2.3.4") == 15
    clock[0] += 15
    assert [rate.wait("1.2.3.4"), rate.take("1.2.3.4"), rate.take("1.2.3.4")] == [0, 0, 0]
    assert rate.take("1.2.3.4") == 60


def test_whoever_is_silent_for_a_minute_is_forgotten(clock: list[float]) -> None:
    rate = Rate(5)
    for number in range(100):
        rate.take(f"10.0.0.{number}")
    clock[0] += 61
    rate.take("10.0.1.1")
    assert list(rate._asked) == ["10.0.1.1"]


def test_no_limit_remembers_nobody() -> None:
    rate = Rate(0)
    assert {rate.take("1.2.3.4") for _ in range(1000)} == {0}
    assert not rate._asked


def test_a_household_of_ipv6_is_one_client() -> None:
    rate = Rate(1)
    assert rate.take("2001:db8:1:2::1") == 0
    assert rate.take("2001:db8:1:2:ffff::9") > 0
    assert rate.take("2001:db8:1:3::1") == 0
    assert [rate.take("testclient"), rate.take("testclient")] == [0, 60]


@pytest.mark.parametrize(("places", "each"), [(16, 6), (4, 3), (1, 2)])
def test_a_client_holds_some_places_until_its_answers_end(places: int, each: int) -> None:
    held, answers = Places(places), [threading.Event() for _ in range(each + 2)]
    assert [held.take("1.2.3.4", answer) for answer in answers] == [True] * each + [False] * 2
    assert held.take("1.2.3.5", threading.Event())
    answers[0].set()
    assert [held.take("1.2.3.4", answer) for answer in answers[-2:]] == [True, False]


# Over HTTP


@pytest.fixture(scope="module")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    demo = build(Started(ScriptedEngine()), Box(tmp_path_factory.mktemp("votes")))
    url = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1]
    yield Visitor(demo, url)
    demo.close()


CLOSED = [
    ("POST", "gradio_api/upload"),
    ("GET", "gradio_api/upload_progress?upload_id=x"),
    ("GET", "monitoring"),
    ("GET", "monitoring/summary"),
    ("GET", "gradio_api/file=/etc/passwd"),
    ("HEAD", "gradio_api/file=app.py"),
    ("GET", "gradio_api/file=http://169.254.169.254/"),
    ("GET", "gradio_api/file/app.py"),
    ("GET", "gradio_api/proxy=https://example.hf.space/"),
    ("POST", "gradio_api/run/respond"),
    ("POST", "gradio_api/api/respond"),
    ("POST", "gradio_api/call/respond"),
    ("POST", "gradio_api/call/v2/respond"),
    ("GET", "gradio_api/runs"),
    ("GET", "gradio_api/openapi.json"),
    ("GET", "gradio_api/deep_link?session_hash=x"),
    ("POST", "gradio_api/process_recording"),
    ("POST", "gradio_api/component_server"),
    ("POST", "gradio_api/vibe-edit"),
    ("GET", "gradio_api/vibe-code"),
    ("GET", "gradio_api/dev/reload"),
    ("GET", "gradio_api/stream/a/b/c/playlist.m3u8"),
    ("GET", "gradio_api/custom_component/x/client/component/index.js"),
    ("GET", "docs"),
    ("GET", "openapi.json"),
    ("GET", "gradio_api/heartbeat/../file=/etc/passwd"),
    ("GET", "gradio_api//upload"),
    ("GET", "gradio_api/%75pload"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED, ids=[path for _, path in CLOSED])
def test_closed(visitor: Visitor, method: str, path: str) -> None:
    status, text = visitor.ask(path, b"{}" if method == "POST" else None, method)
    assert (status, text) == (404, "" if method == "HEAD" else "there is nothing here")


@pytest.mark.parametrize("path", ["", "config", "gradio_api/info", "theme.css", "gradio_api/startup-events"])
def test_open(visitor: Visitor, path: str) -> None:
    assert visitor.ask(path)[0] == 200


def test_an_answer_cannot_be_had_past_the_queue(visitor: Visitor) -> None:
    answer = next(index for index, fn in visitor.demo.fns.items() if fn.name == "answer")
    body = {"data": ["hi", *[None] * 14], "fn_index": answer, "session_hash": visitor.session}
    status, text = visitor.ask("gradio_api/run/predict", body)
    assert status == 404 and "does not accept direct HTTP POST" in text


def test_a_long_request_is_not_read(visitor: Visitor) -> None:
    connection = http.client.HTTPConnection(urlsplit(visitor.url).netloc, timeout=60)
    connection.putrequest("POST", "/gradio_api/queue/join")
    connection.putheader("Content-Length", str(middleware.MAX_BODY + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_request_without_a_length_ends_where_it_is_too_long(visitor: Visitor) -> None:
    chunks = (b" " * (1 << 20) for _ in range(9))
    connection = http.client.HTTPConnection(urlsplit(visitor.url).netloc, timeout=60)
    connection.request("POST", "/gradio_api/queue/join", chunks, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert connection.getresponse().status == 400
    connection.close()


def held(*values: Any) -> int:
    """Bytes of everything that is referred to, each object once; what the code itself is made of is left out."""
    seen, waiting, size = set[int](), list(values), 0
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and not isinstance(one, type | ModuleType | FunctionType | Block):
            seen.add(id(one))
            size += sys.getsizeof(one)
            waiting += gc.get_referents(one)
    return size


def test_what_stays_of_a_session_is_small_whatever_it_has_handed_in(visitor: Visitor) -> None:
    """As much as the door lets in: what stays is what SECURITY.md says."""
    whole, item, small = worst()
    text = json.dumps(whole | {"record": [item] + [small] * 120}, ensure_ascii=False)
    number = next(number for number, fn in visitor.demo.fns.items() if fn.name == "restore")
    new = Visitor(visitor.demo, visitor.url)
    body = {"data": [text], "fn_index": number, "session_hash": new.session, "trigger_id": None}
    sent = json.dumps(body, ensure_ascii=False).encode()
    assert len(sent) > 0.6 * middleware.MAX_BODY
    assert new.ask("gradio_api/queue/join", sent)[0] == 200 and new.events()[-1]["success"]
    session = visitor.demo.state_holder.session_data[new.session]
    size = held(session.state_data, session.config_values)
    assert 1e6 < size < 2e6, f"{size / 1e6:.2f} MB"


def test_what_nobody_fetches_is_small_however_many_ask() -> None:
    """As many sessions, events and small messages as there may be: what stays is what SECURITY.md says."""
    boxes = Unfetched()
    for number in range(unfetched.MAX_SESSIONS + 50):
        name = f"{number:0{unfetched.MAX_NAME}}"
        boxes[name] = asyncio.Queue()
        boxes.events[name] = {f"{number:016}{event:016}" for event in range(unfetched.MAX_EVENTS)}
        for _ in range(60):
            boxes[name].put_nowait(EstimationMessage(queue_size=number))
    assert len(boxes) == unfetched.MAX_SESSIONS
    assert 0.9 * unfetched.MAX_BYTES < sum(map(boxes.size_of, boxes)) == boxes.size <= unfetched.MAX_BYTES
    size = held({name: [box, boxes.events[name]] for name, box in boxes.items()})
    assert 50e6 < size < 64e6, f"{size / 1e6:.1f} MB"


def test_the_fullest_mailbox_is_dropped_and_the_others_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfetched, "MAX_BYTES", 10_000)
    boxes = Unfetched()
    long, short = (ProcessCompletedMessage(output={"data": ["x" * n]}, success=True) for n in (4000, 200))
    for name, message in [("visitor", short)] + [("flood", long)] * 3 + [("visitor", short)]:
        if name not in boxes:
            boxes[name] = asyncio.Queue()
        boxes[name].put_nowait(message)
    assert list(boxes) == ["visitor"] and [boxes["visitor"].get_nowait() for _ in range(2)] == [short, short]
    assert boxes.size == 0
    boxes["flood"].put_nowait(long)  # an answer that goes on
    assert boxes.size == 0 and "flood" not in boxes


def test_a_page_that_waits_keeps_its_mailbox_however_many_others_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfetched, "MAX_SESSIONS", 3)
    boxes, message = Unfetched(), EstimationMessage(queue_size=1)

    async def wait() -> None:
        for name in ("page", "gone"):
            boxes[name] = asyncio.Queue()
        for number in range(5):
            with pytest.raises(asyncio.TimeoutError):  # nothing comes
                await asyncio.wait_for(boxes["page"].get(), 0.001)
            boxes[str(number)] = asyncio.Queue()
            boxes[str(number)].put_nowait(message)

    asyncio.run(wait())
    assert list(boxes) == ["3", "page", "4"] and boxes.size == boxes.size_of("3") + boxes.size_of("4")


def test_the_page_keeps_what_is_not_fetched_within_these_bounds(visitor: Visitor) -> None:
    queue, new = visitor.demo._queue, Visitor(visitor.demo, visitor.url)
    assert isinstance(queue, BoundedQueue)
    boxes: Any = queue.pending_messages_per_session
    queue.pending_event_ids_session[new.session] = {str(n) for n in range(unfetched.MAX_EVENTS)}
    assert new.join("restore", [None])[0] == 200
    assert len(queue.pending_event_ids_session[new.session]) == 1
    deadline = time.monotonic() + 60
    while queue.event_ids_to_events and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 300 < boxes.size_of(new.session) < 30_000
    assert new.events()[-1]["success"] and boxes.size_of(new.session) == 0
    new.session = "x" * (unfetched.MAX_NAME + 1)
    assert new.join("restore", [None])[0] == 400 and new.session not in visitor.demo.state_holder


def test_a_message_passes_the_doors(visitor: Visitor) -> None:
    assert "臣妾甄嬛" in visitor.say("你是谁？", "zhenhuan-gemma3-270m")


@pytest.mark.parametrize(
    ("language", "sentence"), [("en", "At most 3 messages a minute"), ("zh-CN", "每分钟最多 3 条")]
)
def test_too_many_messages(tmp_path: Path, language: str, sentence: str) -> None:
    engine = ScriptedEngine(pause=0)
    demo = build(Started(engine), Box(tmp_path), per_minute=PER_MINUTE)
    url = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1]
    headers = {"Accept-Language": language}
    for number in range(PER_MINUTE + 1):
        visitor = Visitor(demo, url, headers)  # a new session is no way around it
        assert visitor.send("hi", engine.adapters()[0])[0] == (200 if number < PER_MINUTE else 422)
        assert (sentence in visitor.say("hi", "zhenhuan-gemma3-270m")) is (number == PER_MINUTE)
    status, text = Visitor(demo, url, headers).send("hi", engine.adapters()[0])
    demo.close()
    assert (status, sentence in text) == (422, True)
    assert len(engine.requests) == PER_MINUTE


@pytest.mark.parametrize(("believed", "clients"), [("127.0.0.1", 2), (PRIVATE, 2), ("", 1)])
def test_behind_a_proxy_the_client_is_whom_the_proxy_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, believed: str, clients: int
) -> None:
    """Each adds an address of its own invention in front, which counts for nothing."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", believed)
    engine = ScriptedEngine(pause=0)
    demo = build(Started(engine), Box(tmp_path), per_minute=1)
    url = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1]
    for seen in ("8.8.8.8", "9.9.9.9", "8.8.8.8", "9.9.9.9"):
        invented = f"7.7.7.{len(engine.requests)}, {seen}"
        inside = ", 10.1.2.3" if believed == PRIVATE else ""  # another proxy of the same house
        Visitor(demo, url, {"X-Forwarded-For": invented + inside}).say("hi", "zhenhuan-gemma3-270m")
    demo.close()
    assert len(engine.requests) == clients


def test_a_visitor_with_many_tabs_leaves_others_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A household of IPv6 with a tab for every address is one visitor, to the page and to the engine."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1")
    engine = ScriptedEngine(pause=0)
    demo = build(Started(engine, at_once=4), Box(tmp_path))
    url = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1]
    tabs = [Visitor(demo, url, {"X-Forwarded-For": f"2001:db8::{number}"}) for number in range(6)]
    with ThreadPoolExecutor(len(tabs)) as pool:
        said = as_completed([pool.submit(tab.say, "hold", "zhenhuan-gemma3-270m") for tab in tabs], timeout=30)
        try:
            assert all("At most 3 answers at a time" in next(said).result() for _ in range(3))
            other = Visitor(demo, url, {"X-Forwarded-For": "9.9.9.9"})
            assert "臣妾甄嬛" in other.say("hi", "zhenhuan-gemma3-270m")
        finally:
            engine.gate.set()
        assert all("臣妾甄嬛" in one.result() for one in said)
    demo.close()
    assert [request.visitor for request in engine.requests] == ["2001:db8::/64"] * 3 + ["9.9.9.9"]


def test_with_a_password_nothing_answers_without_it(tmp_path: Path) -> None:
    demo = build(Started(ScriptedEngine()), Box(tmp_path))
    launched = {"auth": ("me", "secret"), "prevent_thread_lock": True, "quiet": True}
    url = demo.launch(**launched, **launch_options())[1]
    visitor = Visitor(demo, url)
    for path in ("config", "gradio_api/info", "gradio_api/queue/data?session_hash=x"):
        assert visitor.ask(path)[0] == 401, path
    assert visitor.join("answer", [])[0] == 401
    assert visitor.send("hi")[0] == 401
    status, page = visitor.ask("")
    assert status == 200 and personas.default().greeting[:8] not in page
    assert visitor.ask("login", b"username=me&password=wrong", **FORM)[0] == 400
    demo.close()


def test_many_wrong_passwords_and_then_the_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1")
    demo = build(Started(ScriptedEngine()), Box(tmp_path))
    url = demo.launch(auth=("me", "secret"), prevent_thread_lock=True, quiet=True, **launch_options())[1]
    attacker, other = (Visitor(demo, url, {"X-Forwarded-For": seen}) for seen in ("8.8.8.8", "9.9.9.9"))
    mapped = Visitor(demo, url, {"X-Forwarded-For": "::ffff:8.8.8.8"})
    with ThreadPoolExecutor(20) as pool:
        wrong = list(
            pool.map(lambda n: attacker.ask("login", f"username=me&password={n}".encode(), **FORM), range(300))
        )
    assert [status for status, _ in wrong].count(400) == logins.TRIES
    right = b"username=me&password=secret"
    statuses = [visitor.ask(path, right, **FORM)[0] for visitor in (attacker, mapped) for path in ("login", "login/")]
    assert statuses == [429] * 4
    assert other.ask("login", right, **FORM)[0] == 200
    demo.close()


def test_an_ipv4_address_written_as_ipv6_is_the_same_client() -> None:
    rate = Rate(1)
    assert rate.take("::ffff:1.2.3.4") == 0
    assert rate.take("1.2.3.4") > 0
    assert rate.take("::ffff:1.2.3.5") == 0


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "SPACE_ID", "HUB_ADAPTERS", "PERSONAS", "FORWARDED_ALLOW_IPS"):
        monkeypatch.delenv(name, raising=False)
    assert (Environment().hub_adapters, Environment().proxies) == (4, "127.0.0.1") and Environment().cards
    monkeypatch.setenv("HOST", "0.0.0.0")
    assert Environment().hub_adapters == 0
    monkeypatch.delenv("HOST")
    monkeypatch.setenv("SPACE_ID", "me/room")
    assert (Environment().hub_adapters, Environment().proxies) == (0, PRIVATE)
    monkeypatch.setenv("HUB_ADAPTERS", "2")
    assert Environment().hub_adapters == 2
    assert not Environment().cards
    monkeypatch.setenv("PERSONAS", "open")
    assert Environment().cards
    monkeypatch.setenv("PERSONAS", "yes")
    with pytest.raises(RoleplayError, match="PERSONAS is 'yes'; give open, or leave it out"):
        Environment()
    monkeypatch.delenv("PERSONAS")
    for host in ("::1", "[::1]"):
        monkeypatch.setenv("HOST", host)
        assert (Environment().host, Environment().url_host) == ("::1", "[::1]")
