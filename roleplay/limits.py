"""How often one client may ask and how much it may send; what an address is for, and which addresses are closed.

A client is an IP address: behind a proxy the one that `settings.Settings.proxies` makes the server believe. Nothing
here knows Gradio; `Doors` is a plain ASGI middleware around it.
"""

import ipaddress
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

MINUTE = 60.0
MAX_BODY = 8 << 20  # bytes of one request: 200 exchanges at their longest are less
# What the page asks for. Gradio serves more: uploads, files, monitoring, calls by name, run history.
_OPEN = re.compile(
    r"/?|/(config|login|logout|theme\.css|favicon\.ico|robots\.txt|manifest\.json)/?|/(assets|static|svelte)/.+"
    r"|/gradio_api/(info|user|token|app_id|login_check|startup-events|cancel|reset|theme\.css|queue/(join|data))/?"
    r"|/gradio_api/(heartbeat/\w+|run/predict)"
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Rate:
    """At most `per_minute` messages of one client in any minute; 0 is no limit."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._asked: OrderedDict[str, deque[float]] = OrderedDict()  # the client that asked last stands last
        self._lock = threading.Lock()

    def wait(self, client: str) -> int:
        """Seconds until `client` may ask again, 0 if it may now."""
        with self._lock:
            return self._wait(_network(client), time.monotonic())

    def take(self, client: str) -> int:
        """As `wait`, and where it is 0 the message counts."""
        with self._lock:
            now, key = time.monotonic(), _network(client)
            wait = self._wait(key, now)
            if not wait and self.per_minute:
                self._asked.setdefault(key, deque(maxlen=self.per_minute)).append(now)
                self._asked.move_to_end(key)
                while next(iter(self._asked.values()))[-1] <= now - MINUTE:  # it ends: the last one asked just now
                    self._asked.popitem(last=False)
            return wait

    def _wait(self, key: str, now: float) -> int:
        asked = self._asked.get(key)  # nothing where there is no limit
        if not asked or len(asked) < self.per_minute or asked[0] <= now - MINUTE:
            return 0
        return max(1, round(asked[0] + MINUTE - now))


def _network(client: str) -> str:
    """An IPv4 address, or the /64 that a household has of IPv6."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:  # a test client, a socket
        return client
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else client


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
