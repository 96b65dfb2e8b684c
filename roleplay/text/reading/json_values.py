"""JSON and JSON Lines, told apart by what stands in the file, with the line on which every value begins."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from roleplay.errors import DataError

_SPACE = " \t\r\n\ufeff"  # the mark before each of several files that were put together stands within the text
LONGEST_NUMBER = 400  # digits; no larger one is a finite float


class Twice(tuple):
    """Different values that an object gives under one key."""

    def __repr__(self) -> str:
        return " and again ".join(map(repr, self))


def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a dictionary, with `Twice` under a key that is given different values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        for key in found:
            values = [value for other, value in pairs if other == key]
            if any(value != values[0] for value in values):
                found[key] = Twice(values)
    return found


def _integer(digits: str) -> float:
    return int(digits) if len(digits) < LONGEST_NUMBER else math.inf


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)  # pandas writes NaN for an empty cell


_DECODER = json.JSONDecoder(object_pairs_hook=make_object, parse_int=_integer, parse_constant=_constant)


def _decode(text: str, start: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, _next(text, start))
    except RecursionError as error:
        raise json.JSONDecodeError("nested too deeply", text, start) from error


def _next(text: str, start: int) -> int:
    """Where the next character that is no space stands."""
    while start < len(text) and text[start] in _SPACE:
        start += 1
    return start


def _elements(text: str, start: int) -> Iterator[tuple[Any, int]]:
    """Every element of the list that opens at `start`, and where it begins."""
    place = _next(text, start + 1)
    if text[place : place + 1] == "]":
        return
    while True:
        value, end = _decode(text, place)
        yield value, place
        end = _next(text, end)
        if text[end : end + 1] == "]" and _next(text, end + 1) == len(text):
            return
        if text[end : end + 1] != ",":
            message = "the file is cut off here" if end == len(text) else "a comma or the list's end is missing"
            raise json.JSONDecodeError(message, text, end)
        place = _next(text, end + 1)
        if text[place : place + 1] == "]":
            raise json.JSONDecodeError("a comma before the list's end", text, end)


def _values(text: str, place: int) -> Iterator[tuple[Any, int]]:
    """Every value of a text that has one after the other, and where it begins; a comma may stand between them."""
    while place < len(text):
        value, end = _decode(text, place)
        yield value, place
        place = _next(text, end)
        if text[place : place + 1] == ",":
            place = _next(text, place + 1)


def _is_lines(text: str, looked_at: int = 2) -> bool:
    """Whether one of the first lines is a whole value: one of JSON Lines may be broken, the first too."""
    lines = [line for line in text.split("\n") if line.strip()]
    return len(lines) > 1 and any(map(_whole, lines[:looked_at]))


def _whole(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict | list)
    except (ValueError, RecursionError):
        return False


def _told(error: json.JSONDecodeError, text: str, cut: str) -> str:
    """What is wrong; `cut` says that the end is missing."""
    if error.msg.startswith("Invalid control"):
        return "a line end, a tab or another control character stands inside a text; write it as \\n or \\t"
    return cut if error.msg.startswith("Unterminated") or error.pos >= len(text.rstrip()) else error.msg


def _lines(text: str) -> tuple[list[Any], list[int]]:
    values, numbers = [], []
    for number, line in enumerate(text.split("\n"), 1):  # U+2028 and U+0085 are letters inside a string
        if line.strip():
            try:
                value, end = _decode(line, 0)
                if _next(line, end) < len(line):
                    raise json.JSONDecodeError("more than one value in a line", line, end)
            except json.JSONDecodeError as error:
                raise DataError(f"line {number}: {_told(error, line, 'the line is cut off')}") from error
            values.append(value)
            numbers.append(number)
    return values, numbers


def parse(text: str, lines: bool = False) -> tuple[Any, list[int]]:
    """The value of a JSON text, or the list of JSON Lines, and the line on which each element of a list begins.

    `lines` says that the file's name promises JSON Lines. Raises `DataError` with the line, without the file's name.
    """
    start = _next(text, 0)
    listed = text[start : start + 1] == "["
    try:
        found = list(_elements(text, start) if listed else _values(text, start))
        if not listed and len(found) == 1:
            return found[0][0], []
    except json.JSONDecodeError as error:
        if (lines and not listed) or _is_lines(text, 1 if listed else 2):
            return _lines(text)
        raise DataError(f"line {error.lineno}: {_told(error, text, 'cut off at the end')}") from error
    return [value for value, _ in found], _line_numbers(text, found)


def lines_under(text: str, keys: Sequence[str]) -> list[int]:
    """The line on which each element begins of the list under a key of a JSON object, or under keys within another.

    `text` is one that `parse` has read.
    """
    start = _next(text, 0)
    for wanted in keys:
        key, end = None, start
        while key != wanted:
            key, end = _decode(text, end + 1)  # after the brace or a comma
            start = _next(text, _next(text, end) + 1)  # after the colon
            end = _next(text, _decode(text, start)[1])
    return _line_numbers(text, _elements(text[:end], start))


def _line_numbers(text: str, found: Iterable[tuple[Any, int]]) -> list[int]:
    numbers, line, before = [], 1, 0
    for _, place in found:
        line += text.count("\n", before, place)
        before = place
        numbers.append(line)
    return numbers
