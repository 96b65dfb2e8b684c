"""A board's figures as plots made of HTML, in the page's own colours: for each measure the adapter, then its rival."""

from collections.abc import Mapping
from html import escape
from typing import Any

from page.words import WORDS
from roleplay.results.board import BARE_BASE, MEASURES, TUNED, figure
from roleplay.results.summary import GROUPS, rival
from roleplay.results.wording import ARMS
from roleplay.results.wording import MEASURES as NAMES


def plots_html(board: Mapping[str, Any], language: str) -> str:
    """One figure a group that has anything in it."""
    own = board["arms"].get(TUNED, {})
    groups = {group: [name for name in names if name in own] for group, names in GROUPS.items()}
    return "".join(_group(group, names, board, language) for group, names in groups.items() if names)


def _group(group: str, names: list[str], board: Mapping[str, Any], language: str) -> str:
    rows = "".join(_measure(name, _entries(name, board), language) for name in names)
    return f'<figure class="plot"><figcaption>{escape(WORDS[language][f"group_{group}"])}</figcaption>{rows}</figure>'


def _entries(name: str, board: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """The adapter's figure, and that of the arm which it is judged against; else of the base model alone."""
    arms = board["arms"]
    other = next((arm for arm in (rival(board), BARE_BASE) if name in arms.get(arm, {})), "")
    return {arm: arms[arm][name] for arm in (TUNED, other) if arm}


def _measure(name: str, entries: Mapping[str, Mapping[str, float]], language: str) -> str:
    """A measure with a line for each arm: its interval on a scale of their own, 0 to 1 for a share."""
    title, meaning = NAMES[language][name]
    low, high = 0.0, 1.0
    if not MEASURES[name].percent:
        low = min(0.0, *(entry["low"] for entry in entries.values()))
        high = max(entry["high"] for entry in entries.values())
    lines = "".join(
        _line(arm, figure(name, entry, language), _places(entry, low, high), language) for arm, entry in entries.items()
    )
    return f'<div class="measure"><h3 title="{escape(meaning)}">{escape(title)}</h3>{lines}</div>'


def _places(entry: Mapping[str, float], low: float, high: float) -> dict[str, float]:
    """Where an estimate and its ends stand on the scale, in per cent."""
    span = high - low or 1.0
    return {key: min(100.0, max(0.0, 100 * (entry[key] - low) / span)) for key in ("value", "low", "high")}


def _line(arm: str, told: str, places: Mapping[str, float], language: str) -> str:
    own = ' class="line own"' if arm == TUNED else ' class="line"'
    left, width = places["low"], places["high"] - places["low"]
    return (
        f'<div{own}><span>{escape(ARMS[language][arm])}</span><span class="track" aria-hidden="true">'
        f'<i style="left:{left:.1f}%;width:{width:.1f}%"></i><b style="left:{places["value"]:.1f}%"></b></span>'
        f"<span>{escape(told)}</span></div>"
    )
