"""What the server says to a request that it cannot process: one sentence, and nothing of how it is built.

`Faults` is a plain ASGI middleware; it knows neither Gradio nor what the requests are for. The page itself sends none
that ends here: what fails is logged by the server, and the sender learns only that it failed.
"""

import contextlib
import json
import re
import traceback
from collections.abc import Awaitable, Callable

from roleplay.limits import Message, Receive, Send, refuse

SENTENCE = {"detail": "This request cannot be processed: it is not one that the page sends."}
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


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
            traceback.print_exc()
            if not started:
                await _refuse(send)


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
