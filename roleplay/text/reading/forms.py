"""The forms in which people keep rows: how each is recognised, and how it becomes this project's own.

Every form goes through the one table `FORMS`; docs/rows.md shows an example of each.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from roleplay.errors import DataError
from roleplay.text.reading.chats import exchanges, first_key, is_exchanges, is_messages, is_sharegpt
from roleplay.text.reading.json_values import make_object

Record = dict[str, Any]
OWN = ("context", "scene", "split", "weight", "speaker", "history_weights")  # keys of a row that every form may have
SYSTEM = ("system", "system_prompt", "系统", "系统提示", "人设")
HISTORY = ("history", "历史")
_EACH_OWN = tuple((key,) for key in OWN)
CHAT = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns", "对话")


@dataclass(frozen=True)
class Form:
    """`convert` makes a row of a record, and says what it left out of it; it raises `DataError` without a place."""

    about: str
    keys: tuple[Sequence[str], ...]  # that it uses, the first of each group; any other is named in a note
    matches: Callable[[Record], bool]
    convert: Callable[[Record], tuple[Record, list[str]]]
    sure: bool = True


def plain(value: Any) -> Any:
    """A record with its keys in small letters and without what is absent: null, and the NaN of an empty cell.

    Keys that differ in their capitals alone are one key, given twice.
    A bare list of messages becomes a record of them, and so does a pair of texts.
    """
    if isinstance(value, list):
        return {CHAT[0]: [value] if len(value) == 2 and all(isinstance(part, str) for part in value) else value}
    if not isinstance(value, dict):
        return value
    kept = {key: part for key, part in value.items() if part is not None and part == part}
    return make_object([(key.strip().lower(), part) for key, part in kept.items() if isinstance(key, str)])


def _shared(record: Record) -> tuple[Record, list[str]]:
    """What a row takes from a record of any form, and what the record's history leaves out."""
    row = {key: record[key] for key in OWN if key in record}
    if key := first_key(record, SYSTEM):
        row["system"] = record[key]
    if not (key := first_key(record, HISTORY)):
        return row, []
    history = record[key] or []
    if not (isinstance(history, list) and history and all(isinstance(part, dict) for part in history)):
        return row | {"history": history}, []
    talk = exchanges(history)
    return row | talk.history | ({"system": talk.system} if talk.system else {}), talk.left_out


def _pair(users: Sequence[str], replies: Sequence[str], inputs: Sequence[str], record: Record) -> tuple[Record, list]:
    """A record that has what the user says under one key and the reply under another."""
    user, reply = (record[key] if (key := first_key(record, keys)) else None for keys in (users, replies))
    if isinstance(user, list) and is_messages(user):  # as TRL has it
        said = reply if isinstance(reply, list) else [{"role": "assistant", "content": reply}]
        return _chat({CHAT[0]: user + said, **{key: record[key] for key in OWN if key in record}})
    row, left_out = _shared(record)
    row |= {"instruction": user, "output": reply}
    if key := first_key(record, inputs):
        row["input"] = record[key]
    return row, left_out


def _chat(record: Record) -> tuple[Record, list[str]]:
    """A record that has a whole conversation under one key; its last exchange is the row, the others its history."""
    talk = exchanges(record[first_key(record, CHAT)])
    talk.cut_unlearnt()
    row, left_out = _shared(record)
    user, reply = talk.pairs.pop()
    talk.weights.pop()
    system = talk.system or row.get("system", "")
    row |= {"instruction": user, "output": reply} | talk.history | ({"system": system} if system else {})
    return row, left_out + talk.left_out


def _pair_form(about: str, users: str, replies: str, inputs: str = "input 输入", sure: bool = True) -> Form:
    asked, said, given = users.split(), replies.split(), inputs.split()

    def matches(record: Record) -> bool:
        return bool(first_key(record, asked) and first_key(record, said))

    keys = (asked, said, given, SYSTEM, HISTORY, *_EACH_OWN)
    return Form(about, keys, matches, partial(_pair, asked, said, given), sure)


def _chat_form(about: str, is_one: Callable[[Any], bool]) -> Form:
    def matches(record: Record) -> bool:
        return is_one(record.get(first_key(record, CHAT)))

    return Form(about, (CHAT, SYSTEM, *_EACH_OWN), matches, _chat)


