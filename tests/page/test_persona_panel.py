"""Character cards on the page, in a real browser: dropped, chosen, refused, kept, and saved."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from roleplay.text import card_files, png
from roleplay.text.personas import load_persona
from roleplay.weights import layout
from tests.pages import PHONE, WIDE, Served, answered, ask, opened, serious
from tests.scripted import ScriptedEngine

pytest_plugins = ("pages",)
CARD = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {
        "name": "Mara <b>",
        "description": "{{char}} keeps the light.",
        "first_mes": "Come in, {{user}}.",
        "mes_example": "<START>\n{{user}}: Is it far?\n{{char}}: Not by boat.",
        "character_book": {"entries": [{}]},
    },
}
DROP = """([name, data]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0))], name));
  const init = { dataTransfer: transfer, bubbles: true, cancelable: true };
  const panes = document.querySelector("#panes");
  return ["dragover", "drop"].map((type) => !panes.dispatchEvent(new DragEvent(type, init)));
}"""


def drop(page: Page, name: str, data: bytes) -> list[bool]:
    """Drop a file on the panes; whether the page took each of the two events."""
    return page.evaluate(DROP, [name, base64.b64encode(data).decode()])


def open_persona(page: Page) -> None:
    page.get_by_role("button", name="Persona").click()


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page where no card may be loaded."""
    served = Served(tmp_path_factory.mktemp("closed"), ["zhenhuan"], cards=False)
    yield served
    served.demo.close()


def test_a_card_that_is_dropped_speaks_from_then_on(page: Page, engine: ScriptedEngine) -> None:
    data = card_files.write_png(CARD, png.plain_picture())
    assert drop(page, "mara.png", data) == [True, True]
    expect(page.locator("#title")).to_contain_text("Mara <b>")
    expect(page.locator("#left .placeholder")).to_contain_text("Come in.")
    expect(page.get_by_test_id("toast-body")).to_contain_text("no place here for lorebook (1 entries)")
    assert page.locator("body.dropping").count() == 0
    page.get_by_role("button", name="Is it far?").click()
    expect(page.locator("#left .user.message")).to_have_count(1)
    answered(page)
    assert engine.requests[0].questions["adapter"].persona == "You are Mara <b>. Mara <b> keeps the light."
    page.reload()
    expect(page.locator("#title")).to_contain_text("Mara <b>")
    expect(page.locator("#left .user.message")).to_have_count(1)
    open_persona(page)
    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#title")).to_contain_text("甄嬛")


def test_nothing_is_touched_before_what_the_tab_kept_is_back(
    page: Page, served: Served, engine: ScriptedEngine
) -> None:
    """Here the event that brings it back is late, then fails; a card that is dropped meanwhile speaks afterwards."""
    ask(page, "first")
    number = next(number for number, fn in served.demo.fns.items() if fn.name == "restore")
    late = list[Route]()

    def wait(route: Route) -> None:
        asked = json.loads(route.request.post_data or "{}")
        late.append(route) if asked.get("fn_index") == number else route.continue_()

    page.route("**/queue/join*", wait)
    for brings in (Route.continue_, lambda route: route.fulfill(status=503, json={"detail": "no"})):
        page.reload()
        opener = page.locator("#left .example").first.bounding_box()
        while not late:
            page.wait_for_timeout(20)
        page.keyboard.type("lost")
        page.mouse.click(opener["x"] + 9, opener["y"] + 9)
        drop(page, "mara.json", json.dumps(CARD).encode())
        expect(page.locator("#title")).to_contain_text("甄嬛")
        brings(late.pop())
        expect(page.locator("#title")).to_contain_text("Mara")
        expect(page.locator("#ask textarea")).to_be_focused()
        expect(page.locator("#ask textarea")).to_have_value("")
        expect(page.locator("#left .user.message")).to_have_text(["first"] if brings is Route.continue_ else [])
    assert len(engine.requests) == 1


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("x.png", png.plain_picture(), "x.png: a picture with no character in it"),
        ("<img src=x>.png", png.SIGNATURE, "the PNG is cut off"),
        ("x.json", json.dumps({"name": "x", "system_prompt": "y" * 2001}).encode(), "2,001 characters"),
        ("x.png", bytes((5 << 20) + 1), "x.png has more than 5 MB"),
    ],
    ids=["a picture", "cut off", "too long", "too large"],
)
def test_what_is_no_card_is_refused_in_a_sentence(page: Page, name: str, data: bytes, sentence: str) -> None:
    drop(page, name, data)
    expect(page.get_by_test_id("toast-body")).to_contain_text(sentence)
    assert page.get_by_test_id("toast-body").locator("img").count() == 0
    expect(page.locator("#title")).to_contain_text("甄嬛")


