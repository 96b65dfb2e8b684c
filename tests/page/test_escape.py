"""What strangers and the Hub write is text wherever the page shows it: in toasts and in the line of what is wrong."""

import ast
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from page.adapters_panel import PanelHandlers
from page.build import build, launch_options
from page.serving.rate_limit import Rate
from page.serving.start import About, Started
from page.sides_panel import SidesHandlers
from page.state import Visitor
from roleplay.engine.guests import Guests
from roleplay.environment import ROOT
from roleplay.results.votes import Box
from roleplay.text import personas
from roleplay.weights import layout
from tests import tiny
from tests.hub_server import Hub
from tests.pages import opened
from tests.scripted import ScriptedEngine

pytest_plugins = ("pages",)


@contextmanager
def counting() -> Iterator[tuple[str, list[str]]]:
    """An address on loopback, and the paths that were asked for there."""
    asked = list[str]()

    class Counter(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Counter) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


@pytest.mark.parametrize("key", ["peft_type", "<img src={url}/k>", "revision"])
def test_a_strangers_configuration_loads_nothing(
    browser: Browser, server: Hub, pristine: Path, tmp_path: Path, key: str
) -> None:
    with counting() as (url, asked):
        config = json.loads((pristine / layout.CONFIG).read_text())
        markup = f"<img src={url}/x>"
        config[key.format(url=url)] = markup if key != "revision" else [markup]
        files = {path.name: path.read_bytes() for path in pristine.iterdir()}
        server.add("models/you/poet", files | {layout.CONFIG: json.dumps(config).encode()}, private=False)
        engine = ScriptedEngine(["tiny"])
        engine.problem = lambda: f"the server answers {markup}"  # type: ignore[method-assign]
        guests = Guests(engine, tiny.BASE_NAME, tmp_path / "cache", 2, lambda _: None)  # type: ignore[arg-type]
        started = Started(engine, {"tiny": About(tmp_path / "tiny")}, guests=guests)
        demo = build(started, Box(tmp_path / "votes"))
        page_url = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1]
        with opened(browser, page_url) as page:
            expect(page.locator("#health")).to_contain_text("<img src=")
            page.locator("#adapters").get_by_role("button", name="Adapter").click()
            page.locator("#hub input").fill("you/poet")
            page.locator("#hub input").press("Enter")
            page.get_by_role("button", name="Load").click()
            expect(page.get_by_test_id("toast-body")).to_contain_text("<img src=")
            page.wait_for_timeout(500)
            assert page.get_by_test_id("toast-body").locator("img[src*='127']").count() == 0
        demo.close()
        assert asked == []


def test_toasts_are_made_in_one_place_which_escapes() -> None:
    for path in sorted((ROOT / "page").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                made = (
                    node.func.attr in ("Error", "Info", "Warning", "Success") and ast.unparse(node.func.value) == "gr"
                )
                assert not made or path.name == "toasts.py", f"{path}:{node.lineno} shows HTML that nobody escaped"


def test_an_adapters_name_is_text() -> None:
    name = "you/__b__"
    sides = SidesHandlers(ScriptedEngine([name]), {}, personas.default())
    shown = PanelHandlers(sides, None, Rate(0)).show_shift(name, Visitor("en", ""))["shift"]["value"]
    assert "__" not in shown
