"""Try to break the page: hostile texts through the prompt, the HTTP interface and a real browser.

    python -m benchmarks.fuzz --messages 20000 --json runs/fuzz.json

Three layers. The prompt encoder reads every message as persona, user and reply; no control token may come of it and no
text be lost. The page, on a tiny model in a process of its own, gets wrong types, missing fields, huge bodies and
foreign sessions on every route and event; it may refuse, but neither fail, nor show how it is built, nor end. Chromium
sends markup and gets it back as both replies; nothing of it may run, load or be rendered. Prints a table of counts, all
of which have to be 0, and ends with status 1 if one is not.
"""

import itertools
import re
import sys
import time
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmarks import fuzz_http
from benchmarks.hostile import MARKUP, messages
from benchmarks.report import write
from roleplay.environment import Environment
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.prompts import TEMPLATES, PromptEncoder
from roleplay.weights import base_models, embedded

TINY = "tiny"  # the tests' tokenizer of one token a byte
LONG = 2000  # characters; whether a longer text comes back whole is not looked at, for that takes long
BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 60_000  # milliseconds
# What a message's text never makes in the page: only its markup would.
ELEMENTS = ("script", "img[src*=hit]", "iframe", "video", "audio", "object", "embed", "form", "style", "link", "base")
ELEMENTS += ("meta", "math", "details", "a[href^=javascript]", "[onerror]", "[onload]", "[ontoggle]", "[onfocus]")
RENDERED = ", ".join(f".message {element}" for element in ELEMENTS)


@dataclass(frozen=True)
class Flags:
    messages: int = flag(
        20000, "texts that the prompt encoder reads; after the tokens' own, one in 4,000 has 1 MB", within=(0, inf)
    )
    requests: int = flag(3000, "requests to the page's events, after every route was tried", within=(0, inf))
    browser: bool = flag(True, "show the markup in Chromium as well")
    base_model: str = flag(embedded.NAME, f"whose tokenizer is tried: a base model, or {TINY}")
    seed: int = flag(0, "of every choice")
    json: str = flag("", "file for the counts and for what was found")


def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    if name == TINY:
        from tests import tiny  # only this choice, and the served page, need the tests' small things

        return tiny.tokenizer()
    return AutoTokenizer.from_pretrained(base_models.fetch(name, Environment().cache)[0], local_files_only=True)


def fuzz_prompt(tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> dict[str, list[str]]:
    """Texts that became a control token or came back changed, in any place of either template."""
    encoders = itertools.cycle([PromptEncoder(tokenizer, template) for template in TEMPLATES])
    control = next(encoders).control_ids
    found: dict[str, list[str]] = {"texts with a control token": [], "texts that came back changed": []}

    def controls(encoder: PromptEncoder, text: str) -> list[int]:
        ids = encoder.prompt(f"P{text}", [(f"a{text}", f"b{text}")], f"c{text}")
        return [i for i in ids if i in control]

    names = tokenizer.convert_ids_to_tokens(sorted(control))
    for text, encoder in zip(messages(names, count, seed), encoders, strict=False):
        if controls(encoder, text) != controls(encoder, ""):
            found["texts with a control token"].append(text[:LONG])
        clean = text.encode("utf-8", "replace").decode().replace("▁", " ")  # one and the same to Gemma's tokenizer
        if len(text) <= LONG and tokenizer.decode(encoder.encode(text)).replace("▁", " ") != clean:
            found["texts that came back changed"].append(text)
    return found


def fuzz_page(count: int, seed: int) -> tuple[int, dict[str, list[str]]]:
    """Requests sent, and what was wrong."""
    texts = itertools.cycle(messages(["<bos>", "<end_of_turn>"], 1000, seed))
    with fuzz_http.served(echo=False) as page:
        prober = fuzz_http.fuzz(page, count, texts, seed)
        alive = page.process.is_alive() and fuzz_http.answers(page.url)
    return prober.sent, {
        "answers with Python's own words": prober.told,
        "answers with a server error": prober.failed,
        "restarts": [] if alive else ["the page did not answer afterwards"],
    }


def seen(text: str) -> str:
    """What is left of a text on a screen: no spaces, and nothing that has no width."""
    return re.sub(r"[\s\0\u200b\u2060]", "", text)


def fuzz_browser() -> tuple[int, dict[str, list[str]]]:
    """Texts shown, and what the browser did with their markup: as message, as reply on both sides, and restored."""
    from playwright.sync_api import sync_playwright  # a development requirement: --no-browser does without

    ran, loaded, rendered = list[str](), list[str](), list[str]()
    with fuzz_http.served(echo=True) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=BROWSER)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.expose_function("hit", lambda *_: ran.append("hit() was called"))
        page.on("dialog", lambda dialog: (ran.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("framenavigated", lambda frame: frame.url.startswith(served.url) or ran.append(f"went to {frame.url}"))
        page.on("request", lambda request: "hit" in request.url and loaded.append(request.url))

        def look(number: int) -> None:
            """The message of that number and both replies to it are there, as text and as nothing else."""
            places = "#left .user.message", "#right .user.message", "#left .bot.message", "#right .bot.message"
            for shown in places:
                page.locator(f"{shown}:not(.pending)").nth(number).wait_for()
            page.locator("#ask .submit-button").wait_for()  # only now: a slow page has it until the answer begins
            page.wait_for_function("!document.querySelector('#ask textarea').disabled")
            for shown in places:
                text = page.locator(shown).nth(number).inner_text()
                if seen(MARKUP[number]) not in seen(text):
                    rendered.append(f"{shown} {MARKUP[number]!r} reads {text!r}")
            rendered.extend(
                page.locator(RENDERED).evaluate_all("found => found.map(one => one.outerHTML.slice(0, 200))")
            )

        page.goto(served.url)
        for number, text in enumerate(MARKUP):
            page.locator("#ask textarea").fill(text)
            page.locator("#ask textarea").press("Enter")
            look(number)
        page.reload()
        for number in range(len(MARKUP)):
            look(number)
        page.wait_for_timeout(2000)  # what was started late
        browser.close()
    return len(MARKUP), {
        "markup executed in the browser": ran,
        "requests that markup made": loaded,
        "markup rendered or not shown": rendered,
    }


def main() -> int:
    flags, started = parse(Flags, __doc__), time.monotonic()
    found = fuzz_prompt(tokenizer_of(flags.base_model), flags.messages, flags.seed)
    print(f"{flags.messages:,} texts through the prompt, {time.monotonic() - started:.0f} s", flush=True)
    tried: dict[str, Any] = {"texts": flags.messages}
    tried["requests"], more = fuzz_page(flags.requests, flags.seed)
    found |= more
    print(f"{tried['requests']:,} requests to the page, {time.monotonic() - started:.0f} s", flush=True)
    if flags.browser:
        tried["markup"], more = fuzz_browser()
        found |= more
        print(f"{tried['markup']} kinds of markup in Chromium, {time.monotonic() - started:.0f} s", flush=True)
    for name, which in found.items():
        print(f"{name:<36} {len(which):>6}", *(f"  {one[:300]!r}" for one in which[:3]), sep="\n" if which else "")
    if flags.json:
        report = {"settings": asdict(flags), "tried": tried, "found": found}
        report["counts"] = {name: len(which) for name, which in found.items()}
        write(report, flags.json)
    return int(any(found.values()))


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
