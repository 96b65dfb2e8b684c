"""Many replies at once for an evaluation: what the app's engine says one by one, from one batch that is refilled.

It uses the engine's decoder, prompts and dice, so a reply is the one that the page gives at the same seed. Nothing
here streams, and nothing is judged.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from roleplay.engine.cache import CachePool, KeyValues
from roleplay.engine.decoder import Decoder, Lora, Segment
from roleplay.engine.protocol import Question, Sampling
from roleplay.engine.sampling import next_token
from roleplay.errors import AdapterError
from roleplay.text.prompts import PromptEncoder
from roleplay.weights import adapters, base_models, inspection
from roleplay.weights.adapters import Adapter

BATCH = 32  # replies in progress; the weights are read once a step for all of them
CACHE_BYTES = 512 << 20


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
        turns = (*past.turns, (past.user, reply.text or "…"))  # a prompt holds no empty turn
        sampling = replace(self.sampling, seed=self.sampling.seed + 1)
        return replace(
            self, question=Question(past.persona, turns, self.later[0]), sampling=sampling, later=self.later[1:]
        )


@dataclass
class _Row:
    ask: Ask
    prompt: list[int]
    cache: KeyValues
    asked: torch.Tensor  # distinct ids of the prompt
    reply: list[int] = field(default_factory=list)

    def pending(self) -> list[int]:
        """The tokens that the cache does not hold yet: the rest of the prompt, or the token drawn last."""
        return (self.prompt + self.reply)[self.cache.length :]


class Writer:
    """A loaded base model with adapters; raises `AdapterError` for one that does not fit.

    A question that was answered before, such as one to the base model for a second adapter, is not generated again.
    """

    def __init__(self, base: base_models.BaseModel, loaded: Sequence[Adapter], fingerprint: str) -> None:
        self._decoder = Decoder(base.model)
        self._loras: dict[str, Lora | None] = {"": None}
        for adapter in loaded:
            inspection.check_base(adapter, base.model, fingerprint, base.hub_id)
            self._loras[adapter.name] = Lora(self._decoder, adapters.read_weights(adapter), adapter.scaling)
        self._encoders = {adapter.template: PromptEncoder(base.tokenizer, adapter.template) for adapter in loaded}
        self._context: int = base.model.config.max_position_embeddings
        self._pool = CachePool(CACHE_BYTES)  # keeps the persona, and a conversation for its next turn
        self._known: dict[Ask, Reply] = {}

    def write(self, asks: Sequence[Ask], done: Callable[[int], object] = int) -> list[Reply]:
        """Every ask's reply, in order; `done(1)` is called after each, those to later messages included."""
        waiting = deque(ask for ask in dict.fromkeys(asks) if ask not in self._known)
        done(sum(1 + len(ask.later) for ask in asks) - sum(1 + len(ask.later) for ask in waiting))
        running: list[_Row] = []
        while waiting or running:
            while waiting and len(running) < BATCH:
                running.append(self._begin(waiting.popleft()))
            hidden = self._decoder.forward([Segment(r.pending(), r.cache, self._loras[r.ask.adapter]) for r in running])
            logits = self._decoder.head(hidden)
            ended = [self._take(row, own) for row, own in zip(running, logits, strict=True)]
            for row in (row for row, end in zip(running, ended, strict=True) if end and row.ask.later):
                waiting.appendleft(row.ask.next(self._known[row.ask]))
            running = [row for row, end in zip(running, ended, strict=True) if not end]
            done(sum(ended))
        return [self._known[ask] for ask in asks]

    def _begin(self, ask: Ask) -> _Row:
        encoder, question = self._encoders[ask.template], ask.question
        room = self._context - ask.sampling.max_new_tokens
        prompt, _ = encoder.fit(question.persona, question.turns, question.user, room)
        cache = self._pool.take(ask.adapter, prompt) or self._decoder.new_cache()
        asked = torch.tensor(prompt, device=self._decoder.device).unique()
        return _Row(ask, prompt, cache, asked)

    def _take(self, row: _Row, logits: torch.Tensor) -> bool:
        """Draw a row's next token; whether its reply has ended."""
        encoder, sampling = self._encoders[row.ask.template], row.ask.sampling
        token = next_token(logits, row.asked, row.reply, sampling)
        if token is None:
            raise AdapterError(f"{row.ask.adapter or 'base'}: its scores are not finite; choose another, or float32")
        stopped = token in encoder.stop_ids
        if not stopped:
            row.reply.append(token)
        if stopped or len(row.reply) == sampling.max_new_tokens:
            self._pool.put(row.ask.adapter, (row.prompt + row.reply)[: row.cache.length], row.cache)
            self._known[row.ask] = Reply(encoder.decode(row.reply).strip(), len(row.reply), stopped)
            return True
        return False
