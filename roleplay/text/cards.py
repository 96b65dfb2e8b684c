"""Characters of other programs as personas: Tavern cards V1, V2 and V3, and text-generation-webui's.

Description, personality and scenario become the system prompt, the first message becomes the greeting, the example
dialogue becomes rows, and what its visitors say first becomes openers, as do short alternate greetings. What has no
place here is named in a note. Nothing here knows what a good persona is.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from roleplay.errors import DataError
from roleplay.text import limits
from roleplay.text.card_files import read_file
from roleplay.text.languages import language
from roleplay.text.prompts import Turn
from roleplay.text.reading.decoding import lines_of

MAX_OPENERS, MAX_OPENER = 6, 100  # how many, and characters of each
MAX_GREETING = limits.SHOWN - limits.NAME - MAX_OPENERS * MAX_OPENER  # characters, so that everything shown fits
MAX_NAMED = 12  # parts that a note names
ENDINGS = (".json", ".png", ".yaml", ".yml")
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
PROMPT_PARTS = ("system_prompt", "description", "personality", "scenario")  # in the order that the model reads
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
# A card may have millions of signs, so that no pattern tries one place twice: repetitions are bounded or possessive.
_CHAR = r"(?:\{\{\s*+char(?:IfNotGroup)?\s*+\}\}|<(?:bot|char)>)"
_USER = r"(?:\{\{\s*+(?:user|random_user_\d{1,3})\s*+\}\}|<user>)"
# "Come in, {{user}}." is said to anyone as "Come in."
_CALLED = rf"\s{{0,9}}[,，、]\s*+{_USER}(?=\s*+(?:[.。!！?？~…*\"”」]|$))"
_SILENT = r"\{\{\s*+(?:original|trim|noop|//[^{}]*+|(?:comment|hidden_key):[^{}]*+)\s*+\}\}"
_REMOVED = re.compile(rf"{_CALLED}|{_SILENT}", re.IGNORECASE | re.MULTILINE)
_FILLED = re.compile(rf"(?P<user>{_USER}(?P<own>['’]s)?)|{_CHAR}", re.IGNORECASE)
_HAN = "\u3400-\u9fff，。！？、；：…"
_SPACED = re.compile(rf"(?:(?<=[{_HAN}]) )?({_USER}|{_CHAR})(?: (?=[{_HAN}]))?", re.IGNORECASE)
_FIRST_OF = re.compile(r"\{\{\s*+(?:random|pick)\s*+::?+\s*+([^{},:]*+)[^{}]*+\}\}", re.IGNORECASE)
_LEFT = re.compile(r"\{\{[^{}]{1,60}\}\}")
_START = re.compile(r"<START>", re.IGNORECASE)
_EXAMPLES = re.compile(rf"<START>|^(?=[ \t]*+{_USER}\s*+[:：])", re.IGNORECASE | re.MULTILINE)  # in a description
_VISITOR, _SELF = re.compile(rf"{_USER}|user|you", re.IGNORECASE), re.compile(_CHAR, re.IGNORECASE)
_COLON = re.compile("[:：]")
_ADDRESSED = re.compile(r"you are|you're|你是|妳是|您是", re.IGNORECASE)


@dataclass(frozen=True)
class Card:
    """What a file says of a character: the persona's JSON value, the example dialogues, and notes on the rest."""

    persona: Any
    dialogues: tuple[tuple[Turn, ...], ...] = ()
    notes: tuple[str, ...] = ()
    prompt_parts: str = "it"  # what the system prompt was made of, and so what to shorten


def read_card(value: Any, where: str) -> Card:
    """A card's JSON value; one that is no card comes back as a persona. Raises `DataError` that names `where`."""
    if not isinstance(value, dict):
        return Card(value)
    spec, data, keys = value.get("spec"), value.get("data"), value.keys()
    if not str(spec or "chara_card").startswith("chara_card"):
        raise DataError(f"{where}: spec is {spec!r:.40}, which is no character card; export the character")
    if isinstance(data, dict):
        return _convert(data, f"a Tavern card {'V3' if spec == 'chara_card_v3' else 'V2'}", where)
    if keys & {"first_mes", "mes_example"} or ("system_prompt" not in keys and keys & {"description", "personality"}):
        return _convert(value, "a Tavern card V1", where)
    if keys & {"context", "char_persona"}:
        return _convert(value, "a character of text-generation-webui", where)
    if spec:
        raise DataError(f"{where}: a Tavern card without an object under data; export it again")
    return Card(value)


def is_card(path: str | Path) -> bool:
    """Whether a file is a card and not rows, by its ending or, for JSON, by what is in it."""
    ending = Path(path).suffix.lower()
    if ending != ".json":
        return ending in ENDINGS
    try:
        return bool(read_card(read_file(path), "").notes)
    except DataError:  # whoever reads it as rows says what is wrong
        return False


