"""Keys and values of past tokens, kept per conversation so that a later turn computes only what is new.

It knows token ids and shapes, no model and no text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

FIRST_CAPACITY = 128  # tokens; doubled as needed


class KeyValues:
    """One sequence's keys and values in every layer; positions from `length` on hold nothing."""

    def __init__(self, layers: int, heads: int, head_size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.length = 0
        self._store = torch.empty(2, layers, heads, 0, head_size, dtype=dtype, device=device)

    @property
    def bytes(self) -> int:
        return self._store.numel() * self._store.element_size()

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` in all, at least doubling what there is; what is held stays."""
        capacity = self._store.shape[3]
        if tokens > capacity:
            self.move(self.new_store(max(tokens, 2 * capacity)))

    def part(self, first: int, end: int) -> torch.Tensor:
        """Keys and values of some positions, (2, layers, heads, positions, head size), to be read or written."""
        return self._store[:, :, :, first:end]

    def copy(self, tokens: int) -> "KeyValues":
        """The first `tokens` of it, on their own."""
        other = object.__new__(KeyValues)
        other.length, other._store = tokens, self._store
        other.move(self.new_store(tokens))
        return other

    def new_store(self, tokens: int) -> torch.Tensor:
        """Room for so many tokens or a few more, to `move` to."""
        shape = self._store.shape
        return self._store.new_empty(*shape[:3], max(tokens, FIRST_CAPACITY), shape[4])

    @torch.inference_mode()
    def move(self, store: torch.Tensor) -> None:
        """Hold in `store`, (2, layers, heads, capacity, head size), what is held, and what comes."""
        store[:, :, :, : self.length] = self._store[:, :, :, : self.length]
        self._store = store

    def is_in(self, store: torch.Tensor) -> bool:
        """Whether it is held in `store`, which may be a part of a larger one."""
        return self._store.data_ptr() == store.data_ptr()


def common_prefix(a: list[int], b: list[int]) -> int:
    """How many tokens both start with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@dataclass(frozen=True)
class _Entry:
    key: str
    ids: list[int]
    cache: KeyValues


class CachePool:
    """The caches of recent conversations, the least recently used dropped first so that `limit` bytes hold them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: list[_Entry] = []  # least recently used first

    @property
    def bytes(self) -> int:
        return sum(entry.cache.bytes for entry in self._entries)

    def shared(self, key: str, ids: list[int], cuts: Sequence[int]) -> int:
        """How many first tokens of `ids` are there to be taken."""
        return self._longest(key, ids, cuts)[0]

    def take(self, key: str, ids: list[int], cuts: Sequence[int]) -> KeyValues | None:
        """A cache of the longest stored beginning of `ids`, short of its last token; None when nothing is shared.

        `key` tells apart what computed it (which adapter, or none). An entry that goes on otherwise is copied up to
        the last of `cuts` that both have, and stays in the pool, so that an edit or a retry can return to it.
        """
        shared, entry = self._longest(key, ids, cuts)
        if entry is None:
            return None
        self._entries.remove(entry)
        if shared == len(entry.ids) and shared not in cuts[:1]:
            return entry.cache
        self._entries.append(entry)  # also the persona's own, which every conversation begins with
        return entry.cache.copy(shared)

    def _longest(self, key: str, ids: list[int], cuts: Sequence[int]) -> tuple[int, _Entry | None]:
        longest, found = 0, None
        for entry in self._entries:
            if entry.key == key:
                common = min(common_prefix(entry.ids, ids), len(ids) - 1)
                shared = common if common == len(entry.ids) else max((cut for cut in cuts if cut <= common), default=0)
                if shared > longest:
                    longest, found = shared, entry
        return longest, found

    def put(self, key: str, ids: list[int], cache: KeyValues) -> None:
        """Keep the cache of `ids` (as many as its length) as the most recently used."""
        assert len(ids) == cache.length
        self._entries = [entry for entry in self._entries if (entry.key, entry.ids) != (key, ids)]
        self._entries.append(_Entry(key, ids, cache))
        while self.bytes > self.limit:
            self._entries.pop(0)

    def clear(self) -> None:
        self._entries.clear()
