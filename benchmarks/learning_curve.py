"""What becomes of a character with fewer rows, trained as long as `train.learning.recipe` chooses, or less, or more.

    python -m benchmarks.learning_curve --character keeper --rows 30 80 --times 0.5 1 2 --json runs/keeper.json
    python -m benchmarks.learning_curve --rows 1000 2000 4000 --json runs/curve.json --plot docs/learning-curve.png

From a character's training rows it takes whole scenes until there are enough, trains on them, and measures on the same
held-out rows: the loss, the choice of a row's own reply, what it knows, how many replies end, what was copied. Three
replies are printed for each run, since no figure says what a reader does. Rows and dtype are printed and go into the
JSON, which takes no runs of others. The adapters are removed again.
"""

import json
import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks import rows as files
from benchmarks.report import write
from roleplay.disk import read_json
from roleplay.errors import DataError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.results.board import TUNED
from roleplay.text.characters import Character, load_character
from roleplay.text.rows import load_json, parse_row
from roleplay.text.splits import groups, split_rows
from roleplay.weights import devices
from train import evaluate, lora
from train.learning import recipe
from train.learning.settings import LoraFlags

HELD_OUT = 200  # rows at most that judge every run
PLOTTED = ("held-out loss", "choice", "facts")
SECTIONS = ("loss", "choice", "facts", "replies")


@dataclass(frozen=True)
class Flags:
    character: str = flag("zhenhuan", "a folder under dataset/, or any folder, that has rows")
    rows: list[int] = flag([1000, 2000, 4000], "numbers of rows to learn from", within=(1, inf))
    times: list[float] = flag([1.0], "epochs as a multiple of those that the recipe chooses")
    seed: int = flag(0, "fixes which scenes are taken, and the training")
    json: str = flag("runs/learning_curve.json", "file of the figures; runs that it holds are not run again")
    plot: str = flag("", "draw the figures of whole recipes over the number of rows into this file")


def choose_rows(values: Sequence[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """`count` rows to learn, in whole scenes, and the held-out rows, all marked with their split.

    Raises `DataError` where there are fewer.
    """
    rows = [parse_row(value, f"row {number}") for number, value in enumerate(values, 1)]
    train, held_out = split_rows(rows, 0.1, seed)
    own = {row.where: value for row, value in zip(rows, values, strict=True)}
    together = groups(train)
    random.Random(seed).shuffle(together)
    chosen = [train[i] for group in together for i in group][:count]
    if len(chosen) < count:
        raise DataError(f"{len(chosen)} rows to learn from: lower --rows {count}")
    judges = held_out[:: -(-len(held_out) // HELD_OUT)]
    return [
        *({**own[row.where], "split": "train"} for row in chosen),
        *({**own[row.where], "split": "held_out"} for row in judges),
    ]


def run(character: Character, values: Sequence[dict[str, Any]], epochs: float, seed: int) -> dict[str, Any]:
    """Train on `values` and measure; the adapter is removed."""
    with tempfile.TemporaryDirectory() as home:
        data = Path(home) / "rows.json"
        data.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
        folder = lora.train(
            LoraFlags(
                name=f"{character.name}-part",
                character=str(character.folder),
                data=[str(data)],
                epochs=epochs,
                seed=seed,
                overwrite=True,
            )
        )
        try:
            results = read_json(folder / "training.json")["results"]
            (board,) = evaluate.evaluate(
                evaluate.EvaluationFlags(
                    adapter=[str(folder)],
                    data=[str(data)],
                    character=str(character.folder),
                    sections=list(SECTIONS),
                    retrieval=False,
                )
            )
        finally:
            shutil.rmtree(folder)
    last = results["last_replies"]
    return {
        "updates": results["updates"],
        "seconds": results["seconds"],
        "ended by themselves": sum(reply["ended"] for reply in last) / len(last),
        "measures": board["arms"][TUNED],
        "replies": last,
    }


def kept_runs(path: Path, data: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs of a file of figures, [] where there is none; raises `DataError` for those on other rows."""
    kept = read_json(path) if path.exists() else {"data": data, "runs": []}
    if kept.get("data") != data:
        raise DataError(f"{path} holds runs on other rows or in another dtype: choose another --json")
    return list(kept["runs"])


def plot(runs: Sequence[dict[str, Any]], path: str) -> None:
    """The measures of the runs of whole recipes over the number of rows, with their 95 % intervals."""
    whole = sorted((r for r in runs if r["times"] == 1), key=lambda r: r["rows"])
    figure, panels = plt.subplots(1, len(PLOTTED), figsize=(4 * len(PLOTTED), 3), dpi=110, layout="constrained")
    for axes, name in zip(panels, PLOTTED, strict=True):
        points = [(r["rows"], r["measures"][name]) for r in whole if name in r["measures"]]
        x, y = [rows for rows, _ in points], [entry["value"] for _, entry in points]
        axes.fill_between(
            x, [e["low"] for _, e in points], [e["high"] for _, e in points], color="#a5302c", alpha=0.15, linewidth=0
        )
        axes.plot(x, y, "-o", color="#a5302c")
        axes.set(title=name, xlabel="rows to learn from", xscale="log", xticks=x, xticklabels=[f"{n:,}" for n in x])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    flags = parse(Flags, __doc__)
    character = load_character(flags.character)
    if character.rows is None:
        raise DataError(f"{character.folder} has no rows.json")
    values = load_json(character.rows)
    data = files.tell(str(character.rows), values, devices.choose_dtype(devices.choose_device()[0])[0])
    runs = kept_runs(Path(flags.json), data)
    for count in flags.rows:
        for times in flags.times:
            if any((r["rows"], r["times"]) == (count, times) for r in runs):
                continue
            epochs = recipe.choose(count).epochs * times
            result = run(character, choose_rows(values, count, flags.seed), epochs, flags.seed)
            runs.append({"rows": count, "times": times, "epochs": epochs, **result})
            write({"character": character.name, "data": data, "runs": runs}, flags.json)
            measures = {name: entry["value"] for name, entry in result["measures"].items()}
            print({"rows": count, "epochs": epochs, "updates": result["updates"], **measures})
            print(*(f"  {reply['prompt']}  →  {reply['reply']}" for reply in result["replies"][:3]), sep="\n")
    if flags.plot:
        plot(runs, flags.plot)


if __name__ == "__main__":
    with one_line_errors():
        main()