def test_a_card_that_is_chosen(page: Page) -> None:
    open_persona(page)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Load a character card").click()
    file = {"name": "me.yaml", "mimeType": "text/yaml", "buffer": b"name: Ada\ncontext: Counts."}
    chooser.value.set_files(file)  # type: ignore[arg-type]
    expect(page.get_by_label("System prompt")).to_have_value("You are Ada. Counts.")


def test_the_persona_as_it_stands_is_saved_as_a_card(page: Page, served: Served, tmp_path: Path) -> None:
    picture = served.adapters / "zhenhuan" / layout.PICTURE
    picture.parent.mkdir(parents=True, exist_ok=True)
    open_persona(page)
    page.get_by_label("System prompt").fill("You are a gardener.")
    for own in (True, False):  # with a picture of the adapter, and without
        picture.write_bytes(png.plain_picture(80, 80) if own else b"nonsense")
        for kind in ("PNG", "JSON"):
            with page.expect_download() as download:
                page.get_by_role("button", name=f"Save as a card ({kind})").click()
            assert download.value.suggested_filename == f"甄嬛_Zhen_Huan.{kind.lower()}"
            path = tmp_path / f"card.{kind.lower()}"
            download.value.save_as(path)
            persona = load_persona(path)
            assert (persona.name, persona.system_prompt) == ("甄嬛 · Zhen Huan", "You are a gardener.")
        assert ((80).to_bytes(4, "big") in (tmp_path / "card.png").read_bytes()[:24]) is own


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_a_long_name_and_greeting_fit_and_begin_with_their_first_words(
    browser: Browser, served: Served, engine: ScriptedEngine, size: tuple[int, int]
) -> None:
    card = {"name": "Mara of the Light " * 5, "description": "Keeps it.", "first_mes": "It goes on. " * 200}
    with opened(browser, served.url, size) as page:
        assert drop(page, "mara.json", json.dumps(card).encode()) == [True, True]
        expect(page.locator("#title")).to_contain_text("Mara of the Light")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        pane = page.locator("#left [role=log]").bounding_box()
        text = page.locator("#left .placeholder p").first.bounding_box()
        assert pane and text and text["y"] >= pane["y"]


def test_where_cards_are_closed_nothing_takes_one(browser: Browser, closed: Served) -> None:
    with opened(browser, closed.url) as page:
        assert drop(page, "x.json", json.dumps(CARD).encode()) == [False, False]
        open_persona(page)
        expect(page.get_by_role("button", name="Save as a card (PNG)")).to_be_visible()
        assert page.get_by_role("button", name="Load a character card").count() == 0
        assert "load_card" not in {fn.name for fn in closed.demo.fns.values()}


def test_a_visitor_sees_nothing_of_cards_until_the_persona_is_opened(
    browser: Browser, served: Served, engine: ScriptedEngine
) -> None:
    with opened(browser, served.url, PHONE) as page:
        assert page.get_by_role("button", name="card").count() == 0
        open_persona(page)
        expect(page.get_by_role("button", name="card")).to_have_count(3)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        assert serious(page) == {}
