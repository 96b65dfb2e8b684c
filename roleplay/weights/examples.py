"""The training turns that an adapter looks up, in a file of its folder, so that they go wherever it goes."""

import gzip
import json
import zlib
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from roleplay.disk import write_bytes
from roleplay.errors import AdapterError, DataError, first_line
from roleplay.text import limits
from roleplay.text.known import FALLBACK, Known, known
from roleplay.text.rows import Row
from roleplay.weights.layout import EXAMPLES, MAX_BYTES

MOST_TURNS = 400_000  # so many small ones fit into a small file, and would take minutes to search


def write_examples(folder: Path, turns: Sequence[Known]) -> None:
    """A line a reply: the reply, what it was said to, its matter as a number, and that of the one it goes on from.

    The numbers of fallbacks are negative.
    """
    write_bytes(folder / EXAMPLES, gzip.compress(_text(turns), mtime=0))  # the same bytes for the same turns


def check_examples(turns: Sequence[Known]) -> None:
    """Raises `DataError` for turns that `write_examples` would write and `read_examples` would refuse."""
    for user, reply in (one.turn for one in turns):
        if max(len(user), len(reply)) > limits.EXAMPLE:
            raise DataError(
                f"{max(user, reply, key=len)!r:.80} has more than {limits.EXAMPLE:,} characters, too many to be looked "
                "up: shorten the row, or leave out --retrieval"
            )
    if (size := len(_text(turns))) > MAX_BYTES[EXAMPLES]:
        raise DataError(
            f"the rows take {size / 1e6:.1f} MB, and {MAX_BYTES[EXAMPLES] / 1e6:.1f} can be looked up: give fewer of "
            "them, or leave out --retrieval"
        )


def lookup_notes(rows: Sequence[Row]) -> list[str]:
    """What is said of training rows that are to be looked up; raises `DataError` as `check_examples` does."""
    check_examples(turns := known(rows))
    shown = {one.turn for one in turns if not one.hidden}
    left_out = sum(row.turns[-1] not in shown for row in rows)
    told = f"{left_out:,} rows go on from a reply of no other row: they are learnt, and not looked up"
    return [told] if left_out else []


def _text(turns: Sequence[Known]) -> bytes:
    matters = enumerate(dict.fromkeys(one.matter for one in turns))
    numbers = {matter: -1 - number if matter.startswith(FALLBACK) else number for number, matter in matters}
    replies = groupby(turns, lambda one: (one.turn[1], one.matter, one.after))  # of turns beside one another alone
    values = [
        [reply, [one.turn[0] for one in said], numbers[matter], *([numbers[after]] if after else ())]
        for (reply, matter, after), said in replies
    ]
    lines = ",\n".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)
    return f"[\n{lines}\n]\n".encode()


def read_examples(folder: Path) -> tuple[Known, ...]:
    """What `write_examples` wrote, () where it wrote nothing; raises `AdapterError` for anything else.

    A reply without a number is a matter of its own.
    """
    path = folder / EXAMPLES
    if not path.exists():
        return ()
    value = _read(path)
    if not isinstance(value, list):
        raise AdapterError(f"{path}: holds a {type(value).__name__} where a list of replies belongs; save it again")
    turns = tuple(one for number, line in enumerate(value, 1) for one in _known(line, f"{path}: line {number}"))
    if len(turns) > MOST_TURNS:
        raise AdapterError(
            f"{path}: has {len(turns):,} messages, of which {MOST_TURNS:,} can be searched; look up fewer"
        )
    matters = {one.matter for one in turns}
    if lost := next((one for one in turns if one.after and one.after not in matters), None):
        raise AdapterError(f"{path}: {lost.turn[0]!r:.80} goes on from matter {lost.after}, which no row is of")
    return turns


def _read(path: Path) -> Any:
    """The JSON in a compressed file, however much it would become; raises `AdapterError` where there is none."""
    try:
        with gzip.open(path) as file:
            text = file.read(MAX_BYTES[EXAMPLES] + 1)
        if len(text) > MAX_BYTES[EXAMPLES]:
            raise AdapterError(f"{path}: holds more than {MAX_BYTES[EXAMPLES] / 1e6:.1f} MB of rows; look up fewer")
        return json.loads(text)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise AdapterError(
            f"{path}: not JSON in UTF-8 under gzip ({first_line(error):.100}); download or save it again"
        ) from error


def _known(line: Any, where: str) -> list[Known]:
    reply, said, *numbers = line if isinstance(line, list) and len(line) > 1 else ("", [])
    texts = [reply, *said] if isinstance(said, list) else []
    whole = len(texts) > 1 and all(isinstance(t, str) and 0 < len(t.strip()) <= limits.EXAMPLE for t in texts)
    if not whole or len(numbers) > 2 or any(type(number) is not int for number in numbers):
        raise AdapterError(
            f"{where} is {line!r:.80}; give it a reply and a list of messages, each of 1 to {limits.EXAMPLE:,} "
            "characters, then the number of its matter, and of the one that it goes on from"
        )
    matter, after = [*(f"{FALLBACK}{number}" if number < 0 else str(number) for number in numbers), "", ""][:2]
    return [Known((user, reply), matter or where, after) for user in said]
