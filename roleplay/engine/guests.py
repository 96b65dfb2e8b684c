"""Adapters from the Hugging Face Hub that join a running engine: found, fetched, inspected, attached, sent away.

Weights live in the engine alone; nothing stays on the disk. Nothing here knows the page or who is asking.
"""

import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from roleplay.disk import alone
from roleplay.engine.local import LocalEngine
from roleplay.errors import AdapterError, HubError
from roleplay.weights import hub, layout
from roleplay.weights.adapters import Adapter

MAX_BYTES = 1 << 30  # of all guests' weight files together
CLEARINGS = 100  # of a folder into which files may still be written


class Guests:
    """At most `limit` adapters beside the local ones; the one that was asked least recently makes room.

    A guest is named user/repo, which no local adapter can be. `arrived` is called while its folder still exists.
    """

    def __init__(
        self, engine: LocalEngine, base: str, cache: Path, limit: int, arrived: Callable[[Adapter], None]
    ) -> None:
        """`base` is the base model's name on the Hub."""
        self._engine, self._base, self._limit = engine, base, limit
        self._arrived = arrived
        self._bytes: dict[str, int] = {}  # by name
        self._door = cache / "guests"  # where one lies while it arrives, one at a time
        self._arriving = False

    def listed(self) -> list[str]:
        """This project's on the Hub that say they are for this base, most downloaded first; raises `HubError`."""
        return hub.hub_adapters(self._base, hub.ADAPTER_TAG)

    def foreign(self, ours: Collection[str]) -> list[str]:
        """Those of other trainers, which are not in `ours` and join once they are adopted; raises `HubError`."""
        return [name for name in hub.hub_adapters(self._base) if name not in ours]

    def invite(self, repo: str) -> None:
        """Attach an adapter, unless it is there already; raises `HubError` or `AdapterError` with the reason."""
        with alone(self._door):
            if repo in self._engine.adapters():
                return
            self._door.mkdir(parents=True, exist_ok=True)
            self._arriving = True
            try:
                self._attach(repo, hub.fetch_adapter(repo, self._door))
            except (AdapterError, HubError) as error:  # whoever asked has no use for this machine's paths
                raise type(error)(str(error).replace(f"{self._door}/", "")) from error
            finally:
                self.turn_away()  # and what a process that was killed has left there
                self._arriving = False

    def turn_away(self) -> None:
        """Remove the files of the guest that is arriving, if one is: also for a process that is about to end."""
        for _ in range(CLEARINGS if self._arriving else 0):
            shutil.rmtree(self._door, ignore_errors=True)
            if not self._door.exists():
                return

    def _attach(self, repo: str, adapter: Adapter) -> None:
        guest = replace(adapter, name=repo)
        self._engine.add(guest)
        self._arrived(guest)
        self._bytes[repo] = (adapter.folder / layout.WEIGHTS).stat().st_size
        while len(self._bytes) > self._limit or sum(self._bytes.values()) > MAX_BYTES:
            oldest = min(self._bytes, key=self._engine.last_used)
            self._engine.remove(oldest)
            del self._bytes[oldest]
