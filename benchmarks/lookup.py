"""How often what is looked up for a message holds a reply of its own matter: by its words, and by what it means.

    python -m benchmarks.lookup
    python -m benchmarks.lookup --data dataset/zhenhuan/rows.json --matters 0.3

A matter is a `scene`; rows of one turn are asked, each left out of the rows. What tells the meaning is learned from the
other matters alone, for a visitor's words are none that were learned. Prints the share of messages with a reply of
their matter among the first so many, in Chinese and in other languages.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from roleplay.engine.decoder import Decoder
from roleplay.engine.states import reader_of
from roleplay.environment import Environment
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.known import Known, known
from roleplay.text.languages import language
from roleplay.text.meaning import kinds_of, numbered
from roleplay.text.prompts import PromptEncoder
from roleplay.text.retrieval import NEAREST, Retriever
from roleplay.text.rows import read_rows
from roleplay.weights import base_models
from train.learning.meaning import learn_meaning, vectors_of

FIRST = (1, NEAREST, 8, 16)


@dataclass(frozen=True)
class Flags:
    data: str = flag("dataset/zhenhuan/intents.json", "file of rows, each matter in several wordings")
    matters: float = flag(0.15, "share of the matters that are asked for, and not learned from", within=(0, 1))
    seed: int = flag(0, "draws them")


def by_meaning(turns: Sequence[Known], asked: Sequence[int], seed: int) -> Retriever:
    """Of `turns` those `asked` for, by number, have no part in what is learned."""
    environment = Environment()
    base = base_models.load(environment.base_model, environment.cache)
    own = list(dict.fromkeys(turns[number].turn[0] for number in asked))
    left_out = set(own)
    others = [one for one in turns if one.turn[0] not in left_out]
    meaning, plain = learn_meaning(others, base, seed), PromptEncoder(base.tokenizer)
    if not meaning:
        raise SystemExit("no matter stands in two wordings: there is nothing to learn meaning from")
    read = reader_of(Decoder(base.model), meaning)
    found = vectors_of([meaning.rarity.tokens(plain, text) for text in own], read, meaning.projection)
    texts = [*numbered([one.turn[0] for one in others])[0], *own]
    numbers = {text: number for number, text in enumerate(texts)}
    text_of = np.array([numbers[one.turn[0]] for one in turns])
    whole = replace(meaning, vectors=np.concatenate([meaning.vectors, found]), text_of=text_of, kind_of=kinds_of(turns))
    return Retriever(turns).by(whole.nearness(plain, read))


def places(retriever: Retriever, asked: Sequence[int]) -> list[float]:
    """Of each turn `asked`, the place of the first reply of its matter that is found, from 0; infinite for none."""
    matters = {one.turn: one.matter for one in retriever.known}
    own = []
    for one in (retriever.known[number] for number in asked):
        found = retriever.ranked(one.turn[0], max(FIRST), without=[one.turn[0]])
        own.append(next((place for place, (_, turn) in enumerate(found) if matters[turn] == one.matter), inf))
    return own


def main() -> None:
    settings = parse(Flags, __doc__)
    rows = [row for row in read_rows(settings.data)[0] if row.split != "held_out" and len(row.turns) == 1]
    turns = [one for one in known(rows) if not one.fallback]
    matters = list(dict.fromkeys(one.matter for one in turns))
    drawn = set(random.Random(settings.seed).sample(matters, round(settings.matters * len(matters))))
    asked = [number for number, one in enumerate(turns) if one.matter in drawn]
    spoken = [language(turns[number].turn[0]) for number in asked]
    print(f"{len(asked)} messages of {len(drawn)} matters, among {len(turns)} rows")
    for name, retriever in (("words", Retriever(turns)), ("meaning", by_meaning(turns, asked, settings.seed))):
        found = places(retriever, asked)
        print(f"by {name:17}" + "".join(f"{count:>6}" for count in FIRST))
        for part, tongues in (
            ("all", {"zh", "en", "other", "mixed"}),
            ("Chinese", {"zh"}),
            ("others", {"en", "other"}),
        ):
            own = [place for tongue, place in zip(spoken, found, strict=True) if tongue in tongues]
            if own:
                print(f"  {part:18}" + "".join(f"{sum(p < count for p in own) / len(own):>6.0%}" for count in FIRST))


if __name__ == "__main__":
    with one_line_errors():
        main()
