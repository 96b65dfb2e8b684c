"""llama.cpp as an arm of `benchmarks.peers`: one side's answer after the other's, as two requests to a server are.

It mixes no adapters in a batch: two sides are two models, or one model in two contexts, of which one has the LoRA.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import llama_cpp
from benchmarks.peer_loop import ADAPTER, Answered, serve


class Llama:
    """Takes the likeliest token itself: the library's own greedy sampler sorts the whole vocabulary."""

    def __init__(self, task: dict[str, Any]) -> None:
        library = llama_cpp.load(Path(task["library"]))
        self.task = task
        paths = {side["model"] for side in task["sides"].values()}
        params = library.llama_model_default_params()
        models = {path: library.llama_model_load_from_file(path.encode(), params) for path in paths}
        self.sides = {
            name: llama_cpp.Side(library, models[side["model"]], task["threads"], side["lora"])
            for name, side in task["sides"].items()
        }
        adapter = task["sides"][ADAPTER]
        self.weights = library.llama_model_size(models[adapter["model"]])
        self.weights += Path(adapter["lora"]).stat().st_size if adapter["lora"] else 0

    def answer(self, sides: Sequence[str]) -> Answered:
        first, said, begun = 0.0, {}, time.perf_counter()
        for name in sides:
            started, side = time.perf_counter(), self.sides[name]
            side.forget()
            ids = said[name] = [int(side.read(self.task["prompt"])[0].argmax())]
            first += time.perf_counter() - started
            while len(ids) < self.task["tokens"]:
                ids.append(int(side.read(ids[-1:])[0].argmax()))
        return Answered(first, time.perf_counter() - begun, said)

    def nats(self, ids: Sequence[int], places: Sequence[int]) -> list[float]:
        side = self.sides[ADAPTER]
        side.forget()
        logits = side.read(ids[:-1], [place - 1 for place in places])
        wide = [own.astype(np.float64) for own in logits]
        return [float(np.logaddexp.reduce(own) - own[ids[place]]) for own, place in zip(wide, places, strict=True)]


if __name__ == "__main__":
    serve(Llama)
