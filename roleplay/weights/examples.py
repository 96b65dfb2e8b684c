"""The training turns that an adapter looks up, in a file of its folder, so that they go wherever it goes."""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from roleplay.disk import read_json, write_text
from roleplay.errors import AdapterError, DataError
from roleplay.text import limits
from roleplay.text.known import Known
from roleplay.weights.layout import EXAMPLES, MAX_BYTES


def write_examples(folder: Path, turns: Sequence[Known]) -> None:
    """A line a reply: the reply, what it was said to, its matter as a number, and that of the one it goes on from."""
    write_text(folder / EXAMPLES, _text(turns))


def check_examples(turns: Sequence[Known]) -> None:
    """Raises `DataError` for turns that `write_examples` would write and `read_examples` would refuse."""
    for user, reply in (one.turn for one in turns):
        if max(len(user), len(reply)) > limits.EXAMPLE:
            raise DataError(
                f"{max(user, reply, key=len)!r:.80} has more than {limits.EXAMPLE:,} characters, too many to be looked "
                "up: shorten the row, or leave out --retrieval"
            )
    if (size := len(_text(turns).encode())) > MAX_BYTES[EXAMPLES]:
        raise DataError(
            f"the rows take {size / 1e6:.1f} MB, and {MAX_BYTES[EXAMPLES] / 1e6:.1f} can be looked up: give fewer of "
            "them, or leave out --retrieval"
        )


def _text(turns: Sequence[Known]) -> str:
    numbers = {matter: number for number, matter in enumerate(dict.fromkeys(one.matter for one in turns))}
    replies = groupby(turns, lambda one: (one.turn[1], one.matter, one.after))  # of turns beside one another alone
    values = [
        [reply, [one.turn[0] for one in said], numbers[matter], *([numbers[after]] if after else ())]
        for (reply, matter, after), said in replies
    ]
    lines = ",\n".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)
    return f"[\n{lines}\n]\n"


def read_examples(folder: Path) -> tuple[Known, ...]:
    """What `write_examples` wrote, () where it wrote nothing; raises `AdapterError` for anything else.

    A reply without a number is a matter of its own.
    """
    path = folder / EXAMPLES
    if not path.exists():
        return ()
    value = read_json(path, advice="download or save it again", kind=AdapterError)
    if not isinstance(value, list):
        raise AdapterError(f"{path}: holds a {type(value).__name__} where a list of replies belongs; save it again")
    known = tuple(one for number, line in enumerate(value, 1) for one in _known(line, f"{path}: line {number}"))
    matters = {one.matter for one in known}
    if lost := next((one for one in known if one.after and one.after not in matters), None):
        raise AdapterError(f"{path}: {lost.turn[0]!r:.80} goes on from matter {lost.after}, which no row is of")
    return known


def _known(line: Any, where: str) -> list[Known]:
    reply, said, *numbers = line if isinstance(line, list) and len(line) > 1 else ("", [])
    texts = [reply, *said] if isinstance(said, list) else []
    whole = len(texts) > 1 and all(isinstance(t, str) and 0 < len(t.strip()) <= limits.EXAMPLE for t in texts)
    if not whole or len(numbers) > 2 or any(type(number) is not int for number in numbers):
        raise AdapterError(
            f"{where} is {line!r:.80}; give it a reply and a list of messages, each of 1 to {limits.EXAMPLE:,} "
            "characters, then the number of its matter, and of the one that it goes on from"
        )
    matter, after = [*map(str, numbers), "", ""][:2]
    return [Known((user, reply), matter or where, after) for user in said]
