"""The far end of `benchmarks.peers`: one arm in a process of its own, asked and answering in lines of JSON."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

ADAPTER, BASE = "adapter", "base"  # the two sides, as the engine calls them


@dataclass(frozen=True)
class Answered:
    """Greedy answers of one side or both: seconds until every side has begun and until all stand, and the tokens."""

    first: float
    seconds: float
    ids: dict[str, list[int]]


class Arm(Protocol):
    """Something that answers a prompt, with an adapter and without."""

    weights: int  # bytes that a token has read

    def answer(self, sides: Sequence[str]) -> Answered:
        """The task's number of tokens for each of the sides, with nothing kept from before."""

    def nats(self, ids: Sequence[int], places: Sequence[int]) -> list[float]:
        """How unlikely the adapter's side finds the tokens of `ids` at those places, in nat."""


def serve(make: Callable[[dict[str, Any]], Arm]) -> None:
    """Answer the lines of standard input until it ends; the task is the program's argument."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    arm = make(json.loads(sys.argv[1]))
    for line in sys.stdin:
        asked = json.loads(line)
        if "sides" in asked:
            told: Any = asdict(arm.answer(asked["sides"]))
        else:
            told = {"weights": arm.weights, "nats": [arm.nats(ids, places) for ids, places in asked["rows"]]}
        print(json.dumps(told), file=answers, flush=True)
