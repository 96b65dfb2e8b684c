"""A running batch: rows that grow by a token a step, each with its own weights, prompt and dice, until they end.

The page's two sides and the many replies of an evaluation are rows of it. It knows no side, no page and no judge.
"""

import time
from dataclasses import dataclass, field

import torch

from roleplay.engine.cache import CachePool, KeyValues
from roleplay.engine.decoder import Decoder, Lora, Segment
from roleplay.engine.protocol import ENDS, Sampling
from roleplay.engine.sampling import next_token
from roleplay.text.prompts import PromptEncoder

CHUNK = 512  # prompt tokens of one row computed at a time, so that a stop is heard in between
HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # what a decoder makes of the first bytes of a character
NOT_FINITE = "the model's scores are not finite: choose another adapter, or another dtype"


class TextStream:
    """A reply's text as its tokens come: `text` never ends in half a character."""

    def __init__(self, encoder: PromptEncoder) -> None:
        self._encoder = encoder
        self._open: list[int] = []  # tokens that do not end a character yet
        self.text = ""

    def add(self, token: int) -> None:
        """Only the tokens since the last whole character are decoded, so a long reply costs no more per token."""
        self._open.append(token)
        piece = self._encoder.decode(self._open)
        if not piece.endswith(HALF_CHARACTER):
            self.text += piece
            self._open.clear()

    def close(self) -> None:
        """Take what is left as it is: nothing comes to complete it."""
        self.text += self._encoder.decode(self._open)
        self._open.clear()


@dataclass(frozen=True)
class Voice:
    """Whose weights speak: an adapter's, or the base model's alone; `key` is under which its caches are kept."""

    key: str
    lora: Lora | None = None


class RunningRow:
    """One reply that grows: its prompt, whose weights speak, and the tokens so far."""

    def __init__(self, encoder: PromptEncoder, prompt: list[int], voice: Voice, sampling: Sampling) -> None:
        self.encoder, self.prompt, self.voice, self.sampling = encoder, prompt, voice, sampling
        self.stream = TextStream(encoder)
        self.reply: list[int] = []
        self.seconds_to_first_token = self.seconds = 0.0
        self.stop = ""  # one of `protocol.ENDS`, or a sentence that says what failed
        self.cache: KeyValues  # given by the batch, with `asked`, `started`
        self._stop_ids = encoder.stop_ids

    def pending(self) -> list[int]:
        """What the next step computes: a chunk of the prompt, or the token drawn last."""
        done, asked = self.cache.length, len(self.prompt)
        return self.prompt[done : done + CHUNK] if done < asked else self.reply[done - asked :]

    def join(self, cache: KeyValues, device: torch.device) -> None:
        """Take up a cache that holds some first tokens of the prompt, or none; the clock starts."""
        self.cache, self.started = cache, time.perf_counter()
        self.asked = torch.tensor(self.prompt, device=device).unique()  # for the repetition penalty

    def draw(self, logits: torch.Tensor) -> None:
        """Append the next token from its logits (vocabulary,), or end."""
        token = next_token(logits, self.asked, self.reply, self.sampling)
        self.seconds = time.perf_counter() - self.started
        self.seconds_to_first_token = self.seconds_to_first_token or self.seconds
        if token is None:
            self.end(NOT_FINITE)
        elif token in self._stop_ids:
            self.end("end")
        else:
            self.reply.append(token)
            self.stream.add(token)
            if len(self.reply) >= self.sampling.max_new_tokens:
                self.end("length")

    def end(self, stop: str) -> None:
        """No token comes any more."""
        self.stop = stop
        self.stream.close()


@dataclass
class RunningBatch:
    """The rows that are computed together; whoever drives it says when a row joins, one that ends leaves by itself."""

    decoder: Decoder
    pool: CachePool
    rows: list[RunningRow] = field(default_factory=list)

    def join(self, row: RunningRow, cache: KeyValues | None = None) -> None:
        """From the next step on `row` is computed, from `cache` where it is given, else from what is kept of it."""
        cache = cache or self.pool.take(row.voice.key, row.prompt) or self.decoder.new_cache()
        row.join(cache, self.decoder.device)
        self.rows.append(row)

    def step(self) -> list[RunningRow]:
        """One forward pass over all rows, and a token for each whose prompt is through; returns those that ended."""
        hidden = self.decoder.forward([Segment(row.pending(), row.cache, row.voice.lora) for row in self.rows])
        drawing = [index for index, row in enumerate(self.rows) if row.cache.length >= len(row.prompt)]
        if drawing:
            for index, logits in zip(drawing, self.decoder.head(hidden[drawing]), strict=True):
                self.rows[index].draw(logits)
        ended = [row for row in self.rows if row.stop]
        for row in ended:
            self.leave(row)
        return ended

    def leave(self, row: RunningRow) -> None:
        """`row` is computed no more; its cache is kept for what follows, unless something failed."""
        self.rows.remove(row)
        if row.stop in ("", *ENDS) and row.cache.length:
            self.pool.put(row.voice.key, (row.prompt + row.reply)[: row.cache.length], row.cache)

    def give_up(self, reason: str) -> None:
        """End all rows with a sentence: their caches may be half written, and memory is short."""
        self.pool.clear()
        for row in self.rows:
            row.end(reason)
        self.rows.clear()
