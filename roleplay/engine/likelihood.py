"""A row of the running batch that draws nothing: how likely a reply is after another prompt, token for token."""

import time

import torch

from roleplay.engine.batch import CHUNK, Asked, RunningRow
from roleplay.engine.protocol import Sampling

COST = 4  # of a token that is scored, in prompt tokens: what the head takes for it
PART = CHUNK // (1 + COST)  # tokens of a reply scored in a step, which must fit into one


class ScoredRow(RunningRow):
    """Known tokens after a prompt; `nats` has the logarithm of each one's probability."""

    draws = False

    def __init__(self, asked: Asked, sampling: Sampling, tokens: list[int]) -> None:
        super().__init__(asked, sampling)
        self.known, self._from = tokens, len(self.prompt) - 1  # the first token that says something of the reply
        self.prompt, self.kept = [*self.prompt, *tokens[:-1]], False

    def pending(self) -> list[int]:
        if self.done >= self._from:
            return self.prompt[self.done : self.done + PART]
        return super().pending()[: self._from - self.done]

    @property
    def readable(self) -> list[int]:
        return self.prompt[: self._from + 1]

    @property
    def wanted(self) -> int:
        return len(self.pending()) if self.done >= self._from else 0

    @property
    def cost(self) -> int:
        return len(self.pending()) + COST * self.wanted

    def read(self, logits: torch.Tensor) -> None:
        known = torch.tensor(self.known[len(self.nats) :][: len(logits)], device=logits.device)
        self.nats += logits.log_softmax(-1).gather(1, known[:, None])[:, 0].tolist()
        self.seconds = time.perf_counter() - self.started
        if len(self.nats) == len(self.known):
            self.end("end")
