"""The page's controls in a real browser: layout, languages, dark, a phone, keyboard, menus, exports, votes."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from roleplay.engine.protocol import ADAPTER, BASE
from roleplay.results.votes import read_votes
from roleplay.text import personas
from roleplay.text.known import known
from roleplay.text.personas import Persona
from roleplay.text.retrieval import Retriever
from roleplay.text.rows import Row, read_rows
from tests.pages import PHONE, WIDE, Served, answered, ask, bots, footer, opened, serious
from tests.scripted import REPLIES, ScriptedEngine

pytest_plugins = ("pages",)
OTHER = Persona("Physician", "You are the court physician.", "Sit down.", ("Is it serious?",))


def test_one_composer_spans_two_equal_panes(page: Page) -> None:
    ask(page, "长" * 600 + " " + "a" * 600)
    for size in (WIDE, PHONE):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        left, right, composer = (page.locator(f"#{name}").bounding_box() for name in ("left", "right", "composer"))
        assert left
        assert right
        assert composer
        assert abs(left["height"] - right["height"]) < 1
        assert abs(left["width"] - right["width"]) < 1
        assert abs(composer["x"] - left["x"]) < 1
        assert abs(composer["x"] + composer["width"] - right["x"] - right["width"]) < 1
        assert composer["y"] + composer["height"] <= size[1], "the composer is out of reach"
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], "the page overflows"
        assert page.evaluate(
            "[...document.querySelectorAll('#panes [role=log]')].every(e => e.scrollWidth <= e.clientWidth)"
        )


def test_turns_stay_level(page: Page) -> None:
    for text in ("one", "two " * 60, "three"):
        ask(page, text)
    rows = "[...document.querySelectorAll(`#${id} .message-row`)]"
    tops = f"id => {rows}.map(row => Math.round(row.getBoundingClientRect().top))"
    page.wait_for_function(f"(({tops})('left')).join() === (({tops})('right')).join()")
    page.locator("#right [role=log]").hover()
    page.mouse.wheel(0, -3000)
    page.wait_for_function("document.querySelector('#left [role=log]').scrollTop === 0")


def test_a_long_answer_does_not_hide_the_short_one_beside_it(page: Page, engine: ScriptedEngine) -> None:
    ask(page, "first")
    engine.replies[BASE] = "It goes on and on. " * 400
    ask(page, "second")
    expect(bots(page, "left").last).to_be_in_viewport()
    expect(page.locator("#left .user.message").last).to_be_in_viewport()
    expect(bots(page, "right").last).to_be_in_viewport()


def test_openers_persona_and_sampling_reach_the_engine(page: Page, engine: ScriptedEngine) -> None:
    page.get_by_role("button", name=personas.default().openers[0]).click()
    expect(bots(page, "right")).to_contain_text(REPLIES[BASE].format(user=personas.default().openers[0]))
    answered(page)
    assert {q.persona for q in engine.requests[0].questions.values()} == {personas.default().system_prompt}
    page.get_by_role("button", name="Base model, untuned").click()
    page.get_by_label("nothing", exact=True).check()
    page.get_by_role("button", name="Persona").click()
    page.get_by_label("System prompt").fill("You are a gardener.")
    page.get_by_role("button", name="Sampling").click()
    penalty = page.get_by_label("number input for Frequency penalty")
    penalty.fill("1.2")
    penalty.press("Tab")
    page.get_by_role("button", name="Steady").click()
    expect(page.get_by_label("number input for Temperature")).to_have_value("0.3")
    expect(penalty).to_have_value("0.3")
    expect(page.get_by_role("textbox", name="Seed")).to_have_value("")
    penalty.fill("0.55")
    penalty.press("Tab")
    page.get_by_role("textbox", name="Seed").fill("42")
    ask(page, "and now?")
    request = engine.requests[1]
    assert request.questions[ADAPTER].persona == "You are a gardener."
    assert request.questions[BASE].persona == ""
    assert (request.sampling.temperature, request.sampling.top_k, request.sampling.seed) == (0.3, 20, 42)
    assert request.sampling.frequency_penalty == 0.55
    expect(footer(page, "right")).to_contain_text("seed 42")
    page.get_by_role("button", name="Reset").first.click()
    expect(page.get_by_label("System prompt")).to_have_value(personas.default().system_prompt)
    page.get_by_role("textbox", name="Seed").fill("")
    ask(page, "once more")
    assert engine.requests[2].sampling.seed not in (0, 42)
    page.get_by_role("textbox", name="Seed").fill("abc")
    ask(page, "and with this?", wait=False)
    expect(footer(page, "left")).to_contain_text("seed is 'abc'; choose a number from 0 to")
    expect(footer(page, "right")).to_contain_text("seed is 'abc'; choose a number from 0 to")
    page.get_by_role("textbox", name="Seed").fill("5")
    ask(page, "and now?")
    assert engine.requests[3].sampling.seed == 5


def test_training_rows_as_examples_for_the_base_model(browser: Browser, tmp_path: Path) -> None:
    retriever = Retriever(known([Row((("夜深了", "该歇息了。"),)), Row((("今夜雪大", "且看雪。"),))]))
    served = Served(tmp_path, ["one", "two"], retrievers={"one": retriever})
    with opened(browser, served.url) as page:
        page.get_by_role("button", name="Base model, untuned").click()
        page.get_by_label("nearest training rows").check()
        ask(page, "今夜冷么")
        questions = served.engine.requests[0].questions
        assert questions[BASE].turns == tuple(retriever.examples("今夜冷么")) != ()
        assert (questions[ADAPTER].turns, questions[BASE].persona) == ((), personas.default().system_prompt)
        expect(footer(page, "right")).to_contain_text("with training rows as examples")
        expect(footer(page, "left")).not_to_contain_text("examples")
        page.reload()
        page.get_by_role("button", name="Base model, untuned").click()
        expect(page.get_by_label("nearest training rows")).to_be_checked()
        page.get_by_label("Adapter", exact=True).click()
        page.get_by_role("option", name="two").click()
        expect(page.get_by_label("nearest training rows")).to_have_count(0)
        ask(page, "再问")
        assert served.engine.requests[1].questions[BASE].turns[0][0] == "今夜冷么"
    served.demo.close()


def test_exports(page: Page, tmp_path: Path) -> None:
    ask(page, "first")
    ask(page, "second")
    page.get_by_role("button", name="Keep").click()
    for button, name in (("Save as Markdown", "conversation.md"), ("Save as training rows", "conversation.json")):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)
    turns = tuple((user, REPLIES[ADAPTER].format(user=user)) for user in ("first", "second"))
    assert read_rows(tmp_path / "conversation.json")[0][0].turns == turns
    assert REPLIES[BASE].format(user="second") in (tmp_path / "conversation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("locale", "send", "persona", "unit"), [("en-GB", "Send", "Persona", "tok/s"), ("zh-CN", "发送", "人设", "词元/秒")]
)
def test_interface_language(
    browser: Browser, served: Served, engine: ScriptedEngine, locale: str, send: str, persona: str, unit: str
) -> None:
    with opened(browser, served.url, locale=locale) as page:
        expect(page.get_by_role("button", name=persona)).to_be_visible()
        page.locator("#ask textarea").fill("hello")
        page.get_by_role("button", name=send).click()
        expect(footer(page, "left")).to_contain_text(unit)
        answered(page)


def test_markup_is_shown_as_text(page: Page, engine: ScriptedEngine) -> None:
    hostile = (
        "<script>window.hit=1</script><img src=x onerror='window.hit=1'><b>bold</b> &lt;i&gt; **stars** `code` "
        "| a | b | <svg onload='window.hit=1'> $$x$$ شعر 🦚 [link](javascript:window.hit=1)"
    )
    engine.replies = {ADAPTER: hostile, BASE: hostile}
    ask(page, hostile)
    for message in (page.locator("#left .user.message"), bots(page, "left"), bots(page, "right")):
        assert hostile in message.inner_text().replace("\N{WORD JOINER}", "")
        assert message.locator("b, img, script, i, code, table, a, strong, .md svg").count() == 0
    assert page.evaluate("window.hit") is None


def test_keyboard_alone(page: Page, engine: ScriptedEngine) -> None:
    page.locator("#ask textarea").focus()
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    expect(bots(page, "right")).to_contain_text(REPLIES[BASE].format(user="by keyboard"))
    expect(page.locator("#ask textarea")).to_be_focused()
    wanted = {
        "Send",
        "Retry",
        "Undo",
        "Edit",
        "Clear",
        "Copy message",
        "Persona",
        "Sampling",
        "Keep",
        "Compare",
        "Blind",
    }
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(e => e.ariaLabel || e.closest('label')?.innerText || e.innerText || '')(document.activeElement)"
            )
        )
    missing = {name for name in wanted if not any(text.startswith(name) for text in reached)}
    assert not missing


def test_blind_vote(page: Page, served: Served, engine: ScriptedEngine) -> None:
    page.get_by_label("Blind").check()
    expect(page.locator("#left")).to_contain_text("Answer A")
    expect(page.locator("#panes")).not_to_contain_text("Fine-tuned")
    ask(page, "who are you?")
    expect(footer(page, "left")).to_contain_text("Vote below")
    expect(page.locator("#ballot")).to_contain_text("goes to whoever runs this page, with the whole conversation")
    page.get_by_role("button", name="A is better").click()
    expect(page.locator("#ballot")).to_be_hidden()
    expect(footer(page, "left")).to_contain_text("seed")
    *_, vote = read_votes(served.votes / "votes.jsonl")
    shown = {"adapter": "Fine-tuned adapter", "base": "Base model, untuned"}
    assert (vote.choice, vote.winner) == ("left", vote.order[0])
    assert vote.texts == {side: REPLIES[side].format(user="who are you?") for side in (ADAPTER, BASE)}
    for side, key in zip(("left", "right"), vote.order, strict=True):
        expect(footer(page, side)).to_contain_text(shown[key])
        expect(bots(page, side)).to_contain_text(vote.texts[key])
    page.get_by_role("tab", name="Scoreboard").click()
    expect(page.locator("#board")).to_contain_text("Not yet conclusive")
    page.get_by_role("tab", name="Chat").click()
    page.get_by_label("Blind", exact=True).uncheck()
    expect(bots(page, "left")).to_contain_text(REPLIES[ADAPTER].format(user="who are you?"))
    expect(page.locator("#left")).to_contain_text("Fine-tuned adapter")


def test_what_becomes_of_a_vote_is_said_in_chinese_too(
    browser: Browser, served: Served, engine: ScriptedEngine
) -> None:
    with opened(browser, served.url, PHONE, locale="zh-CN") as page:
        page.get_by_label("盲测").check()
        ask(page, "hello")
        expect(page.locator("#ballot")).to_contain_text("投票会连同整段对话交给此页面的运营者")


def test_blind_the_composer_does_not_tell_who_has_answered(page: Page, engine: ScriptedEngine) -> None:
    engine.replies = {ADAPTER: "Yes.", BASE: "word " * 400}
    page.get_by_role("button", name="Sampling").click()
    length = page.get_by_label("number input for Length of the base model")
    length.fill("32")
    length.press("Tab")
    expect(page.get_by_label("range slider for Length of the base model")).to_have_value("32")
    page.get_by_label("Blind", exact=True).check()
    expect(page.locator("#left")).to_contain_text("Answer A")
    ask(page, "hold on", wait=False)
    expect(page.locator("#panes")).to_contain_text("Vote below")
    expect(page.locator("#ask textarea")).to_be_disabled()
    engine.gate.set()
    answered(page)
    for side in ("left", "right"):
        expect(footer(page, side)).to_contain_text("both may take 32 tokens")
    sampling = engine.requests[0].sampling
    assert sampling.of(ADAPTER).max_new_tokens == sampling.of(BASE).max_new_tokens == 32
    page.get_by_label("Blind", exact=True).uncheck()
    ask(page, "and now?")
    sampling = engine.requests[1].sampling
    assert (sampling.of(ADAPTER).max_new_tokens, sampling.of(BASE).max_new_tokens) == (256, 32)


def test_blind_answer_is_never_shown_under_a_label(page: Page, engine: ScriptedEngine) -> None:
    page.get_by_label("Blind").check()
    expect(page.locator("#left")).to_contain_text("Answer A")
    ask(page, "hold on", wait=False)
    expect(bots(page, "left")).to_contain_text("Writing")
    expect(page.get_by_label("Blind")).to_be_disabled()
    expect(page.get_by_label("Compare with")).to_be_disabled()
    engine.gate.set()
    answered(page)
    page.get_by_label("Blind").uncheck()
    expect(page.locator("#ballot")).to_be_hidden()
    expect(bots(page, "left")).to_contain_text(REPLIES[ADAPTER].format(user="hold on"))


@pytest.mark.parametrize(("size", "dark"), [(WIDE, False), (PHONE, True)])
def test_accessibility(
    browser: Browser, served: Served, engine: ScriptedEngine, size: tuple[int, int], dark: bool
) -> None:
    with opened(browser, served.url, size, dark) as page:
        assert serious(page) == {}
        page.get_by_label("Blind").check()
        ask(page, "first")
        for name in ("Persona", "Sampling", "Keep"):
            page.get_by_role("button", name=name).click()
        page.get_by_role("textbox", name="Seed").wait_for()
        ask(page, "x" * 2001, wait=False)
        expect(page.locator("#ask")).to_contain_text("2,001")
        page.wait_for_timeout(400)  # transitions change colours
        assert serious(page) == {}


def test_every_adapter_brings_its_persona(browser: Browser, tmp_path: Path) -> None:
    served = Served(tmp_path, ["one", "two"], {"one": personas.default(), "two": OTHER})
    with opened(browser, served.url) as page:
        expect(page.locator("#title")).to_contain_text(personas.default().name)
        expect(page.locator("#left")).to_contain_text(personas.default().greeting)
        page.get_by_label("Adapter", exact=True).click()
        page.get_by_role("option", name="two").click()
        expect(page.locator("#title")).to_contain_text(OTHER.name)
        expect(page.locator("#left")).to_contain_text(OTHER.greeting)
        page.get_by_role("button", name="Persona").click()
        expect(page.get_by_label("System prompt")).to_have_value(OTHER.system_prompt)
        page.get_by_role("button", name=OTHER.openers[0]).click()
        expect(bots(page, "right")).to_contain_text(REPLIES[BASE].format(user=OTHER.openers[0]))
        answered(page)
        assert served.engine.requests[0].adapter == "two"
        assert served.engine.requests[0].questions[ADAPTER].persona == OTHER.system_prompt
        page.get_by_label("System prompt").fill("You are a gardener.")
        page.get_by_role("button", name="Reset").click()
        expect(page.get_by_label("System prompt")).to_have_value(OTHER.system_prompt)
        page.reload()  # the menu is back at the first adapter, and so is whoever speaks
        expect(bots(page, "left")).to_be_visible()
        expect(page.locator("#title")).to_contain_text(personas.default().name)
        page.get_by_role("button", name="Persona").click()
        expect(page.get_by_label("System prompt")).to_have_value(personas.default().system_prompt)
    served.demo.close()


def test_openers_come_with_the_second_adapter(browser: Browser, tmp_path: Path) -> None:
    served = Served(tmp_path, ["one", "two"], {"one": Persona("Mute", "Say nothing."), "two": OTHER})
    page = browser.new_page()
    page.goto(served.url)
    page.get_by_label("Adapter", exact=True).click()
    assert page.locator("#left .example").count() == 0
    page.get_by_role("option", name="two").click()
    page.get_by_role("button", name=OTHER.openers[0]).click()
    expect(bots(page, "right")).to_contain_text(REPLIES[BASE].format(user=OTHER.openers[0]))
    answered(page)
    assert served.engine.requests[0].questions[ADAPTER].persona == OTHER.system_prompt
    page.close()
    served.demo.close()


def test_a_strangers_persona_is_shown_as_text(browser: Browser, tmp_path: Path) -> None:
    hostile = "<img src=x onerror='window.hit=1'> ![x](https://example.com/x.png) **stars** www.example.com"
    served = Served(tmp_path, ["one"], {"one": Persona(hostile, "You are kind.", hostile, (hostile,))})
    with opened(browser, served.url) as page:
        assert page.locator("h1").inner_text().endswith(hostile)
        assert page.locator("#left .placeholder").inner_text() == hostile
        assert page.locator("#left .example").inner_text().strip() == hostile
        assert page.locator("#title img, #left img, #left strong, #left a").count() == 0
        assert page.evaluate("window.hit") is None
    served.demo.close()


def test_without_an_adapter_only_the_base_model_speaks(browser: Browser, tmp_path: Path) -> None:
    served = Served(tmp_path, [])
    with opened(browser, served.url) as page:
        expect(page.locator("#left")).to_contain_text("there is no adapter yet")
        ask(page, "hello")
        expect(bots(page, "left")).to_contain_text(REPLIES[BASE].format(user="hello"))
        assert set(served.engine.requests[0].questions) == {BASE}
    served.demo.close()
