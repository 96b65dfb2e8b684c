"""An engine that says what it is told: the page's tests need its timing, not a model's."""

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from roleplay.engine.protocol import ADAPTER, BASE, Answer, Piece, Request
from roleplay.errors import RoleplayError

REPLIES = {
    ADAPTER: "臣妾甄嬛，居永寿宫。夜深风露重，{user}这一问，且容臣妾慢慢道来。",
    BASE: "I am a language model. You said: {user} You said: {user} You said: {user}",
}


@dataclass
class ScriptedEngine:
    """Answers every side with `REPLIES`, a few characters a step; it records what it was asked and how it ended."""

    names: list[str] = field(default_factory=lambda: ["zhenhuan-gemma3-270m"])
    pause: float = 0.02  # seconds a step
    replies: dict[str, str] = field(default_factory=lambda: dict(REPLIES))
    error: str = ""
    lacking: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    closed_early: int = 0
    gate: threading.Event = field(default_factory=threading.Event)  # a message with "hold" waits for it

    def describe(self) -> list[str]:
        return ["engine       scripted"]

    def adapters(self) -> list[str]:
        return self.names

    def problem(self) -> str:
        return ""

    def lacks(self) -> dict[str, str]:
        return self.lacking

    def kl_to_base(self, adapter: str) -> float:
        return 0.83

    def answer(self, request: Request) -> Iterator[dict[str, Answer]]:
        self.requests.append(request)
        if self.error:
            raise RoleplayError(self.error)
        whole = {side: self.replies[side].format(user=q.user) for side, q in request.questions.items()}
        now = {side: Answer() for side in whole}
        start, finished = time.monotonic(), False
        stride = max(4, max(map(len, whole.values())) // 40)  # characters a step
        try:
            for step in itertools.count(1):
                time.sleep(self.pause)
                if step == 3 and any("hold" in question.user for question in request.questions.values()):
                    while not self.gate.wait(0.05):
                        yield now
                spent = time.monotonic() - start
                for side, text in whole.items():
                    if not now[side].stop:
                        end = "end" if step * stride >= len(text) else ""
                        first = now[side].seconds_to_first_token or spent
                        now[side] = replace(Answer(text[: step * stride], step, first, spent, end))
                yield dict(now)
                if all(answer.stop for answer in now.values()):
                    break
            finished = True
        finally:
            self.closed_early += not finished

    def score(self, request: Request, answer: Answer) -> list[Piece]:
        """Every character is a piece; the first half is likelier to the adapter, and they part at the second one."""
        if self.error:
            raise RoleplayError(self.error)
        self.requests.append(request)
        likeliest = {ADAPTER: [("本", 0.9), ("<b>", 0.05)], BASE: [("I", 0.8), ("我", 0.1)]}
        half = len(answer.text) / 2
        return [
            Piece(text, {ADAPTER: -0.1 if n < half else -1.0, BASE: -4.0 if n < half else -0.5}, likeliest, n != 1)
            for n, text in enumerate([*answer.text, ""])
        ]
