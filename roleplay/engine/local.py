"""The engine on this machine: one base model, any number of LoRA adapters, both sides of a comparison in one batch.

Every running answer is a row of the same forward pass; nothing global is switched. Generation is one call at a time.
Nothing here knows the page, and nothing here reads a file beyond the adapters' weights.
"""

import itertools
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from roleplay import heap
from roleplay.engine.cache import CachePool, KeyValues
from roleplay.engine.decoder import Decoder, Lora, Segment
from roleplay.engine.protocol import ADAPTER, BASE, Answer, Request, Sampling
from roleplay.engine.sampling import next_token
from roleplay.errors import AdapterError, RoleplayError, first_line
from roleplay.text.prompts import TEMPLATES, PromptEncoder
from roleplay.weights import base_models
from roleplay.weights.adapters import Adapter, read_weights
from roleplay.weights.inspection import check_base
from roleplay.weights.probe import PROBES, probe, probe_prompts

CONTEXT = 4096  # tokens of prompt and reply together, where the model does not end sooner
CACHE_BYTES = 512 << 20  # of keys and values kept for the next turns
CHUNK = 512  # prompt tokens of one side computed at a time, so that a stop is heard in between
MIN_INTERVAL = 1 / 30  # seconds between two updates, the first token and the end excepted
WAIT = 0.1  # seconds between two looks at whether a waiting request was given up

HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # what a decoder makes of the first bytes of a character


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


@dataclass
class _Side:
    """One answer being generated."""

    prompt: list[int]
    dropped_turns: int
    encoder: PromptEncoder
    key: str  # what its cache was computed with
    lora: Lora | None
    cache: KeyValues
    stream: TextStream
    asked: torch.Tensor  # distinct token ids of the prompt, for the repetition penalty
    reply: list[int] = field(default_factory=list)
    first: float = 0.0  # seconds to the first token
    last: float = 0.0  # seconds to the latest
    stop: str = ""

    @property
    def fed(self) -> list[int]:
        """The tokens whose keys and values the cache holds."""
        return (self.prompt + self.reply)[: self.cache.length]

    def pending(self) -> list[int]:
        """What the next step computes: a chunk of the prompt, or the token drawn last."""
        done, asked = self.cache.length, len(self.prompt)
        return self.prompt[done : done + CHUNK] if done < asked else self.reply[done - asked :]

    def take(self, token: int | None, sampling: Sampling, seconds: float) -> None:
        """Append the token that was drawn, None for logits that are not finite, and see whether the reply ends."""
        self.last = seconds
        if not self.reply:
            self.first = seconds
        if token is None:
            self.end("the model's scores are not finite: choose another adapter, or another dtype")
        elif token in self.encoder.stop_ids:
            self.end("end")
        else:
            self.reply.append(token)
            self.stream.add(token)
            if len(self.reply) == sampling.max_new_tokens:
                self.end("length")

    def end(self, stop: str) -> None:
        self.stop = stop
        self.stream.close()

    def answer(self) -> Answer:
        return Answer(self.stream.text, len(self.reply), self.first, self.last, self.stop, self.dropped_turns)


@dataclass
class _Attached:
    """An adapter at work; an answer that runs keeps its own reference to `lora`."""

    adapter: Adapter
    lora: Lora
    moves: float  # `adapters.probe`
    key: str  # under which its caches are kept; a name that comes back with other weights gets another
    used: float = 0.0  # on the clock of `time.monotonic`


