"""How often one client may try a password: plain ASGI around the page."""

import json
from collections.abc import Awaitable, Callable

from page.serving.middleware import Message, Receive, Send, refuse
from page.serving.rate_limit import Rate

TRIES = 10  # a minute, right ones among them
DETAIL = {"detail": "Too many tries to log in from here: wait a minute."}


class Logins:
    """Answers 429 to a client that has tried `TRIES` passwords in the last minute, whatever the next one is."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app, self._rate = app, Rate(TRIES)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/login"):
            client = (scope.get("client") or ("",))[0]
            if self._rate.take(client):  # counted before it is looked at, so that many at once are many
                return await refuse(send, 429, json.dumps(DETAIL).encode(), b"application/json")
        await self._app(scope, receive, send)