def rows_of_card(path: str | Path) -> list[dict[str, Any]]:
    """One training row for each example dialogue in a file; raises `DataError` where there is none."""
    dialogues = read_card(read_file(path), str(path)).dialogues
    if not dialogues:
        lines = "lines that begin {{user}}: and {{char}}:"
        raise DataError(f"{path}: no example dialogue in it, and so no rows; they are made of {lines}")
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
    for part in ("name", "nickname"):  # they are filled in everywhere
        if (length := len(parts[part])) > limits.NAME:
            raise DataError(f"{where}: {part} has {length:,} characters; {limits.NAME} fit, so shorten it")
    # text-generation-webui has its examples at the end of the description.
    parts["description"], *examples = _EXAMPLES.split(parts["description"], maxsplit=1)
    names = tuple(name for name in (parts["nickname"], parts["name"]) if name)
    told = _FILLED.sub("", "\n".join(parts[part] for part in ("description", "scenario", "greeting")))
    words = WORDS["zh" if language(told) == "zh" else "en"]

    def fill(text: str, user: str = words["addressed"]) -> str:
        text = _SPACED.sub(r"\1", text) if language("".join(names)) == "zh" else text
        return _fill(text, user, names[0] if names else "").strip()

    blocks = "\n<START>\n".join([parts["dialogue"], *examples])
    dialogues = tuple(map(tuple, _dialogues(blocks, names, fill)))
    greetings = list(filter(None, map(fill, (parts["greeting"], *_texts(card.get("alternate_greetings"))))))
    greeting = next((text for text in greetings if len(text) <= MAX_GREETING), "")
    others = [text for text in greetings if text != greeting]
    short = [text for text in others if len(text) <= MAX_OPENER]
    filled = {part: fill(text, words["visitor"]) for part, text in parts.items()}
    persona: dict[str, Any] = {
        "name": parts["name"],
        "system_prompt": _prompt(filled, words),
        "greeting": greeting,
        "openers": _own_openers(card) or _openers([*(turns[0][0] for turns in dialogues), *short]),
    }
    left = [f"greetings ({len(others) - len(short)} long)"] if others != short else []
    notes = [f"{where}: read as {kind}" + listed("; no place here for ", left + list(_unused(card)))]
    if unknown := _LEFT.findall(" ".join((persona["system_prompt"], greeting, *persona["openers"]))):
        notes.append(f"{where}: stays as written" + listed(": ", list(dict.fromkeys(unknown))))
    long = [f"{_key(card, PARTS[part], where)} ({len(filled[part]):,})" for part in PROMPT_PARTS if filled[part]]
    return Card(persona, dialogues, tuple(notes), ", ".join(long))


def _text(card: Mapping[str, Any], keys: tuple[str, ...], where: str) -> str:
    """What the first of these keys that says something says, with Unix lines; raises `DataError` as `_key` does."""
    return (card.get(_key(card, keys, where)) or "").replace("\r\n", "\n").replace("\r", "\n").strip()


def _key(card: Mapping[str, Any], keys: tuple[str, ...], where: str) -> str:
    """The first of these keys that says something, else the first of all; raises `DataError` where one is no text."""
    for key in keys:
        value = card.get(key)
        if not isinstance(value, str | None):
            raise DataError(f"{where}: {key} is a {type(value).__name__} where a text belongs; mend the card")
        if value and value.strip():
            return key
    return keys[0]


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str) and text.strip()] if isinstance(value, list) else []


def _fill(text: str, user: str, char: str) -> str:
    """The text with its macros filled; `user` gets a capital where a sentence begins."""

    def named(found: re.Match[str]) -> str:
        if not found["user"]:
            return char
        word = "your" if found["own"] and user == "you" else user + (found["own"] or "")
        before = found.string[max(0, found.start() - 9) : found.start()].rstrip(' *"“')
        return word[:1].upper() + word[1:] if not before or before[-1] in ".!?\n" else word

    return _FIRST_OF.sub(r"\1", _FILLED.sub(named, _REMOVED.sub("", text)))


def _prompt(parts: Mapping[str, str], words: Mapping[str, str]) -> str:
    """Everything that says who speaks, in lines of their own; the name comes first where no part does that."""
    told = [words[part].format(parts[part]) for part in ("personality", "scenario") if parts[part]]
    text = "\n".join(filter(None, (parts["system_prompt"], parts["description"], *told)))
    if parts["system_prompt"] or not parts["name"] or _ADDRESSED.match(text):
        return text
    known = words["also"].format(parts["name"], parts["nickname"]) if parts["nickname"] else parts["name"]
    return (words["you"].format(known) + text).strip()


def _dialogues(examples: str, names: Iterable[str], fill: Callable[[str], str]) -> Iterator[list[Turn]]:
    """Each block as filled pairs of what the visitor and the character say; who speaks again goes on."""
    own = {word.casefold() for name in names for word in (name, *name.split())}
    for block in _START.split(examples):
        said: list[tuple[bool, str]] = []  # whether the visitor speaks, and what
        for line in lines_of(block):
            head, *text = _COLON.split(line, maxsplit=1)
            speaker = head.strip(" \t*").casefold()
            visits = bool(_VISITOR.fullmatch(speaker))
            if text and (visits or _SELF.fullmatch(speaker) or speaker in own):
                said.append((visits, text[0].removeprefix("**")))
            elif said:  # it goes on; what stands before the first speaker is nobody's
                said.append((said[-1][0], line))
        speeches = [
            (visitor, fill("\n".join(text for _, text in lines)))
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


def listed(before: str, names: Sequence[str]) -> str:
    """The names after `before`, in one line, each cut and at most `MAX_NAMED` of them; "" for none."""
    shown = ["".join(sign if sign.isprintable() else " " for sign in name[:80]) for name in names[:MAX_NAMED]]
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return before + ", ".join(shown) + more if names else ""
