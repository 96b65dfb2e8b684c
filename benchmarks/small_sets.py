"""What becomes of a character with few rows, trained as long as `train.learning.recipe` chooses, and less and more.

    python -m benchmarks.small_sets --character keeper --rows 30 80 --json runs/small_sets.json
    python -m benchmarks.small_sets --rows 300 1000 --times 0.5 1 2

From a character's training rows it takes whole scenes until there are enough, trains on them, and measures on the same
held-out rows: how many replies end, the loss, the choice of a row's own reply, what was copied. Three replies are
printed for each run, since no figure says what a reader does. The adapters are removed again.
"""

import json
import random
import shutil
import tempfile
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from benchmarks.report import write
from roleplay.errors import DataError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.results.board import TUNED
from roleplay.text.characters import load_character
from roleplay.text.rows import load_json, parse_row
from roleplay.text.splits import groups, split_rows
from train import evaluate, lora
from train.learning import recipe

HELD_OUT = 40  # rows that judge every run


@dataclass(frozen=True)
class Flags:
    character: str = flag("zhenhuan", "a folder under dataset/, or any folder, that has rows")
    rows: list[int] = flag([30, 80, 300], "numbers of rows to learn from", within=(1, inf))
    times: list[float] = flag([0.5, 1.0, 2.0], "epochs as a multiple of those that the recipe chooses")
    seed: int = flag(0, "fixes which scenes are taken, and the training")
    json: str = flag("", "file to write the figures to")


def choose_rows(values: list[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """`count` rows to learn, in whole scenes, and the held-out rows, all marked with their split.

    Raises `DataError` where there are fewer.
    """
    rows = [parse_row(value, f"row {number}") for number, value in enumerate(values, 1)]
    train, held_out = split_rows(rows, HELD_OUT / len(rows), seed)
    of = {row.where: value for row, value in zip(rows, values, strict=True)}
    together = groups(train)
    random.Random(seed).shuffle(together)
    chosen = [train[i] for group in together for i in group][:count]
    if len(chosen) < count:
        raise DataError(f"{len(chosen)} rows to learn from: lower --rows {count}")
    return [
        *({**of[row.where], "split": "train"} for row in chosen),
        *({**of[row.where], "split": "held_out"} for row in held_out[:HELD_OUT]),
    ]


def run(values: list[dict[str, Any]], persona: str, epochs: float, batch_size: int, seed: int) -> dict[str, Any]:
    """Train on `values` and measure; the adapter is removed."""
    name = f"small-{len(values)}-{epochs:g}"
    with tempfile.TemporaryDirectory() as home:
        data = Path(home) / "rows.json"
        data.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
        flags = lora.LoraFlags(
            name=name,
            data=[str(data)],
            persona=persona,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            overwrite=True,
        )
        folder = lora.train(flags)
        try:
            training = json.loads((folder / "training.json").read_text(encoding="utf-8"))["results"]
            (board,) = evaluate.evaluate(
                evaluate.EvaluationFlags(
                    adapter=[str(folder)], data=[str(data)], sections=["loss", "choice", "replies"], retrieval=False
                )
            )
        finally:
            shutil.rmtree(folder)
    arm = board["arms"][TUNED]
    return {
        "updates": training["updates"],
        "seconds": training["seconds"],
        "ended": sum(reply["ended"] for reply in training["last_replies"]) / len(training["last_replies"]),
        **{key: round(arm[key]["value"], 3) for key in arm},
        "replies": training["last_replies"],
    }


def main() -> None:
    flags = parse(Flags, __doc__)
    character = load_character(flags.character)
    if character.rows is None:
        raise DataError(f"{character.folder} has no rows.json")
    values = load_json(character.rows)
    results = []
    for count in flags.rows:
        chosen = choose_rows(values, count, flags.seed)
        planned = recipe.choose(count)
        for times in flags.times:
            epochs = planned.epochs * times
            persona = str(character.folder / "persona.json")
            result = {"rows": count, "times": times, "epochs": epochs, "batch_size": planned.batch_size}
            result |= run(chosen, persona, epochs, planned.batch_size, flags.seed)
            results.append(result)
            print({key: value for key, value in result.items() if key != "replies"})
            for reply in result["replies"][:3]:
                print(f"  {reply['prompt']}  →  {reply['reply']}")
            if flags.json:
                write({"character": character.name, "runs": results}, flags.json)


if __name__ == "__main__":
    with one_line_errors():
        main()
