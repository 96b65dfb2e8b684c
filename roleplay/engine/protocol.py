"""What is asked of an engine and what it answers: the small protocol between the page and whatever runs the model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

from roleplay.errors import RoleplayError
from roleplay.text.prompts import Turn

ADAPTER, BASE = "adapter", "base"  # the two sides of a comparison
# What an engine may lack: strengths other than 1, `Engine.score`, and answers of which the best is chosen.
STRENGTH, SCORE, CANDIDATES = "strength", "score", "candidates"
MAX_CANDIDATES = 16
MAX_STRENGTH = 1.5  # beyond it an adapter mostly babbles
LOOP = "loop"
ENDS = ("end", "length", LOOP)  # how a whole answer ends: a stop token, its length, or cut where it repeats itself


def _number(default: float, low: float, high: float) -> Any:
    """A field of `Sampling` with the range that it is held to."""
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; `temperature` 0 takes the likeliest one. Raises `RoleplayError` out of range."""

    temperature: float = _number(0.3, 0.0, 2.0)  # hotter, a model of 270 million parameters loses its thread
    top_p: float = _number(0.8, 0.05, 1.0)
    top_k: int = _number(20, 0, 1000)  # 0 keeps all
    repetition_penalty: float = _number(1.0, 1.0, 2.0)  # of a token in prompt or reply; a reply takes up a question
    frequency_penalty: float = _number(0.3, 0.0, 2.0)  # of a token in the reply, for each time that it was said
    candidates: int = _number(
        1, 1, MAX_CANDIDATES
    )  # replies that are drawn, of which the one that ranks first is shown
    max_new_tokens: int = _number(256, 1, 2048)
    base_max_new_tokens: int = _number(0, 0, 2048)  # the base side's length; 0 is that of the adapter side
    seed: int = _number(0, 0, 2**32 - 1)

    def __post_init__(self) -> None:
        for own in fields(self):
            value, (low, high) = getattr(self, own.name), own.metadata["range"]
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise RoleplayError(f"{own.name} is {value!r}; choose a number from {low} to {high}")

    def of(self, side: str) -> "Sampling":
        """How one side is sampled: with its own length as `max_new_tokens`."""
        length = self.base_max_new_tokens if side == BASE else 0
        return replace(self, max_new_tokens=length or self.max_new_tokens, base_max_new_tokens=0)


CONSIDERED = Sampling(temperature=0.6, candidates=8)  # hotter than by default, so that there is something to choose


@dataclass(frozen=True)
class Question:
    """One side's conversation: its persona prompt ("" for none), its own earlier turns, and the new message."""

    persona: str
    turns: tuple[Turn, ...]
    user: str


@dataclass(frozen=True)
class Speaker:
    """Whose weights answer: an adapter's at a strength, by which its update is multiplied, or with "" the base
    model's. Raises `RoleplayError` for a strength out of range."""

    adapter: str = ""
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= MAX_STRENGTH:
            raise RoleplayError(f"the strength is {self.strength!r}; choose a number from 0 to {MAX_STRENGTH}")


@dataclass(frozen=True)
class Request:
    """What to answer: a question for `ADAPTER`, for `BASE`, or for both at once with the same dice."""

    questions: Mapping[str, Question]
    sampling: Sampling = Sampling()
    adapter: str = ""  # which adapter speaks on the adapter side; "" is the engine's default
    cut_loops: bool = False  # end a side that says the same again and again
    strength: float = 1.0  # of that adapter, as `Speaker` has it
    other: Speaker = Speaker()  # who speaks on the base side: the base model, unless another adapter is compared with
    visitor: str = ""  # who asks, where two answers at a time are the most; "" is nobody in particular

    def speaker(self, side: str, default: str = "") -> Speaker:
        """Who speaks on a side; `default` is the engine's adapter where none is named."""
        return self.other if side == BASE else Speaker(self.adapter or default, self.strength)


@dataclass(frozen=True)
class Answer:
    """One side's answer so far; `stop` is "" while it grows."""

    text: str = ""
    tokens: int = 0
    seconds_to_first_token: float = 0.0
    seconds: float = 0.0  # since the request was taken up
    stop: str = ""  # one of `ENDS`, or a sentence that says what failed
    dropped_turns: int = 0  # oldest turns that no longer fitted the context
    shown_rows: tuple[Turn, ...] = ()  # which its adapter looked up, the nearest last, or what was told
    weighing: int = 0  # candidates, while none of them has been chosen
    place: int = 0  # in the line of those who wait, 0 once it is computed
    candidate: int = 0  # which of several was chosen: its seed is so far behind the request's

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed after the first token."""
        spent = self.seconds - self.seconds_to_first_token
        return (self.tokens - 1) / spent if self.tokens > 1 and spent > 0 else 0.0


@dataclass(frozen=True)
class Piece:
    """One token of a finished answer, or the few that make up one character, as both sides of a request see it."""

    text: str  # "" for the end of the answer
    logprobs: Mapping[str, float]  # by side, in nat: how likely it is after what stands before it
    likeliest: Mapping[str, Sequence[tuple[str, float]]]  # by side: the likeliest tokens there and their probabilities
    same_choice: bool = True  # whether both sides, with the same dice, would have gone on alike


class Engine(Protocol):
    """Two engines answer to this: `engine.LocalEngine` on this machine, `remote.RemoteEngine` over HTTP."""

    def describe(self) -> list[str]:
        """One line each: base model and source, device and dtype, attention, adapter, parameters."""

    def adapters(self) -> list[str]:
        """Names that `Request.adapter` may take, the default first; empty when there is only the base model."""

    def problem(self) -> str:
        """Why nothing can be answered just now, in a sentence; "" when all is well."""

    def lacks(self) -> Mapping[str, str]:
        """What it cannot do of this protocol and why, in a sentence, by `STRENGTH`, `SCORE` or `CANDIDATES`."""

    def kl_to_base(self, adapter: str) -> float | None:
        """How far an adapter moves the model, see `probe.kl_to_base`; None where that is not known."""

    def answer(self, request: Request) -> Iterator[dict[str, Answer]]:
        """Yields every side's answer so far, again whenever text was added; the last has every `stop` set.

        Closing the iterator ends the generation within one decoding step. Raises `RoleplayError` for a request that
        cannot be answered at all.
        """

    def score(self, request: Request, answer: Answer) -> list[Piece]:
        """How likely each side of the request finds a finished `answer`, as if it had given it; the end is a piece of
        an answer that ended by itself.

        Raises `RoleplayError` where the engine cannot tell, or the answer is too long.
        """
