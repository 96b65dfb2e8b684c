"""How long to train and how many rows an update takes, by the number of rows; and what to say when a run ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roleplay.text.splits import FEW_HELD_OUT

FEW_ROWS = 30  # fewer do not make a character
SHOWN = 3  # replies under a run that ended
ENOUGH_END = 0.75  # share of the last replies that must end by themselves


@dataclass(frozen=True)
class Recipe:
    """Passes over the rows, rows in an update, and the reason for both."""

    epochs: float
    batch_size: int
    reason: str


def choose(rows: int, epochs: float = 0, batch_size: int = 0, multiple: int = 1) -> Recipe:
    """The recipe for `rows` to learn from, measured by `benchmarks.learning_curve`; `epochs` and `batch_size` are kept
    where they are set.

    A voice takes some hundred updates, whatever the number of rows: few rows are passed over more often, in smaller
    updates. A chosen batch is a `multiple` of the rows that processes and packs share it in.
    """
    asked = bool(epochs and batch_size)
    epochs = epochs or max(1.0, round(4 * 25 * rows**-0.3) / 4)
    size = next((size for limit, size in ((200, 4), (1000, 8)) if rows < limit), 16)
    batch_size = batch_size or multiple * -(-size // multiple)
    updates = max(1, round(epochs * rows / batch_size))
    reason = "as asked" if asked else f"for {rows:,} rows"
    return Recipe(epochs, batch_size, f"{epochs:g} epochs, {batch_size} rows an update, {updates:,} updates: {reason}")


def warnings(rows: int, held_out: int) -> list[str]:
    """A sentence each on sets that are too small to learn from or to judge by."""
    found = []
    if rows < FEW_ROWS:
        found.append(f"{rows} rows are few for a character: write {FEW_ROWS} at least; 80 make a voice")
    if held_out < FEW_HELD_OUT:
        found.append(f"{held_out} held-out rows: their loss says little, so read the replies")
    return found


def closing(folder: Path, results: Mapping[str, Any], held_out: int) -> list[str]:
    """Lines for the end of a run: three replies, how many end by themselves, what helps if few do, and the loss."""
    last, losses = results["last_replies"], (results["base_held_out_loss"], results["held_out_loss"])
    ended = sum(reply["ended"] for reply in last)
    lines = [f"  {reply['prompt']}  →  {reply['reply']}" for reply in last[:SHOWN]]
    lines.append(f"{ended} of {len(last)} replies end by themselves")
    if ended < ENOUGH_END * len(last):
        lines.append("It has not learnt when to stop: train longer (a higher --epochs), or write more short replies")
    told = f"held-out loss {losses[0]:.3f} -> {losses[1]:.3f} nat per token on {held_out} rows"
    return [*lines, f"{folder}: {told}"]
