"""A running batch: rows that grow by a token a step, each with its own weights, prompt and dice, until they end.

The page's two sides and an evaluation's many replies are rows of it. It knows no side, page, judge or who waits.

In bfloat16 attention rounds by where a prompt is cut into what is cached and what is new, and a rounding decides a
token in time. So a row is cut where its own prompt says: at the end of the persona, at the end of a reply, and every
`CHUNK` tokens from there on. What others ask moves no cut, as long as the cache of its earlier turns is kept.
"""

import itertools
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from roleplay.engine.cache import CachePool, KeyValues, common_prefix
from roleplay.engine.decoder import Decoder, Lora, Segment
from roleplay.engine.fixed import FixedSteps
from roleplay.engine.loops import repeats
from roleplay.engine.protocol import ENDS, LOOP, Question, Sampling
from roleplay.engine.sampling import Drawing, next_tokens
from roleplay.engine.stream import TextStream
from roleplay.errors import first_line
from roleplay.text.prompts import PromptEncoder

CHUNK = 256  # prompt tokens that a step computes at most, so that nobody else waits longer than for these
NOT_FINITE = "the model's scores are not finite: choose another adapter, or another dtype"


@dataclass(frozen=True)
class Voice:
    """Whose weights speak: an adapter's, or the base model's alone; `key` is under which its caches are kept."""

    key: str
    lora: Lora | None = None


class Asked:
    """A prompt and whose weights speak after it, encoded once for all rows that do."""

    def __init__(self, encoder: PromptEncoder, question: Question, room: int, voice: Voice) -> None:
        """The prompt takes at most `room` tokens, less the oldest turns; raises `RoleplayError` where none fits."""
        self.encoder, self.voice = encoder, voice
        self.fitted = encoder.fit(question.persona, question.turns, question.user, room)
        self.cuts = encoder.cuts(question.persona, self.fitted.ids)


class RunningRow:
    """One reply that grows: what it is asked, and the tokens so far."""

    cut_loops = False  # whether a reply that says the same again and again ends there
    draws = True  # its next token, from the last of its logits

    def __init__(self, asked: Asked, sampling: Sampling) -> None:
        self.asked, self.sampling = asked, sampling
        self.prompt, self.cuts, self.voice = asked.fitted.ids, asked.cuts, asked.voice
        self.stream = TextStream(asked.encoder)
        self.reply: list[int] = []
        self.seconds_to_first_token = self.seconds = 0.0
        self.stop = ""  # one of `protocol.ENDS`, or a sentence that says what failed
        self.given_up = False  # nobody waits for it any more
        self.forks: list[RunningRow] = []  # the same prompt with other dice: they begin where it is through
        self.forked = False  # whether it is such a one
        self.kept = True  # whether its cache is of use to what follows
        self.weighed, self.nats = False, list[float]()  # the log-probabilities of what is drawn, where they are wanted
        self.drawn: list[int] = []  # the reply and what ended it
        self.cache: KeyValues | None = None  # from its first step on
        self._stop_ids = asked.encoder.stop_ids

    @property
    def done(self) -> int:
        """Tokens of prompt and reply that are computed."""
        return self.cache.length if self.cache else 0

    @property
    def reading(self) -> bool:
        """Whether the prompt is not through."""
        return self.done < len(self.prompt)

    def pending(self) -> list[int]:
        """What the next step computes: a part of the prompt, or the token drawn last."""
        done, asked = self.done, len(self.prompt)
        if done >= asked:
            return self.reply[done - asked :]
        persona = self.cuts[0]
        return self.prompt[done : min(done + CHUNK, persona if done < persona else asked)]

    @property
    def readable(self) -> list[int]:
        """What of the prompt may come from a cache, with one token more."""
        return self.prompt

    @property
    def wanted(self) -> int:
        """How many of the pending tokens' logits it takes: the last one's, once the prompt is through."""
        return int(self.done + len(self.pending()) >= len(self.prompt))

    @property
    def cost(self) -> int:
        """What its part of a step takes, in tokens of a prompt."""
        return len(self.pending())

    def start(self, device: torch.device) -> None:
        """The clock starts."""
        self.started = time.perf_counter()
        self.penalised = torch.tensor(self.asked.fitted.ids, device=device).unique()  # by the repetition penalty

    def read(self, logits: torch.Tensor) -> None:
        """What a row that does not draw does with its logits, (wanted, vocabulary)."""

    def take(self, token: int | None, nat: float) -> None:
        """Append the token that was drawn and has this log-probability, or end."""
        if self.weighed and token is not None:
            self.nats.append(nat)
            self.drawn.append(token)
        self.seconds = time.perf_counter() - self.started
        self.seconds_to_first_token = self.seconds_to_first_token or self.seconds
        if token is None:
            self.end(NOT_FINITE)
        elif token in self._stop_ids:
            self.end("end")
        else:
            self.reply.append(token)
            self.stream.add(token)
            if self.cut_loops and repeats(self.stream.text):
                self.end(LOOP)
            elif len(self.reply) >= self.sampling.max_new_tokens:
                self.end("length")

    def end(self, stop: str) -> None:
        """No token comes any more; whoever reads `stop` finds the text whole."""
        self.stream.close()
        self.stop = stop


