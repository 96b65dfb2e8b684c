"""What the server lets in, and what it says to a request that it cannot process: plain ASGI around the page.

`Doors` closes every address that the page does not need. `Faults` answers what fails with one sentence and nothing of
how the server is built: the page itself sends no request that ends there, and the log has a line on it.
"""

import contextlib
import json
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from roleplay.errors import first_line

MAX_BODY = 8 << 20  # bytes of one request: 200 exchanges at their longest are less
# What the page asks for. Gradio serves more: uploads, files, monitoring, calls by name, run history.
_OPEN = re.compile(
    r"/?|/(config|login|logout|theme\.css|favicon\.ico|robots\.txt|manifest\.json)/?|/(assets|static|svelte)/.+"
    r"|/gradio_api/(info|user|token|app_id|login_check|startup-events|cancel|reset|theme\.css|queue/(join|data))/?"
    r"|/gradio_api/(heartbeat/\w+|run/predict)"
)
SENTENCE = {"detail": "This request cannot be processed: it is not one that the page sends."}
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Doors:
    """Answers 404 to every address that the page does not need, and 413 to a request that is too long."""

    def __init__(self, app: Callable[..., Awaitable[None]], limit: int = MAX_BODY) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if not _OPEN.fullmatch(scope["path"]):
            return await refuse(send, 404, b"there is nothing here")
        if int(dict(scope["headers"]).get(b"content-length", b"0")) > self._limit:
            return await refuse(send, 413, b"too long")
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            # A body without a length that goes on for ever ends here, as if the client had gone.
            return message if taken <= self._limit else {"type": "http.disconnect"}

        await self._app(scope, counted, send)


async def refuse(send: Send, status: int, body: bytes, kind: bytes = b"text/plain") -> None:
    """A whole response of this content type."""
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})


class Faults:
    """Turns a crash, a 500 and a 400 into a 400 with `SENTENCE`, and lone surrogates in JSON into question marks."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = refused = False

        async def tell(message: Message) -> None:
            nonlocal started, refused
            if message["type"] == "http.response.start":
                started, refused = True, message["status"] in (400, 500)
                return await (_refuse(send) if refused else send(message))
            if not refused:
                await send(message)

        try:
            # Such a body is read whole into memory anyway; an upload is not.
            json_comes = b"json" in dict(scope["headers"]).get(b"content-type", b"")
            await self._app(scope, _encodable(receive) if json_comes else receive, tell)
        except Exception:
            log_fault()
            if not started:
                await _refuse(send)


def log_fault() -> None:
    """One line of the log on the exception that is being handled; a traceback would be as long as the sender likes."""
    if error := sys.exception():
        places = [f"{Path(place.filename).name}:{place.lineno}" for place in traceback.extract_tb(error.__traceback__)]
        print(f"fault        {type(error).__name__}: {first_line(error)!r} ({' < '.join(places[:-4:-1])})", flush=True)


async def _refuse(send: Send) -> None:
    await refuse(send, 400, json.dumps(SENTENCE).encode(), b"application/json")


def _encodable(receive: Receive) -> Receive:
    """`receive` with the whole body in its first message, and with nothing in it that no answer could repeat."""

    async def whole() -> Message:
        message = await receive()
        body, rest = message.get("body", b""), message.get("more_body", False)
        while rest:
            more = await receive()
            body, rest = body + more.get("body", b""), more.get("more_body", False)
        if _SURROGATE.search(body):
            with contextlib.suppress(ValueError):  # no JSON: it is refused where it is read
                body = json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace")
        return {**message, "body": body, "more_body": False} if body else message

    return whole
