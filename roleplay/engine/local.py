"""The engine on this machine: one base model, any number of LoRA adapters, both sides of a comparison in one batch.

Every running answer, of whoever asks, is a row of the same forward pass; nothing global is switched. Nothing here
knows the page, and nothing here reads a file beyond the adapters' weights.
"""

import itertools
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from roleplay import heap
from roleplay.engine import apple, capacity
from roleplay.engine import fixed as fixed_steps
from roleplay.engine.batch import Voice
from roleplay.engine.cache import CachePool
from roleplay.engine.decoder import Decoder, Lora, Segment
from roleplay.engine.protocol import ADAPTER, BASE, Answer, Piece, Request
from roleplay.engine.scheduler import AT_ONCE, Scheduler
from roleplay.engine.scoring import Reading
from roleplay.engine.states import reader_of
from roleplay.engine.strengths import Strengths
from roleplay.engine.weighing import Weighing, seed_of
from roleplay.errors import AdapterError, RoleplayError, first_line
from roleplay.text.meaning import Features, Floats, Meaning, Tokens
from roleplay.text.prompts import TEMPLATES, PromptEncoder
from roleplay.text.retrieval import NEAREST
from roleplay.weights import base_models
from roleplay.weights.adapters import Adapter, read_weights
from roleplay.weights.inspection import check_base
from roleplay.weights.probe import PROBES, kl_to_base, probe_prompts

CONTEXT = 4096  # tokens of prompt and reply together, where the model does not end sooner
CACHE_BYTES = 512 << 20  # of keys and values kept for the next turns
MIN_INTERVAL = 1 / 30  # seconds between two updates, the first token and the end excepted


@dataclass
class _Attached:
    """An adapter at work; an answer that runs keeps its own reference to `voice`."""

    adapter: Adapter
    encoder: PromptEncoder
    voice: Voice  # a name that comes back with other weights gets another key
    kl_to_base: float  # nat, as `probe.kl_to_base` has it
    warning: str = ""  # of `check_base`
    used: float = 0.0  # on the clock of `time.monotonic`


def _revision(adapter: Adapter) -> str:
    return f", revision {adapter.revision[:12]}" if adapter.revision else ""


def _looks_up(adapter: Adapter) -> str:
    return f", looks up at most {NEAREST} of {adapter.looked_up.shown:,} rows" if adapter.looked_up.turns else ""


