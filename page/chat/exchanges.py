"""One step of a conversation: a message becomes an exchange, its answers grow, a blind one is voted on.

A conversation is a list of exchanges. Both panes are drawn from it and never read back, so they cannot drift apart.
The engine is handed in, and the page draws what comes out.
"""

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from uuid import uuid4

from page.chat.choices import EXAMPLES, NOTHING, PERSONA, Choices
from page.words import WORDS
from roleplay.engine.protocol import (
    ADAPTER,
    BASE,
    CONSIDERED,
    ENDS,
    Answer,
    Engine,
    Question,
    Request,
    Sampling,
    Speaker,
)
from roleplay.errors import RoleplayError
from roleplay.results.votes import CHOICES, Ballot, Vote, cast
from roleplay.text import limits
from roleplay.text.prompts import Turn
from roleplay.text.retrieval import Retriever

MAX_SEED = 20  # characters
MAX_MESSAGE = max(limits.MESSAGE, limits.PERSONA)  # characters of a message or a persona as they are kept
MAX_EXCHANGES = 200  # a longer conversation is refused, and not restored
MAX_TEXT = 300_000  # characters of a whole conversation that a browser hands in
MAX_TURNS = 40  # earlier turns that an engine is given at most
UPDATES_PER_SECOND = 30
SIDES = (ADAPTER, BASE)
OPEN, UNVEILED = "open", "unveiled"  # verdicts of a blind exchange before a vote, and without one
STOPPED, OVERTAKEN = "stopped", "overtaken"  # why an answer is not whole: by Stop, or by the next message
VOTES = CHOICES
PRESETS = {
    "steady": Sampling(),
    "natural": Sampling(temperature=0.7, top_p=0.9, top_k=50),
    "lively": Sampling(temperature=1.0, top_p=0.95, top_k=100),
    "considered": CONSIDERED,
}


@dataclass(frozen=True)
class Exchange:
    """One user message and the answers to it, with all that is needed to ask for them again."""

    user: str
    answers: Mapping[str, Answer] = field(default_factory=dict)  # by side
    personas: Mapping[str, str] = field(default_factory=dict)  # the system prompt that each side was given
    adapter: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    order: tuple[str, ...] = SIDES  # left, right
    verdict: str = ""  # "" when the labels were shown, else `OPEN`, `UNVEILED` or one of `VOTES`
    examples: tuple[Turn, ...] = ()  # training rows that the base side was shown as its first turns
    revision: str = ""  # of the adapter, where it came from a hub
    number: str = ""  # of a blind one: what a vote on it is kept under, once
    strength: float = 1.0  # of the adapter
    other: Speaker = field(default_factory=Speaker)  # who speaks on the base side
    character: str = ""  # whom the page showed as the adapter
    weights_sha256: Mapping[str, str] = field(default_factory=dict)  # of the adapters, by side

    @property
    def votable(self) -> bool:
        """Whether it was asked blind, is not voted on yet, and both sides came to their end."""
        ended = [self.answers[side].stop in ENDS for side in SIDES if side in self.answers]
        return self.verdict == OPEN and ended == [True, True]

    def given(self, side: str) -> str:
        """What `side` read beside the conversation, one of `choices.GIVEN`."""
        looked_up = side in self.answers and self.answers[side].shown_rows
        if looked_up or (side == BASE and self.examples):
            return EXAMPLES
        return PERSONA if self.personas.get(side) else NOTHING


def speakers(source: Exchange | Choices) -> Request:
    """Who speaks on each side, asked nothing yet."""
    other = source.other if isinstance(source, Exchange) else Speaker(source.other, source.other_strength)
    sampling = source.sampling if isinstance(source, Exchange) else Sampling()
    return Request({}, sampling, source.adapter, strength=source.strength, other=other)


def question(past: Sequence[Exchange], side: str, persona: str, user: str, examples: Iterable[Turn] = ()) -> Question:
    """What `side` is asked: its own replies, and the other side's where it has none (comparison was off)."""
    turns = list(examples)
    for exchange in past[-MAX_TURNS:]:
        replies = [exchange.answers[s].text for s in (side, *SIDES) if s in exchange.answers]
        if reply := next((text for text in replies if text), ""):
            turns.append((exchange.user, reply))
    return Question(persona, tuple(turns), user)


def request(past: Sequence[Exchange], new: Exchange) -> Request:
    """The request that `new` stands for, one question for each side that has a persona in it."""
    examples = {BASE: new.examples}
    questions = {
        side: question(past, side, persona, new.user, examples.get(side, ())) for side, persona in new.personas.items()
    }
    return replace(speakers(new), questions=questions, cut_loops=True)


def cut(text: str) -> str:
    """A message or a persona as it is kept, of at most `MAX_MESSAGE` characters."""
    return text if len(text) <= MAX_MESSAGE else text.strip()[:MAX_MESSAGE]


def align(users: Sequence[str], record: Sequence[Exchange]) -> list[Exchange]:
    """The record cut and filled so that it holds exactly these user messages; undo, edit and clear end here.

    They come from a browser: one more of them than a conversation may have is kept, and none at any length.
    """
    kept = []
    for number, user in enumerate(map(cut, users[: MAX_EXCHANGES + 1])):
        same = number < len(record) and record[number].user == user
        kept.append(record[number] if same else Exchange(user))
    return kept


def unveil(record: Iterable[Exchange]) -> list[Exchange]:
    """The record with every blind exchange opened without a vote."""
    return [replace(e, verdict=UNVEILED) if e.verdict == OPEN else e for e in record]


