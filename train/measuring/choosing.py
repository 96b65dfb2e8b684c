"""Sections in which a model chooses the likeliest of several replies: does it answer what it was asked?

No reply is generated and none is judged: a reply that is likely to the question, more than to none, is chosen.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from roleplay.results.board import BASE_WITH_PERSONA, TUNED
from roleplay.text.languages import language
from roleplay.text.prompts import Example, PromptEncoder
from roleplay.text.rows import Row
from train.measuring.figures import Board
from train.measuring.flips import Outcome
from train.measuring.losses import PACK, label_count
from train.measuring.progress import Work, scoring
from train.measuring.subject import Bench, Subject
from train.measuring.written import Fact

ARMS = (BASE_WITH_PERSONA, TUNED)  # a reply in her voice is likelier to whoever has her persona
OTHERS = 9  # replies beside a row's own, so that chance is 10 %
SEED = 0
NO_QUESTION = ""  # the user's turn that a reply's own likelihood is taken after


@dataclass(frozen=True)
class Choice:
    """A held-out row with replies to choose from, its own first; `group` is its scene."""

    row: Row
    group: int
    replies: tuple[str, ...]


def choices(subject: Subject, limit: int) -> list[Choice]:
    """At most `limit` held-out rows, evenly from all of them, each with nine replies to others of its language.

    The others are drawn from the same rows, never of the row's own scene: there a reply may be as good an answer. The
    lot is the same for every arm and every adapter. A row whose language has too few others is left out.
    """
    count = min(limit, len(subject.held_out))
    chosen = [i * len(subject.held_out) // count for i in range(count)]
    told = {i: subject.held_out[i].turns[-1][1] for i in chosen}
    spoken = {i: language(told[i]) for i in chosen}
    lot, found = random.Random(SEED), []
    for i in chosen:
        pool = [told[j] for j in chosen if spoken[j] == spoken[i] and subject.groups[j] != subject.groups[i]]
        pool = list(dict.fromkeys(reply for reply in pool if reply != told[i]))
        if len(pool) >= OTHERS:
            found.append(Choice(subject.held_out[i], subject.groups[i], (told[i], *lot.sample(pool, OTHERS))))
    return found


def choice(bench: Bench, board: Board) -> None:
    """How often a row's own reply is the one that its question makes likelier most, per token.

    The score of a reply is its log-likelihood after the conversation less that after the persona alone, over its
    tokens: pointwise mutual information, so that a reply that is likely anywhere wins nothing by it. Source: Holtzman
    et al., "Surface Form Competition: Why the Highest Probability Answer Isn't Always Right", 2021.
    """
    own = choices(bench.subject, bench.choice_rows)
    outcomes = dict[str, list[Outcome]]()
    for arm in ARMS:
        replies = _distinct(own)
        alone = _scores(bench, arm, [_example(bench, arm, (), NO_QUESTION, reply) for reply in replies])
        prior = dict(zip(replies, alone, strict=True))
        examples = [_example(bench, arm, c.row.turns[:-1], c.row.turns[-1][0], r) for c in own for r in c.replies]
        asked = iter(_scores(bench, arm, examples, 1 + OTHERS))  # the replies of a row share its conversation
        outcomes[arm] = [_chosen(c.replies, [next(asked) - prior[reply] for reply in c.replies]) for c in own]
    board.compare_list("choice", [c.row.turns[-1][0] for c in own], outcomes, [c.group for c in own])


def choice_texts(bench: Bench) -> dict[str, Work]:
    own = choices(bench.subject, bench.choice_rows)
    replies, texts = _distinct(own), sum(len(c.replies) for c in own)
    reply, persona = bench.subject.mean_tokens(replies), bench.subject.prefix_tokens(TUNED)
    asked = persona + bench.subject.mean_tokens([c.row.text for c in own])  # once for all replies of a row
    alone = scoring(len(replies), reply + persona / PACK, reply)
    return dict.fromkeys(ARMS, alone + scoring(texts, reply + asked / (1 + OTHERS), reply))


def facts(bench: Bench, board: Board) -> list[dict[str, Any]]:
    """Questions about her life, answered by the likeliest of four replies, per token; returns what was chosen."""
    items, outcomes = bench.written.facts, dict[str, list[Outcome]]()
    for arm in ARMS:
        subject = bench.subject
        outcomes[arm] = known(items, subject.encodes(arm), subject.persona(arm), partial(bench.nats, arm))
    board.compare_list("facts", [item.user for item in items], outcomes)
    return [
        {"arm": arm, "user": item.user, "chosen": outcome.told, "right": outcome.right}
        for arm, own in outcomes.items()
        for item, outcome in zip(items, own, strict=True)
    ]


def known(
    facts: Sequence[Fact], encoder: PromptEncoder, persona: str, nats: Callable[[Sequence[Example]], Sequence[float]]
) -> list[Outcome]:
    """The likeliest of every question's replies, per token; `nats` says how unlikely the labels of examples are."""
    asked = [encoder.example(persona, [(fact.user, option)], "last") for fact in facts for option in fact.options]
    scores = iter(_per_token(nats(asked), asked))
    return [_chosen(fact.options, [next(scores) for _ in fact.options]) for fact in facts]


def facts_texts(bench: Bench) -> dict[str, Work]:
    options = [option for item in bench.written.facts for option in item.options]
    asked = bench.subject.mean_tokens([item.user for item in bench.written.facts])
    reply, persona = bench.subject.mean_tokens(options), bench.subject.prefix_tokens(TUNED)
    return dict.fromkeys(ARMS, scoring(len(options), asked + reply + persona / PACK, reply))


def _distinct(own: Sequence[Choice]) -> list[str]:
    return list(dict.fromkeys(reply for c in own for reply in c.replies))


def _example(bench: Bench, arm: str, past: Sequence[tuple[str, str]], user: str, reply: str) -> Example:
    return bench.subject.encodes(arm).example(bench.subject.persona(arm), [*past, (user, reply)], "last")


def _scores(bench: Bench, arm: str, examples: Sequence[Example], pack: int = 0) -> list[float]:
    """Log-likelihood of every example's labels in nat per token, `pack` examples computed at once."""
    return _per_token(bench.nats(arm, examples, pack), examples)


def _per_token(sums: Sequence[float], examples: Sequence[Example]) -> list[float]:
    return [-nats / label_count(example) for nats, example in zip(sums, examples, strict=True)]


def _chosen(replies: Sequence[str], scores: Sequence[float]) -> Outcome:
    """The reply with the highest score; the first is right, where no other is as high."""
    best = max(range(len(replies)), key=lambda n: (scores[n], n))
    return Outcome(best == 0, replies[best])