class LocalEngine:
    """Answers to `protocol.Engine` on this machine; `adapters` are added one by one as `add` does."""

    def __init__(
        self,
        base: base_models.BaseModel,
        adapters: Sequence[Adapter] = (),
        context: int = CONTEXT,
        cache_bytes: int = CACHE_BYTES,
        at_once: int = AT_ONCE,
    ) -> None:
        """Rows beyond `at_once` wait their turn; `cache_bytes` is what is kept for the next turns."""
        self._base = base
        if torch.backends.mps.is_available():
            apple.settle(base)
        self.context = min(context, base.model.config.max_position_embeddings)
        self._decoder = Decoder(base.model, bool(base.int8))
        self.encoders = {template: PromptEncoder(base.tokenizer, template) for template in TEMPLATES}
        self._pool, self._strengths = CachePool(cache_bytes), Strengths()
        self._scheduler, self._reason = Scheduler(self._decoder, self._pool, at_once), "not measured"
        self._steps = list[str]()
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
            warning = check_base(adapter, self._base.model, self._fingerprint, self._base.hub_id)
            try:
                lora = Lora(self._decoder, read_weights(adapter), adapter.scaling)
                voice = Voice(f"{ADAPTER} {next(self._serial)}", lora)
                encoder = adapter.encoder(self._base.tokenizer, self._reader)
                kl = self._measure_kl(adapter, lora)
                attached = _Attached(adapter, encoder, voice, kl, warning, time.monotonic())
            except (RuntimeError, MemoryError) as error:  # out of memory is one or the other, by device
                raise AdapterError(
                    f"{adapter.name} could not be loaded ({first_line(error):.120}): try again when less is going on"
                ) from error
            self._attached = {**self._attached, adapter.name: attached}

    def _reader(self, meaning: Meaning) -> Features:
        """As `states.reader_of`, between two steps; raises `RoleplayError` where features cannot be computed."""
        read = reader_of(self._decoder, meaning)

        def features(texts: Sequence[Tokens]) -> Floats:
            with self._scheduler.alone():
                try:
                    return read(texts)
                except (RuntimeError, MemoryError) as error:  # out of memory is one or the other, by device
                    raise RoleplayError(f"no rows could be looked up ({first_line(error):.120})") from error

        return features

    def remove(self, name: str) -> None:
        """Let go of an adapter; an answer that it is giving goes on to its end."""
        with self._attaching:
            gone = self._attached.get(name)
            self._attached = {other: attached for other, attached in self._attached.items() if other != name}
            if gone:
                self._strengths.forget(gone.voice)

    def kl_to_base(self, adapter: str) -> float | None:
        """How far an adapter moves the model, see `probe.kl_to_base`; None for one that is not loaded."""
        attached = self._attached.get(adapter)
        return attached.kl_to_base if attached else None

    def last_used(self, name: str) -> float:
        """When an adapter was added or last asked, on the clock of `time.monotonic`."""
        return self._attached[name].used

    def _measure_kl(self, adapter: Adapter, lora: Lora) -> float:
        encoder, logits = self.encoders[adapter.template], []
        prefix = encoder.prefix(adapter.persona)  # computed once a side, the prompts' own ends together
        ends = [ids[len(prefix) :] for ids in probe_prompts(encoder, adapter.persona)]
        for side in (lora, None):
            past = self._decoder.new_cache()
            self._decoder.forward([Segment(prefix, past, side)])
            hidden = self._decoder.forward([Segment(end, past.copy(len(prefix)), side) for end in ends])
            logits.append(self._decoder.head(hidden))
        return kl_to_base(*logits)

    def choose_at_once(self, asked: int = 0) -> None:
        """Have `asked` rows computed at once, or as many as suit this machine; `describe` then says why."""
        chosen, reason = (asked, "as AT_ONCE says") if asked else capacity.choose(self._decoder, self.context)
        self._scheduler.at_once, self._reason = chosen, reason

    def choose_steps(self) -> None:
        """Have steps computed as CUDA graphs where they give the same logits; `describe` then says why or why not."""
        fixed, reason = fixed_steps.choose(self._decoder)
        self._scheduler.take_steps(fixed)
        self._steps = [f"steps        {reason}"]

    @property
    def at_once(self) -> int:
        """Rows that are computed at the same time; a request has one for each side."""
        return self._scheduler.at_once

    def describe(self) -> list[str]:
        """One line each on the base model, every choice and its reason, and the adapters."""
        loaded = [
            f"adapter      {name}: rank {a.adapter.rank}, trained on {a.adapter.base_model}, template "
            f"{a.adapter.template}{_revision(a.adapter)}{_looks_up(a.adapter)}, active: mean KL {a.kl_to_base:.2f} nat "
            f"over {len(PROBES)} prompts"
            for name, a in self._attached.items()
        ]
        warnings = [f"warning      {attached.warning}" for attached in self._attached.values() if attached.warning]
        batch = f"batch        up to {self.at_once} rows: {self._reason}; {self._decoder.promise}"
        loaded = loaded or ["adapter      none: only the base model answers"]
        return [*self._base.describe(), batch, *self._steps, *loaded, *warnings]

    def adapters(self) -> list[str]:
        """The names that `Request.adapter` may take, the default first."""
        return list(self._attached)

    def problem(self) -> str:
        """None: while this process lives it can answer."""
        return ""

    def lacks(self) -> dict[str, str]:
        """Nothing."""
        return {}

    @property
    def busy(self) -> bool:
        """Whether an answer is being generated."""
        return self._scheduler.busy

    @property
    def kept_bytes(self) -> int:
        """Memory that the kept caches take."""
        return self._pool.bytes

    def forget(self) -> None:
        """Drop the kept caches: the next answers compute their whole prompts."""
        self._scheduler.forget()

    def answer(self, request: Request) -> Generator[dict[str, Answer], None, None]:
        """Every side's answer so far, about thirty times a second at most; the last has every `stop` set.

        Closing it ends the generation within one step, also while it waits for its turn. Raises `RoleplayError` on the
        first step for a request that cannot be answered.
        """
        sides = self._sides(request)
        rows = [row for side in sides.values() for row in side.rows]
        running, shown, begun = self._scheduler.run(rows, request.visitor), 0.0, 0
        try:
            for place in running:
                for side in sides.values():
                    rows += side.follow()
                answers = {name: side.answer(place) for name, side in sides.items()}
                now, first = time.perf_counter(), begun
                begun = sum(answer.tokens > 0 for answer in answers.values())
                if now - shown >= MIN_INTERVAL or begun > first or all(answer.stop for answer in answers.values()):
                    shown = now
                    yield answers
        finally:
            running.close()
            heap.trim()

    def score(self, request: Request, answer: Answer) -> list[Piece]:
        """How likely each side finds `answer`, which both read beside whatever else is computed."""
        chosen = replace(request.sampling, candidates=1, seed=seed_of(request.sampling, answer.candidate))
        request = replace(request, sampling=chosen)
        rows = {name: side.rows[0] for name, side in self._sides(request).items()}
        reading = Reading({name: (row.asked, row.sampling) for name, row in rows.items()}, answer, self.context)
        try:
            for _ in self._scheduler.run(reading.rows):
                pass
            return reading.pieces
        finally:
            heap.trim()

    def _sides(self, request: Request) -> dict[str, Weighing]:
        if not request.questions or not set(request.questions) <= {ADAPTER, BASE}:
            raise RoleplayError(f"sides {list(request.questions)!r}: ask {ADAPTER}, {BASE} or both")
        sampled = {side: request.sampling.of(side) for side in request.questions}
        longest = max(sampling.max_new_tokens for sampling in sampled.values())
        room = self.context - longest  # the same for both, so that they read the same turns
        if room < 1:
            raise RoleplayError(f"max_new_tokens is {longest}, the context holds {self.context}: lower it")
        sides = {}
        for side, question in request.questions.items():
            encoder, voice = self._speaker(request, side)
            sides[side] = Weighing(encoder, question, room, voice, sampled[side])
            for row in sides[side].rows:
                row.cut_loops = request.cut_loops
        return sides

    def _speaker(self, request: Request, side: str) -> tuple[PromptEncoder, Voice]:
        """Whose weights speak on a side, and what encodes for them: the base model, which anyone is at a strength of 0,
        reads the template of the adapter that it stands beside, so that the two differ in the adapter alone."""
        attached = self._attached
        beside = request.adapter or next(iter(attached), "")
        speaker = request.speaker(side, beside)
        name = speaker.adapter
        for needed in (name, beside):
            if needed not in attached and (needed or side == ADAPTER):
                raise AdapterError(f"no adapter {needed!r:.80} is loaded; there are {', '.join(attached) or 'none'}")
        if name:
            attached[name].used = time.monotonic()
        if not name or not speaker.strength:  # what an adapter looks up is part of it, and goes with it
            return self.encoders[attached[beside].adapter.template if beside else "gemma"], Voice(BASE)
        return attached[name].encoder, self._strengths.voice(attached[name].voice, speaker.strength)
