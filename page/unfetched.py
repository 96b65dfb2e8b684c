"""What has been answered and not fetched yet: at most `MAX_BYTES`, where Gradio keeps of 2,000 sessions all there is.

A page that waits reads every ten seconds at least, so others cost it its place only where `MAX_SESSIONS` of them come
or read in between, or where they fill `MAX_BYTES` and none has left as much as the message that it is about to fetch.
Gradio counts sessions alone, of a name of any length.
"""

import asyncio
import pickle
from typing import Any

from fastapi import Request
from gradio.data_classes import PredictBodyInternal
from gradio.queueing import Queue

MAX_BYTES = 32 << 20  # of all messages; a short chat that nobody fetches leaves 15 kB
MAX_SESSIONS, MAX_EVENTS = 2000, 32  # a page waits for a handful of events at once
MAX_NAME = 64  # characters of a session's name; the page's have 11


class Mailbox(asyncio.Queue[Any]):
    """What waits for one session, as bytes, so that its size is known."""

    def __init__(self, session: str, unfetched: "Unfetched") -> None:
        super().__init__()
        self.session, self.size, self._unfetched = session, 0, unfetched

    async def get(self) -> Any:
        self._unfetched.mark_read(self)
        return await super().get()

    def _put(self, item: Any) -> None:
        message = pickle.dumps(item)
        super()._put(message)
        self._unfetched.count(self, len(message))

    def _get(self) -> Any:
        message = super()._get()
        self._unfetched.count(self, -len(message))
        return pickle.loads(message)


class EventNames(dict[str, set[str]]):
    """By session, the events that it has not fetched to the end; none of a session that is not there."""

    def __missing__(self, session: str) -> set[str]:
        return set()


class Unfetched(dict[str, asyncio.Queue[Any]]):
    """Mailboxes by session, the one that was not read for longest first.

    It is dropped where there are too many, the fullest where all take too much; its session is told so if it comes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.size, self.events = 0, EventNames()

    def __missing__(self, session: str) -> asyncio.Queue[Any]:
        return asyncio.Queue()  # for an event that goes on although its mailbox was dropped

    def __setitem__(self, session: str, _: asyncio.Queue[Any]) -> None:
        if len(self) >= MAX_SESSIONS:
            del self[next(iter(self))]
        super().__setitem__(session, Mailbox(session, self))

    def __delitem__(self, session: str) -> None:
        self.size -= self.size_of(session)
        self.pop(session, None)
        self.events.pop(session, None)

    def mark_read(self, box: Mailbox) -> None:
        """`box` is the last to be dropped for another session."""
        if self.get(box.session) is box:
            super().__setitem__(box.session, self.pop(box.session))

    def size_of(self, session: str) -> int:
        box = self.get(session)
        return box.size if isinstance(box, Mailbox) else 0

    def count(self, box: Mailbox, size: int) -> None:
        """`box` has grown by `size` bytes."""
        if self.get(box.session) is box:
            box.size += size
            self.size += size
        while self.size > MAX_BYTES:
            del self[max(self, key=self.size_of)]


class BoundedQueue(Queue):
    """Gradio's queue with these bounds."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pending_messages_per_session = Unfetched()  # type: ignore[assignment]
        self.pending_event_ids_session = self.pending_messages_per_session.events  # type: ignore[attr-defined]

    async def push(self, body: PredictBodyInternal, request: Request, username: str | None) -> Any:
        session = body.session_hash or ""
        if len(session) > MAX_NAME:
            return False, f"session_hash has more than {MAX_NAME} characters", "error"
        if len(self.pending_event_ids_session[session]) >= MAX_EVENTS:
            del self.pending_messages_per_session[session]
        return await super().push(body, request, username)
