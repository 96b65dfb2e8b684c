"""What is written to judge one character beside the rules: facts to know and things to remember. It knows no model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from roleplay.disk import read_json
from roleplay.errors import DataError
from train.measuring.rules import NO_LISTS, Lists, load_lists

OPTIONS = 4  # of a question, so that chance is 25 %

Item = TypeVar("Item")


@dataclass(frozen=True)
class Fact:
    """A question and four replies of one form, the right one first."""

    user: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Recall:
    """What a user says, one message after the other; the last asks for something that was said before."""

    turns: tuple[str, ...]
    accept: tuple[str, ...]
    reject: tuple[str, ...]

    def remembers(self, reply: str) -> bool:
        """Whether a reply contains one of the accepted texts and none of the rejected ones, in any case."""
        told = reply.casefold()
        return any(text.casefold() in told for text in self.accept) and not any(
            text.casefold() in told for text in self.reject
        )


@dataclass(frozen=True)
class Written:
    """All that judges one character, empty where it was not written."""

    lists: Lists = NO_LISTS
    facts: tuple[Fact, ...] = ()
    recall: tuple[Recall, ...] = ()


def load_written(lists: Path | None, facts: Path | None, recall: Path | None) -> Written:
    """Read the files that there are; raises `DataError` for one that cannot be read."""
    return Written(
        load_lists(lists) if lists else NO_LISTS,
        load_facts(facts) if facts else (),
        load_recall(recall) if recall else (),
    )


def load_facts(path: Path) -> tuple[Fact, ...]:
    """Read facts.json; raises `DataError` when it is missing or of another form."""
    return _load(path, _fact, '{"user": "…", "options": ["the right one", "…", "…", "…"]}')


def load_recall(path: Path) -> tuple[Recall, ...]:
    """Read recall.json; raises `DataError` when it is missing or of another form."""
    return _load(path, _recall, '{"turns": ["…", "…"], "accept": ["…"], "reject": []}')


def _fact(value: Any) -> Fact:
    fact = Fact(_text(value["user"]), _texts(value["options"]))
    if len(set(fact.options)) != OPTIONS or len(fact.options) != OPTIONS:
        raise ValueError(f"not {OPTIONS} different options")
    return fact


def _recall(value: Any) -> Recall:
    item = Recall(_texts(value["turns"]), _texts(value["accept"]), _texts(value["reject"]))
    if len(item.turns) < 2 or not item.accept:
        raise ValueError("fewer than two turns, or nothing to accept")
    return item


def _load(path: Path, parse: Callable[[Any], Item], form: str) -> tuple[Item, ...]:
    values = read_json(path, "cannot be read", f"give a list of {form}")
    if not isinstance(values, list):
        raise DataError(f"{path}: {type(values).__name__} where a list of {form} belongs")
    return tuple(_item(parse, value, f"{path} item {number}", form) for number, value in enumerate(values, 1))


def _item(parse: Callable[[Any], Item], value: Any, where: str, form: str) -> Item:
    try:
        return parse(value)
    except KeyError as error:
        raise DataError(f"{where} has no {error}; each is {form}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{where}: {error!s:.80}; each is {form}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r:.40} is no text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.40} is no list")
    return tuple(map(_text, value))
