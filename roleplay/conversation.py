"""One step of a conversation: a message becomes an exchange, its answers grow, a blind one is voted on.

Nothing here knows Gradio or a model: the engine is handed in, and the page draws what comes out.
"""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from roleplay import transcript
from roleplay.engine.protocol import ADAPTER, BASE, Answer, Engine, Sampling
from roleplay.errors import RoleplayError
from roleplay.results import wording as texts
from roleplay.results.votes import Ballot, Vote, cast
from roleplay.text.prompts import Turn
from roleplay.text.retrieval import Retriever
from roleplay.transcript import EXAMPLES, NOTHING, OPEN, SIDES, Exchange

UPDATES_PER_SECOND = 30
PRESETS = {
    "steady": Sampling(),
    "natural": Sampling(temperature=0.7, top_p=0.9, top_k=50),
    "lively": Sampling(temperature=1.0, top_p=0.95, top_k=100),
}


def _number(seed: Any) -> Any:
    """A seed as it was typed; one that is no whole number is left for `Sampling` to refuse."""
    return int(seed) if str(seed).strip().isdecimal() else seed


def begin(
    message: str,
    compare: bool,
    blind: bool,
    persona: str,
    given: str,
    adapter: str | None,
    numbers: Sequence[Any],
    seed: str | int | None,
    retriever: Retriever | None = None,
) -> Exchange:
    """A new exchange, not answered yet.

    `given` is one of `transcript.GIVEN`; with examples, `retriever` finds them. `numbers` are the fields of `Sampling`
    in their order, without the seed; no `seed` draws a fresh one. With no `adapter` only the base model speaks,
    with the persona. A blind exchange gets an order that no seed predicts.
    """
    persona, dice = persona.strip(), random.SystemRandom()
    personas = {ADAPTER: persona} if adapter else {BASE: persona}
    examples: Sequence[Turn] = ()
    if compare and adapter:
        personas[BASE] = "" if given == NOTHING else persona
        examples = retriever.examples(message) if given == EXAMPLES and retriever else ()
    return Exchange(
        message,
        personas=personas,
        examples=tuple(examples),
        adapter=adapter or "",
        sampling=replace(Sampling(*numbers), seed=_number(seed) if seed not in (None, "") else dice.randrange(2**32)),
        order=tuple(dice.sample(SIDES, 2)) if blind else SIDES,
        verdict=OPEN if blind and len(personas) == 2 else "",
    )


def grow(
    engine: Engine, past: Sequence[Exchange], new: Exchange, language: str, refused: str = ""
) -> Iterator[Exchange]:
    """`new` as it fills: once before the first token, then whenever text came, at most 30 times a second.

    A refusal, `refused` where there is one already, or an engine's error becomes the answers' `stop`; closing the
    iterator ends the generation.
    """
    refusal = refused or texts.refusal(language, new.user, max(new.personas.values(), key=len), len(past))
    new = replace(new, answers={side: Answer(stop=refusal) for side in new.personas})
    yield new
    if refusal:
        return
    try:
        shown = 0.0
        with closing(engine.answer(transcript.request(past, new))) as stream:  # type: ignore[type-var]  # can be closed
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
    given = {side: answer.text for side, answer in last.answers.items()}
    asked, made = transcript.request(past, last), provenance.get(last.adapter, {})
    vote = cast(choice, Ballot(asked, given, last.order, made, len(last.examples)))
    return [*past, replace(last, verdict=choice)], vote
