"""A finished answer in pieces that people can read: whole characters, as both sides see them. It knows no model."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roleplay.engine.protocol import Answer, Piece
from roleplay.engine.stream import HALF_CHARACTER
from roleplay.text.prompts import PromptEncoder

LIKELIEST = 5  # tokens that are shown of each side
JOINER = "\N{ZERO WIDTH JOINER}"
SKIN_TONES, FLAG_LETTERS = range(0x1F3FB, 0x1F400), range(0x1F1E6, 0x1F200)


@dataclass(frozen=True)
class Seen:
    """A token as one side sees it."""

    logprob: float
    likeliest: Sequence[tuple[str, float]]
    choice: int  # what this side would have drawn here, which may be the very token


def answer_ids(encoder: PromptEncoder, answer: Answer) -> list[int]:
    """The tokens of an answer, encoded again, and the end of one that ended by itself."""
    return encoder.encode(answer.text) + [encoder.stop_ids[0]] * (answer.stop == "end")


def joined(encoder: PromptEncoder, ids: Sequence[int], seen: Mapping[str, Sequence[Seen]]) -> list[Piece]:
    """The pieces of the tokens, with what every side sees of them."""
    found = []
    for text, part in pieces(encoder, ids):
        sides = {side: own[part] for side, own in seen.items()}
        choices = [[one.choice for one in own] for own in sides.values()]
        found.append(
            Piece(
                text,
                {side: sum(one.logprob for one in own) for side, own in sides.items()},
                {side: own[0].likeliest for side, own in sides.items()},
                all(choice == choices[0] for choice in choices),
            )
        )
    return found


def name_of(encoder: PromptEncoder, token: int) -> str:
    """A token as people read it: "" for one that ends an answer, <0xE5> for a byte that is part of a character."""
    if token in encoder.stop_ids:
        return ""
    text = encoder.decode([token])
    return text if text and HALF_CHARACTER not in text else str(encoder.tokenizer.convert_ids_to_tokens(token))


def pieces(encoder: PromptEncoder, ids: Sequence[int]) -> list[tuple[str, slice]]:
    """The text of the tokens, cut where whole characters end, and which tokens each piece is made of."""
    found, start = list[tuple[str, slice]](), 0
    for end in range(1, len(ids) + 1):
        text = encoder.decode(ids[start:end])
        if text.endswith(HALF_CHARACTER) and end < len(ids):
            continue
        if found and text and goes_on(found[-1][0], text):
            before, part = found.pop()
            text, start = before + text, part.start
        found.append((text, slice(start, end)))
        start = end
    return found


def goes_on(before: str, text: str) -> bool:
    """Whether `text` begins within the character that `before` ends with, such as an emoji of several signs."""
    first, flags = text[0], len(before) - len(before.rstrip("".join(map(chr, FLAG_LETTERS))))
    joined = first == JOINER or before.endswith(JOINER) or unicodedata.category(first).startswith("M")
    return joined or ord(first) in SKIN_TONES or (ord(first) in FLAG_LETTERS and flags % 2 == 1)
