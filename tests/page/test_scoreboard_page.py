"""The Scoreboard tab in a real browser: figures, verdicts, pictures and votes of the chosen adapter."""

import html
import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from page.flips_view import flips_html
from page.scoreboard_tab import scoreboard_html
from page.training_curve import curve_html
from roleplay.results.board import BARE_BASE, BASE_WITH_PERSONA, TUNED
from roleplay.weights import layout
from tests.pages import PHONE, WIDE, Served, ask, opened, serious
from train.measuring.figures import Board
from train.measuring.flips import Outcome, flips
from train.publishing import plots

pytest_plugins = ("pages",)
CLUSTERS = range(40)
LIGHT = ["rgb(154, 122, 53)", "rgb(158, 47, 38)", "rgb(158, 47, 38)"]  # gold, then vermilion and its dots
DARK = ["rgb(205, 170, 103)", "rgb(224, 124, 106)", "rgb(224, 124, 106)"]
CHECKED = {"good": 20, "false_alarms": 1, "broken": 20, "missed": 2, "blamed": 3, "references": 137}

ANSWERED = {
    BARE_BASE: (False, False, False),
    BASE_WITH_PERSONA: (False, True, True),
    TUNED: (True, False, True),
}


def make_board(folder: Path) -> None:
    """Write an adapter folder with a scoreboard and both plots, from figures made up here."""
    board = Board()
    for name, base, adapter in (("held-out loss", 5.7, 4.2), ("tokens", 64.0, 21.0), ("chrF", 4.0, 9.0)):
        values = {BARE_BASE: base, BASE_WITH_PERSONA: base + 0.1, TUNED: adapter}
        board.compare(name, {arm: [mean + i / 50 for i in CLUSTERS] for arm, mean in values.items()}, CLUSTERS)
    for name in ("stop rate", "copied", "identity", "in character"):
        values = {BARE_BASE: 10, BASE_WITH_PERSONA: 11, TUNED: 2 if name == "copied" else 38}
        board.compare(name, {arm: [float(i < hits) for i in CLUSTERS] for arm, hits in values.items()}, CLUSTERS)
    folder.mkdir(parents=True)
    items = {arm: [Outcome(right, f"{arm} says") for right in rights] for arm, rights in ANSWERED.items()}
    for arm in (BARE_BASE, BASE_WITH_PERSONA):
        board.flips[arm] = {"identity": flips(["Who are <b>you</b>?", "你是谁", "Both?"], items, arm)}
    written = board.as_json() | {"rules": CHECKED, "held_out": {"rows": 8, "groups": 6}}
    (folder / layout.BOARD).write_text(json.dumps(written), encoding="utf-8")
    plots.scoreboard(written, folder / layout.BOARD_PLOT)
    log = [{"step": 0, "eval_loss": 5.6}, *({"step": n, "loss": 5.7 - n / 1000} for n in range(1, 1001))]
    training = {"results": {"log": [*log, {"step": 1000, "eval_loss": 4.9}]}}
    (folder / layout.TRAINING).write_text(json.dumps(training), encoding="utf-8")


@pytest.fixture(scope="module")
def measured(served: Served) -> Served:
    make_board(served.adapters / "zhenhuan")
    return served


def show(page: Page, name: str = "Scoreboard") -> None:
    page.get_by_role("tab", name=name).click()
    page.locator("#board h2").first.wait_for()


@pytest.mark.parametrize(("size", "dark"), [(WIDE, True), (PHONE, False)])
def test_figures_verdicts_and_pictures(browser: Browser, measured: Served, size: tuple[int, int], dark: bool) -> None:
    with opened(browser, measured.url, size, dark) as page:
        show(page)
        verdict = page.locator("#board .verdict")
        expect(verdict).to_contain_text("clearly better at 6 of 6 measures; clearly worse at: nothing. Of the items")
        expect(verdict).to_contain_text("1 are the adapter's and 1 the base model's. What it has forgotten was not")
        line = page.locator("#board .measure").filter(has_text="stop rate").locator(".line")
        expect(line).to_contain_text(["adapter95% (", "base + persona28% ("])
        expect(page.get_by_role("row")).to_have_count(0)
        page.get_by_text("All figures").click()
        row = page.get_by_role("row").filter(has_text="stop rate")
        expect(row.get_by_role("cell")).to_contain_text(["95% (", "25% (", "28% ("])
        expect(row).to_contain_text("Replies that end by themselves")
        expect(page.locator("#board")).to_contain_text(
            "The adapter against base: better: held-out loss, stop rate, chrF"
        )
        expect(page.locator("#board")).to_contain_text("The rules blame 1 of 20 good replies")
        expect(page.locator("#board")).to_contain_text("No votes yet")
        expect(page.locator("#board")).to_contain_text("Not measured: choice, facts, recall")
        expect(page.locator("#board")).to_contain_text("Only 8 rows of 6 scenes were held out")
        curve = page.get_by_role("img", name="held-out rows: from 5.60 to 4.90")
        expect(curve).to_be_visible()
        strokes = curve.locator("path").evaluate_all("paths => paths.map((path) => getComputedStyle(path).stroke)")
        assert strokes == (DARK if dark else LIGHT) and curve.bounding_box()["width"] > 200
        expect(page.locator("#board .axes")).to_have_text("5.704.70" + "01,000 updates")
        assert page.locator("#board img").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], "the page overflows"
        page.wait_for_timeout(400)  # transitions change colours
        assert serious(page) == {}


