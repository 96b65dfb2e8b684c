"""A page in a real browser on a scripted engine, for the tests that open one: fixtures and what they do in it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from page.build import build, launch_options
from page.serving.start import About, Started
from roleplay.results.votes import Box
from roleplay.text.personas import Persona
from roleplay.text.retrieval import Retriever
from tests.scripted import ScriptedEngine

WIDE, PHONE = (1280, 800), (390, 844)
PATIENCE = 60_000  # milliseconds; a busy machine is slow, not wrong
expect.set_options(timeout=PATIENCE)


class Served:
    """A page on a scripted engine, and a folder with its votes and its adapters."""

    def __init__(
        self,
        folder: Path,
        names: list[str],
        personas: Mapping[str, Persona] | None = None,
        retrievers: Mapping[str, Retriever] | None = None,
        cards: bool = True,
        lacks: Mapping[str, str] | None = None,
    ) -> None:
        self.engine, self.votes, self.adapters = ScriptedEngine(names), folder / "votes", folder / "adapters"
        self.engine.lacking = dict(lacks or {})
        about = {
            name: About(self.adapters / name, {}, (retrievers or {}).get(name), (personas or {}).get(name))
            for name in names
        }
        self.demo = build(Started(self.engine, about, cards=cards), Box(self.votes))
        self.url = self.demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served"), ["zhenhuan"])
    yield served
    served.demo.close()


@pytest.fixture
def engine(served: Served) -> ScriptedEngine:
    """The served engine as if new."""
    fresh = ScriptedEngine()
    served.engine.__dict__.update(fresh.__dict__ | {"names": served.engine.names})
    return served.engine


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def opened(
    browser: Browser, url: str, size: tuple[int, int] = WIDE, dark: bool = False, locale: str = "en-US"
) -> Iterator[Page]:
    """A page in a browser of its own, which asks for nothing outside and throws no error."""
    context = browser.new_context(
        locale=locale, viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
    )
    context.set_default_timeout(PATIENCE)
    page, outside, errors = context.new_page(), list[str](), list[str]()
    page.on("request", lambda r: outside.append(r.url) if not r.url.startswith((url, "blob:", "data:")) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    page.locator("#ask textarea").wait_for()
    expect(page.locator("#left .example, #left .message").first).to_be_visible()
    page.wait_for_function("window.takeCard !== undefined")  # page.js has run, which may be after the first paint
    yield page
    assert (outside, errors) == ([], [])
    context.close()


@pytest.fixture
def page(browser: Browser, served: Served, engine: ScriptedEngine) -> Iterator[Page]:
    with opened(browser, served.url) as page:
        yield page


def bots(page: Page, side: str) -> Locator:
    return page.locator(f"#{side} .bot.message:not(.pending)")


def footer(page: Page, side: str) -> Locator:
    return bots(page, side).last.locator(".message").last


def ask(page: Page, text: str, wait: bool = True) -> None:
    before = page.locator("#left .user.message").count()
    page.locator("#ask textarea").fill(text)
    page.locator("#ask textarea").press("Enter")
    if wait:
        expect(page.locator("#left .user.message")).to_have_count(before + 1)
        answered(page)


def answered(page: Page) -> None:
    """Waits until nothing is being answered."""
    expect(page.locator("#ask .stop-button")).to_have_count(0)
    expect(page.locator("#ask textarea")).to_be_enabled()


def may_go_on(page: Page) -> None:
    """Waits until the next message may be sent, though something is still being answered."""
    expect(page.locator("#ask .stop-button")).to_be_visible()
    expect(page.locator("#ask .submit-button")).to_be_visible()
    expect(page.locator("#ask textarea")).to_be_enabled()


def serious(page: Page) -> dict[str, list[str]]:
    """axe's serious and critical violations with the elements they name."""
    found = Axe().run(page).response["violations"]
    return {v["id"]: [n["html"][:160] for n in v["nodes"]] for v in found if v["impact"] in ("serious", "critical")}
