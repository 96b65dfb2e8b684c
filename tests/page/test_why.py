"""Why two answers differ, under an answer: shaded tokens, both sides' likeliest, by pointer, keyboard and tap."""

from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from playwright.sync_api import Browser, expect

from page import state
from page.chat import why
from page.chat.exchanges import OPEN, SIDES, Exchange
from page.serving.rate_limit import Rate
from page.serving.start import About
from page.sides_panel import SidesHandlers
from page.why_panel import WhyHandlers
from page.why_view import why_html
from roleplay.engine.protocol import ADAPTER, BASE, Answer, Piece, Sampling
from roleplay.text import personas
from roleplay.text.known import known
from roleplay.text.retrieval import MARK, Retriever
from roleplay.text.rows import Row
from tests.pages import PHONE, Served, ask, bots, footer, opened, serious
from tests.scripted import ScriptedEngine

pytest_plugins = ("pages",)
VISITOR = state.Visitor("en", "1.2.3.4")
DONE = {side: Answer(f"{side} <b>", 5, 0.1, 0.5, "end") for side in SIDES}
EXCHANGE = Exchange("two", DONE, dict.fromkeys(SIDES, "persona"), "one", Sampling(seed=7))
PAST = [replace(EXCHANGE, user="one")]


def handlers_of(about: dict[str, About]) -> WhyHandlers:
    return WhyHandlers(SidesHandlers(ScriptedEngine(), about, personas.default()), Rate(0))


def test_both_sides_read_the_conversation_of_the_answer_each_with_what_it_was_given() -> None:
    bare = replace(EXCHANGE, personas={ADAPTER: "persona", BASE: ""}, examples=(("q", "a"),))
    asked = why.request_about(PAST, bare, ADAPTER)
    assert asked.questions[ADAPTER].turns == (("one", "adapter <b>"),)
    assert asked.questions[BASE].turns == (("q", "a"), ("one", "adapter <b>"))
    assert (asked.questions[ADAPTER].persona, asked.questions[BASE].persona) == ("persona", "")
    alone = replace(EXCHANGE, answers={ADAPTER: DONE[ADAPTER]}, personas={ADAPTER: "persona"})
    assert why.request_about([], alone, ADAPTER).questions[BASE].persona == "persona"


def test_figures_of_the_whole_answer_and_what_was_written_is_shown_as_text() -> None:
    def piece(text: str, ratio: float, same: bool = True) -> Piece:
        return Piece(text, {ADAPTER: ratio - 1, BASE: -1.0}, {side: [("<i>", 0.5)] for side in SIDES}, same)

    found = [piece("a", 4.0), piece("<b>", -2.0, False), piece("c", 0.2), piece("d", 1.0), piece("", 0.8)]
    best, share = why.telling(found)
    assert ([one.text for one in best], share) == (["a", "<b>", "d"], pytest.approx(7 / 8))
    assert [why.shade(one) for one in found] == [4, 3, 1, 2, 2] and why.parting(found) == 1
    html = why_html(found, {ADAPTER: "<A>", BASE: "B"}, "en")
    assert "The whole answer: +4.0 nat. Its 3 most telling tokens (a, &lt;b&gt;, d) carry 88%" in html
    assert not {"<b>", "<i>", "<A>"} & set(html.replace("<", " <").replace(">", "> ").split())


@pytest.mark.parametrize(
    ("asked", "exchange"), [([0, 5], EXCHANGE), ([2, 0], EXCHANGE), ([0, 0], replace(EXCHANGE, verdict=OPEN))]
)
def test_what_is_gone_or_still_secret_is_not_looked_into(asked: list[int], exchange: Exchange) -> None:
    with pytest.raises(gr.Error, match="cannot be looked into"):
        handlers_of({}).explain(asked, [exchange], True, VISITOR)