FORMS = {
    "alpaca": _pair_form(
        "instruction, input, output; also system and history", "instruction 指令", "output response 输出"
    ),
    "sharegpt": _chat_form("conversations of from and value", is_sharegpt),
    "messages": _chat_form("messages of role and content", is_messages),
    "exchanges": _chat_form("a conversation of pairs, such as human and assistant or input and output", is_exchanges),
    "prompt-completion": _pair_form("prompt and completion", "prompt 提示", "completion response 补全"),
    "query-response": _pair_form("query, response; also history", "query", "response"),
    "question-answer": _pair_form(
        "question and answer, 问题 and 回答", "question q 问题 问 提问 问句", "answer a response 答案 答 回答 回复 答复"
    ),
    "input-output": _pair_form(
        "two keys for who speaks, such as input and output, user and assistant, 用户 and 角色",
        "input user human 用户 输入 source",
        "output assistant bot reply response target 助手 角色 回复 输出",
        "",
        sure=False,
    ),
}


def is_row(value: Any) -> bool:
    """Whether a value is a record that cannot be a part of a conversation."""
    return isinstance(value, dict) and "instruction" in value and matches_any(value)


def matches_any(value: Any) -> bool:
    """Whether a value is a record of some form."""
    record = plain(value)
    return isinstance(record, dict) and any(form.matches(record) for form in FORMS.values())


def is_persona(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a persona or a character card."""
    return bool({"system_prompt", "first_mes", "spec", "char_persona"} & set(value))


def recognise(records: Sequence[Any], wanted: str = "") -> tuple[str, str]:
    """The name of the form that most records are in, or the one `wanted`, and how sure that is, for people.

    Raises `DataError` without a place where there is none.
    """
    if wanted and wanted not in FORMS:
        raise DataError(f"no form {wanted!r:.40}: choose from {', '.join(FORMS)}")
    dicts = [record for record in records if isinstance(record, dict)]
    counts = {name: sum(map(form.matches, dicts)) for name, form in FORMS.items()}
    name = wanted or max(counts, key=lambda name: counts[name])
    if not wanted and not counts[name]:
        raise DataError(_unknown(records))
    fits = "all" if counts[name] == len(records) else f"{counts[name]:,} of {len(records):,}"
    sure = "as asked" if wanted else "certain" if FORMS[name].sure else "a guess by the keys: see the preview"
    return name, f"read as {name} ({FORMS[name].about}): {fits} rows, {sure}"


def _unknown(records: Sequence[Any]) -> str:
    """Why no form fits, and what to do."""
    keys = [key for key, _ in Counter(key for r in records if isinstance(r, dict) for key in r).most_common(6)]
    if not keys:
        kind = type(records[0]).__name__
        return f"row 1: {kind} where an object with instruction and output belongs"
    if {"chosen", "rejected"} <= set(keys):
        return "these are preference rows (chosen and rejected); rows have one reply: keep the chosen one as output"
    if keys == ["text"]:
        return "these are whole prompts, the two sides in one text; a row has instruction and output apart"
    return (
        f"no known form of rows: its keys are {', '.join(map(_shown, keys))}; rename what is said to the "
        "character to instruction and the reply to output, or name a form with --format"
    )


def convert(name: str, record: Any) -> tuple[Any, list[str]]:
    """A record of the named form as a row, and what was left out; what is no record is given back as it is.

    Raises `DataError` without a place.
    """
    if not isinstance(record, dict):
        return record, []
    if name == "prompt-completion" and str(record.get("label")).lower() == "false":  # as TRL's KTO has it
        raise DataError("label is false, so its reply is one that is not to be learnt; remove the row")
    try:
        return FORMS[name].convert(record)
    except (KeyError, TypeError) as error:
        raise DataError(f"is not in the form {name} ({FORMS[name].about})") from error


def unused_keys(name: str, records: Sequence[Any]) -> list[str]:
    """Keys that the form does not use, each with the number of rows that have it."""
    counts = Counter[str]()
    for record in (record for record in records if isinstance(record, dict)):
        used = {first_key(record, keys) for keys in FORMS[name].keys}
        counts.update(key for key in record if key not in used)
    return [f"{_shown(key)} ({count:,})" for key, count in counts.most_common()]


def _shown(key: str) -> str:
    """A key as a console and a file can hold it: half an emoji is written as its number."""
    return key[:40].encode(errors="backslashreplace").decode()


def from_cell(key: str, text: str) -> Any:
    """What a cell of a table holds: lists are written as JSON, weights as digits, and an empty one is absent."""
    if key in (*CHAT, *HISTORY, "history_weights") and text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    if key == "weight" and text:
        try:
            return float(text)
        except ValueError:
            return text
    return text if text.strip() else None
