"""What stands under an answer that is looked into, as HTML: all of it is escaped, for a model has written it."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from page.chat.why import log_ratio, parting, shade, telling
from page.words import WORDS
from roleplay.engine.protocol import ADAPTER, BASE, Answer, Piece
from roleplay.errors import DataError
from roleplay.text.copies import copied
from roleplay.text.prompts import Turn
from roleplay.text.retrieval import MARK, Retriever

TAUGHT = 3  # training rows that are shown as the nearest to an answer


def why_html(pieces: Sequence[Piece], names: Mapping[str, str], language: str) -> str:
    """The answer shaded token by token, what each side finds likeliest at each, and what it comes to.

    `names` says what both sides are called.
    """
    words, part = WORDS[language], parting(pieces)
    told = {"adapter": names[ADAPTER], "other": names[BASE]}
    shaded = "".join(_piece(piece, number == part, language) for number, piece in enumerate(pieces))
    details = "".join(_details(piece, names, language) for piece in pieces)
    best, share = telling(pieces)
    sums = words["why_sum"].format(
        sum=math.fsum(map(log_ratio, pieces)),
        telling=words["why_comma"].join(_visible(piece.text, language) for piece in best),
        share=share,
        count=len(best),
    )
    return (
        f'<p class="pieces" role="group" aria-label="{escape(words["why_pieces"])}">{shaded}</p>'
        f'<p class="legend">{escape(words["why_legend"].format(**told))}</p>'
        f'<div class="details" aria-live="polite">{details}</div>'
        f"<p>{escape(sums)}</p>"
    )


def looked_up_html(answer: Answer, language: str) -> str:
    """The training rows that were looked up for an answer, the nearest first; nothing where none were."""
    rows = [(user.removeprefix(MARK), reply) for user, reply in answer.shown_rows[::-1]]
    return _listed(WORDS[language]["looked_up"], rows) if rows else ""


def taught_html(answer: str, retriever: Retriever, looks_up: bool, language: str) -> str:
    """The training rows that an answer resembles most, and the longest passage that was copied from one.

    Of an adapter that looks rows up those alone are known, and not all that it was trained on.
    """
    words = WORDS[language]
    try:
        nearest = retriever.replies.examples(answer, TAUGHT)[::-1]
        copy = copied(answer, (turn for turn, _, _ in retriever.known))
    except DataError as error:
        return f"<p>{escape(str(error))}</p>"
    told = words["taught_own_looked_up" if looks_up else "taught_own"]
    if copy:
        passage, (user, _) = copy
        told = words["taught_copied"].format(passage=passage, user=user)
    return f"{_listed(words['taught' if nearest else 'taught_none'], nearest)}<p>{escape(told)}</p>"


def _listed(heading: str, rows: Sequence[Turn]) -> str:
    items = "".join(f"<li>{escape(user)}<br>→ {escape(reply)}</li>" for user, reply in rows)
    return f"<p>{escape(heading)}</p><ol>{items}</ol>"


def _piece(piece: Piece, parts: bool, language: str) -> str:
    """One piece of the answer, shaded and underlined; where the sides part, it is marked."""
    words, kind = WORDS[language], "more" if log_ratio(piece) > 0 else "less"
    classes = [kind, f"level-{level}"] if (level := shade(piece)) else []
    label = _label(piece, language)
    if parts:
        classes.append("parts")
        label += f" {words['why_parts']}"
    text = escape(piece.text).replace("\n", "↵\n") or f"<small>{escape(words['why_end'])}</small>"
    return (
        f'<span role="button" tabindex="-1" class="{" ".join(["piece", *classes])}" aria-label="{escape(label)}">'
        f"{text}</span>"
    )


def _details(piece: Piece, names: Mapping[str, str], language: str) -> str:
    """The likeliest tokens of both sides at one piece, side by side; hidden until the piece is looked at."""
    head = "".join(f'<th scope="col" colspan="2">{escape(names[side])}</th>' for side in (ADAPTER, BASE))
    rows = zip(*(piece.likeliest[side] for side in (ADAPTER, BASE)), strict=False)
    cells = [
        "".join(f"<td>{escape(_visible(text, language))}</td><td>{share:.1%}</td>" for text, share in row)
        for row in rows
    ]
    body, label = "".join(f"<tr>{row}</tr>" for row in cells), escape(_label(piece, language))
    return f"<table hidden><caption>{label}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _label(piece: Piece, language: str) -> str:
    return WORDS[language]["why_piece"].format(text=_visible(piece.text, language), ratio=log_ratio(piece))


def _visible(text: str, language: str) -> str:
    """A token with its spaces and line breaks to be seen, and a word for the end of an answer."""
    return text.replace("\n", "↵").replace(" ", "␣") or WORDS[language]["why_end"]
