"""Conversations in a real browser: both sides stream, and stop, retry, undo, edit and clear keep them in step."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from page import build as page_build
from page.build import build, launch_options
from page.serving.start import start
from roleplay.engine.protocol import ADAPTER, BASE
from roleplay.environment import ROOT, Environment
from roleplay.results.votes import Box
from roleplay.text import personas
from tests.pages import Served, answered, ask, bots, footer, may_go_on, opened
from tests.scripted import REPLIES, ScriptedEngine

pytest_plugins = ("pages",)


def test_both_sides_stream_at_the_same_time(page: Page, engine: ScriptedEngine) -> None:
    ask(page, "please hold", wait=False)
    for side, key in (("left", ADAPTER), ("right", BASE)):
        expect(bots(page, side)).to_contain_text(REPLIES[key][:8])
        expect(bots(page, side)).not_to_contain_text(REPLIES[key][-8:].format(user="please hold"))
    expect(page.locator("#ask .stop-button")).to_be_visible()
    engine.gate.set()
    answered(page)
    for side, key in (("left", ADAPTER), ("right", BASE)):
        expect(bots(page, side)).to_contain_text(REPLIES[key].format(user="please hold"))
        for figure in ("tokens", "first in", "tok/s", f"seed {engine.requests[0].sampling.seed}"):
            expect(footer(page, side)).to_contain_text(figure)
    assert set(engine.requests[0].questions) == {ADAPTER, BASE}


def test_comparison_off_and_on_again(page: Page, engine: ScriptedEngine) -> None:
    page.get_by_label("Compare with the base model").uncheck()
    expect(page.locator("#right")).to_be_hidden()
    ask(page, "first")
    assert set(engine.requests[0].questions) == {ADAPTER}
    page.get_by_label("Compare with the base model").check()
    expect(bots(page, "right")).to_contain_text("Not asked")
    ask(page, "second")
    assert engine.requests[1].questions[BASE].turns == (("first", REPLIES[ADAPTER].format(user="first")),)
    expect(bots(page, "right").last).to_contain_text(REPLIES[BASE].format(user="second"))


def test_stop_ends_the_generation(page: Page, engine: ScriptedEngine) -> None:
    ask(page, "hold on", wait=False)
    expect(bots(page, "left")).to_contain_text(REPLIES[ADAPTER][:8])
    page.get_by_role("button", name="Stop").click()
    answered(page)
    expect(footer(page, "left")).to_contain_text("stopped")
    expect(footer(page, "right")).to_contain_text("stopped")
    page.wait_for_timeout(300)
    assert engine.closed_early == 1
    ask(page, "next")
    assert engine.requests[1].questions[ADAPTER].turns == (("hold on", REPLIES[ADAPTER][:8]),)


def test_the_next_message_may_be_sent_while_the_base_model_still_writes(page: Page, engine: ScriptedEngine) -> None:
    engine.replies = {ADAPTER: "Yes.", BASE: "word " * 400}
    ask(page, "hold on", wait=False)
    may_go_on(page)
    ask(page, "and now?", wait=False)
    expect(page.locator("#right .bot.message").first).to_contain_text("ended: the next message was sent")
    answered(page)
    assert engine.closed_early == 1
    for side, reply in (("left", "Yes."), ("right", "word word")):
        expect(page.locator(f"#{side} .user.message")).to_have_count(2)
        expect(bots(page, side).last).to_contain_text(reply)
    assert [turn[0] for turn in engine.requests[1].questions[BASE].turns] == ["hold on"]


def test_while_the_base_model_alone_writes_what_is_typed_stays_and_stop_ends_it(
    page: Page, engine: ScriptedEngine
) -> None:
    engine.replies = {ADAPTER: "Yes.", BASE: "word " * 400}
    ask(page, "hold on", wait=False)
    may_go_on(page)
    expect(page.locator("#ask textarea")).to_be_focused()
    page.keyboard.type("half a th")
    engine.gate.set()
    answered(page)
    page.keyboard.type("ought")
    expect(page.locator("#ask textarea")).to_have_value("half a thought")
    engine.gate.clear()
    ask(page, "hold on", wait=False)
    may_go_on(page)
    page.get_by_role("button", name="Stop").click()
    answered(page)
    expect(footer(page, "right")).to_contain_text("stopped")
    expect(footer(page, "left")).not_to_contain_text("stopped")


def test_closed_tab_ends_the_generation(browser: Browser, served: Served, engine: ScriptedEngine) -> None:
    with opened(browser, served.url) as page:
        ask(page, "hold on", wait=False)
        expect(bots(page, "left")).to_contain_text(REPLIES[ADAPTER][:8])
    deadline = time.monotonic() + 60
    while not engine.closed_early and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine.closed_early == 1


def test_a_waiting_request_is_shown_and_one_too_many_turned_away(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_build, "QUEUE_SIZE", 2)
    served = Served(tmp_path, ["zhenhuan"])
    with ExitStack() as tabs:
        one, two, three, four, five = (
            tabs.enter_context(opened(browser, served.url, locale=locale))
            for locale in ("en-US", "en-US", "zh-CN", "en-US", "zh-CN")
        )
        ask(one, "hold on", wait=False)
        expect(bots(one, "left")).to_contain_text(REPLIES[ADAPTER][:8])
        for tab, told in ((two, "yours is number 1 in the queue"), (three, "您是第 2 位")):
            ask(tab, "me too", wait=False)
            expect(tab.locator("#left [data-testid=status-tracker]")).to_contain_text(told)
        for tab, told in ((four, "Too many people are waiting"), (five, "排队的人太多")):
            ask(tab, "and me", wait=False)
            expect(tab.get_by_test_id("toast-body")).to_contain_text(told)
            expect(tab.locator("#ask textarea")).to_have_value("and me")
        served.engine.gate.set()
        for tab in (one, two, three):
            answered(tab)
        expect(bots(two, "left")).to_contain_text(REPLIES[ADAPTER].format(user="me too"))
        ask(four, "and me")
        expect(bots(four, "left")).to_contain_text(REPLIES[ADAPTER].format(user="and me"))
    served.demo.close()


def test_each_side_keeps_its_own_history_and_a_retry_draws_a_new_seed(page: Page, engine: ScriptedEngine) -> None:
    ask(page, "first")
    ask(page, "second")
    for side in (ADAPTER, BASE):
        assert engine.requests[1].questions[side].turns == (("first", REPLIES[side].format(user="first")),)
    page.get_by_role("button", name="Retry").click()
    expect(footer(page, "left")).not_to_contain_text(f"seed {engine.requests[1].sampling.seed}")
    answered(page)
    assert len(engine.requests) == 3
    assert engine.requests[2].questions == engine.requests[1].questions
    assert engine.requests[2].sampling.seed != engine.requests[1].sampling.seed
    expect(bots(page, "left")).to_have_count(2)
    expect(bots(page, "right")).to_have_count(2)


def test_undo_keeps_both_panes_in_step(page: Page, engine: ScriptedEngine) -> None:
    ask(page, "first")
    ask(page, "second")
    page.get_by_role("button", name="Undo").click()
    for side in ("left", "right"):
        expect(page.locator(f"#{side} .user.message")).to_have_count(1)
        expect(bots(page, side)).to_have_count(1)
    expect(page.locator("#ask textarea")).to_have_value("second")
    ask(page, "third")
    assert [user for user, _ in engine.requests[2].questions[BASE].turns] == ["first"]


def test_edit_asks_again_from_there(page: Page, engine: ScriptedEngine) -> None:
    ask(page, "first <b>x</b>")
    ask(page, "second")
    page.get_by_role("button", name="Edit").first.click()
    page.get_by_label("Edit the message").fill("other <i>y</i>")
    page.get_by_role("button", name="Submit").click()
    expect(bots(page, "left")).to_have_count(1)
    expect(bots(page, "left")).to_contain_text(REPLIES[ADAPTER].format(user="other <⁠i>y<⁠/i>"))
    answered(page)
    expect(page.locator("#right .user.message")).to_have_count(1)
    assert engine.requests[2].questions[BASE].user == "other <i>y</i>"
    assert engine.requests[2].questions[BASE].turns == ()


def test_a_waiting_request_is_stopped(browser: Browser, served: Served, engine: ScriptedEngine) -> None:
    with opened(browser, served.url) as one, opened(browser, served.url) as two:
        ask(one, "hold on", wait=False)
        expect(bots(one, "left")).to_contain_text(REPLIES[ADAPTER][:8])
        ask(two, "me too", wait=False)
        expect(two.locator("#left [data-testid=status-tracker]")).to_contain_text("number 1")
        two.get_by_role("button", name="Stop").click()
        answered(two)
        two.wait_for_timeout(500)  # in which the page could call it an error
        assert not any(error.is_visible() for error in two.locator("#panes .error").all())
        two.locator("#right").get_by_role("button", name="Clear").click()
        engine.gate.set()
        answered(one)
        ask(two, "again")
        expect(bots(two, "right")).to_contain_text(REPLIES[BASE].format(user="again"))
    assert [request.questions[ADAPTER].user for request in engine.requests] == ["hold on", "again"]


def test_clear_empties_both_panes(page: Page, engine: ScriptedEngine) -> None:
    for side in ("left", "right"):
        ask(page, "a message")
        page.locator(f"#{side}").get_by_role("button", name="Clear").click()
        expect(page.locator("#panes .message")).to_have_count(0)
    ask(page, "another")
    assert [request.questions[ADAPTER].turns for request in engine.requests] == [()] * 3


def test_clear_rests_during_an_answer(page: Page, engine: ScriptedEngine) -> None:
    clears = page.get_by_role("button", name="Clear")
    ask(page, "first")
    expect(clears).to_have_count(2)
    ask(page, "hold on", wait=False)
    expect(bots(page, "right")).to_have_count(2)
    expect(clears).to_have_count(0)
    page.get_by_role("button", name="Stop").click()
    answered(page)
    clears.last.click()
    expect(page.locator("#panes .message")).to_have_count(0)
    page.wait_for_timeout(700)  # in which a turn could come back
    assert page.locator("#panes .message").count() == 0
    ask(page, "second")
    assert engine.requests[2].questions[ADAPTER].turns == ()


def test_the_conversation_survives_a_reload_and_a_foreign_one_is_dropped(page: Page, engine: ScriptedEngine) -> None:
    ask(page, "remember <me>")
    page.reload()
    for side, key in (("left", ADAPTER), ("right", BASE)):
        expect(bots(page, side)).to_contain_text(REPLIES[key][:12])
        expect(footer(page, side)).to_contain_text("tok/s")
    ask(page, "go on")
    assert engine.requests[1].questions[BASE].turns == (("remember <me>", REPLIES[BASE].format(user="remember <me>")),)
    page.evaluate("sessionStorage.setItem('roleplay-conversation', 'nonsense')")
    page.reload()
    expect(page.get_by_role("button", name=personas.default().openers[0])).to_be_visible()
    expect(page.locator("#left .message")).to_have_count(0)


def test_messages_refused_at_the_composer(page: Page, engine: ScriptedEngine) -> None:
    for text, sentence in (("  ", "Write a message first."), ("长" * 2001, "2,001 characters long")):
        ask(page, text, wait=False)
        expect(page.locator("#ask")).to_contain_text(sentence)
        expect(page.locator("#ask textarea")).to_have_value(text)
        assert engine.requests == []
    ask(page, "shorter")
    assert len(engine.requests) == 1


def test_an_engines_error_is_a_sentence(page: Page, engine: ScriptedEngine) -> None:
    engine.error = "the model ran out of memory: ask for fewer tokens"
    ask(page, "hello")
    for side in ("left", "right"):
        expect(footer(page, side)).to_contain_text(engine.error)
    engine.error = ""
    ask(page, "again")
    expect(bots(page, "right").last).to_contain_text(REPLIES[BASE].format(user="again"))


def test_each_tab_shows_its_own_conversation_after_a_reload(page: Page, served: Served, engine: ScriptedEngine) -> None:
    ask(page, "from the first tab")
    other = page.context.new_page()
    other.goto(served.url)
    expect(other.locator("#left .example").first).to_be_visible()
    expect(other.locator("#left .message")).to_have_count(0)
    ask(other, "from the second tab")
    for tab, own in ((page, "from the first tab"), (other, "from the second tab")):
        tab.reload()
        expect(tab.locator("#left .user.message")).to_have_text([own])
        expect(bots(tab, "right")).to_contain_text(own)


def test_a_browser_that_forbids_storage_still_chats(page: Page, engine: ScriptedEngine) -> None:
    forbidden = "Object.defineProperty(window, 'sessionStorage', { get() { throw new Error('forbidden'); } })"
    page.context.add_init_script(forbidden)
    logged = list[str]()
    page.on("console", lambda message: logged.append(message.text))
    page.reload()
    ask(page, "hello")
    expect(bots(page, "right")).to_contain_text(REPLIES[BASE].format(user="hello"))
    assert not [text for text in logged if "forbidden" in text]


@pytest.mark.skipif(
    not (ROOT / "adapters" / "zhenhuan-gemma3-270m").is_dir(), reason="the default adapter is not there"
)
@pytest.mark.timeout(400)
def test_the_embedded_model_answers_both_ways(browser: Browser, tmp_path: Path) -> None:
    started = start(Environment(base_model="embedded", adapter="zhenhuan-gemma3-270m", engine_url=""), "embedded")
    demo = build(started, Box(tmp_path))
    url = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1]
    with opened(browser, url) as page:
        page.set_default_timeout(200_000)
        page.get_by_role("button", name="你是谁？").click()
        for side in ("left", "right"):
            expect(footer(page, side)).to_contain_text("tok/s", timeout=200_000)
        expect(page.locator("#ask .submit-button")).to_be_visible(timeout=200_000)
        adapter, base = (bots(page, side).locator(".message").first.inner_text() for side in ("left", "right"))
        assert adapter.strip(" …")
        assert base.strip(" …")
        assert adapter != base
    demo.close()
