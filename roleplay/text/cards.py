"""Characters of other programs as personas: Tavern cards V1, V2 and V3, and text-generation-webui's.

Description, personality and scenario become the system prompt, the first message becomes the greeting, the example
dialogue becomes rows, and what its visitors say first becomes openers, as do short alternate greetings. What has no
place here is named in a note. Nothing here knows what a good persona is.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from roleplay.errors import DataError
from roleplay.text.card_files import read_file
from roleplay.text.languages import language
from roleplay.text.prompts import Turn

MAX_OPENERS, MAX_OPENER = 6, 100  # how many, and characters of each
MAX_NAMED = 12  # parts that a note names
EXTENSION = "roleplay"  # where a card keeps what only this project knows
# Each part of a card, and the keys that may hold it: Tavern's first, then text-generation-webui's.
PARTS = {
    "name": ("name", "char_name", "bot"),
    "nickname": ("nickname",),
    "system_prompt": ("system_prompt",),
    "description": ("description", "context", "char_persona"),
    "personality": ("personality",),
    "scenario": ("scenario", "world_scenario"),
    "greeting": ("first_mes", "greeting", "char_greeting"),
    "dialogue": ("mes_example", "example_dialogue"),
}
# `visitor` is the user in the system prompt, `addressed` in what is said to them.
WORDS = {
    "en": {
        "visitor": "the visitor",
        "addressed": "you",
        "you": "You are {}. ",
        "also": "{} ({})",
        "personality": "Personality: {}",
        "scenario": "Scenario: {}",
    },
    "zh": {
        "visitor": "访客",
        "addressed": "你",
        "you": "你是{}。",
        "also": "{}（{}）",
        "personality": "性格：{}",
        "scenario": "情景：{}",
    },
}
_START = re.compile(r"<START>", re.IGNORECASE)
_CHAR, _USER = r"(?:\{\{\s*char\s*\}\}|<(?:bot|char)>)", r"(?:\{\{\s*user\s*\}\}|<user>)"
# "Come in, {{user}}." is said to anyone as "Come in."
_CALLED = rf"\s*[,，、]\s*{_USER}(?=\s*(?:[.。!！?？~…*\"”」]|$))"
_SILENT = r"\{\{\s*(?:original\s*|//[^{}]*|comment:[^{}]*)\}\}"
_REMOVED = re.compile(rf"{_CALLED}|{_SILENT}", re.IGNORECASE | re.MULTILINE)
_FILLED = re.compile(rf"(?P<user>{_USER}(?P<own>['’]s)?)|{_CHAR}", re.IGNORECASE)
_LEFT = re.compile(r"\{\{[^{}]{1,60}\}\}")
_ADDRESSED = re.compile(r"you are|you're|你是|妳是|您是", re.IGNORECASE)


@dataclass(frozen=True)
class Card:
    """What a file says of a character: the persona's JSON value, the example dialogues, and notes on the rest."""

    persona: Any
    dialogues: tuple[tuple[Turn, ...], ...] = ()
    notes: tuple[str, ...] = ()


def read_card(value: Any, where: str) -> Card:
    """A card's JSON value; one that is no card comes back as a persona. Raises `DataError` that names `where`."""
    if not isinstance(value, dict):
        return Card(value)
    if "spec" in value or isinstance(value.get("data"), dict):
        if not isinstance(value.get("data"), dict):
            raise DataError(f"{where}: a Tavern card without an object under data; export it again")
        version = "V3" if value.get("spec") == "chara_card_v3" else "V2"
        return _convert(value["data"], f"a Tavern card {version}", where)
    keys = value.keys()
    if keys & {"first_mes", "mes_example"} or ("system_prompt" not in keys and keys & {"description", "personality"}):
        return _convert(value, "a Tavern card V1", where)
    if keys & {"context", "char_persona"}:
        return _convert(value, "a character of text-generation-webui", where)
    return Card(value)


def rows_of_card(path: str | Path) -> list[dict[str, Any]]:
    """One training row for each example dialogue in a file; raises `DataError` where there is none."""
    dialogues = read_card(read_file(path), str(path)).dialogues
    if not dialogues:
        raise DataError(
            f"{path}: no example dialogue in it; rows are made of lines that begin {{{{user}}}}: or {{{{char}}}}:"
        )
    return [
        {"instruction": user, "input": "", "output": reply, "history": [list(turn) for turn in history]}
        for *history, (user, reply) in dialogues
    ]


def make_card(persona: Mapping[str, Any]) -> dict[str, Any]:
    """A persona's JSON value as a Tavern card V3, of which `read_card` makes the same persona."""
    empty = ("description", "personality", "scenario", "mes_example", "creator_notes", "post_history_instructions")
    data = {
        "name": persona["name"],
        "system_prompt": persona["system_prompt"],
        "first_mes": persona["greeting"],
        **dict.fromkeys((*empty, "creator", "character_version"), ""),
        **{key: [] for key in ("alternate_greetings", "group_only_greetings", "tags")},
        "extensions": {EXTENSION: {"openers": list(persona["openers"])}},
    }
    return {"spec": "chara_card_v3", "spec_version": "3.0", "data": data}