@dataclass
class RunningBatch:
    """The rows that are computed together, the oldest first; one that ends leaves by itself."""

    decoder: Decoder
    pool: CachePool
    fixed: FixedSteps | None = None  # what computes a step that reads no prompt, where that is quicker
    rows: list[RunningRow] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Rows, with those that will join when a prompt is through."""
        return len(self.rows) + sum(len(row.forks) for row in self.rows if row.reading)

    def join(self, row: RunningRow) -> None:
        """From the next step on `row` is computed."""
        row.start(self.decoder.device)
        self.rows.append(row)

    def step(self) -> None:
        """One forward pass, and a token for each whose prompt is through; when it fails, the youngest row ends."""
        before: list[tuple[KeyValues, int]] = []
        try:
            due = self._due()
            before = [(row.cache, row.cache.length) for row in due if row.cache]
            self._compute(due)
        except Exception as error:  # whatever it is: else whoever computes would have it, and the next one again
            _restore(before)
            self.pool.clear()
            if self.rows:
                self.rows[-1].end(_failed(error))
        except BaseException:
            _restore(before)
            raise
        for row in [row for row in self.rows if row.stop]:
            self.leave(row)

    def _compute(self, due: list[RunningRow]) -> None:
        wanted = [row.wanted for row in due]
        segments = [
            Segment(row.pending(), row.cache, row.voice.lora, count)
            for row, count in zip(due, wanted, strict=True)
            if row.cache
        ]
        if self.fixed and self.fixed.fits(segments):
            self._read(due, wanted, self.fixed.logits(segments))
            return
        hidden = self.decoder.forward(segments)
        for row in due:
            if row.cache and row.reading and row.done == row.cuts[0]:
                self.pool.put(row.voice.key, row.prompt[: row.done], row.cache.copy(row.done))
        if any(wanted):
            self._read(due, wanted, self.decoder.head(hidden))

    def _read(self, due: Sequence[RunningRow], wanted: Sequence[int], logits: torch.Tensor) -> None:
        """What the rows do with their logits, (all wanted, vocabulary).

        All tokens are drawn at once: where that fails no row has taken anything, and the step may be computed again.
        After it a row whose own part fails ends alone.
        """
        drawing = list[tuple[RunningRow, RunningRow, int]]()  # who draws, whose prompt it is, and from which logits
        reading = list[tuple[RunningRow, slice]]()
        for row, count, end in zip(due, wanted, itertools.accumulate(wanted), strict=True):
            if count and row.draws:
                forks = [] if row.reply or row.given_up else row.forks
                drawing += [(own, row, end - 1) for own in (row, *forks)]
            elif count:
                reading.append((row, slice(end - count, end)))
        if drawing:
            self._draw(drawing, logits)
        for row, part in reading:
            with _ending(row):
                row.read(logits[part])

    def _draw(self, drawing: Sequence[tuple[RunningRow, RunningRow, int]], logits: torch.Tensor) -> None:
        places = [at for _, _, at in drawing]
        logits = logits if places == list(range(len(logits))) else logits[places]
        scores = logits.log_softmax(-1) if any(own.weighed for own, _, _ in drawing) else None
        tokens = next_tokens(logits, [Drawing(row.penalised, own.reply, own.sampling) for own, row, _ in drawing])
        nats = [0.0] * len(tokens)
        if scores is not None:
            drawn = torch.tensor([token or 0 for token in tokens], device=scores.device)
            nats = scores.gather(-1, drawn[:, None])[:, 0].tolist()
        for (own, row, _), token, nat in zip(drawing, tokens, nats, strict=True):
            with _ending(own):
                if own is not row:
                    assert row.cache
                    own.cache = row.cache.copy(row.done)
                    self.join(own)
                    own.started = row.started
                own.take(token, nat)

    def _due(self) -> list[RunningRow]:
        """Every row that draws, and of the prompts, the oldest first, as many parts as `CHUNK` tokens hold."""
        due, room = list[RunningRow](), CHUNK
        for number, row in enumerate(self.rows):
            if row.reading:
                if not row.cache:
                    if self._worth_waiting(row, self.rows[:number]):
                        continue
                    row.cache = self.pool.take(row.voice.key, row.readable, row.cuts) or self.decoder.new_cache()
                room -= row.cost
                if room < 0:
                    continue
            due.append(row)
        return due

    def _worth_waiting(self, row: RunningRow, older: list[RunningRow]) -> bool:
        """Whether an older row is computing the persona that this prompt begins with, and it is not kept yet."""
        persona = row.cuts[0]
        computing = any(
            other.voice.key == row.voice.key
            and other.done < other.cuts[0] == persona
            and common_prefix(other.prompt, row.prompt) >= persona
            for other in older
        )
        return computing and self.pool.shared(row.voice.key, row.prompt, row.cuts) < persona

    def leave(self, row: RunningRow) -> None:
        """`row` is computed no more; its cache is kept for what follows, unless something failed."""
        self.rows.remove(row)
        if self.fixed and row.cache:
            self.fixed.free(row.cache)
        for fork in row.forks:
            if not fork.cache and not fork.stop:  # it never began
                fork.end(row.stop)
        if row.kept and row.stop in ("", *ENDS) and row.cache and row.done:
            self.pool.put(row.voice.key, (row.prompt + row.reply)[: row.done], row.cache)
        row.cache = None  # whoever keeps the row for its text keeps no cache by it


@contextmanager
def _ending(row: RunningRow) -> Iterator[None]:
    """`row` ends where something fails."""
    try:
        yield
    except Exception as error:
        row.end(_failed(error))


def _failed(error: Exception) -> str:
    if not isinstance(error, RuntimeError | MemoryError):  # out of memory is one or the other, by device
        traceback.print_exc()
    return f"generation failed ({first_line(error):.120}): shorten the chat or try again"


def _restore(before: list[tuple[KeyValues, int]]) -> None:
    """Take back what a step that failed had computed."""
    for cache, length in before:
        cache.length = length
