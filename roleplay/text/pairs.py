"""Preference pairs: two replies to one conversation, of which one was preferred; read, checked and split.

A row is an object with `prompt`, `chosen` and `rejected`, each a text or a list of messages (role and content), as TRL
reads them; further keys are left alone. A prompt without a system message is asked with the adapter's persona. Nothing
here knows tokens.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from roleplay.errors import DataError
from roleplay.text.prompts import Turn
from roleplay.text.rows import Row, load_json
from roleplay.text.splits import Tell, groups, split_rows

HELD_OUT = 0.2  # share of pairs, where nothing else is said
FEWEST_GROUPS = 2  # of held-out pairs: an interval needs two
FEWEST = FEWEST_GROUPS + 1  # pairs, each on another prompt: those and one to learn


@dataclass(frozen=True)
class Pair:
    """One checked pair and where it stands; `persona` is "" where the row names none."""

    persona: str
    turns: tuple[Turn, ...]  # before the message that both replies answer
    user: str
    chosen: str
    rejected: str
    where: str = ""  # "file.jsonl row 7", counted from 1

    @property
    def prompt(self) -> Row:
        """The conversation without its replies, as splits compare rows."""
        return _prompt(self.turns, self.user, self.where)

    @property
    def thumbs(self) -> "tuple[Thumb, Thumb]":
        """Both replies by themselves."""
        asked = self.persona, self.turns, self.user
        return Thumb(*asked, self.chosen, True, self.where), Thumb(*asked, self.rejected, False, self.where)


@dataclass(frozen=True)
class Thumb:
    """A reply by itself, and whether it was liked; the rest is as in a `Pair`."""

    persona: str
    turns: tuple[Turn, ...]
    user: str
    reply: str
    liked: bool
    where: str = ""

    @property
    def prompt(self) -> Row:
        return _prompt(self.turns, self.user, self.where)


def _prompt(turns: tuple[Turn, ...], user: str, where: str) -> Row:
    return Row((*turns, (user, "")), scene=repr((turns, user)), where=where)


def parse_pair(value: Any, where: str) -> Pair:
    """One JSON value as a `Pair`; raises `DataError` that names `where` and the key."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: {type(value).__name__} where an object with prompt, chosen and rejected belongs")
    prompt = _messages(value, "prompt", "user", where)
    persona = prompt.pop(0)[1] if prompt[0][0] == "system" else ""
    if not prompt or [role for role, _ in prompt] != ["user", *["assistant", "user"] * (len(prompt) // 2)]:
        raise DataError(f"{where}: prompt must be turns of user and assistant that end with the user's")
    replies = [_messages(value, key, "assistant", where) for key in ("chosen", "rejected")]
    for key, reply in zip(("chosen", "rejected"), replies, strict=True):
        if [role for role, _ in reply] != ["assistant"]:
            raise DataError(f"{where}: {key} must be one reply of the assistant")
    texts = [text for _, text in prompt]
    turns = tuple(zip(texts[:-1:2], texts[1::2], strict=True))
    return Pair(persona, turns, texts[-1], replies[0][0][1], replies[1][0][1], where)


def _messages(value: dict[str, Any], key: str, role: str, where: str) -> list[tuple[str, str]]:
    """Role and text of every message of a key; a text alone is one message of `role`."""
    given = value.get(key)
    try:
        messages = [{"role": role, "content": given}] if isinstance(given, str) else list(given or ())
        found = [(str(message["role"]), message["content"].strip()) for message in messages]
    except (LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: {key} must be a text or a list of messages with role and content") from error
    if not found or not all(text for _, text in found):
        raise DataError(f"{where}: {key} is empty; give it a text or remove the row")
    return found


def holds_pairs(path: str | Path) -> bool:
    """Whether a file holds preference rows, as its first row says; raises `DataError` where it cannot be read."""
    if Path(path).suffix not in (".json", ".jsonl") or not Path(path).is_file():
        return False
    first = next(iter(load_json(path)), None)
    return isinstance(first, dict) and {"chosen", "rejected"} <= first.keys()


def read_pairs(path: str | Path) -> list[Pair]:
    """All pairs of a file; raises `DataError` for the first that is not usable."""
    return [parse_pair(value, f"{path} row {number}") for number, value in enumerate(load_json(path), 1)]


def pairs_sha256(pairs: Sequence[Pair | Thumb]) -> str:
    """SHA-256 of what pairs say, wherever they were read from, as hex."""
    said = [asdict(pair) | {"where": ""} for pair in pairs]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def split_pairs(
    pairs: Sequence[Pair], held_out: float, seed: int, tell: Tell = lambda note: None
) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs; pairs on one prompt, or on prompts that are nearly the same, stay together.

    `tell` hears of groups that had to be parted. Raises `DataError` where too few are left on a side.
    """
    numbered = [replace(pair.prompt, where=str(number)) for number, pair in enumerate(pairs)]
    learnt, held = ([int(row.where) for row in side] for side in split_rows(numbered, held_out, seed, tell))
    group_of = prompt_groups(pairs)
    if not learnt or len({group_of[place] for place in held}) < FEWEST_GROUPS:
        raise DataError(
            f"{len(pairs)} usable pairs, {len(held)} of them to hold out: pairs on {FEWEST_GROUPS} prompts or more are "
            "needed there; collect more votes, or raise --held-out"
        )
    return [pairs[number] for number in learnt], [pairs[number] for number in held]


def apart(thumbs: Sequence[Thumb], held_out: Sequence[Pair]) -> list[Thumb]:
    """The thumbs on other prompts than the held-out pairs'."""
    numbers = prompt_groups([*held_out, *thumbs])
    held = set(numbers[: len(held_out)])
    return [thumb for thumb, number in zip(thumbs, numbers[len(held_out) :], strict=True) if number not in held]


def settle(thumbs: Sequence[Thumb]) -> list[Thumb]:
    """Each reply to a prompt once, as most found it; where as many like it as not, it is left out."""
    likes, first = Counter[tuple[str, str]](), dict[tuple[str, str, bool], Thumb]()
    for thumb in thumbs:
        key = repr((thumb.persona, thumb.turns, thumb.user)), thumb.reply
        likes[key] += 1 if thumb.liked else -1
        first.setdefault((*key, thumb.liked), thumb)
    return [
        thumb
        for (asked, reply, liked), thumb in first.items()
        if likes[asked, reply] and (likes[asked, reply] > 0) is liked
    ]


def prompt_groups(pairs: Sequence[Pair | Thumb]) -> list[int]:
    """A number for every pair, the same for pairs whose prompts are (nearly) the same: those are not independent."""
    numbers = [0] * len(pairs)
    for number, group in enumerate(groups([pair.prompt for pair in pairs])):
        for place in group:
            numbers[place] = number
    return numbers
