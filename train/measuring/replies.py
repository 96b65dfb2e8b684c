"""Many replies at once for an evaluation: what the app's engine says one by one, from one batch that is refilled.

It uses the engine's decoder, prompts and dice, so a reply is the one that the page gives at the same seed. Nothing
here streams, and nothing is judged.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from roleplay.engine.batch import RunningBatch, RunningRow, Voice
from roleplay.engine.cache import CachePool
from roleplay.engine.decoder import Decoder, Lora
from roleplay.engine.protocol import Question, Sampling
from roleplay.errors import AdapterError
from roleplay.text.prompts import PromptEncoder
from roleplay.weights import adapters, base_models, inspection
from roleplay.weights.adapters import Adapter

BATCH = 32  # replies in progress; the weights are read once a step for all of them
CACHE_BYTES = 512 << 20
NO_REPLY = "…"  # a prompt holds no empty turn


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

    A question that was answered before, such as one to the base model for a second adapter, is not generated again.
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
        self._pool = CachePool(CACHE_BYTES)  # keeps the persona, and a conversation for its next turn
        self._known: dict[Ask, Reply] = {}

    def write(self, asks: Sequence[Ask], done: Callable[[int], object] = int) -> list[Reply]:
        """Every ask's reply, in order; `done(1)` is called after each, those to later messages included."""
        waiting = deque(ask for ask in dict.fromkeys(asks) if ask not in self._known)
        done(sum(1 + len(ask.later) for ask in asks) - sum(1 + len(ask.later) for ask in waiting))
        batch, running = RunningBatch(self._decoder, self._pool), dict[RunningRow, Ask]()
        while waiting or batch.rows:
            while waiting and len(batch.rows) < BATCH:
                ask = waiting.popleft()
                row = self._row(ask)
                running[row] = ask
                batch.join(row)
            for row in batch.step():
                ask = running.pop(row)
                if row.stop not in ("end", "length"):
                    raise AdapterError(f"{ask.adapter or 'base'}: {row.stop}")
                self._known[ask] = Reply(row.stream.text.strip(), len(row.reply), row.stop == "end")
                done(1)
                if ask.later:
                    waiting.appendleft(ask.next(self._known[ask]))
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

    def _row(self, ask: Ask) -> RunningRow:
        encoder, question = self._encoders[ask.template], ask.question
        room = self._context - ask.sampling.max_new_tokens
        prompt, _ = encoder.fit(question.persona, question.turns, question.user, room)
        return RunningRow(encoder, prompt, Voice(ask.adapter, self._loras[ask.adapter]), ask.sampling)
