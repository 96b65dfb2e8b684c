"""How the losses fell in a training, drawn in the page's own colours from the log of a training.json: anybody's."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from page.words import WORDS
from roleplay.disk import read_json
from roleplay.errors import DataError

LINES = {"loss": "learnt", "eval_loss": "held_out"}  # of the log, and what the page calls them
MAX_POINTS = 400  # of a line: more are closer than pixels

Point = tuple[float, float]  # update and loss


def curve_html(path: Path, language: str) -> str:
    """The figure of one training; nothing where its log holds no two losses of one kind."""
    lines = _lines(path)
    if not lines:
        return ""
    words, every = WORDS[language], [point for points in lines.values() for point in points]
    last, low, high = max(x for x, _ in every), min(y for _, y in every), max(y for _, y in every)
    names = {key: words[f"curve_{key}"] for key in lines}
    told = " ".join(
        words["curve_told"].format(name=names[key], first=points[0][1], last=points[-1][1])
        for key, points in lines.items()
    )
    legend = "".join(f'<span class="{key}">{escape(name)}</span>' for key, name in names.items())
    drawn = "".join(_line(key, points, (last, low, high)) for key, points in lines.items())
    return (
        f'<figure class="plot curve"><figcaption>{escape(words["curve"])}</figcaption><p class="legend">{legend}</p>'
        f'<div class="axes"><span>{high:.2f}</span><span>{low:.2f}</span>'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{escape(told)}">{drawn}</svg>'
        f"<span>0</span><span>{escape(words['curve_updates'].format(updates=int(last)))}</span></div></figure>"
    )


def _lines(path: Path) -> dict[str, list[Point]]:
    """The lines of the log that can be drawn, thinned to what can be seen; none where a number is none."""
    try:
        log = read_json(path)["results"]["log"]
        lines = {key: [(entry["step"], entry[name]) for entry in log if name in entry] for name, key in LINES.items()}
        if not all(math.isfinite(number) for points in lines.values() for point in points for number in point):
            return {}
    except (DataError, LookupError, TypeError, OverflowError):
        return {}
    return {key: _thinned(points) for key, points in lines.items() if len(points) > 1}


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Both ends, and evenly of what is between."""
    return [*points[: -1 : -(-len(points) // MAX_POINTS)], points[-1]]


def _line(key: str, points: Sequence[Point], scale: tuple[float, float, float]) -> str:
    """A line, on which every held-out loss is a dot."""
    last, low, high = scale
    places = [f"{100 * x / (last or 1):.1f} {100 * (high - y) / ((high - low) or 1):.1f}" for x, y in points]
    dots = f'<path class="dots {key}" d="{"".join(f"M{place}h0" for place in places)}"/>' if key == "held_out" else ""
    return f'<path class="{key}" d="M{" ".join(places)}"/>{dots}'
