"""The report on a set of rows and its page, report.html.jinja with its plots inside. Nothing here judges a row."""

import io
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from roleplay.templates import template

PROMPT, REPLY, LIMIT = "#8da0cb", "#c0392b", "#222222"


@dataclass(frozen=True)
class Finding:
    """`level` is error (would spoil a run), warning or note."""

    level: str
    text: str
    examples: list[str]


@dataclass(frozen=True)
class Lengths:
    """Tokens of each row: what it is prompted with, and what it learns."""

    prompt: list[int]
    reply: list[int]


@dataclass(frozen=True)
class Repeated:
    """A row in several copies or with a weight above 1; `share` is its part of an epoch."""

    user: str
    reply: str
    copies: int
    share: float


@dataclass(frozen=True)
class Segment:
    """A run of tokens as text; `labelled` ones carry the loss."""

    text: str
    labelled: bool


@dataclass(frozen=True)
class Report:
    file: str
    read: list[str]  # how it was read
    rows: int
    distinct: int
    scenes: int
    held_out: int
    persona: str
    max_tokens: int
    judged: dict[str, int]  # messages in each file that judges the character
    findings: list[Finding]
    lengths: Lengths
    languages: dict[str, int]
    turns: dict[int, int]
    repeated: list[Repeated]
    preview: list[list[Segment]]


def _figure(draw: str, report: Report) -> str:
    """One plot as inline SVG with real text, the same bytes for the same report."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": draw, "font.size": 9}):
        figure = Figure(figsize=(4.6, 2.8) if draw != "lengths" else (9.4, 3.0), layout="constrained")
        axes = figure.subplots()
        {"lengths": _lengths, "languages": _languages, "turns": _turns}[draw](axes, report)
        axes.spines[["top", "right"]].set_visible(False)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue()
    return svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{_ALT[draw]}"', 1)


_ALT = {
    "lengths": "Histogram of tokens in a row, prompt and reply",
    "languages": "Bars: rows in each language",
    "turns": "Bars: rows by number of turns",
}


def _lengths(axes: Axes, report: Report) -> None:
    lengths = report.lengths
    longest = max(*lengths.prompt, *lengths.reply)
    bins = [longest * step / 40 for step in range(41)]
    for counts, color, label in ((lengths.prompt, PROMPT, "prompt"), (lengths.reply, REPLY, "reply (learned)")):
        axes.hist(counts, bins=bins, histtype="stepfilled", alpha=0.75, color=color, label=label)
    if longest > report.max_tokens / 2:
        axes.axvline(report.max_tokens, color=LIMIT, linestyle="--", label=f"limit {report.max_tokens:,}")
    axes.set(xlabel="tokens", ylabel="rows", title="Tokens in a row")
    axes.legend(frameon=False)


def _bars(axes: Axes, counts: dict[str, int], title: str, xlabel: str) -> None:
    bars = axes.bar(list(counts), list(counts.values()), color=PROMPT, width=0.6)
    axes.bar_label(bars, fmt="{:,.0f}")
    axes.set(title=title, xlabel=xlabel, ylabel="rows")
    axes.set_xlim(-0.8, max(len(counts), 3) - 0.2)
    axes.margins(y=0.15)


def _languages(axes: Axes, report: Report) -> None:
    _bars(axes, report.languages, "Language", "of nine tenths of a row; a Latin word counts as one character")


def _turns(axes: Axes, report: Report) -> None:
    _bars(axes, {str(turns): count for turns, count in report.turns.items()}, "Turns", "replies in a row")


def render(report: Report) -> str:
    """The report as one HTML page that needs nothing from the network."""
    page = template(__file__, "report.html.jinja", {"commas": "{:,}".format, "percent": "{:.1%}".format})
    errors = sum(finding.level == "error" for finding in report.findings)
    return page.render(report=report, errors=errors, plots=[_figure(name, report) for name in _ALT])