def test_the_rows_that_taught_an_answer_and_what_was_copied(tmp_path: Path) -> None:
    rows = [
        Row((("晚膳呢", "清粥便好，不必铺张，省下来赏给底下人罢。"),)),
        Row((("雪", "且等雪停。"),)),
        Row((("<i>", "好"),)),
        *(Row(((f"晚膳{n}", f"清粥{n}便好"),)) for n in range(4)),
    ]
    about = {"one": About(tmp_path, retriever=Retriever(known(rows)))}
    said = {ADAPTER: Answer("清粥便好，不必铺张，省下来赏给她们。", 5, stop="end"), BASE: DONE[BASE]}
    handlers, record = handlers_of(about), [replace(EXCHANGE, answers=said)]
    html = handlers.explain([0, 0], record, False, VISITOR)["why"][2]
    assert "“清粥便好不必铺张省下来赏给” stands in the row that answers “晚膳呢”" in html
    assert html.index("晚膳呢<br>→") and "<i>" not in html and html.count("<li>") == 3
    assert "training" not in handlers.explain([1, 0], record, False, VISITOR)["why"][2]
    assert "looked up" not in html
    looking = said | {ADAPTER: replace(said[ADAPTER], shown_rows=((MARK + "晚膳呢", rows[0].turns[0][1]),))}
    html = handlers.explain([0, 0], [replace(record[0], user="晚膳", answers=looking)], False, VISITOR)["why"][2]
    assert html.index("it looked up for this message") < html.index("晚膳呢<br>→") < html.index("nearest to it")
    other = {ADAPTER: Answer("好", 1, stop="end")}
    html = handlers.explain([0, 0], [replace(EXCHANGE, answers=other)], False, VISITOR)["why"][2]
    assert "No 10 characters in a row of it (6 words) stand in the training rows." in html
    about["one"] = replace(
        about["one"], provenance={"examples_sha256": "ab"}
    )  # of what else it learnt nothing is known
    html = handlers.explain([0, 0], [replace(EXCHANGE, answers=other)], False, VISITOR)["why"][2]
    assert "No 10 characters in a row of it (6 words) stand in the rows that it looks up." in html


def test_an_answer_of_weights_that_are_no_longer_here_says_so(tmp_path: Path) -> None:
    handlers = handlers_of({"one": About(tmp_path, provenance={"adapter_sha256": "ab"})})
    for made, told in (({ADAPTER: "ab"}, False), ({ADAPTER: "cd"}, True), ({}, False)):
        html = handlers.explain([0, 0], [replace(EXCHANGE, weights_sha256=made)], False, VISITOR)["why"][2]
        assert ("An adapter has other weights here than when this was answered" in html) is told


def test_tokens_are_shaded_and_looked_at_by_keyboard_and_tap(browser: Browser, served: Served) -> None:
    for size, dark in (((1280, 800), True), (PHONE, False)):
        with opened(browser, served.url, size, dark) as page:
            ask(page, "hello")
            button = bots(page, "left").get_by_role("button", name="Why")
            button.click()
            view = page.locator("#left .why-view")
            expect(view).to_contain_text("The whole answer: ")
            expect(view.locator("table:visible")).to_contain_text("<b>")
            first = view.locator(".piece").first
            assert first.get_attribute("class") == "piece more level-4" and view.locator(".parts").count() == 1
            assert first.get_attribute("aria-label") == "臣: +3.90 nat"
            first.click()
            page.keyboard.press("ArrowRight")
            expect(view.locator(".piece").nth(1)).to_be_focused()
            expect(view.locator("table:visible caption")).to_have_text("妾: +3.90 nat")
            page.wait_for_timeout(400)  # transitions change colours
            assert serious(page) == {}
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0], "the page overflows"
            button.click()
            expect(view).to_have_count(0)
            page.evaluate("document.querySelectorAll('#panes .why').forEach((one) => { one.click(); one.click(); })")
            expect(page.locator("#panes .why-view")).to_have_count(2)
            expect(page.locator('#panes .why[aria-busy="true"]')).to_have_count(0)
            ask(page, "again")
            expect(footer(page, "right")).to_contain_text("seed")
            button.first.click()
            expect(view).to_have_count(0)
