"""Who is measured, and what the sections of an evaluation share. It judges nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from roleplay.engine.protocol import CONSIDERED, Question, Sampling
from roleplay.results.board import BARE_BASE, BASE_WITH_ROWS, TUNED
from roleplay.text.prompts import Example, PromptEncoder, Turn
from roleplay.text.retrieval import Retriever
from roleplay.text.rows import Row
from roleplay.weights.adapters import Adapter
from train.measuring.losses import Losses
from train.measuring.progress import Progress
from train.measuring.replies import Ask, Reply, Writer
from train.measuring.rules import Lists
from train.measuring.written import Written

PAGE_TOKENS = Sampling().max_new_tokens
COUNTED = 32  # texts whose tokens are counted to know the mean of all


@dataclass(frozen=True)
class Subject:
    """An adapter, the arms beside it, and the rows that they are measured on."""

    adapter: Adapter
    arms: tuple[str, ...]
    base_tokens: int  # length of a base arm's reply
    held_out: list[Row]
    groups: list[int]  # of every held-out row: rows of one group are not independent
    trained: list[Row]
    retriever: Retriever
    encoder: PromptEncoder
    own: PromptEncoder  # what makes the adapter's prompts, with the rows that it looks up in them
    considered: bool = False  # whether every reply is the best of several

    def persona(self, arm: str) -> str:
        return "" if arm == BARE_BASE else self.adapter.persona

    def weights(self, arm: str) -> str:
        """The adapter that an arm computes with, "" for the base model."""
        return self.adapter.name if arm == TUNED else ""

    def encodes(self, arm: str) -> PromptEncoder:
        """What makes an arm's prompts."""
        return self.own if arm == TUNED else self.encoder

    def shown(self, arm: str, user: str) -> list[Turn]:
        """The example turns that an arm is given before the conversation."""
        return self.retriever.examples(user) if arm == BASE_WITH_ROWS else []

    def ask(self, arm: str, turns: Sequence[Turn], user: str, seed: int, **changes: Any) -> Ask:
        """What an arm is asked, at the page's default sampling or the considered one; the same seed gives all arms the
        same dice."""
        sampling = CONSIDERED if self.considered else Sampling()
        length = PAGE_TOKENS if arm == TUNED else self.base_tokens
        question = Question(self.persona(arm), (*self.shown(arm, user), *turns), user)
        sampling = replace(sampling, max_new_tokens=length, seed=seed, **changes)
        return Ask(self.weights(arm), self.adapter.template, question, sampling)

    def mean_tokens(self, texts: Sequence[str]) -> float:
        """About how many tokens a text has, by a few of them; 0 where there is none."""
        few = texts[:: -(-len(texts) // COUNTED)] if texts else []
        return sum(len(self.encoder.encode(text)) for text in few) / max(1, len(few))

    def prefix_tokens(self, arm: str) -> int:
        """What all prompts of an arm begin with."""
        return len(self.encoder.prefix(self.persona(arm)))

    def reply_tokens(self, arm: str) -> float:
        """About how long a reply of an arm is: the adapter's as those it learnt, a base model's as long as it may."""
        return self.mean_tokens([row.turns[-1][1] for row in self.trained]) if arm == TUNED else self.base_tokens

    def prompts(self, limit: int) -> list[Row]:
        """The first row of every held-out group in the order of the file, thinned evenly to `limit`."""
        first: dict[int, Row] = {}
        for group, row in zip(self.groups, self.held_out, strict=True):
            first.setdefault(group, row)
        rows, count = list(first.values()), min(limit, len(first))
        return [rows[i * len(rows) // count] for i in range(count)]

    @property
    def scenes(self) -> list[Row]:
        """The first row of every held-out group."""
        return self.prompts(len(self.held_out))


@dataclass(frozen=True)
class Bench:
    """What the sections of one adapter's evaluation share."""

    subject: Subject
    rows: list[Row]  # the held-out rows that every arm answers
    written: Written
    writer: Writer
    losses: Losses
    progress: Progress
    choice_rows: int = 200  # held-out rows at most, each with ten replies to choose from

    @property
    def lists(self) -> Lists:
        return self.written.lists

    def write(self, arm: str, asks: Sequence[Ask]) -> list[Reply]:
        """An arm's replies."""
        self.progress.at(arm)
        return self.writer.write(asks, self.progress.done)

    def nats(self, arm: str, examples: Sequence[Example], pack: int = 0) -> list[float]:
        """How unlikely an arm finds the labels of every example, as `Losses.nats` has it."""
        self.progress.at(arm)
        return self.losses.nats(self.subject.weights(arm), examples, self.progress.done, pack)
