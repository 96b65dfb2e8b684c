"""A new adapter beside the one that it goes on from, on the same items: what got better, worse or is undecided.

Every figure is higher where it is better. It measures and judges; what follows from it is for whoever asks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from roleplay.engine.protocol import Question, Sampling
from roleplay.results.intervals import Estimate
from roleplay.text.prompts import PromptEncoder, Turn
from roleplay.weights import base_models
from roleplay.weights.adapters import Adapter
from roleplay.weights.base_models import BaseModel
from train.measuring.choosing import known
from train.measuring.losses import Losses
from train.measuring.replies import Ask, Reply, Writer
from train.measuring.resampling import bootstrap, paired_share_difference
from train.measuring.written import Fact, Recall, Written

MARGIN, RIGHT = "margin on held-out pairs", "held-out pairs with the chosen reply likelier"
IDENTITY, IN_CHARACTER, ENDINGS = "identity", "in character", "replies that end"
FACTS, RECALL = "facts", "recall"  # whether replies still mean anything, as far as a rule can tell
MUST_NOT_FALL = (IDENTITY, IN_CHARACTER, ENDINGS, FACTS, RECALL)
BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"

Message = tuple[str, tuple[Turn, ...], str]  # persona, the turns before, what the user says
Scores = Sequence[tuple[float, float]]  # log-likelihoods in nat of the chosen and the rejected reply


@dataclass(frozen=True)
class Change:
    """A figure of both adapters on the same items, and the new one's less the old one's."""

    name: str
    items: int
    before: float
    after: float
    difference: Estimate

    @property
    def verdict(self) -> str:
        return BETTER if self.difference.low > 0 else WORSE if self.difference.high < 0 else UNDECIDED

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}

    def __str__(self) -> str:
        form = "{:.2f}" if self.name == MARGIN else "{:.0%}"
        before, after, low, high = (
            form.format(value) for value in (self.before, self.after, self.difference.low, self.difference.high)
        )
        return f"{self.verdict}: {self.name}, {before} -> {after} of {self.items} (change {low} to {high})"


def pairs_changed(before: Scores, after: Scores, groups: Sequence[int]) -> list[Change]:
    """How much likelier the chosen replies of held-out pairs are than the rejected ones; one group is one prompt's."""
    old, new = ([chosen - rejected for chosen, rejected in scores] for scores in (before, after))
    old_right, new_right = ([float(margin > 0) for margin in own] for own in (old, new))
    return [_paired_means(MARGIN, old, new, groups), _paired_means(RIGHT, old_right, new_right, groups)]


def _paired_means(name: str, before: Sequence[float], after: Sequence[float], groups: Sequence[int]) -> Change:
    count = len(before)
    difference = bootstrap([b - a for a, b in zip(before, after, strict=True)], [1.0] * count, groups)
    return Change(name, count, sum(before) / count, sum(after) / count, difference)


def compare(
    base: BaseModel, adapters: tuple[Adapter, Adapter], written: Written, messages: Sequence[Message]
) -> list[Change]:
    """Everything but the pairs; the base model can no longer return logits afterwards."""
    writer = Writer(base, adapters, base_models.fingerprint(base.model))
    changes = replies_changed(writer, adapters, written, messages)
    return changes + facts_changed(Losses(base, adapters), adapters, writer.encoders, written.facts)


def replies_changed(
    writer: Writer, adapters: tuple[Adapter, Adapter], written: Written, messages: Sequence[Message]
) -> list[Change]:
    """What both say to what was written to judge a character and to `messages`, with the page's sampling and the same
    dice."""
    persona, lists = adapters[0].persona, written.lists
    identity: list[Message] = [(persona, (), item.user) for item in lists.identity]
    breaks: list[Message] = [(persona, (), item.user) for item in lists.breaks]
    told = [
        (_write(writer, own, identity), _write(writer, own, breaks), _write(writer, own, messages)) for own in adapters
    ]
    remembered = [_remembered(writer, own, written.recall) for own in adapters]

    def knows(replies: Sequence[Reply]) -> list[bool]:
        return [lists.answers(item, reply.text) for item, reply in zip(lists.identity, replies, strict=True)]

    def holds(replies: Sequence[Reply]) -> list[bool]:
        pairs = zip(lists.breaks, replies, strict=True)
        return [not lists.fault(item.user, reply.text, item.obeyed) for item, reply in pairs]

    def end(replies: Sequence[Reply]) -> list[bool]:
        return [reply.stopped for reply in replies]

    judged: list[tuple[str, Callable[[Sequence[Reply]], list[bool]], list[Sequence[Reply]]]] = [
        (IDENTITY, knows, [own[0] for own in told]),
        (IN_CHARACTER, holds, [own[1] for own in told]),
        (ENDINGS, end, [[reply for replies in own for reply in replies] for own in told]),
    ]
    found = [_paired_shares(name, *map(judge, both)) for name, judge, both in judged if both[0]]
    return [*found, _paired_shares(RECALL, *remembered)] if written.recall else found


def _remembered(writer: Writer, adapter: Adapter, items: Sequence[Recall]) -> list[bool]:
    """Of every conversation whether what was told comes back."""
    asks = [
        Ask(adapter.name, adapter.template, Question(adapter.persona, (), first), Sampling(seed=number), tuple(later))
        for number, (first, *later) in enumerate(item.turns for item in items)
    ]
    writer.write(asks)
    last = [writer.conversation(ask)[-1][1] for ask in asks]
    return [item.remembers(reply.text) for item, reply in zip(items, last, strict=True)]


def facts_changed(
    losses: Losses, adapters: tuple[Adapter, Adapter], encoders: Mapping[str, PromptEncoder], facts: Sequence[Fact]
) -> list[Change]:
    """How many questions about the character each answers by the likeliest of four replies; [] without any."""
    right = []
    for own in adapters:
        nats = partial(losses.nats, own.name, done=float)
        right.append([answer.right for answer in known(facts, encoders[own.name], own.persona, nats)])
    return [_paired_shares(FACTS, *right)] if facts else []


def _write(writer: Writer, adapter: Adapter, messages: Sequence[Message]) -> list[Reply]:
    return writer.write(
        [
            Ask(adapter.name, adapter.template, Question(*message), Sampling(seed=number))
            for number, message in enumerate(messages)
        ]
    )


def _paired_shares(name: str, before: Sequence[bool], after: Sequence[bool]) -> Change:
    count = len(before)
    difference = paired_share_difference(after, before)
    return Change(name, count, sum(before) / count, sum(after) / count, difference)


def fallen(changes: Sequence[Change]) -> list[Change]:
    """The changes that an adapter is refused for: what must not fall is clearly worse."""
    return [change for change in changes if change.name in MUST_NOT_FALL and change.verdict == WORSE]