def close(record: Iterable[Exchange], stop: str = STOPPED) -> list[Exchange]:
    """The record with `stop` as the end of every answer that was cut off."""
    return [
        replace(e, answers={s: a if a.stop else replace(a, stop=stop) for s, a in e.answers.items()}) for e in record
    ]


def refusal(language: str, message: str, persona: str = "", exchanges: int = 0) -> str:
    """The sentence that says why a message is not answered, "" if it is."""
    words = WORDS[language]
    if not message.strip():
        return words["empty"]
    if len(message.strip()) > limits.MESSAGE:
        return words["too_long"].format(length=len(message.strip()))
    if len(persona) > limits.PERSONA:
        return words["persona_too_long"].format(length=len(persona))
    return words["too_many"].format(limit=MAX_EXCHANGES) if exchanges >= MAX_EXCHANGES else ""


def begin(message: str, choices: Choices, retriever: Retriever | None = None, other_persona: str = "") -> Exchange:
    """A new exchange, not answered yet.

    Where the other side is given examples, `retriever` finds them; `other_persona` is its own, where it has one. With
    no adapter only the base model speaks, with the persona. A blind exchange gets an order that no seed predicts, and
    for both sides the shorter of the two lengths; an adapter on the other side has the same length anyway.
    """
    persona, dice = choices.persona.strip(), random.SystemRandom()
    personas = {ADAPTER: persona} if choices.adapter else {BASE: persona}
    sampling = _sampling(choices, fresh=dice.randrange(2**32))
    examples: Sequence[Turn] = ()
    if choices.compare and choices.adapter:
        personas[BASE] = "" if choices.given == NOTHING else other_persona.strip() or persona
        examples = retriever.examples(message) if choices.given == EXAMPLES and retriever else ()
    return Exchange(
        message,
        personas=personas,
        examples=tuple(examples),
        adapter=choices.adapter,
        strength=choices.strength,
        other=Speaker(choices.other, choices.other_strength),
        sampling=_equal(sampling) if choices.blind else sampling,
        order=tuple(dice.sample(SIDES, 2)) if choices.blind else SIDES,
        verdict=OPEN if choices.blind and len(personas) == 2 else "",
        number=uuid4().hex if choices.blind else "",
        character=choices.speaker.name if choices.speaker else "",
    )


def _sampling(choices: Choices, fresh: int) -> Sampling:
    """The numbers with the seed that was typed, or a `fresh` one; one that is no number is left to be refused."""
    typed = "" if choices.seed is None else str(choices.seed).strip()[:MAX_SEED]
    seed = int(typed) if typed.isdecimal() else typed or fresh
    sampling = Sampling(**choices.numbers, seed=seed)  # type: ignore[arg-type]
    return replace(sampling, base_max_new_tokens=0) if choices.other else sampling


def _equal(sampling: Sampling) -> Sampling:
    """The same with one length for both sides, the shorter: a long answer would tell which side is the base model."""
    length = min(sampling.of(side).max_new_tokens for side in SIDES)
    return replace(sampling, max_new_tokens=length, base_max_new_tokens=0)


@dataclass(frozen=True)
class Asking:
    """An engine as one visitor asks it, who has two answers at a time at most; "" is nobody in particular."""

    engine: Engine
    visitor: str = ""

    def answer(self, request: Request) -> Iterator[dict[str, Answer]]:
        return self.engine.answer(replace(request, visitor=self.visitor))


def grow(
    engine: Engine | Asking, past: Sequence[Exchange], new: Exchange, language: str, refused: str = ""
) -> Iterator[Exchange]:
    """`new` as it fills: once before the first token, then whenever text came, at most 30 times a second.

    A refusal, `refused` where there is one already, or an engine's error becomes the answers' `stop`; closing the
    iterator ends the generation.
    """
    refused = refused or refusal(language, new.user, max(new.personas.values(), key=len), len(past))
    personas = {side: cut(persona) for side, persona in new.personas.items()}
    answers = {side: Answer(stop=refused) for side in personas}
    new = replace(new, user=cut(new.user), personas=personas, answers=answers)
    yield new
    if refused:
        return
    try:
        shown = 0.0
        with closing(engine.answer(request(past, new))) as stream:  # type: ignore[type-var]  # can be closed
            for answers in stream:
                new = replace(new, answers=answers)
                if time.monotonic() - shown >= 1 / UPDATES_PER_SECOND or all(a.stop for a in answers.values()):
                    yield new
                    shown = time.monotonic()
    except RoleplayError as error:
        yield replace(new, answers={side: replace(answer, stop=str(error)) for side, answer in new.answers.items()})


def judge(
    record: Sequence[Exchange], choice: str, provenance: Mapping[str, Mapping[str, str]]
) -> tuple[list[Exchange], Vote | None]:
    """The record with its last exchange judged, and the vote; None where that exchange is not open to one."""
    if not record or not record[-1].votable:
        return list(record), None
    *past, last = record
    said = {side: answer.text for side, answer in last.answers.items()}
    stops = {side: answer.stop for side, answer in last.answers.items()}
    made, other = provenance.get(last.adapter, {}), provenance.get(last.other.adapter, {})
    ballot = Ballot(request(past, last), said, last.order, made, len(last.examples), last.number, stops, other)
    vote = cast(choice, ballot)
    return [*past, replace(last, verdict=choice)], vote
