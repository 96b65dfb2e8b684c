"""Take the README's screenshots from the real page, on the engine that `app.py` would start.

    python -m tests.screenshots

writes wide.png, dark.png, phone.png and blind.png to assets/screenshots/; it needs Debian's chromium.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import gradio as gr
from playwright.sync_api import Browser, Page, sync_playwright

from page.build import build, launch_options
from page.serving.start import start
from roleplay.environment import Environment
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from roleplay.results.votes import Box

QUESTIONS = {"zh-CN": ("你是谁？", "娘娘今夜为何还不歇息？"), "en-US": ("Who are you?", "Do you miss your old home?")}
SHOTS = {  # file: language, width, height, dark, blind
    "wide": ("zh-CN", 1280, 800, False, False),
    "dark": ("en-US", 1280, 800, True, False),
    "phone": ("zh-CN", 390, 844, False, False),
    "blind": ("en-US", 1280, 800, False, True),
}
PATIENCE = 300_000  # milliseconds for one answer on a busy machine


def ask(page: Page, question: str) -> None:
    """Send one message and wait for both answers."""
    before = page.locator("#left .user.message").count()
    page.locator("#ask textarea").fill(question)
    page.locator("#ask textarea").press("Enter")
    page.locator("#left .user.message").nth(before).wait_for()
    page.locator("#left .bot.message:not(.pending)").nth(before).wait_for()
    page.locator("#ask .stop-button").wait_for(state="detached")
    page.wait_for_function("!document.querySelector('#ask textarea').disabled")


def shoot(demo: gr.Blocks, folder: Path) -> list[Path]:
    """Launch the page, hold the conversations of `QUESTIONS` in it, and return the pictures written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    url, written = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1], []
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser: Browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        for name, (locale, width, height, dark, blind) in SHOTS.items():
            context = browser.new_context(
                locale=locale,
                viewport={"width": width, "height": height},
                color_scheme="dark" if dark else "light",
                device_scale_factor=2,
            )
            context.set_default_timeout(PATIENCE)
            page = context.new_page()
            page.goto(url)
            page.locator("#left .example").first.wait_for()
            page.locator("#blind input").set_checked(blind)
            page.wait_for_timeout(500)
            for question in QUESTIONS[locale]:
                ask(page, question)
            page.wait_for_timeout(500)  # the last transition
            written.append(folder / f"{name}.png")
            page.screenshot(path=written[-1])
            context.close()
        browser.close()
    demo.close()
    return written


@dataclass(frozen=True)
class Flags:
    out: str = flag("assets/screenshots", "folder for the pictures")


def main() -> None:
    flags, settings = parse(Flags, __doc__), Environment()
    started = start(settings, settings.base_model)
    demo = build(started, Box(Path(mkdtemp())))
    for path in shoot(demo, Path(flags.out)):
        print(path)


if __name__ == "__main__":
    with one_line_errors():
        main()
