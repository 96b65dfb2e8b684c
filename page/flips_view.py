"""The items that an adapter won and lost, both replies side by side, as HTML; page.js filters them and asks again."""

from collections.abc import Mapping
from html import escape
from typing import Any

from page.words import WORDS
from roleplay.results.board import BASE_WITH_PERSONA, TUNED
from roleplay.results.wording import ARMS, MEASURES

SEVERAL = " / "  # between the messages of an item that is a conversation: it cannot be asked in one


def flips_html(flips: Mapping[str, Mapping[str, Any]], language: str) -> str:
    """A closed list for each measure, under one filter; nothing where no item tells the two apart."""
    words = WORDS[language]
    lists = [_list(name, flip, language) for name, flip in flips.items() if flip.get("wins") or flip.get("losses")]
    if not lists:
        return ""
    kinds = "".join(
        f'<option value="{kind}">{escape(words[f"flips_{kind}"])}</option>' for kind in ("all", "won", "lost")
    )
    return (
        f'<h2>{escape(words["flips"])}</h2><p>{escape(words["flips_note"])}</p><p class="filter">'
        f'<input type="search" aria-label="{escape(words["flips_find"])}" placeholder="{escape(words["flips_find"])}">'
        f'<select aria-label="{escape(words["flips_kind"])}">{kinds}</select></p>{"".join(lists)}'
    )


def _list(name: str, flip: Mapping[str, Any], language: str) -> str:
    won, lost = flip.get("wins", []), flip.get("losses", [])
    items = [_item("won", item, language) for item in won] + [_item("lost", item, language) for item in lost]
    head = WORDS[language]["flips_head"].format(name=MEASURES[language][name][0], won=len(won), lost=len(lost))
    return f'<details class="flips"><summary>{escape(head)}</summary>{"".join(items)}</details>'


def _item(kind: str, item: Mapping[str, str], language: str) -> str:
    words, asked = WORDS[language], item["item"]
    replies = "".join(
        f"<div><dt>{escape(ARMS[language][arm])}</dt><dd>{escape(item[arm])}</dd></div>"
        for arm in (TUNED, BASE_WITH_PERSONA)
    )
    ask = f'<button type="button" class="ask" data-ask="{escape(asked)}">{escape(words["flips_ask"])}</button>'
    return (
        f'<article class="{kind}"><p><span class="kind">{escape(words[f"flips_{kind}"])}</span> {escape(asked)} '
        f"{'' if SEVERAL in asked else ask}</p><dl>{replies}</dl></article>"
    )
