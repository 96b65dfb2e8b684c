"""Where both sides part over an answer: what an engine is asked about it, and what its figures come to."""

import math
from collections.abc import Sequence
from dataclasses import replace

from page.chat.exchanges import OPEN, OVERTAKEN, STOPPED, Exchange, question, speakers
from roleplay.engine.protocol import ADAPTER, BASE, ENDS, Piece, Request

TELLING = 3  # pieces whose share is told
SHADES = (0.1, 0.5, 1.5, 3.0)  # nat from which a piece is shaded, and shaded more


def explainable(exchange: Exchange, side: str) -> bool:
    """Whether the answer of `side` may be looked into: it has ended with words in it, and says no secret."""
    answer = exchange.answers.get(side)
    if not answer or not exchange.adapter or exchange.verdict == OPEN:
        return False
    return answer.stop in (*ENDS, STOPPED, OVERTAKEN) and bool(answer.text.strip())


def request_about(past: Sequence[Exchange], exchange: Exchange, side: str) -> Request:
    """Both sides where `side` gave its answer: after its own turns, each with what it was given; where there was no
    other side, the base model with the same persona."""
    own = exchange.personas.get(side, "")
    examples = {BASE: exchange.examples}
    questions = {
        one: question(past, side, exchange.personas.get(one, own), exchange.user, examples.get(one, ()))
        for one in (ADAPTER, BASE)
    }
    return replace(speakers(exchange), questions=questions)


def log_ratio(piece: Piece) -> float:
    """How much likelier the adapter's side finds it than the other one, in nat."""
    return piece.logprobs[ADAPTER] - piece.logprobs[BASE]


def shade(piece: Piece) -> int:
    """From 0 for a piece that both find as likely to 4."""
    return sum(abs(log_ratio(piece)) >= least for least in SHADES)


def parting(pieces: Sequence[Piece]) -> int | None:
    """The first piece at which both would have chosen differently; None where they never would have."""
    return next((number for number, piece in enumerate(pieces) if not piece.same_choice), None)


def telling(pieces: Sequence[Piece]) -> tuple[list[Piece], float]:
    """The pieces that both sides see most differently, and their share of all differences, either way counted."""
    best = sorted(pieces, key=lambda piece: -abs(log_ratio(piece)))[:TELLING]
    whole = math.fsum(abs(log_ratio(piece)) for piece in pieces)
    return best, math.fsum(abs(log_ratio(piece)) for piece in best) / whole if whole else 0.0
