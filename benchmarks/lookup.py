"""How often what is looked up for a message holds a reply of its own matter, each message left out of the rows.

    python -m benchmarks.lookup
    python -m benchmarks.lookup --data dataset/zhenhuan/rows.json --messages 500

A matter is a `scene`; rows of one turn are asked. Prints the share of messages with a reply of their scene among the
first so many, in Chinese and in other languages.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.languages import language
from roleplay.text.retrieval import NEAREST, Retriever
from roleplay.text.rows import Row, read_rows

FIRST = (1, 3, NEAREST, 6)


@dataclass(frozen=True)
class Flags:
    data: str = flag("dataset/zhenhuan/intents.json", "file of rows, each matter in several wordings")
    messages: int = flag(1000, "how many are asked", within=(1, inf))
    seed: int = flag(0, "draws them")


def places(rows: Sequence[Row], asked: Sequence[Row]) -> list[float]:
    """Of each of `asked`, the place of the first reply of its scene among what is found, from 0; infinite for none."""
    retriever = Retriever(rows)
    scenes = {row.turns[-1]: row.scene for row in rows}
    own = []
    for row in asked:
        found = retriever.ranked(row.turns[-1][0], max(FIRST), without=[row.turns[-1][0]])
        of_its_own = [place for place, (_, turn) in enumerate(found) if scenes[turn] == row.scene]
        own.append(min(of_its_own, default=inf))
    return own


def main() -> None:
    settings = parse(Flags, __doc__)
    rows = [row for row in read_rows(settings.data)[0] if row.split != "held_out"]
    single = [row for row in rows if len(row.turns) == 1]
    asked = random.Random(settings.seed).sample(single, min(settings.messages, len(single)))
    spoken = [(language(row.turns[-1][0]), place) for row, place in zip(asked, places(rows, asked), strict=True)]
    print(f"{'first':12}" + "".join(f"{count:>6}" for count in FIRST))
    for name, chosen in (("all", {"zh", "en", "other", "mixed"}), ("Chinese", {"zh"}), ("others", {"en", "other"})):
        if part := [place for tongue, place in spoken if tongue in chosen]:
            print(f"{name:12}" + "".join(f"{sum(p < count for p in part) / len(part):>6.0%}" for count in FIRST))


if __name__ == "__main__":
    with one_line_errors():
        main()
