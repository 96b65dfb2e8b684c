"""The engine on this machine: one base model, any number of LoRA adapters, both sides of a comparison in one batch.

Every running answer is a row of the same forward pass; nothing global is switched. Generation is one call at a time.
Nothing here knows the page, and nothing here reads a file beyond the adapters' weights.
"""

import itertools
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from roleplay import heap
from roleplay.engine import apple
from roleplay.engine.batch import RunningBatch, RunningRow, Voice
from roleplay.engine.cache import CachePool
from roleplay.engine.decoder import Decoder, Lora, Segment
from roleplay.engine.loops import repeats
from roleplay.engine.protocol import ADAPTER, BASE, LOOP, Answer, Piece, Request
from roleplay.engine.scoring import score
from roleplay.engine.strengths import Strengths
from roleplay.errors import AdapterError, RoleplayError, first_line
from roleplay.text.prompts import TEMPLATES, PromptEncoder
from roleplay.weights import base_models
from roleplay.weights.adapters import Adapter, read_weights
from roleplay.weights.inspection import check_base
from roleplay.weights.probe import PROBES, kl_to_base, probe_prompts

CONTEXT = 4096  # tokens of prompt and reply together, where the model does not end sooner
CACHE_BYTES = 512 << 20  # of keys and values kept for the next turns
MIN_INTERVAL = 1 / 30  # seconds between two updates, the first token and the end excepted
WAIT = 0.1  # seconds between two looks at whether a waiting request was given up


@dataclass
class _Side:
    """One side of a comparison while it is answered."""

    row: RunningRow
    dropped_turns: int

    def answer(self) -> Answer:
        row = self.row
        times = row.seconds_to_first_token, row.seconds
        return Answer(row.stream.text, len(row.reply), *times, row.stop, self.dropped_turns)


@dataclass
class _Attached:
    """An adapter at work; an answer that runs keeps its own reference to `voice`."""

    adapter: Adapter
    voice: Voice  # a name that comes back with other weights gets another key
    kl_to_base: float  # nat, as `probe.kl_to_base` has it
    warning: str = ""  # of `check_base`
    used: float = 0.0  # on the clock of `time.monotonic`


def _revision(adapter: Adapter) -> str:
    return f", revision {adapter.revision[:12]}" if adapter.revision else ""


class LocalEngine:
    """Answers to `protocol.Engine` on this machine; `adapters` are added one by one as `add` does."""

    def __init__(
        self,
        base: base_models.BaseModel,
        adapters: Sequence[Adapter] = (),
        context: int = CONTEXT,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._base = base
        if torch.backends.mps.is_available():
            apple.settle(base)
        self.context = min(context, base.model.config.max_position_embeddings)
        self._decoder = Decoder(base.model)
        self.encoders = {template: PromptEncoder(base.tokenizer, template) for template in TEMPLATES}
        self._pool, self._strengths = CachePool(cache_bytes), Strengths()
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
            warning = check_base(adapter, self._base.model, self._fingerprint, self._base.hub_id)
            try:
                lora = Lora(self._decoder, read_weights(adapter), adapter.scaling)
                voice = Voice(f"{ADAPTER} {next(self._serial)}", lora)
                attached = _Attached(adapter, voice, self._measure_kl(adapter, lora), warning, time.monotonic())
            except (RuntimeError, MemoryError) as error:  # out of memory is one or the other, by device
                raise AdapterError(
                    f"{adapter.name} could not be loaded ({first_line(error):.120}): try again when less is going on"
                ) from error
            self._attached = {**self._attached, adapter.name: attached}

    def remove(self, name: str) -> None:
        """Let go of an adapter; an answer that it is giving goes on to its end."""
        with self._attaching:
            self._attached = {other: attached for other, attached in self._attached.items() if other != name}

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

    def describe(self) -> list[str]:
        """One line each on the base model, every choice and its reason, and the adapters."""
        loaded = [
            f"adapter      {name}: rank {a.adapter.rank}, trained on {a.adapter.base_model}, template "
            f"{a.adapter.template}{_revision(a.adapter)}, active: mean KL {a.kl_to_base:.2f} nat over {len(PROBES)} "
            "prompts"
            for name, a in self._attached.items()
        ]
        warnings = [f"warning      {attached.warning}" for attached in self._attached.values() if attached.warning]
        return [*self._base.describe(), *(loaded or ["adapter      none: only the base model answers"]), *warnings]

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
            yield from self._generate(sides, request.cut_loops)
        finally:
            heap.trim()
            self._lock.release()

    def score(self, request: Request, answer: Answer) -> list[Piece]:
        """How likely each side finds `answer`, in one forward pass over it; it waits for a running answer to end."""
        rows = {name: side.row for name, side in self._sides(request).items()}
        with self._lock:
            try:
                return score(self._decoder, self._pool, rows, answer, self.context)
            except (RuntimeError, MemoryError) as error:  # out of memory is one or the other, by device
                raise RoleplayError(f"the answer could not be looked into ({first_line(error):.120})") from error
            finally:
                heap.trim()

    def _sides(self, request: Request) -> dict[str, _Side]:
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
            prompt, dropped = encoder.fit(question.persona, question.turns, question.user, room)
            sides[side] = _Side(RunningRow(encoder, prompt, voice, sampled[side]), dropped)
        return sides

    def _speaker(self, request: Request, side: str) -> tuple[PromptEncoder, Voice]:
        """Whose weights speak on a side, and what encodes for them: the base model reads the template of the adapter
        that it stands beside, so that the two differ in the adapter alone."""
        attached, speaker = self._attached, request.speaker(side)
        beside = request.adapter or next(iter(attached), "")
        name = speaker.adapter or (beside if side == ADAPTER else "")
        for needed in (name, beside):
            if needed not in attached and (needed or side == ADAPTER):
                raise AdapterError(f"no adapter {needed!r:.80} is loaded; there are {', '.join(attached) or 'none'}")
        encoder = self.encoders[attached[name or beside].adapter.template if name or beside else "gemma"]
        if not name:
            return encoder, Voice(BASE)
        attached[name].used = time.monotonic()
        return encoder, self._strengths.voice(attached[name].voice, speaker.strength)

    def _generate(self, sides: dict[str, _Side], cut_loops: bool) -> Generator[dict[str, Answer], None, None]:
        batch, shown = RunningBatch(self._decoder, self._pool), 0.0
        try:
            for side in sides.values():
                batch.join(side.row)
            while batch.rows:
                waiting = [row for row in batch.rows if not row.reply]
                batch.step()
                for row in [row for row in batch.rows if cut_loops and repeats(row.stream.text)]:
                    row.end(LOOP)
                    batch.leave(row)
                now = time.perf_counter()
                if now - shown >= MIN_INTERVAL or not batch.rows or any(row.reply for row in waiting):
                    shown = now
                    yield {name: side.answer() for name, side in sides.items()}
        except (RuntimeError, MemoryError) as error:  # out of memory is one or the other, by device
            batch.give_up(f"generation failed ({first_line(error):.120}): shorten the chat or try again")
            yield {name: side.answer() for name, side in sides.items()}
        finally:
            for row in list(batch.rows):  # a stop: what was computed is kept
                batch.leave(row)
