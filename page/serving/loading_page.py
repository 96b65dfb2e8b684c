"""What a browser sees while the model loads: one sentence on the stage, served before there is a page.

It needs the standard library alone. The browser asks again every second and, once the page has taken the server's
place, opens it by itself. Nothing here knows what is loaded.
"""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

from page.words import WORDS, language
from roleplay.environment import ROOT
from roleplay.errors import RoleplayError


class Tell(Protocol):
    """Is given the stage that begins, the end of a `stage_` key in page.words, how much of it is done where that is
    known (0 to 1), and what stands in that text."""

    def __call__(self, stage: str, share: float | None = None, /, **detail: str) -> None: ...


def say_nothing(stage: str, share: float | None = None, /, **detail: str) -> None:
    """A `Tell` where nobody looks."""


LAST_LOOK = 2.5  # seconds in which an open browser learns why nothing comes

PAGE = """<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{css}</style></head>
<body id="loading"><main><h1>{title}</h1><p role="status">{sentence}</p><progress hidden></progress></main>
<script>
document.body.classList.toggle("dark", matchMedia("(prefers-color-scheme: dark)").matches);
setInterval(async () => {{
  const answer = await fetch("?stage", {{ cache: "no-store" }}).catch(() => null);
  if (!answer?.ok) return; // the one server has closed, the other is about to open
  if (!answer.headers.get("content-type").startsWith("text/plain")) return location.reload();
  const bar = document.querySelector("progress"), share = answer.headers.get("share-done");
  bar.hidden = share === null;
  bar.value = share ?? 0;
  document.querySelector("p").textContent = await answer.text();
}}, 1000);
</script></body></html>
"""


class _Server(ThreadingHTTPServer):
    """Holds the stage as it was told, what went wrong, and whether anybody looks."""

    now: tuple[str, float | None, Mapping[str, str]] = ("start", None, {})  # replaced whole: requests read it meanwhile
    failure, watched = "", False

    def sentence(self, language: str) -> str:
        words, (stage, _, detail) = WORDS[language], self.now
        return words["failed"].format(error=self.failure) if self.failure else words[f"stage_{stage}"].format(**detail)


class _Server6(_Server):
    """The same at an IPv6 address."""

    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        wanted = language(self.headers.get("accept-language"))
        kind, text = "text/plain", self.server.sentence(wanted)
        if not self.path.endswith("?stage"):
            css = (ROOT / "assets" / "page.css").read_text(encoding="utf-8")
            title = WORDS[wanted]["loading"]
            kind, text = "text/html", PAGE.format(language=wanted, title=title, css=css, sentence=escape(text))
        self.server.watched, body = True, text.encode()
        self.send_response(200 if self.path.partition("?")[0] == "/" else 503)  # a client of the API has to wait
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if self.server.now[1] is not None:
            self.send_header("Share-Done", f"{self.server.now[1]:.3f}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """A line for every look would hide the lines that matter."""


@contextmanager
def loading(host: str, port: int) -> Iterator[Tell]:
    """Serve the stage at `host`:`port` until the block ends; yields the function that says which stage begins.

    A `RoleplayError` of the block is shown before it goes on. Raises one itself when the address cannot be had.
    """
    try:
        server = (_Server6 if ":" in host else _Server)((host, port), _Handler)
    except OSError as error:
        raise RoleplayError(f"{host}:{port} cannot be served ({error.strerror}): set PORT or HOST") from error
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def tell(stage: str, share: float | None = None, /, **detail: str) -> None:
        server.now = stage, share, detail

    try:
        yield tell
    except RoleplayError as error:
        server.failure = str(error)
        time.sleep(LAST_LOOK if server.watched else 0)
        raise
    finally:
        server.shutdown()
        server.server_close()