def test_what_was_won_and_lost_is_filtered_and_asked_again(browser: Browser, measured: Served) -> None:
    with opened(browser, measured.url) as page:
        show(page)
        page.get_by_text("identity: 1 won, 1 lost").click()
        expect(page.locator("#board article:visible")).to_have_count(2)
        page.wait_for_timeout(400)  # transitions change colours
        assert serious(page) == {}
        page.get_by_label("Which items").select_option("lost")
        expect(page.locator("#board article:visible")).to_contain_text(["你是谁"])
        page.get_by_label("Which items").select_option("all")
        page.get_by_label("Opponent").select_option("against base")
        page.get_by_text("identity: 2 won, 0 lost").click()
        expect(page.locator("#board article:visible dd")).to_have_text(["adapter says", "base says"] * 2)
        page.get_by_label("Opponent").select_option("against base + persona")
        page.get_by_label("Find words in them").fill("YOU")
        item = page.locator("#board article:visible")
        expect(item).to_contain_text(["Who are <b>you</b>?"])
        expect(item.locator("dd")).to_have_text(["adapter says", "base + persona says"])
        item.get_by_role("button", name="Ask this in the chat").click()
        expect(page.locator("#ask textarea")).to_have_value("Who are <b>you</b>?")
        expect(page.locator("#ask textarea")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#left .user.message")).to_contain_text("Who are")


def test_in_chinese_and_back_to_the_chat(browser: Browser, measured: Served) -> None:
    with opened(browser, measured.url, locale="zh-CN") as page:
        show(page, "成绩单")
        expect(page.locator("#board")).to_contain_text("95%（")
        expect(page.locator("#board")).to_contain_text("适配器与“基座”相比，更好：留出损失、自行收尾")
        page.get_by_role("tab", name="对话").click()
        ask(page, "你好")
        expect(page.locator("#left .bot.message")).to_be_visible()


def test_the_chosen_adapter_and_one_without_a_scoreboard(browser: Browser, tmp_path: Path) -> None:
    served = Served(tmp_path, ["one", "two"])
    make_board(served.adapters / "two")
    with opened(browser, served.url) as page:
        show(page)
        expect(page.locator("#board")).to_contain_text("one has not been measured yet")
        expect(page.locator("#board code")).to_have_text("python -m train.evaluate --adapter adapters/one")
        assert page.locator("#board img, #board table").count() == 0
        page.get_by_label("Adapter", exact=True).click()
        page.get_by_role("option", name="two").click()
        expect(page.locator("#board .plot").first).to_be_visible()
    served.demo.close()


def test_an_item_of_several_messages_says_how_to_ask_it_again() -> None:
    items = {arm: [Outcome(right, "says")] for arm, right in ((TUNED, True), (BASE_WITH_PERSONA, False))}
    for asked, told in (
        ("I sail on Friday. / When do I sail?", "one after the other"),
        ("who?", "Ask this in the chat"),
    ):
        html_ = flips_html({"flips": {"recall": flips([asked], items, BASE_WITH_PERSONA)}}, "en")
        assert told in html_ and ("<button" in html_) is (asked == "who?")


def test_a_guest_whose_folder_is_gone(tmp_path: Path) -> None:
    shown = scoreboard_html("you/<b>poet", tmp_path / "guest-x", "No votes yet", "en")
    assert "<h2>you/&lt;b&gt;poet</h2>" in shown and "guest-x" not in shown
    shown = scoreboard_html("you/poet", tmp_path / "guest-x", "No votes yet", "en")
    command = "hf download you/poet --local-dir adapters/poet && python -m train.evaluate --adapter adapters/poet"
    assert html.escape(command) in shown


def test_a_strangers_files_do_no_harm(browser: Browser, tmp_path: Path) -> None:
    served = Served(tmp_path, ["zhenhuan"])
    make_board(served.adapters / "zhenhuan")
    path = served.adapters / "zhenhuan" / layout.BOARD
    hostile = "<img src=x onerror='window.hit=1'>"
    path.write_text(path.read_text().replace('"base"', json.dumps(hostile)))
    training = {"results": {"log": [{"step": 1, "loss": hostile}, {"step": hostile, "loss": 1}]}}
    (served.adapters / "zhenhuan" / layout.TRAINING).write_text(json.dumps(training))
    with opened(browser, served.url) as page:
        show(page)
        expect(page.locator("#board")).to_contain_text("not a scoreboard")
        assert page.locator("#board :is(img, svg)").count() == 0
        assert page.evaluate("window.hit") is None
    served.demo.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"results": {"log": [3]}}',
        '{"results": {"log": [{"step": 1, "loss": NaN}, {"step": 2, "loss": 1}]}}',
    ],
)
def test_a_training_without_losses_has_no_curve(tmp_path: Path, text: str) -> None:
    (tmp_path / layout.TRAINING).write_text(text)
    assert curve_html(tmp_path / layout.TRAINING, "en") == ""


def test_the_page_serves_no_file_of_an_adapter(browser: Browser, measured: Served) -> None:
    with opened(browser, measured.url) as page:
        for name in (layout.BOARD, layout.BOARD_PLOT):
            path = measured.adapters / "zhenhuan" / name
            assert page.request.get(f"{measured.url}gradio_api/file={path}").status == 404
