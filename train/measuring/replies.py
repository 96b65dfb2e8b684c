"""Many replies at once for an evaluation: what the app's engine says one by one, from one batch that is refilled.

It uses the engine's decoder, prompts and dice, so a reply is the one that the page gives at the same seed, up to
rounding. Nothing here streams, and nothing is judged.

A list of asks gets the same replies in every evaluation, whatever else is measured. In bfloat16 attention rounds by
where a prompt is cut into what is cached and what is new, and a rounding decides a token in time; so the cut is always
the end of the persona, or of the conversation's own last reply. On a GPU the number of rows has a part in it too, so a
list is written by itself, and as a whole where a part of it is known.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from roleplay.engine.batch import RunningBatch, RunningRow, Voice
from roleplay.engine.cache import CachePool, KeyValues, common_prefix
from roleplay.engine.decoder import Decoder, Lora, Segment
from roleplay.engine.protocol import Question, Sampling
from roleplay.errors import AdapterError
from roleplay.text.prompts import PromptEncoder
from roleplay.weights import adapters, base_models, inspection
from roleplay.weights.adapters import Adapter

BATCH = 32  # replies in progress; the weights are read once a step for all of them
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
        self._decoder = Decoder(base.model)
        self._loras: dict[str, Lora | None] = {"": None}
        for adapter in loaded:
            if warning := inspection.check_base(adapter, base.model, fingerprint, base.hub_id):
                print(f"warning      {warning}")
            self._loras[adapter.name] = Lora(self._decoder, adapters.read_weights(adapter), adapter.scaling)
        self._encoders = {adapter.template: PromptEncoder(base.tokenizer, adapter.template) for adapter in loaded}
        self._context: int = base.model.config.max_position_embeddings
        self._begun: dict[tuple[str, tuple[int, ...]], KeyValues] = {}  # by adapter and persona
        self._known: dict[Ask, Reply] = {}

    def write(self, asks: Sequence[Ask], done: Done = float) -> list[Reply]:
        """Every ask's reply, in order; `done` is told of replies and parts of them as they grow, those to later
        messages included."""
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
        """Write all of them anew in one batch that is refilled; yields how many replies there are after every step."""
        waiting = deque[tuple[Ask, KeyValues | None]]((ask, None) for ask in dict.fromkeys(asks))
        batch, running, whole = RunningBatch(self._decoder, CachePool(0)), dict[RunningRow, Ask](), 0
        while waiting or batch.rows:
            while waiting and len(batch.rows) < BATCH:
                ask, cache = waiting.popleft()
                row = self._row(ask)
                running[row] = ask
                batch.join(row, cache or self._begin(ask))
            for row in batch.step():
                ask = running.pop(row)
                if row.stop not in ("end", "length"):
                    raise AdapterError(f"{ask.adapter or 'base'}: {row.stop}")
                self._known[ask] = Reply(row.stream.text.strip(), len(row.reply), row.stop == "end")
                whole += 1
                if ask.later:
                    following = ask.next(self._known[ask])
                    waiting.appendleft((following, self._go_on(row, following)))
            yield whole + sum(len(row.reply) / row.sampling.max_new_tokens for row in batch.rows)

    def _begin(self, ask: Ask) -> KeyValues:
        """A copy of what is computed of the ask's persona, once for all prompts that begin with it."""
        prefix = self._encoders[ask.template].prefix(ask.question.persona)
        key = ask.adapter, tuple(prefix)
        if key not in self._begun:
            self._begun[key] = self._decoder.new_cache()
            self._decoder.forward([Segment(prefix, self._begun[key], self._loras[ask.adapter])])
        return self._begun[key].copy(len(prefix))

    def _go_on(self, row: RunningRow, ask: Ask) -> KeyValues:
        """A copy of what is computed of a conversation that ended with `row` and goes on with `ask`."""
        asked, said = self._prompt(ask), row.prompt + row.reply
        return row.cache.copy(min(common_prefix(asked, said), row.cache.length))

    def _prompt(self, ask: Ask) -> list[int]:
        question, room = ask.question, self._context - ask.sampling.max_new_tokens
        return self._encoders[ask.template].fit(question.persona, question.turns, question.user, room)[0]

    def _row(self, ask: Ask) -> RunningRow:
        voice = Voice(ask.adapter, self._loras[ask.adapter])
        return RunningRow(self._encoders[ask.template], self._prompt(ask), voice, ask.sampling)
