"""Many replies at once for an evaluation, out of the same running batch as the page's.

A reply is the one that the page gives at the same seed. Nothing here streams, and nothing is judged.

A list of asks gets the same replies in every evaluation, whatever else is measured: see `roleplay.engine.batch`. On a
GPU the number of rows has a part in it too, so a list is written by itself, and as a whole where a part of it is known.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from roleplay.engine.batch import Voice
from roleplay.engine.cache import CachePool
from roleplay.engine.decoder import Decoder, Lora
from roleplay.engine.protocol import ENDS, Question, Sampling
from roleplay.engine.scheduler import AT_ONCE, Scheduler
from roleplay.engine.states import reader_of
from roleplay.engine.weighing import Weighing
from roleplay.errors import AdapterError
from roleplay.text.prompts import PromptEncoder
from roleplay.weights import adapters, base_models, inspection
from roleplay.weights.adapters import Adapter

BATCH = AT_ONCE  # replies in progress; the weights are read once a step for all of them
CACHE_BYTES = 256 << 20  # kept of conversations for their next messages
NO_REPLY = "…"  # a prompt holds no empty turn

Done = Callable[[float], object]  # is told how many items were done, parts of them included


@dataclass(frozen=True)
class Reply:
    """A generated reply; `stopped` says whether it ended by itself."""

    text: str
    tokens: int
    stopped: bool


@dataclass(frozen=True)
class Ask:
    """One reply to be generated; `adapter` is a name, "" for the base model.

    `later` are the user's next messages: each is asked as soon as the reply before it is known.
    """

    adapter: str
    template: str
    question: Question
    sampling: Sampling
    later: tuple[str, ...] = ()

    def next(self, reply: Reply) -> "Ask":
        """What follows in the conversation, with the next seed; the last message has nothing after it."""
        past = self.question
        turns = (*past.turns, (past.user, reply.text or NO_REPLY))
        sampling = replace(self.sampling, seed=self.sampling.seed + 1)
        return replace(
            self, question=Question(past.persona, turns, self.later[0]), sampling=sampling, later=self.later[1:]
        )


class Writer:
    """A loaded base model with adapters; raises `AdapterError` for one that does not fit.

    A list that was answered before, such as one to the base model for a second adapter, is not generated again.
    """

    def __init__(self, base: base_models.BaseModel, loaded: Sequence[Adapter], fingerprint: str) -> None:
        self._decoder = Decoder(base.model, bool(base.int8))
        self._loras: dict[str, Lora | None] = {"": None}
        for adapter in loaded:
            if warning := inspection.check_base(adapter, base.model, fingerprint, base.hub_id):
                print(f"warning      {warning}")
            self._loras[adapter.name] = Lora(self._decoder, adapters.read_weights(adapter), adapter.scaling)
        reader = partial(reader_of, self._decoder)
        self.encoders = {adapter.name: adapter.encoder(base.tokenizer, reader) for adapter in loaded}
        self._plain = {adapter.template: PromptEncoder(base.tokenizer, adapter.template) for adapter in loaded}
        self._context: int = base.model.config.max_position_embeddings
        self._known: dict[Ask, list[Reply]] = {}  # its candidates, the one that ranks first first

    def write(self, asks: Sequence[Ask], done: Done = float) -> list[Reply]:
        """Every ask's reply, in order; `done` is told of replies and parts of them as they grow, those to later
        messages included."""
        return [best for best, *_ in self.candidates(asks, done)]

    def candidates(self, asks: Sequence[Ask], done: Done = float) -> list[list[Reply]]:
        """As `write`, with all replies that each ask's sampling draws, as they rank."""
        total, told = sum(1 + len(ask.later) for ask in asks), 0.0
        if any(ask not in self._known for ask in asks):
            for now in self._grow(asks):
                done(now - told)
                told = now
        done(total - told)
        return [self._known[ask] for ask in asks]

    def conversation(self, ask: Ask) -> list[tuple[str, Reply]]:
        """Every message of a conversation with its reply, oldest first; what was written before is not written anew."""
        told = []
        while True:
            (reply,) = self.write([ask])
            told.append((ask.question.user, reply))
            if not ask.later:
                return told
            ask = ask.next(reply)

    def _grow(self, asks: Sequence[Ask]) -> Iterator[float]:
        """Write all of them anew; yields how many replies there are after every step."""
        scheduler = Scheduler(self._decoder, CachePool(CACHE_BYTES), BATCH)
        running, whole = {self._begin(ask): ask for ask in dict.fromkeys(asks)}, 0
        rows = [row for side in running for row in side.rows]
        for _ in scheduler.run(rows):
            for side in list(running):
                rows += side.follow()
                if not side.best or not side.best.stop:
                    continue
                ask, row = running.pop(side), side.best
                if row.stop not in ENDS:
                    raise AdapterError(f"{ask.adapter or 'base'}: {row.stop}")
                self._known[ask] = [
                    Reply(one.stream.text.strip(), len(one.reply), one.stop == "end")
                    for one in side.ranked
                    if one.stop in ENDS
                ]
                whole += 1
                if ask.later:
                    following = ask.next(self._known[ask][0])
                    running[side := self._begin(following)] = following
                    rows += side.rows
            yield whole + sum(side.share for side in running)

    def _begin(self, ask: Ask) -> Weighing:
        room, voice = self._context - ask.sampling.max_new_tokens, Voice(ask.adapter, self._loras[ask.adapter])
        encoder = self.encoders[ask.adapter] if ask.adapter else self._plain[ask.template]
        return Weighing(encoder, ask.question, room, voice, ask.sampling)
