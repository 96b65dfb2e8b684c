"""Any two side by side in a real browser: a pane's label opens its choice, and a shared conversation brings it back."""

import json
from pathlib import Path

from playwright.sync_api import Browser, expect

from roleplay.engine.protocol import ADAPTER, BASE, CANDIDATES, SCORE, STRENGTH, Speaker
from tests.pages import PHONE, Served, ask, bots, footer, opened, serious

pytest_plugins = ("pages",)


def test_a_label_opens_who_speaks_and_a_file_brings_it_back(browser: Browser, tmp_path: Path) -> None:
    served = Served(tmp_path, ["one", "two"])
    with opened(browser, served.url) as page:
        expect(page.get_by_label("Strength of the adapter")).to_have_count(2)  # in the choices, which are closed
        assert not page.locator(".choice").first.is_visible() and not page.locator(".choice").last.is_visible()
        label = page.get_by_role("button", name="Fine-tuned adapter")
        label.focus()
        page.keyboard.press("Enter")
        number = page.get_by_label("number input for Strength of the adapter").first
        number.fill("0.5")
        number.press("Tab")
        expect(page.get_by_role("button", name="Fine-tuned adapter, strength 0.50")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#left-choice")).to_be_hidden()
        page.get_by_role("button", name="Base model, untuned").click()
        page.get_by_label("Who answers here").click()
        page.get_by_role("option", name="two").click()
        expect(page.locator("#right-choice").get_by_text("Strength of the adapter")).to_be_visible()
        page.wait_for_timeout(400)  # transitions change colours
        assert serious(page) == {}
        ask(page, "hello")
        expect(page.locator("#right-choice")).to_be_hidden()
        request = served.engine.requests[0]
        assert (request.speaker(ADAPTER), request.speaker(BASE)) == (Speaker("one", 0.5), Speaker("two"))
        expect(footer(page, "left")).to_contain_text("Fine-tuned adapter, strength 0.50 · ")
        expect(footer(page, "right")).to_contain_text("two · ")
        page.get_by_role("button", name="Keep").click()
        with page.expect_download() as download:
            page.get_by_role("button", name="Save to share").click()
        download.value.save_as(tmp_path / "chat.json")
        assert json.loads((tmp_path / "chat.json").read_text())["kept"]["other"] == {"adapter": "two", "strength": 1}
    with opened(browser, served.url, PHONE) as page:
        page.get_by_role("button", name="Keep").click()
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Load a conversation").click()
        chooser.value.set_files(tmp_path / "chat.json")
        expect(bots(page, "right")).to_contain_text("You said: hello")
        expect(page.get_by_role("button", name="Fine-tuned adapter, strength 0.50")).to_be_visible()
        page.get_by_role("button", name="two", exact=True).click()
        expect(page.locator("#right-choice")).to_be_visible()
        page.get_by_label("Adapter", exact=True).click()
        page.get_by_role("option", name="two").click()
        expect(page.get_by_role("button", name="The same adapter", exact=True)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], "the page overflows"
    served.demo.close()


def test_what_a_server_cannot_do_is_hidden_with_the_reason(browser: Browser, tmp_path: Path) -> None:
    lacks = {STRENGTH: "no <b>strengths</b> here", SCORE: "no token probabilities", CANDIDATES: "nothing is weighed"}
    served = Served(tmp_path, ["one"], lacks=lacks)
    with opened(browser, served.url) as page:
        page.get_by_role("button", name="Fine-tuned adapter").click()
        expect(page.locator("#left-choice")).to_contain_text("no <b>strengths</b> here")
        expect(page.locator("#left-choice")).to_contain_text("no token probabilities")
        expect(page.locator("#left-choice")).not_to_contain_text("nothing is weighed")
        expect(page.get_by_label("Strength of the adapter")).to_have_count(0)
        page.get_by_role("button", name="Sampling").click()
        expect(page.get_by_text("nothing is weighed")).to_be_visible()
        expect(page.get_by_role("button", name="Steady")).to_be_visible()
        expect(page.get_by_role("button", name="Considered")).to_have_count(0)
        expect(page.get_by_label("Answers to choose the best from")).to_have_count(0)
        ask(page, "hello")
        expect(page.get_by_role("button", name="Why")).to_have_count(0)
    served.demo.close()
