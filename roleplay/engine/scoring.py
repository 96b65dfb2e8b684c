"""How likely both sides find a finished text, token by token: each reads it as a row of the running batch.

It reads after its own prompt, with its own weights, and generates nothing. Nothing here knows the page.
"""

from collections.abc import Mapping

import torch

from roleplay.engine.batch import NOT_FINITE, Asked, RunningRow
from roleplay.engine.likelihood import ScoredRow
from roleplay.engine.pieces import LIKELIEST, Seen, answer_ids, joined, name_of
from roleplay.engine.protocol import ENDS, Answer, Piece, Sampling
from roleplay.engine.sampling import Drawing, next_tokens
from roleplay.errors import RoleplayError


class Reading:
    """An answer that every side reads; once its `rows` have ended, `pieces` is what each sees of it."""

    def __init__(self, sides: Mapping[str, tuple[Asked, Sampling]], answer: Answer, context: int) -> None:
        """Raises `RoleplayError` for an answer that does not fit the context of so many tokens after a prompt."""
        self._encoder = next(asked.encoder for asked, _ in sides.values())
        self._ids = answer_ids(self._encoder, answer)
        if any(len(asked.fitted.ids) + len(self._ids) > context for asked, _ in sides.values()):
            raise RoleplayError(f"the answer takes {len(self._ids)} tokens, more than fit beside the conversation")
        self._sides = {side: _SeenRow(*asked, self._ids) for side, asked in sides.items() if self._ids}
        self.rows: list[RunningRow] = [*self._sides.values()]

    @property
    def pieces(self) -> list[Piece]:
        """Raises `RoleplayError` where a side could not read it."""
        for row in self.rows:
            if row.stop not in ENDS:
                raise RoleplayError(row.stop)
        return joined(self._encoder, self._ids, {side: row.seen for side, row in self._sides.items()})


class _SeenRow(ScoredRow):
    """One side's reading; `seen` grows by the tokens that it has read."""

    def __init__(self, asked: Asked, sampling: Sampling, tokens: list[int]) -> None:
        super().__init__(asked, sampling, tokens)
        self.seen: list[Seen] = []

    def read(self, logits: torch.Tensor) -> None:
        start, encoder = len(self.seen), self.asked.encoder
        stops = list(encoder.stop_ids)  # any of them ends an answer
        logprobs = logits.log_softmax(-1)
        values, likely = logprobs.topk(LIKELIEST)
        numbers = range(start, start + len(logits))
        # These overwrite the logits.
        choices = next_tokens(logits, [Drawing(self.penalised, self.known[:n], self.sampling) for n in numbers])
        for own, shares, top, number, choice in zip(
            logprobs, values.exp().tolist(), likely.tolist(), numbers, choices, strict=True
        ):
            if choice is None:
                self.end(NOT_FINITE)
                return
            token = self.known[number]
            logprob = float(own[stops if token in stops else [token]].logsumexp(0))
            named = list(zip([name_of(encoder, other) for other in top], shares, strict=True))
            self.seen.append(Seen(logprob, named, stops[0] if choice in stops else choice))
        if len(self.seen) == len(self.known):
            self.end("end")
