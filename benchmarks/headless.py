"""A browser tab without a browser: the page's components, the events they fire and the requests these make.

It follows whatever `/config` lists, as Gradio's front end does: direct calls, the queue with its event stream and
diffs, what runs after what, cancelling, and the heartbeat that keeps a session open. It draws nothing and runs no
JavaScript, and it knows nothing of the characters.
"""

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from gradio_client.utils import apply_diff

API = "/gradio_api"
PATIENCE = 300.0  # seconds until an event that has not ended counts as stuck


class Stuck(Exception):
    """An event did not end."""


class Refused(Exception):
    """The server turned a request down; the message is its answer."""


class Tab:
    """One page load: a session, the values of its components, and the last error of an event."""

    def __init__(self, url: str, kept: str | None = None) -> None:
        """Opens the page; `kept` is what the tab's storage holds, which the page keeps in the component `saved`."""
        self.http = httpx.Client(base_url=url.rstrip("/"), timeout=httpx.Timeout(PATIENCE, connect=10))
        self.session = secrets.token_hex(6)
        config = self.http.get("/config").raise_for_status().json()
        self.components = {one["id"]: one for one in config["components"]}
        self.events = {one["id"]: one for one in config["dependencies"]}
        self.values = {number: one["props"].get("value") for number, one in self.components.items()}
        self.error = ""
        self.running = ""  # the event that the queue has taken in
        self._heartbeat = self.http.send(self.http.build_request("GET", f"{API}/heartbeat/{self.session}"), stream=True)
        self.storage = self.find("textbox", elem_id="saved")
        self.values[self.storage] = kept
        self.fire(None, "load")

    def record(self) -> Any:
        """The conversation as the tab's storage holds it."""
        return json.loads(self.values[self.storage])["record"]

    @classmethod
    def when_up(cls, url: str, server: "subprocess.Popen[bytes]") -> "Tab":
        """The first tab of a server that has just been started; raises `Stuck` when it ends or takes too long."""
        started = time.monotonic()
        while server.poll() is None and time.monotonic() - started < PATIENCE:
            try:
                return cls(url)
            except (httpx.ConnectError, httpx.HTTPStatusError):  # nobody yet, or the page that says what is loading
                time.sleep(0.5)
        raise Stuck(f"nothing answers at {url}")

    def close(self) -> None:
        """Leaves the page as a closed tab does: connections end, nothing is said."""
        self._heartbeat.close()
        self.http.close()

    def find_all(self, kind: str, event: str = "", **props: Any) -> list[int]:
        """The components of a kind that have these properties and, if given, fire that event."""
        firing = {target for one in self.events.values() for target, name in one["targets"] if name == event}
        return [
            number
            for number, one in self.components.items()
            if one["type"] == kind
            and (not event or number in firing)
            and all(one["props"].get(name) == value for name, value in props.items())
        ]

    def find(self, kind: str, event: str = "", **props: Any) -> int:
        """The first of them."""
        return self.find_all(kind, event, **props)[0]

    def fire(self, component: int | None, event: str, stop: Callable[[], bool] = lambda: False) -> bool:
        """Runs what an event starts, and what runs after it; False when `stop`, asked at every update, ended it."""
        due, undisturbed = (
            [
                one
                for one in self.events.values()
                if any(name == event and component in (None, t) for t, name in one["targets"])
            ],
            True,
        )
        while due:
            now = due.pop(0)
            good, ended = self._run(now, stop)
            undisturbed &= ended
            due = [
                one
                for one in self.events.values()
                if one["trigger_after"] == now["id"]
                and not (one["trigger_only_on_success"] and not good)
                and not (one["trigger_only_on_failure"] and good)
            ] + due
        return undisturbed

    def _run(self, event: dict[str, Any], stop: Callable[[], bool]) -> tuple[bool, bool]:
        """Whether one event succeeded, and whether it was left to end."""
        if not event["backend_fn"]:
            return True, True
        body = {
            "data": [self.values[number] for number in event["inputs"]],
            "fn_index": event["id"],
            "session_hash": self.session,
            "event_data": None,
            "trigger_id": None,
        }
        if not event["queue"]:
            self._show(event, self._post("run/predict", body)["data"])
            return True, True
        self.running = self._post("queue/join", body)["event_id"]
        shown, ended = list[Any](), True
        for message in self._messages():
            if message.get("event_id") not in (self.running, None):
                continue
            output = message.get("output") or {}
            if message["msg"] == "process_generating":
                data = output["data"]
                shown = [apply_diff(a, b) for a, b in zip(shown, data, strict=True)] if shown else data
                self._show(event, shown)
                if ended and stop():
                    ended = False
                    self._post(
                        "cancel", {"event_id": self.running, "session_hash": self.session, "fn_index": event["id"]}
                    )
            elif message["msg"] == "process_completed":
                self.running = ""
                if not message["success"]:
                    self.error = str(output.get("error"))
                elif not shown and output:
                    self._show(event, output["data"])
                return message["success"], ended
        raise Stuck(f"the stream ended before event {event['api_name']}")

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.http.post(f"{API}/{path}", json=body)
        if answer.status_code != httpx.codes.OK:
            raise Refused(f"{path}: {answer.status_code} {answer.text:.200}")
        return answer.json()

    def _messages(self) -> Iterator[dict[str, Any]]:
        started = time.monotonic()
        with self.http.stream("GET", f"{API}/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                if time.monotonic() - started > PATIENCE:
                    raise Stuck(f"nothing but heartbeats for {PATIENCE:.0f} s")
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    def _show(self, event: dict[str, Any], data: list[Any]) -> None:
        """Outputs become values; an update changes a value only where it carries one."""
        for number, value in zip(event["outputs"], data, strict=True):
            if not (isinstance(value, dict) and value.get("__type__") == "update"):
                self.values[number] = value
            elif "value" in value:
                self.values[number] = value["value"]
