"""What is saved of a conversation: JSON for the browser, Markdown to read, rows to train on."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from page.chat.choices import GIVEN, Choices
from page.chat.exchanges import MAX_EXCHANGES, MAX_MESSAGE, MAX_TEXT, OPEN, SIDES, UNVEILED, VOTES, Exchange, speakers
from page.chat.shown import footer, names_of
from page.words import WORDS
from roleplay.engine.protocol import ADAPTER, Answer, Sampling, Speaker
from roleplay.errors import DataError, RoleplayError
from roleplay.results.votes import SHA256_SHOWN
from roleplay.text import retrieval
from roleplay.text.personas import Persona, parse_persona
from roleplay.text.prompts import Turn

MAX_REPLY = 20_000  # characters of a reply that a browser hands in
MAX_STOP, MAX_NAME, MAX_HASH = 500, 200, 64  # of why an answer ended, of a name, and of a hash
MAX_TOKENS = 1_000_000
# What is raised where a value is not what it should be.
MISPLACED = (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError, RoleplayError)


@dataclass(frozen=True)
class Kept:
    """What a browser tab keeps while it is open."""

    record: Sequence[Exchange]
    compare: bool
    persona: str
    given: str  # to the base model, one of `choices.GIVEN`
    speaker: Persona | None = None  # whom a card brought; None is the adapter's
    strength: float = 1.0
    other: Speaker = field(default_factory=Speaker)
    adapter: str = ""  # beside which `other` was chosen


def kept_now(record: Sequence[Exchange], choices: Choices) -> Kept:
    """The conversation with the settings as they are."""
    other = Speaker(choices.other, choices.other_strength)
    spoken = choices.speaker, choices.strength, other, choices.adapter
    return Kept(record, choices.compare, choices.persona, choices.given, *spoken)


def to_json(kept: Kept) -> str:
    """The conversation and its settings in one line."""
    return json.dumps(asdict(kept), ensure_ascii=False)


def from_json(text: str) -> Kept:
    """The inverse of `to_json`; raises `DataError` for anything else, since a browser may hand in what it likes."""
    try:
        return from_value(json.loads(text))
    except MISPLACED as error:
        raise DataError("the conversation kept in this tab cannot be read: it starts anew") from error


def from_value(value: Any) -> Kept:
    """The same of the value that the JSON holds; raises one of `MISPLACED` for anything else."""
    record = _within(_exchange(item) for item in reversed(value["record"][:MAX_EXCHANGES]))
    persona = str(value["persona"])[:MAX_MESSAGE]
    given = GIVEN[GIVEN.index(value["given"])]
    own = Speaker(strength=value.get("strength", 1.0))
    spoken = _speaker(value.get("speaker")), own.strength, _other(value), str(value.get("adapter", ""))[:MAX_NAME]
    return Kept(record, bool(value["compare"]), persona, given, *spoken)


def _speaker(value: Any) -> Persona | None:
    if not value:
        return None
    if len(json.dumps(value)) > MAX_REPLY:
        raise ValueError("the speaker is too long")
    return parse_persona(value, "speaker")


def _other(value: Any) -> Speaker:
    """Who speaks on the base side of an exchange or a conversation; the base model where none is told."""
    told = value.get("other") or {"adapter": "", "strength": 1.0}
    return Speaker(str(told["adapter"])[:MAX_NAME], float(told["strength"]))


def _within(newest_first: Iterable[Exchange]) -> list[Exchange]:
    """The newest exchanges that have at most `MAX_TEXT` characters together, oldest first."""
    kept, room = list[Exchange](), MAX_TEXT
    for exchange in newest_first:
        rows = [exchange.examples, *(answer.shown_rows for answer in exchange.answers.values())]
        texts = [exchange.user, *exchange.personas.values(), *(text for some in rows for turn in some for text in turn)]
        room -= sum(map(len, texts)) + sum(len(answer.text) + len(answer.stop) for answer in exchange.answers.values())
        if room < 0:
            break
        kept.insert(0, exchange)
    return kept


def _answer(item: Any) -> Answer:
    first, whole = float(item["seconds_to_first_token"]), float(item["seconds"])
    tokens, dropped, candidate = int(item["tokens"]), int(item["dropped_turns"]), int(item.get("candidate", 0))
    if not all(0 <= number <= MAX_TOKENS for number in (first, whole, tokens, dropped, candidate)):
        raise ValueError("a number is out of range")
    said, stop, shown = str(item["text"])[:MAX_REPLY], str(item["stop"])[:MAX_STOP], item.get("shown_rows")
    rows = () if isinstance(shown, int | None) else _rows(shown)  # it was their number once
    return Answer(said, tokens, first, whole, stop, dropped, rows, candidate=candidate)


def _rows(value: Any) -> tuple[Turn, ...]:
    """Rows that a side was shown, no more and no longer than one can be shown."""
    return tuple((str(user)[:MAX_REPLY], str(reply)[:MAX_REPLY]) for user, reply in value[: retrieval.NEAREST])


def _exchange(item: Any) -> Exchange:
    answers = {side: _answer(item["answers"][side]) for side in SIDES if side in item["answers"]}
    personas = {side: str(text)[:MAX_MESSAGE] for side, text in item["personas"].items() if side in SIDES}
    examples = _rows(item["examples"])
    order, verdict = tuple(item["order"]), str(item["verdict"])
    if set(order) != set(SIDES) or len(order) != 2 or verdict not in ("", OPEN, UNVEILED, *VOTES):
        raise ValueError("order or verdict is unknown")
    # A vote counts only for what this server has just said, so an open exchange comes back opened.
    verdict = UNVEILED if verdict == OPEN else verdict
    user, adapter, revision = str(item["user"])[:MAX_MESSAGE], str(item["adapter"])[:MAX_NAME], item.get("revision", "")
    new = Exchange(user, answers, personas, adapter, Sampling(**item["sampling"]), order, verdict, examples)
    strength = Speaker(strength=float(item.get("strength", 1.0))).strength
    made = {side: str(sha256)[:MAX_HASH] for side, sha256 in item.get("weights_sha256", {}).items() if side in SIDES}
    new = replace(new, character=str(item.get("character", ""))[:MAX_NAME], weights_sha256=made)
    return replace(new, revision=str(revision)[:MAX_NAME], strength=strength, other=_other(item))


def made_by(exchange: Exchange, side: str, language: str) -> str:
    """Whose weights an answer is of: adapter, strength, and the beginning of the hash that it had; "" for the base."""
    speaker, sha256 = speakers(exchange).speaker(side), exchange.weights_sha256.get(side, "")
    told = WORDS[language]["strength_shown"].format(name=speaker.adapter, strength=speaker.strength)
    told += f", SHA-256 {sha256[:SHA256_SHOWN]}" if sha256 else ""
    return told if speaker.adapter else ""


def as_markdown(record: Sequence[Exchange], name: str, language: str) -> str:
    """The conversation to read: the character's and the other side's answer under every message, and what made each.

    `name` is who speaks now, and has given the answers that do not say who has. Personas stand where they change.
    """
    lines, before = [f"# {name}", ""], list[str]()
    for exchange in record:
        titles = names_of(language, speakers(exchange)) | {ADAPTER: exchange.character or name}
        told = list(dict.fromkeys(exchange.personas[side] for side in SIDES if exchange.personas.get(side)))
        if told and told != before:
            for persona in told:
                lines += [*(f"> {line}" for line in persona.splitlines()), ""]
            before = told
        lines += [f"**{WORDS[language]['you']}**", "", exchange.user, ""]
        for side in SIDES:
            if side in exchange.answers:
                note = footer(language, exchange, side)
                note += " · " + WORDS[language]["at_most"].format(limit=exchange.sampling.of(side).max_new_tokens)
                note += f" · {made}" if (made := made_by(exchange, side, language)) else ""
                lines += [f"**{titles[side]}**", "", exchange.answers[side].text, "", f"*{note}*", ""]
    return "\n".join(lines)


def as_rows(record: Sequence[Exchange]) -> str:
    """The adapter side as a JSON list with one multi-turn row that `rows.read_rows` reads ([] if empty)."""
    answered = [e for e in record if ADAPTER in e.answers and e.answers[ADAPTER].text.strip()]
    if not answered:
        return "[]\n"
    *history, (user, reply) = [(e.user, e.answers[ADAPTER].text) for e in answered]
    row = {"instruction": user, "input": "", "output": reply, "history": [list(turn) for turn in history]}
    spoke = [f"{e.character}: {made_by(e, ADAPTER, 'en')}".removeprefix(": ") for e in answered]
    row["speaker"] = "; ".join(dict.fromkeys(spoke))
    return json.dumps([row], ensure_ascii=False, indent=2) + "\n"