def _convert(card: Mapping[str, Any], kind: str, where: str) -> Card:
    """The card's parts as a persona and dialogues, with notes on those that have no place."""
    parts = {part: _text(card, keys, where) for part, keys in PARTS.items()}
    # text-generation-webui has its examples at the end of the description.
    parts["description"], *examples = _START.split(parts["description"], maxsplit=1)
    names = tuple(name for name in (parts["nickname"], parts["name"]) if name)
    told = _FILLED.sub("", "\n".join(parts[part] for part in ("description", "scenario", "greeting")))
    words = WORDS["zh" if language(told) == "zh" else "en"]

    def fill(text: str, user: str = words["addressed"]) -> str:
        return _fill(text, user, names[0] if names else "").strip()

    dialogues = tuple(
        tuple((fill(user), fill(reply)) for user, reply in turns)
        for turns in _dialogues(parts["dialogue"] or "".join(examples), names)
    )
    greetings = list(filter(None, map(fill, (parts["greeting"], *_texts(card.get("alternate_greetings"))))))
    short = [text for text in greetings[1:] if len(text) <= MAX_OPENER]
    persona = {
        "name": parts["name"],
        "system_prompt": _prompt({part: fill(text, words["visitor"]) for part, text in parts.items()}, words),
        "greeting": greetings[0] if greetings else "",
        "openers": _own_openers(card) or _openers([*(turns[0][0] for turns in dialogues), *short]),
    }
    left = [f"alternate_greetings ({len(greetings[1:]) - len(short)} long)"] if greetings[1:] != short else []
    notes = [f"{where}: read as {kind}" + _listed("; no place here for ", left + list(_unused(card)))]
    if unknown := _LEFT.findall(f"{persona['system_prompt']} {persona['greeting']}"):
        notes.append(f"{where}: stays as written" + _listed(": ", list(dict.fromkeys(unknown))))
    return Card(persona, dialogues, tuple(notes))


def _text(card: Mapping[str, Any], keys: tuple[str, ...], where: str) -> str:
    """The first of these keys that holds a text; raises `DataError` for one that holds something else."""
    for key in keys:
        value = card.get(key)
        if not isinstance(value, str | None):
            raise DataError(f"{where}: {key} is a {type(value).__name__} where a text belongs; mend the card")
        if value and value.strip():
            return value.replace("\r\n", "\n").replace("\r", "\n").strip()
    return ""


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str) and text.strip()] if isinstance(value, list) else []


def _fill(text: str, user: str, char: str) -> str:
    """The text with its macros filled; `user` gets a capital where a sentence begins."""

    def named(found: re.Match[str]) -> str:
        if not found["user"]:
            return char
        word = "your" if found["own"] and user == "you" else user + (found["own"] or "")
        before = found.string[: found.start()].rstrip(' *"“')
        return word[:1].upper() + word[1:] if not before or before[-1] in ".!?\n" else word

    return _FILLED.sub(named, _REMOVED.sub("", text))


def _prompt(parts: Mapping[str, str], words: Mapping[str, str]) -> str:
    """Everything that says who speaks, in lines of their own; the name comes first where no part does that."""
    told = [words[part].format(parts[part]) for part in ("personality", "scenario") if parts[part]]
    text = "\n".join(filter(None, (parts["system_prompt"], parts["description"], *told)))
    if parts["system_prompt"] or not parts["name"] or _ADDRESSED.match(text):
        return text
    known = words["also"].format(parts["name"], parts["nickname"]) if parts["nickname"] else parts["name"]
    return (words["you"].format(known) + text).strip()


def _dialogues(examples: str, names: Iterable[str]) -> Iterator[list[Turn]]:
    """Each block as pairs of what the visitor and the character say; what either says after themselves goes on."""
    char = "|".join([_CHAR, *map(re.escape, names)])
    says = re.compile(rf"\s*(?:(?P<user>{_USER}|user|you)|{char})\s*[:：](?P<text>.*)", re.IGNORECASE)
    for block in _START.split(examples):
        said: list[tuple[bool, str]] = []  # whether the visitor speaks, and what
        for line in block.splitlines():
            if found := says.fullmatch(line):
                said.append((bool(found["user"]), found["text"]))
            elif said:  # it goes on; what stands before the first speaker is nobody's
                said.append((said[-1][0], line))
        speeches = [
            (visitor, "\n".join(text for _, text in lines).strip())
            for visitor, lines in groupby(said, key=lambda line: line[0])
        ]
        turns = [(user, reply) for (asks, user), (_, reply) in pairwise(speeches) if asks and user and reply]
        if turns:
            yield turns


def _own_openers(card: Mapping[str, Any]) -> list[str]:
    """Those that `make_card` wrote into it."""
    extensions = card.get("extensions")
    own = extensions.get(EXTENSION) if isinstance(extensions, dict) else None
    return _texts(own.get("openers")) if isinstance(own, dict) else []


def _openers(texts: Iterable[str]) -> list[str]:
    """The first few that are short and differ."""
    return list(dict.fromkeys(text for text in texts if len(text) <= MAX_OPENER))[:MAX_OPENERS]


def _unused(card: Mapping[str, Any]) -> Iterator[str]:
    """Every part that says something and is not used, with what is in it."""
    used = {"alternate_greetings", *(key for keys in PARTS.values() for key in keys)}
    for key, value in card.items():
        if key in used or not value:
            continue
        if key == "character_book" and isinstance(value, dict):
            entries = value.get("entries")
            yield f"lorebook ({len(entries) if isinstance(entries, list | dict) else 0} entries)"
        elif isinstance(value, dict):
            if inner := [name for name, part in value.items() if part and name != EXTENSION]:
                yield f"{key} ({', '.join(inner)})"
        else:
            yield f"{key} ({len(value)})" if isinstance(value, list) else key


def _listed(before: str, names: Sequence[str]) -> str:
    """The names after `before`, each cut and at most `MAX_NAMED` of them; "" for none."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return (
        before + ", ".join(name if len(name) <= 80 else f"{name:.79}…" for name in names[:MAX_NAMED]) + more
        if names
        else ""
    )
