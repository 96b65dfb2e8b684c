"""The report on a set of rows and its page: one HTML file with its plots inside. Nothing here judges a row."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    rows: int
    distinct: int
    scenes: int
    held_out: int
    persona: str
    max_tokens: int
    findings: list[Finding]
    lengths: Lengths
    languages: dict[str, int]
    turns: dict[int, int]
    repeated: list[Repeated]
    preview: list[list[Segment]]


_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; color: #222;
  background: #fff; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } .plots svg { max-width: 100%; height: auto; }
.finding { border-left: 4px solid #767676; padding: .2rem .8rem; margin: .6rem 0; }
.finding ul { margin: .2rem 0; padding-left: 1.2rem; color: #555; font-size: .9rem; overflow-wrap: anywhere; }
.error { border-color: #b3261e; } .warning { border-color: #b26a00; }
.level { font-weight: 600; } .error .level { color: #b3261e; } .warning .level { color: #8a5200; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .6rem;
  border-bottom: 1px solid #ddd; vertical-align: top; } td.number, th.number { text-align: right; white-space: nowrap; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: .8rem; border-radius: .3rem;
  font: .9rem/1.6 ui-monospace, "Noto Sans Mono CJK SC", monospace; }
mark { background: #f7d9a8; color: inherit; }
"""


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


def _finding(finding: Finding) -> str:
    examples = "".join(f"<li>{escape(example)}</li>" for example in finding.examples)
    return (
        f'<div class="finding {finding.level}"><span class="level">{finding.level}</span> {escape(finding.text)}'
        + (f"<ul>{examples}</ul>" if examples else "")
        + "</div>"
    )


def _repeated(rows: Sequence[Repeated]) -> str:
    head = '<tr><th class="number">copies</th><th class="number">of an epoch</th><th>user</th><th>reply</th></tr>'
    body = "".join(
        f'<tr><td class="number">{row.copies:,}</td><td class="number">{row.share:.1%}</td>'
        f"<td>{escape(row.user)}</td><td>{escape(row.reply)}</td></tr>"
        for row in rows
    )
    return f"<h2>Rows that weigh most</h2><table>{head}{body}</table>" if rows else ""


def _preview(segments: Sequence[Segment]) -> str:
    return "".join(f"<mark>{escape(s.text)}</mark>" if s.labelled else escape(s.text) for s in segments)


def render(report: Report) -> str:
    """The report as one HTML page that needs nothing from the network."""
    errors = sum(finding.level == "error" for finding in report.findings)
    verdict = (
        f"{errors} findings would spoil a training run." if errors else "Nothing found would spoil a training run."
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.file)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(report.file)}</h1>
<p>{report.rows:,} rows, {report.distinct:,} distinct, {report.scenes:,} scenes, {report.held_out:,} held out.
<strong>{verdict}</strong></p>
<h2>Findings</h2>
{"".join(map(_finding, report.findings)) or "<p>None.</p>"}
<h2>What the rows are like</h2>
<div class="plots">{"".join(_figure(name, report) for name in _ALT)}</div>
{_repeated(report.repeated)}
<h2>As the model reads them</h2>
<p>Three rows with the persona {escape(report.persona)}; the loss counts on the <mark>marked</mark> tokens.</p>
{"".join(f"<pre>{_preview(row)}</pre>" for row in report.preview)}
</body>
</html>
"""
