"""Figures as PNG for cards and the page: training curve and scoreboard. Nothing here computes a result."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from roleplay.disk import write_bytes
from roleplay.results.board import BARE_BASE, BASE_WITH_PERSONA, BASE_WITH_ROWS, MEASURES, TUNED, WRITTEN

COLOURS = {
    BARE_BASE: "#8a8a8a",
    BASE_WITH_PERSONA: "#c8a165",
    BASE_WITH_ROWS: "#5b7f95",
    TUNED: "#a5302c",
    WRITTEN: "#3d3d3d",
}
COLUMNS = 3  # panels beside each other


def _save(figure: plt.Figure, path: Path) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    write_bytes(path, drawn.getvalue())


def training_curve(log: list[dict[str, Any]], path: Path) -> None:
    """Draw training and held-out loss in nat per token over updates from a `Trainer`'s log history."""
    figure, axes = plt.subplots(figsize=(7, 4), dpi=110, layout="constrained")
    for key, label, colour, style in (("loss", "training", "#c8a165", "-"), ("eval_loss", "held-out", "#a5302c", "-o")):
        points = [(entry["step"], entry[key]) for entry in log if key in entry]
        axes.plot(*zip(*points, strict=True), style, color=colour, label=label, markersize=4, linewidth=1.4)
    axes.set(xlabel="update", ylabel="loss (nat per token)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    _save(figure, path)


def scoreboard(board: Mapping[str, Any], path: Path) -> None:
    """Draw every measure of a board with its 95 % intervals, one panel each, and how long the role is kept."""
    arms: Mapping[str, Any] = board["arms"]
    names = [name for name in MEASURES if any(name in values for values in arms.values())]
    panels = len(names) + bool(board["drift"])
    lines = -(-panels // COLUMNS)
    figure, grid = plt.subplots(
        lines, COLUMNS, figsize=(4 * COLUMNS, 1.7 * lines), dpi=110, layout="constrained", squeeze=False
    )
    for axes, name in zip(grid.flat, names, strict=False):
        measured = [arm for arm in arms if name in arms[arm]][::-1]  # the first arm on top
        for height, arm in enumerate(measured):
            entry = arms[arm][name]
            axes.plot((entry["low"], entry["high"]), (height, height), color=COLOURS[arm], linewidth=2, alpha=0.6)
            axes.plot(entry["value"], height, "o", color=COLOURS[arm])
        axes.set_yticks(range(len(measured)), measured)
        axes.set_ylim(-0.6, len(measured) - 0.4)
        note = {"lower": ", lower is better", "higher": ", higher is better", "": ""}[MEASURES[name].better]
        axes.set_title(name + note, fontsize=10)
        if MEASURES[name].percent:
            axes.set_xlim(-0.03, 1.03)
            axes.xaxis.set_major_formatter("{x:.0%}")
    if board["drift"]:
        axes = grid.flat[len(names)]
        for arm, turns in board["drift"].items():
            axes.plot(range(1, len(turns) + 1), [turn["value"] for turn in turns], color=COLOURS[arm], label=arm)
        axes.set(xlabel="turn", ylim=(-0.03, 1.03))
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set_title("in character by turn", fontsize=10)
        axes.legend(frameon=False, fontsize=7)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid.flat[panels:]:
        axes.set_visible(False)
    _save(figure, path)
