"""The training rows that an adapter looks up, in a file of its folder, so that they go wherever it goes."""

import json
from collections.abc import Sequence
from pathlib import Path

from roleplay.disk import read_json, write_text
from roleplay.errors import AdapterError, DataError
from roleplay.text import limits
from roleplay.text.prompts import Turn
from roleplay.weights.layout import EXAMPLES, MAX_BYTES


def write_examples(folder: Path, turns: Sequence[Turn]) -> None:
    """The distinct turns, a line each: what was said and what is replied."""
    write_text(folder / EXAMPLES, _text(turns))


def check_examples(turns: Sequence[Turn]) -> None:
    """Raises `DataError` for turns that `write_examples` would write and `read_examples` would refuse."""
    for user, reply in turns:
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


def _text(turns: Sequence[Turn]) -> str:
    lines = ",\n".join(json.dumps(turn, ensure_ascii=False) for turn in dict.fromkeys(turns))
    return f"[\n{lines}\n]\n"


def read_examples(folder: Path) -> tuple[Turn, ...]:
    """What `write_examples` wrote, () where it wrote nothing; raises `AdapterError` for anything else."""
    path = folder / EXAMPLES
    if not path.exists():
        return ()
    value = read_json(path, advice="download or save it again", kind=AdapterError)
    if not isinstance(value, list):
        raise AdapterError(f"{path}: holds a {type(value).__name__} where a list of rows belongs; save it again")
    for number, turn in enumerate(value, 1):
        texts = isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)
        if not texts or not all(0 < len(text.strip()) <= limits.EXAMPLE for text in turn):
            raise AdapterError(
                f"{path}: row {number} is {turn!r:.80}; give it two texts of 1 to {limits.EXAMPLE:,} characters"
            )
    return tuple((user, reply) for user, reply in value)
