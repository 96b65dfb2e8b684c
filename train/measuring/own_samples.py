"""Pairs that an adapter makes by itself, of its own replies to messages that it was trained on.

One reply a message is rejected beside the written one (self-play: Chen et al., "Self-Play Fine-Tuning Converts Weak
Language Models to Strong Language Models", 2024). Of several the best is chosen and the worst rejected, as the page's
considered answers rank them (`roleplay.engine.weighing`), and any with a fault that the scoreboard counts comes after
all without: it does not end, leaves the character, or copies a training row, which only what looks rows up may do. What
has no best makes no pair.
"""

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from roleplay.engine.protocol import CONSIDERED, Question, Sampling
from roleplay.engine.weighing import SEEDS
from roleplay.text.copies import runs
from roleplay.text.pairs import Pair, parse_pair
from roleplay.text.rows import Row
from roleplay.weights.adapters import Adapter
from train.measuring.replies import Ask, Reply
from train.measuring.rules import Lists

NOT_WRITTEN, LAST = "not the written reply", "ranks last"  # why a reply is rejected, where it has no fault
CUT, COPIED = "does not end", "copies a training row"


@dataclass(frozen=True)
class OwnSamples:
    """The pairs as rows of prompt, chosen and rejected, and what training.json records of them."""

    rows: Sequence[dict[str, Any]] = ()
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def pairs(self) -> list[Pair]:
        return [parse_pair(row, f"own sample {number}") for number, row in enumerate(self.rows, 1)]


def draw_rows(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """So many of the rows or all that there are, no two with the same conversation before the last reply."""
    different = list({(row.turns[:-1], row.turns[-1][0]): row for row in rows}.values())
    return random.Random(seed).sample(different, min(count, len(different)))


def ask(adapter: Adapter, rows: Sequence[Row], replies: int, seed: int) -> list[Ask]:
    """What the adapter is asked: the last message of every row, at the page's default sampling or the considered one,
    with dice of its own."""
    lot, sampling = random.Random(seed), replace(CONSIDERED, candidates=replies) if replies > 1 else Sampling()
    return [
        Ask(
            adapter.name,
            adapter.template,
            Question(adapter.persona, row.turns[:-1], row.turns[-1][0]),
            replace(sampling, seed=lot.randrange(SEEDS)),
        )
        for row in rows
    ]


@dataclass(frozen=True)
class Rules:
    """The character's lists, and the runs of every written reply."""

    lists: Lists
    written: Collection[tuple[str, ...]]

    def fault(self, user: str, reply: Reply) -> str:
        """What the scoreboard would count against a reply, "" for nothing."""
        if not reply.stopped:
            return CUT
        return self.lists.fault(user, reply.text) or ("" if runs(reply.text).isdisjoint(self.written) else COPIED)


def rules(lists: Lists, rows: Sequence[Row], looks_up: bool = False) -> Rules:
    """The rules for an adapter that was trained on these rows; one that looks up has learnt to copy what it finds."""
    written = (runs(reply) for row in rows for _, reply in row.turns) if not looks_up else ()
    return Rules(lists, set[tuple[str, ...]]().union(*written))


def pair(rows: Sequence[Row], said: Sequence[Sequence[Reply]], judge: Rules | None) -> OwnSamples:
    """The pairs of what was said to each of the rows, as `Writer.candidates` ranks it; with no `judge` the written
    reply is the best."""
    found, reasons = list[dict[str, Any]](), Counter[str]()
    for row, replies in zip(rows, said, strict=True):
        *before, (user, written) = row.turns
        pick = _best_and_worst(user, replies, judge) if judge else (written, replies[0].text, NOT_WRITTEN)
        if pick and pick[1] and pick[0] != pick[1]:
            chosen, rejected, why = pick
            prompt = [
                {"role": role, "content": text}
                for turn in before
                for role, text in zip(("user", "assistant"), turn, strict=True)
            ]
            prompt.append({"role": "user", "content": user})
            found.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
            reasons[why] += 1
    record = {
        "messages": len(rows),
        "replies": max(map(len, said), default=0),
        "pairs": len(found),
        "rejected": dict(reasons.most_common()),
    }
    return OwnSamples(found, record)


def _best_and_worst(user: str, ranked: Sequence[Reply], judge: Rules) -> tuple[str, str, str] | None:
    """The best reply, the worst and why it is the worst; None where every reply has a fault."""
    faults = {reply: judge.fault(user, reply) for reply in ranked if reply.text}
    order = sorted(faults, key=lambda reply: bool(faults[reply]))  # each half as it ranks
    if not order or faults[order[0]]:
        return None
    return order[0].text, order[-1].text, faults[order[-1]] or LAST
