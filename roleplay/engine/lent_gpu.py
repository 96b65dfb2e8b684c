"""The engine protocol on a ZeroGPU Space, where a GPU is lent for one call at a time, in a process forked for it.

The model is placed on "cuda" in the main process, which never has a GPU: answers, their caches and the engine's lock
live in the forked ones. Nothing here imports `spaces` or Gradio; what is needed of them is handed in.
"""

import math
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any

from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, Answer, Piece, Request
from roleplay.errors import ModelError, RoleplayError, first_line

START_SECONDS = 8.0  # to move the weights to the GPU and read the prompt
SECONDS_PER_TOKEN = 0.03  # until the first answers have been timed: twice what both sides take on an H100
MARGIN, LATEST = 1.5, 0.3  # asked for beyond the measured pace; the latest answer's share in it
LONGEST = 100  # seconds to ask for at most: who has not logged in has two minutes a day

Lender = Callable[..., Any]  # `spaces.GPU`


def borrow_nothing(gpu: Lender) -> None:
    """Where no answer needs a GPU: ZeroGPU starts no Space in which nothing is decorated."""

    def nothing() -> None: ...

    gpu(nothing)


class ZeroEngine:
    """Answers to `protocol.Engine`; both sides of a request are one call for a GPU."""

    def __init__(self, engine: LocalEngine, gpu: Lender) -> None:
        self._engine = engine
        self._seconds_per_token = SECONDS_PER_TOKEN
        self._lock = threading.Lock()

        def generate(request: Request, scored: Answer | None = None) -> Iterator[Any]:
            try:
                if scored:
                    yield engine.score(request, scored)
                else:
                    yield from engine.answer(request)
            except RoleplayError as error:  # across processes only the name of an exception would arrive
                yield str(error)

        self._generate = gpu(generate, duration=self.duration)

    def describe(self) -> list[str]:
        return [
            *self._engine.describe(),
            f"ZeroGPU      asks for {self.duration(Request({}))} s at first, then as timed",
        ]

    def adapters(self) -> list[str]:
        return self._engine.adapters()

    def problem(self) -> str:
        return self._engine.problem()

    def lacks(self) -> Mapping[str, str]:
        return self._engine.lacks()

    def kl_to_base(self, adapter: str) -> float | None:
        return self._engine.kl_to_base(adapter)

    def duration(self, request: Request, scored: Answer | None = None) -> int:
        """Seconds to ask for: what the longest reply takes at the measured pace, and a margin; to score one needs
        little more than the start."""
        longest = max(request.sampling.of(side).max_new_tokens for side in request.questions or (ADAPTER,))
        generated = 0 if scored else longest
        return min(math.ceil(START_SECONDS + MARGIN * generated * self._seconds_per_token), LONGEST)

    def answer(self, request: Request) -> Iterator[dict[str, Answer]]:
        answers: dict[str, Answer] = {}
        with closing(self._lent(request)) as stream:
            for answers in stream:
                yield answers
        self._time(answers)

    def score(self, request: Request, answer: Answer) -> list[Piece]:
        (pieces,) = self._lent(request, answer)
        return list(pieces)

    def _lent(self, *asked: Any) -> Generator[Any, None, None]:
        """What the process with the GPU says; raises `RoleplayError` where it cannot."""
        try:
            with closing(self._generate(*asked)) as stream:
                for news in stream:
                    if isinstance(news, str):
                        raise RoleplayError(news)
                    yield news
        except RoleplayError:
            raise
        except (
            Exception
        ) as error:  # no quota, no GPU, a worker that died, a lost connection: `spaces` raises many kinds
            traceback.print_exc()
            raise ModelError(f"no GPU just now: {first_line(error).strip(chr(39))}") from error

    def _time(self, answers: dict[str, Answer]) -> None:
        paces = [1 / answer.tokens_per_second for answer in answers.values() if answer.tokens_per_second]
        if paces:
            with self._lock:
                self._seconds_per_token += LATEST * (max(paces) - self._seconds_per_token)
