"""The items that an adapter won and lost, both replies side by side, as HTML; page.js filters them and asks again."""

from collections.abc import Mapping
from html import escape
from typing import Any

from page.words import WORDS
from roleplay.results.board import TUNED, flips_by_arm
from roleplay.results.wording import ARMS, MEASURES

SEVERAL = " / "  # between the messages of an item that is a conversation: it cannot be asked in one
KINDS = ("all", "won", "lost")


def flips_html(board: Mapping[str, Any], language: str) -> str:
    """A closed list for each opponent and measure, under one filter; nothing where no item tells two apart.

    The first opponent's lists are shown; with several, a menu chooses whose.
    """
    words, lists = WORDS[language], dict[str, str]()
    for arm, flips in flips_by_arm(board).items():
        told = [
            _list(arm, name, flip, language) for name, flip in flips.items() if flip.get("wins") or flip.get("losses")
        ]
        if told:
            lists[arm] = f'<div class="against" data-arm="{escape(arm)}"{" hidden" * bool(lists)}>{"".join(told)}</div>'
    if not lists:
        return ""
    find = escape(words["flips_find"])
    note = (
        words["flips_note"].format(arm=ARMS[language][next(iter(lists))]) if len(lists) == 1 else words["flips_notes"]
    )
    opponents = {arm: words["flips_against"].format(arm=ARMS[language][arm]) for arm in lists}
    against = _menu("opponent", words["flips_opponent"], opponents) if len(lists) > 1 else ""
    kinds = _menu("which", words["flips_kind"], {kind: words[f"flips_{kind}"] for kind in KINDS})
    return (
        f'<h2>{escape(words["flips"])}</h2><p>{escape(note)}</p><p class="filter">{against}'
        f'<input type="search" aria-label="{find}" placeholder="{find}">{kinds}</p>{"".join(lists.values())}'
    )


def _menu(name: str, label: str, choices: Mapping[str, str]) -> str:
    options = "".join(f'<option value="{escape(value)}">{escape(told)}</option>' for value, told in choices.items())
    return f'<select class="{name}" aria-label="{escape(label)}">{options}</select>'


def _list(arm: str, name: str, flip: Mapping[str, Any], language: str) -> str:
    won, lost = flip.get("wins", []), flip.get("losses", [])
    items = "".join(_item(arm, kind, item, language) for kind, own in (("won", won), ("lost", lost)) for item in own)
    head = WORDS[language]["flips_head"].format(name=MEASURES[language][name][0], won=len(won), lost=len(lost))
    return f'<details class="flips"><summary>{escape(head)}</summary>{items}</details>'


def _item(arm: str, kind: str, item: Mapping[str, str], language: str) -> str:
    words, asked = WORDS[language], item["item"]
    replies = "".join(
        f"<div><dt>{escape(ARMS[language][side])}</dt><dd>{escape(item[side])}</dd></div>" for side in (TUNED, arm)
    )
    ask = f'<button type="button" class="ask" data-ask="{escape(asked)}">{escape(words["flips_ask"])}</button>'
    ask = f"<small>{escape(words['flips_several'])}</small>" if SEVERAL in asked else ask
    return (
        f'<article class="{kind}"><p><span class="kind">{escape(words[f"flips_{kind}"])}</span> {escape(asked)} '
        f"{ask}</p><dl>{replies}</dl></article>"
    )
