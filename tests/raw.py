"""The page's server spoken to over plain HTTP, as anybody may: no browser and no Gradio client."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import gradio as gr

from page.chat.choices import NUMBERS, Choices
from page.state import CHOSEN


@dataclass
class Visitor:
    """One session with a served page."""

    demo: gr.Blocks
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    session: str = field(default_factory=lambda: uuid4().hex)

    def ask(self, path: str, body: Any = None, method: str = "", **headers: str) -> tuple[int, str]:
        """Status and text; a body is sent as JSON unless it is bytes."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if data is not None else {}
        request = urllib.request.Request(self.url + path, data, kind | self.headers | headers, method=method or None)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def join(self, name: str, data: list[Any], number: int = 0) -> tuple[int, str]:
        """Put a call of the function `name` (the `number`th event that runs it) into the queue."""
        calls = [index for index, fn in self.demo.fns.items() if fn.name == name]
        body = {"data": data, "fn_index": calls[number], "session_hash": self.session, "trigger_id": None}
        return self.ask("gradio_api/queue/join", body)

    def call(self, name: str, data: list[Any], number: int = 0) -> list[dict[str, Any]]:
        """The events of a whole call, to the last."""
        status, text = self.join(name, data, number)
        assert status == 200, text
        return self.events()

    def events(self) -> list[dict[str, Any]]:
        """What comes of the calls that are in the queue."""
        _, stream = self.ask(f"gradio_api/queue/data?session_hash={self.session}")
        events = [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line.startswith("data: ")]
        return [event for event in events if event["msg"] not in ("close_stream", "heartbeat")]

    def send(self, message: str, adapter: str = "") -> tuple[int, str]:
        """Put a message into the queue, as the composer does."""
        return self.join("send", [message, None, *self._chosen(adapter)])

    def say(self, message: str, adapter: str) -> str:
        """Everything that the server sends of an answer, also where it did not take the message."""
        if self.send(message, adapter)[0] == 200:
            self.events()
        return json.dumps(self.call("answer", [None, None, *self._chosen(adapter)])[-1], ensure_ascii=False)

    def _chosen(self, adapter: str) -> list[Any]:
        values: dict[str, Any] = dict(vars(Choices(adapter=adapter, seed="1")))  # the server remembers who speaks
        values |= dict(zip(NUMBERS, (0.0, 1.0, 0, 1.0, 0.0, 1, 8, 0), strict=True))
        return [values[name] for name in CHOSEN]
