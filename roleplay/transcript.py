"""A conversation as the page keeps it: every user message once, with what each side answered to it.

The two panes are drawn from this record and never read back, so they cannot drift apart. Nothing here knows Gradio;
a pane's messages are plain dictionaries with `role` and `content`, a list of text parts.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from roleplay.engine.protocol import ADAPTER, BASE, Answer, Question, Request, Sampling
from roleplay.errors import DataError, RoleplayError
from roleplay.results import wording as texts
from roleplay.results.wording import MAX_EXCHANGES, MAX_MESSAGE
from roleplay.text import retrieval
from roleplay.text.prompts import Turn

SIDES = (ADAPTER, BASE)
MAX_REPLY = 20_000  # characters of a reply that a browser hands in
# What the base model reads beside the conversation; with examples it has the persona as well.
PERSONA, NOTHING, EXAMPLES = GIVEN = ("persona", "nothing", "examples")
MAX_TURNS = 40  # earlier turns that an engine is given at most
OPEN, UNVEILED = "open", "unveiled"  # verdicts of a blind exchange before a vote, and without one
JOINER = "\N{WORD JOINER}"
CHOICES = ("left", "right", "tie", "bad")


@dataclass(frozen=True)
class Exchange:
    """One user message and the answers to it, with all that is needed to ask for them again."""

    user: str
    answers: Mapping[str, Answer] = field(default_factory=dict)  # by side
    personas: Mapping[str, str] = field(default_factory=dict)  # the system prompt that each side was given
    adapter: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    order: tuple[str, ...] = SIDES  # left, right
    verdict: str = ""  # "" when the labels were shown, else `OPEN`, `UNVEILED` or one of `CHOICES`
    examples: tuple[Turn, ...] = ()  # training rows that the base side was shown as its first turns

    @property
    def votable(self) -> bool:
        """Whether it was asked blind, is not voted on yet, and both sides came to their end."""
        ended = [self.answers[side].stop in ("end", "length") for side in SIDES if side in self.answers]
        return self.verdict == OPEN and ended == [True, True]

    def given(self, side: str) -> str:
        """What `side` read beside the conversation, one of `GIVEN`."""
        if side == BASE and self.examples:
            return EXAMPLES
        return PERSONA if self.personas.get(side) else NOTHING


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
    return Request(questions, new.sampling, new.adapter)


def align(users: Sequence[str], record: Sequence[Exchange]) -> list[Exchange]:
    """The record cut and filled so that it holds exactly these user messages; undo, edit and clear end here."""
    kept = []
    for number, user in enumerate(users):
        same = number < len(record) and record[number].user == user
        kept.append(record[number] if same else Exchange(user))
    return kept


def unveil(record: Iterable[Exchange]) -> list[Exchange]:
    """The record with every blind exchange opened without a vote."""
    return [replace(e, verdict=UNVEILED) if e.verdict == OPEN else e for e in record]


def close(record: Iterable[Exchange]) -> list[Exchange]:
    """The record with every answer that was cut off marked as stopped."""
    return [
        replace(e, answers={s: a if a.stop else replace(a, stop="stopped") for s, a in e.answers.items()})
        for e in record
    ]


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


def answer_message(
    exchange: Exchange, pane: int, blind: bool, sides: Sequence[str], language: str
) -> dict[str, Any] | None:
    """The left (0) or right (1) answer as a pane shows it, its footer as a second part; None while there is none.

    The order of a blind exchange holds only in the blind view; elsewhere `sides` says what is left and right.
    """
    shuffled = blind and exchange.verdict in (OPEN, *CHOICES)
    side = (exchange.order if shuffled else sides)[pane]
    if side not in exchange.answers:
        missing = exchange.answers and pane == 1
        return _message("assistant", "–", texts.TEXTS[language]["not_asked"]) if missing else None
    answer = exchange.answers[side]
    if exchange.verdict == OPEN:
        footer = texts.TEXTS[language]["hidden" if answer.stop else "writing"]
    else:
        footer = texts.footer(language, answer, exchange.sampling.seed, side if shuffled else "", exchange.given(side))
    return _message("assistant", answer.text or "…", footer)


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


@dataclass(frozen=True)
class Kept:
    """What a browser keeps between two visits."""

    record: Sequence[Exchange]
    compare: bool
    persona: str
    given: str  # to the base model, one of `GIVEN`


def to_json(kept: Kept) -> dict[str, Any]:
    """The conversation and its settings as JSON values."""
    return asdict(kept)


def from_json(value: Any) -> Kept:
    """The inverse of `to_json`; raises `DataError` for anything else, since a browser may hand in what it likes."""
    try:
        record = [_exchange(item) for item in value["record"]][:MAX_EXCHANGES]
        persona = str(value["persona"])[:MAX_MESSAGE]
        return Kept(record, bool(value["compare"]), persona, GIVEN[GIVEN.index(value["given"])])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RoleplayError) as error:
        raise DataError("the conversation kept in this browser cannot be read: it starts anew") from error


def _answer(item: Any) -> Answer:
    first, whole = float(item["seconds_to_first_token"]), float(item["seconds"])
    text = str(item["text"])[:MAX_REPLY]
    return Answer(text, int(item["tokens"]), first, whole, str(item["stop"]), int(item["dropped_turns"]))


def _exchange(item: Any) -> Exchange:
    answers = {side: _answer(item["answers"][side]) for side in SIDES if side in item["answers"]}
    personas = {side: str(text)[:MAX_MESSAGE] for side, text in item["personas"].items() if side in SIDES}
    shown = item["examples"][: retrieval.EXAMPLES]
    examples = tuple((str(user)[:MAX_REPLY], str(reply)[:MAX_REPLY]) for user, reply in shown)
    order, verdict = tuple(item["order"]), str(item["verdict"])
    if set(order) != set(SIDES) or len(order) != 2 or verdict not in ("", OPEN, UNVEILED, *CHOICES):
        raise ValueError("order or verdict is unknown")
    # A vote counts only for what this server has just said, so an open exchange comes back opened.
    verdict = UNVEILED if verdict == OPEN else verdict
    user = str(item["user"])[:MAX_MESSAGE]
    sampling = Sampling(**item["sampling"])
    return Exchange(user, answers, personas, str(item["adapter"]), sampling, order, verdict, examples)


def as_markdown(record: Sequence[Exchange], name: str, language: str) -> str:
    """The conversation to read: the persona's and the base model's answer under every message."""
    lines = [f"# {name}", ""]
    if record:
        persona = record[-1].personas.get(ADAPTER) or record[-1].personas.get(BASE, "")
        lines += [*(f"> {line}" for line in persona.splitlines()), ""]
    titles = {ADAPTER: name, BASE: texts.TEXTS[language]["base"]}
    for exchange in record:
        lines += [f"**{texts.TEXTS[language]['you']}**", "", exchange.user, ""]
        for side in SIDES:
            if side in exchange.answers:
                answer = exchange.answers[side]
                footer = texts.footer(language, answer, exchange.sampling.seed, "", exchange.given(side))
                lines += [f"**{titles[side]}**", "", answer.text, "", f"*{footer}*", ""]
    return "\n".join(lines)


def as_rows(record: Sequence[Exchange]) -> str:
    """The adapter side as a JSON list with one multi-turn row that `rows.read_rows` reads ([] if empty)."""
    asked = [
        (e.user, e.answers[ADAPTER].text) for e in record if ADAPTER in e.answers and e.answers[ADAPTER].text.strip()
    ]
    if not asked:
        return "[]\n"
    *history, (user, reply) = asked
    row = {"instruction": user, "input": "", "output": reply, "history": [list(turn) for turn in history]}
    return json.dumps([row], ensure_ascii=False, indent=2) + "\n"