class LocalEngine:
    """Answers to `answers.Engine` on this machine; `adapters` are added one by one as `add` does."""

    def __init__(
        self,
        base: base_models.BaseModel,
        adapters: Sequence[Adapter] = (),
        context: int = CONTEXT,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._base = base
        self.context = min(context, base.model.config.max_position_embeddings)
        self._decoder = Decoder(base.model)
        self.encoders = {template: PromptEncoder(base.tokenizer, template) for template in TEMPLATES}
        self._pool = CachePool(cache_bytes)
        self._lock = threading.Lock()  # held while an answer is generated, by whichever threads draw it
        self._attached: dict[str, _Attached] = {}  # replaced and never changed, so that a reader needs no lock
        self._attaching, self._serial = threading.Lock(), itertools.count()
        for adapter in adapters:
            self.add(adapter)

    @cached_property
    def _fingerprint(self) -> str:
        return base_models.fingerprint(self._base.model)

    def add(self, adapter: Adapter) -> None:
        """Attach one more, while answers go on; raises `AdapterError` where it does not fit the base, or in memory."""
        with self._attaching:
            check_base(adapter, self._base.model, self._fingerprint, self._base.hub_id)
            key = f"{ADAPTER} {next(self._serial)}"
            try:
                lora = Lora(self._decoder, read_weights(adapter), adapter.scaling)
                attached = _Attached(adapter, lora, self._moves(adapter, lora), key, time.monotonic())
            except (RuntimeError, MemoryError) as error:  # out of memory is one or the other, by device
                raise AdapterError(
                    f"{adapter.name} could not be loaded ({first_line(error):.120}): try again when less is going on"
                ) from error
            self._attached = {**self._attached, adapter.name: attached}

    def remove(self, name: str) -> None:
        """Let go of an adapter; an answer that it is giving goes on to its end."""
        with self._attaching:
            self._attached = {other: attached for other, attached in self._attached.items() if other != name}

    def moves(self, adapter: str) -> float | None:
        """How far an adapter moves the model, see `adapters.probe`; None for one that is not loaded."""
        attached = self._attached.get(adapter)
        return attached.moves if attached else None

    def last_used(self, name: str) -> float:
        """When an adapter was added or last asked, on the clock of `time.monotonic`."""
        return self._attached[name].used

    def _moves(self, adapter: Adapter, lora: Lora) -> float:
        encoder, logits = self.encoders[adapter.template], []
        prefix = encoder.prefix(adapter.persona)  # computed once a side, the prompts' own ends together
        ends = [ids[len(prefix) :] for ids in probe_prompts(encoder, adapter.persona)]
        for side in (lora, None):
            past = self._decoder.new_cache()
            self._decoder.forward([Segment(prefix, past, side)])
            hidden = self._decoder.forward([Segment(end, past.copy(len(prefix)), side) for end in ends])
            logits.append(self._decoder.head(hidden))
        return probe(*logits)

    def describe(self) -> list[str]:
        """One line each on the base model, every choice and its reason, and the adapters."""
        loaded = [
            f"adapter      {name}: rank {a.adapter.rank}, trained on {a.adapter.base_model}, template "
            f"{a.adapter.template}, active: mean KL {a.moves:.2f} nat over {len(PROBES)} prompts"
            for name, a in self._attached.items()
        ]
        return [*self._base.describe(), *(loaded or ["adapter      none: only the base model answers"])]

    def adapters(self) -> list[str]:
        """The names that `Request.adapter` may take, the default first."""
        return list(self._attached)

    def problem(self) -> str:
        """None: while this process lives it can answer."""
        return ""

    @property
    def busy(self) -> bool:
        """Whether an answer is being generated."""
        return self._lock.locked()

    @property
    def kept_bytes(self) -> int:
        """Memory that the kept caches take."""
        return self._pool.bytes

    def forget(self) -> None:
        """Drop the kept caches: the next answers compute their whole prompts."""
        with self._lock:
            self._pool.clear()

    def answer(self, request: Request) -> Generator[dict[str, Answer], None, None]:
        """Every side's answer so far, about thirty times a second at most; the last has every `stop` set.

        Closing it ends the generation within one step, also while it waits for another answer to end. Raises
        `RoleplayError` on the first step for a request that cannot be answered.
        """
        sides = self._sides(request)
        while not self._lock.acquire(timeout=WAIT):
            yield {name: side.answer() for name, side in sides.items()}
        try:
            yield from self._generate(sides, request.sampling)
        finally:
            heap.trim()
            self._lock.release()

    def _sides(self, request: Request) -> dict[str, _Side]:
        if not request.questions or not set(request.questions) <= {ADAPTER, BASE}:
            raise RoleplayError(f"sides {list(request.questions)!r}: ask {ADAPTER}, {BASE} or both")
        attached = self._attached
        name = request.adapter or next(iter(attached), "")
        if name not in attached and (name or ADAPTER in request.questions):
            raise AdapterError(f"no adapter {name!r:.80} is loaded; there are {', '.join(attached) or 'none'}")
        room = self.context - request.sampling.max_new_tokens
        if room < 1:
            raise RoleplayError(
                f"max_new_tokens is {request.sampling.max_new_tokens}, the context holds {self.context}: lower it"
            )
        # Both sides read the same template, so that they differ in the adapter alone.
        encoder = self.encoders[attached[name].adapter.template if name else "gemma"]
        sides = {}
        for side, question in request.questions.items():
            prompt, dropped = encoder.fit(question.persona, question.turns, question.user, room)
            key, lora = BASE, None
            if side == ADAPTER:
                attached[name].used = time.monotonic()
                key, lora = attached[name].key, attached[name].lora
            asked = torch.tensor(prompt, device=self._decoder.device).unique()
            cache = self._decoder.new_cache()
            sides[side] = _Side(prompt, dropped, encoder, key, lora, cache, TextStream(encoder), asked)
        return sides

    def _generate(self, sides: dict[str, _Side], sampling: Sampling) -> Generator[dict[str, Answer], None, None]:
        started, shown = time.perf_counter(), 0.0
        running = list(sides.values())
        try:
            for side in running:
                side.cache = self._pool.take(side.key, side.prompt) or side.cache
            while running:
                waiting = [side for side in running if not side.reply]
                self._step(running, sampling, started)
                running = [side for side in running if not side.stop]
                now = time.perf_counter()
                if now - shown >= MIN_INTERVAL or not running or any(side.reply for side in waiting):
                    shown = now
                    yield {name: side.answer() for name, side in sides.items()}
        except (RuntimeError, MemoryError) as error:  # out of memory is one or the other, by device
            self._pool.clear()
            for side in running:
                side.end(f"generation failed ({first_line(error):.120}): shorten the chat or try again")
            yield {name: side.answer() for name, side in sides.items()}
        finally:
            for side in sides.values():
                if side.stop in ("", "end", "length") and side.cache.length:
                    self._pool.put(side.key, side.fed, side.cache)

    def _step(self, running: Sequence[_Side], sampling: Sampling, started: float) -> None:
        """One forward pass over all running sides, and a token for each whose prompt is through."""
        hidden = self._decoder.forward([Segment(side.pending(), side.cache, side.lora) for side in running])
        drawing = [index for index, side in enumerate(running) if side.cache.length >= len(side.prompt)]
        if not drawing:
            return
        for index, logits in zip(drawing, self._decoder.head(hidden[drawing]), strict=True):
            side = running[index]
            token = next_token(logits, side.asked, side.reply, sampling)
            side.take(token, sampling, time.perf_counter() - started)
