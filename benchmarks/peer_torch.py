"""The arms of `benchmarks.peers` that PyTorch computes: this project's engine, and transformers with peft."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from benchmarks.generation import Clock
from benchmarks.peer_loop import ADAPTER, BASE, Answered, Arm, serve
from roleplay.engine.batch import Asked, RunningBatch, RunningRow, Voice
from roleplay.engine.cache import CachePool
from roleplay.engine.decoder import Decoder, Lora, Segment
from roleplay.engine.protocol import Question, Sampling
from roleplay.environment import Environment
from roleplay.weights import adapters, base_models, embedded, inspection

ROOM = 1024  # tokens of a prompt


def unlikely(logits: torch.Tensor, ids: Sequence[int], places: Sequence[int]) -> list[float]:
    """In nat, of the tokens at those places, by the logits before them."""
    known = torch.tensor([ids[place] for place in places])
    return torch.nn.functional.cross_entropy(logits.double(), known, reduction="none").tolist()


def decoder_nats(decoder: Decoder, lora: Lora | None, ids: Sequence[int], places: Sequence[int]) -> list[float]:
    """As `unlikely`, by the decoder's own scores of a text."""
    hidden = decoder.forward([Segment(ids[:-1], decoder.new_cache(), lora, len(ids) - places[0])])
    return unlikely(decoder.head(hidden[[place - places[0] for place in places]]), ids, places)


class Ours:
    """The running batch of the engine, with nothing kept between two answers."""

    def __init__(self, base: base_models.BaseModel, adapter: adapters.Adapter, task: dict[str, Any]) -> None:
        self.decoder = Decoder(base.model, bool(base.int8))
        self.lora = Lora(self.decoder, adapters.read_weights(adapter), adapter.scaling)
        self.voices = {ADAPTER: Voice(ADAPTER, self.lora), BASE: Voice(BASE)}
        self.encoder = adapter.encoder(base.tokenizer)
        self.encoder.stop_ids = ()  # every arm says the same number of tokens
        self.question = Question(adapter.persona, (), task["user"])
        self.sampling = Sampling(0.0, repetition_penalty=1.0, frequency_penalty=0.0, max_new_tokens=task["tokens"])
        self.weights = sum(w.numel() * (1 if base.int8 else w.element_size()) for w in base.model.parameters())

    def answer(self, sides: Sequence[str]) -> Answered:
        batch, rows = RunningBatch(self.decoder, CachePool(0)), {}
        for side in sides:
            rows[side] = RunningRow(Asked(self.encoder, self.question, ROOM, self.voices[side]), self.sampling)
            batch.join(rows[side])
        while batch.rows:
            batch.step()
        first = max(row.seconds_to_first_token for row in rows.values())
        return Answered(first, max(row.seconds for row in rows.values()), {side: rows[side].reply for side in sides})

    def nats(self, ids: Sequence[int], places: Sequence[int]) -> list[float]:
        return decoder_nats(self.decoder, self.lora, ids, places)


class Peft:
    """`generate` of transformers with the adapter attached, one call for each side."""

    def __init__(self, base: base_models.BaseModel, adapter: adapters.Adapter, task: dict[str, Any]) -> None:
        self.model, self.task = PeftModel.from_pretrained(base.model, str(adapter.folder)).eval(), task
        self.weights = sum(weight.nbytes for weight in self.model.parameters())

    def answer(self, sides: Sequence[str]) -> Answered:
        first, said, begun = 0.0, {}, time.perf_counter()
        ids = torch.tensor([self.task["prompt"]])
        for side in sides:
            clock = Clock()
            with self.model.disable_adapter() if side == BASE else nullcontext():
                self.model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), streamer=clock, do_sample=False,
                    eos_token_id=None, pad_token_id=0, max_new_tokens=self.task["tokens"],
                )  # fmt: skip
            first += clock.at[1] - clock.started  # the first that it is handed is the prompt
            said[side] = [int(token) for token in clock.ids[1:]]
        return Answered(first, time.perf_counter() - begun, said)

    @torch.inference_mode()
    def nats(self, ids: Sequence[int], places: Sequence[int]) -> list[float]:
        keep = torch.tensor([place - 1 for place in places])
        return unlikely(self.model(torch.tensor([ids[:-1]]), logits_to_keep=keep).logits[0], ids, places)


def make(task: dict[str, Any]) -> Arm:
    base = base_models.load(embedded.NAME, Environment().cache, task["dtype"])
    torch.set_num_threads(task["threads"])
    adapter = inspection.inspect(Path(task["adapter"]))
    kinds: dict[str, Any] = {"ours": Ours, "peft": Peft}
    return kinds[task["arm"]](base, adapter, task)


if __name__ == "__main__":
    serve(make)
