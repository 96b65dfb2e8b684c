"""How many messages one client may send in a minute, and how many of its answers may run or wait at once.

A client is an IP address: behind a proxy the one that `settings.Settings.proxies` makes the server believe.
"""

import ipaddress
import threading
import time
from collections import OrderedDict, deque

from page.words import WORDS
from roleplay.engine.scheduler import OF_A_VISITOR

MINUTE = 60.0
WAITING = 4  # answers of one client, beside those that run


class Rate:
    """At most `per_minute` messages of one client in any minute; 0 is no limit."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._asked: OrderedDict[str, deque[float]] = OrderedDict()  # the client that asked last stands last
        self._lock = threading.Lock()

    def wait(self, client: str) -> int:
        """Seconds until `client` may ask again, 0 if it may now."""
        with self._lock:
            return self._wait(network(client), time.monotonic())

    def take(self, client: str) -> int:
        """As `wait`, and where it is 0 the message counts."""
        with self._lock:
            now, key = time.monotonic(), network(client)
            wait = self._wait(key, now)
            if not wait and self.per_minute:
                self._asked.setdefault(key, deque(maxlen=self.per_minute)).append(now)
                self._asked.move_to_end(key)
                while next(iter(self._asked.values()))[-1] <= now - MINUTE:  # it ends: the last one asked just now
                    self._asked.popitem(last=False)
            return wait

    def sentence(self, seconds: int, language: str) -> str:
        """What a client is told that must wait so long, "" for 0."""
        return WORDS[language]["too_fast"].format(limit=self.per_minute, seconds=seconds) if seconds else ""

    def _wait(self, key: str, now: float) -> int:
        asked = self._asked.get(key)  # nothing where there is no limit
        if not asked or len(asked) < self.per_minute or asked[0] <= now - MINUTE:
            return 0
        return max(1, round(asked[0] + MINUTE - now))


class Places:
    """Those places for answers that one client may hold: two that may run, four that wait, of three or more not all."""

    def __init__(self, places: int) -> None:
        self.each = max(OF_A_VISITOR, min(OF_A_VISITOR + WAITING, places - 1))
        self._held: list[tuple[str, threading.Event]] = []
        self._lock = threading.Lock()

    def take(self, client: str, ended: threading.Event) -> bool:
        """Hold a place for `client`, a `network`, until `ended` is set; False where it holds as many as it may."""
        with self._lock:
            self._held = [held for held in self._held if not held[1].is_set()]
            free = sum(holder == client for holder, _ in self._held) < self.each
            if free:
                self._held.append((client, ended))
            return free


def network(client: str) -> str:
    """An IPv4 address, also one that is written as IPv6, or the /64 that a household has of IPv6."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:  # a test client, a socket
        return client
    if address.version == 6 and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)
