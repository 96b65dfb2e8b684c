"""What a pane shows of a conversation: messages, footers, and text with nothing in it that a browser would run.

A pane's messages are plain dictionaries with `role` and `content`, a list of text parts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from page.chat.exchanges import OPEN, VOTES, Exchange, speakers
from page.chat.why import explainable
from page.words import WORDS
from roleplay.engine.protocol import ADAPTER, BASE, Answer, Request

JOINER = "\N{WORD JOINER}"
EXPLAINABLE = JOINER  # at the end of a footer: page.js puts "Why" there, and nothing else is seen of it


def users(messages: Iterable[Mapping[str, Any]]) -> list[str]:
    """The user messages of a pane, oldest first."""
    return [message["content"][0]["text"] for message in messages if message["role"] == "user"]


def _message(role: str, *parts: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": part} for part in parts]}


def defuse(text: str) -> str:
    """`text` with a word joiner where an HTML parser would begin a tag or an entity: it looks the same, inert.

    Where a joiner is there already another is added, so that `restore` finds back to what was said.
    """
    return re.sub(rf"(<(?=[A-Za-z/!?{JOINER}])|&(?=[#A-Za-z{JOINER}]))", rf"\1{JOINER}", text)


def restore(text: str) -> str:
    """The inverse of `defuse`."""
    return re.sub(rf"([<&]){JOINER}", r"\1", text)


def names_of(language: str, request: Request) -> dict[str, str]:
    """What both sides are called: with the strength where it is not 1, an adapter on the base side by its name."""
    words, other = WORDS[language], request.other.adapter
    names = {ADAPTER: words[ADAPTER], BASE: other if other != request.adapter else words["same"]}
    names[BASE] = names[BASE] if other else words[BASE]
    strengths = {side: request.speaker(side).strength for side in names}
    return {
        side: name if strengths[side] == 1 else words["strength_shown"].format(name=name, strength=strengths[side])
        for side, name in names.items()
    }


def footer(language: str, exchange: Exchange, side: str, named: bool = False) -> str:
    """Under the answer of `side`: who spoke (where it is `named`, or unusual), the revision of an adapter from a hub,
    tokens, times, seed, what it was given if that is not the persona, faults."""
    words, answer = WORDS[language], exchange.answers[side]
    name = names_of(language, speakers(exchange))[side]
    parts = [name] if named or name != words[side] else []
    if side == ADAPTER and exchange.revision:
        parts.append(words["revision"].format(revision=exchange.revision[:7]))
    if answer.tokens:
        parts.append(words["tokens"].format(tokens=answer.tokens))
        parts.append(words["first"].format(first=answer.seconds_to_first_token))
        parts += [words["speed"].format(speed=answer.tokens_per_second)] if answer.tokens_per_second else []
    elif not answer.stop:
        parts.append(_waiting(words, answer))
    parts.append(words["seed_shown"].format(seed=exchange.sampling.seed))
    if note := words.get(f"with_{exchange.given(side)}"):
        parts.append(note)
    if answer.dropped_turns:
        parts.append(words["dropped"].format(dropped=answer.dropped_turns))
    if answer.stop not in ("", "end"):
        parts.append(words.get(answer.stop, answer.stop))
    return " · ".join(parts)


def _waiting(words: Mapping[str, str], answer: Answer) -> str:
    """Why there is no word of an answer yet."""
    if answer.place:
        return words["queued"].format(place=answer.place)
    return words["weighing"].format(count=answer.weighing) if answer.weighing else words["reading"]


def side_of(exchange: Exchange, pane: int, blind: bool, sides: Sequence[str]) -> str:
    """Which side the left (0) or right (1) pane shows of an exchange.

    The order of a blind exchange holds only in the blind view; elsewhere `sides` says what is left and right.
    """
    shuffled = blind and exchange.verdict in (OPEN, *VOTES)
    return (exchange.order if shuffled else sides)[pane]


def answer_message(
    exchange: Exchange, pane: int, blind: bool, sides: Sequence[str], language: str
) -> dict[str, Any] | None:
    """The left (0) or right (1) answer as a pane shows it, its footer as a second part; None while there is none."""
    side = side_of(exchange, pane, blind, sides)
    if side not in exchange.answers:
        missing = exchange.answers and pane == 1
        return _message("assistant", "–", WORDS[language]["not_asked"]) if missing else None
    answer = exchange.answers[side]
    if exchange.verdict == OPEN:
        limit = exchange.sampling.max_new_tokens  # of both sides
        note = WORDS[language]["hidden" if answer.stop else "writing"].format(limit=limit)
    else:
        note = footer(language, exchange, side, blind and exchange.verdict in VOTES)
        note += EXPLAINABLE * explainable(exchange, side)
    return _message("assistant", answer.text or "…", note)


def pane_messages(
    record: Iterable[Exchange], pane: int, blind: bool, sides: Sequence[str], language: str
) -> list[dict[str, Any]]:
    """All messages of the left (0) or right (1) pane."""
    messages = []
    for exchange in record:
        messages.append(_message("user", exchange.user))
        if answer := answer_message(exchange, pane, blind, sides, language):
            messages.append(answer)
    return messages
