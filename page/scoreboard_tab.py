"""The Scoreboard tab: an adapter's figures, its training curve and the votes on it, as HTML. It measures nothing.

The adapter's folder may be a stranger's. Of its scoreboard and its training only numbers are shown, and of its flips
texts as texts.
"""

from html import escape
from pathlib import Path
from typing import Any

from page.flips_view import flips_html
from page.scoreboard_plots import plots_html
from page.training_curve import curve_html
from page.words import WORDS
from roleplay.errors import DataError
from roleplay.results import board as scoreboard
from roleplay.results import reading
from roleplay.results.board import TUNED
from roleplay.results.summary import summary
from roleplay.results.wording import ARMS, READING
from roleplay.weights import layout


def scoreboard_html(name: str, folder: Path, votes: str, language: str) -> str:
    """All that is known of an adapter; `votes` are those on it, as HTML. A guest's folder is no longer there."""
    words = WORDS[language]
    parts = [f"<h2>{escape(name)}</h2>", *_figures(name, folder, language)]
    parts += [f"<h2>{words['votes']}</h2>", votes]
    if curve := curve_html(folder / layout.TRAINING, language):
        parts += [f"<h2>{words['training']}</h2>", curve]
    return "".join(parts)


def _figures(name: str, folder: Path, language: str) -> list[str]:
    words, path = WORDS[language], folder / layout.BOARD
    if not path.exists():
        here = f"adapters/{name.split('/')[-1]}"
        fetch = f"hf download {name} --local-dir {here} && " if "/" in name else ""
        command = f"{fetch}python -m train.evaluate --adapter {here}"
        return [f"<p>{escape(words['board_missing'].format(name=name))} <code>{escape(command)}</code></p>"]
    try:
        board = scoreboard.read(path)
    except DataError as error:
        return [f"<p>{escape(str(error))}</p>"]
    told = "".join(f"<li>{escape(sentence)}</li>" for sentence in scoreboard.verdicts(board, language))
    table = scoreboard.table({"arms": _own_first(board["arms"])}, language=language)
    return [
        f'<p class="verdict">{escape((" " if language == "en" else "").join(summary(board, language)))}</p>',
        plots_html(board, language),
        f"<p><small>{words['board_note']}</small></p>",
        f"<details><summary>{escape(words['all_figures'])}</summary>",
        _table(table, words["scoreboard"], language),
        f"<ul>{told}</ul></details>",
        flips_html(board, language),
        *(_read_blind(board["reading"], language) if "reading" in board else ()),
    ]


def _read_blind(found: dict[str, Any], language: str) -> list[str]:
    told = " ".join(reading.sentences(found, language))
    title, own_first = READING[language]["title"], found | {"arms": _own_first(found["arms"])}
    return [f"<h2>{title}</h2>", _table(reading.table(own_first, language), title, language), f"<p>{escape(told)}</p>"]


def _own_first(arms: dict[str, Any]) -> dict[str, Any]:
    """The adapter's column before all others: on a phone it is the one that is seen."""
    return {arm: arms[arm] for arm in sorted(arms, key=lambda arm: arm != TUNED)}


def _table(rows: list[list[str]], label: str, language: str) -> str:
    """A table with each measure's meaning under its name; it scrolls inside itself where the page is narrow."""
    label = escape(label)
    head, *rows = [[escape(cell) for cell in row] for row in rows]
    own = [' class="own"' if name == escape(ARMS[language][TUNED]) else "" for name in head]
    columns = "".join(f'<th scope="col"{mark}>{name}</th>' for name, mark in zip(head[1:-1], own[1:-1], strict=True))
    lines = []
    for name, *figures, meaning in rows:
        cells = "".join(f"<td{mark}>{figure}</td>" for figure, mark in zip(figures, own[1:-1], strict=True))
        lines.append(f'<tr><th scope="row">{name}<small>{meaning}</small></th>{cells}</tr>')
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table><thead><tr><td></td>{columns}</tr>'
        f"</thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
