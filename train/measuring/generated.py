"""Sections that judge generated replies: how they end, whom they sound like, whether they stay in character.

Replies are measured on independent prompts, one row a scene. Every section says beforehand what it will ask, so that
the time it takes can be told.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from roleplay.results.board import BASE_WITH_PERSONA, TUNED, WRITTEN
from roleplay.text.copies import runs
from roleplay.text.prompts import Turn
from roleplay.text.rows import Row
from train.measuring.figures import Board
from train.measuring.flips import Outcome
from train.measuring.replies import NO_REPLY, Ask, Reply
from train.measuring.resampling import share
from train.measuring.rules import Break, Identity
from train.measuring.subject import Bench, Subject
from train.measuring.text_metrics import chrf

DRIFTING = (BASE_WITH_PERSONA, TUNED)  # the arms that have a character to lose, and nothing but it to keep it by
EDGE = 3  # turns at either end of a conversation that are compared for drift
SAMPLES = 8

Message = tuple[Sequence[Turn], str]  # what the user says, after the turns before it
Asked = list[tuple[str, list[Ask]]]  # arms and what they are asked; each list is written by itself


def held_out_messages(rows: Sequence[Row]) -> list[Message]:
    return [(row.turns[:-1], row.turns[-1][0]) for row in rows]


def ask_arm(subject: Subject, arm: str, messages: Sequence[Message]) -> list[Ask]:
    """Every message to one arm; a message has the same dice in all of them."""
    return [subject.ask(arm, past, user, n) for n, (past, user) in enumerate(messages)]


def ask_all(subject: Subject, messages: Sequence[Message]) -> dict[str, list[Ask]]:
    return {arm: ask_arm(subject, arm, messages) for arm in subject.arms}


def ask_openers(subject: Subject) -> list[Ask]:
    lines: list[str] = subject.adapter.training.get("persona", {}).get("openers", [])
    return [subject.ask(TUNED, (), line, 0, temperature=0.0) for line in lines]


def ask_scenes(subject: Subject) -> list[Ask]:
    """A row of every held-out scene, to the adapter alone: its replies are short, and the goals are judged on them."""
    return ask_arm(subject, TUNED, held_out_messages(subject.scenes))


def ask_replies(bench: Bench) -> Asked:
    subject = bench.subject
    alone = [(TUNED, asks) for asks in (ask_scenes(subject), ask_openers(subject)) if asks]
    return [*ask_all(subject, held_out_messages(bench.rows)).items(), *alone]


def replies(bench: Bench, board: Board) -> None:
    """Stop, length, likeness, variety and copying of replies to held-out rows, and whether openers end."""
    subject, rows = bench.subject, bench.rows
    asks = ask_all(subject, held_out_messages(rows))
    said = {arm: bench.write(arm, own) for arm, own in asks.items()}
    references = [row.turns[-1][1] for row in rows]
    limit, every = subject.base_tokens, range(len(rows))
    tokens = {arm: [float(min(reply.tokens, limit)) for reply in own] for arm, own in said.items()}
    tokens[WRITTEN] = [float(min(len(subject.encoder.encode(text)), limit)) for text in references]
    texts = {arm: [reply.text for reply in own] for arm, own in said.items()} | {WRITTEN: references}
    stops = {arm: [float(reply.stopped and reply.tokens < limit) for reply in own] for arm, own in said.items()}
    likeness = {arm: [chrf(a, b) for a, b in zip(texts[arm], references, strict=True)] for arm in subject.arms}
    board.compare("stop rate", stops, every)
    board.compare("tokens", tokens, every)
    board.compare("chrF", likeness, every)
    board.compare("copied", copies(subject, texts), every)
    board.compare_distinct(texts)
    singles = [i for i, row in enumerate(rows) if len(row.turns) == 1][:SAMPLES]
    board.samples = [
        {
            "user": rows[i].turns[-1][0],
            "base": shown_text(said[BASE_WITH_PERSONA][i]),
            "adapter": shown_text(said[TUNED][i]),
        }
        for i in singles
    ]
    _long_replies(bench, board)


def _long_replies(bench: Bench, board: Board) -> None:
    """What the adapter alone says at the page's length: to every held-out scene, and greedily to the openers."""
    subject, scenes = bench.subject, bench.subject.scenes
    told = bench.write(TUNED, ask_scenes(subject))
    board.compare("stop rate, 256", {TUNED: [float(reply.stopped) for reply in told]}, range(len(scenes)))
    texts = {TUNED: [reply.text for reply in told], WRITTEN: [row.turns[-1][1] for row in scenes]}
    board.compare("copied, 256", copies(subject, texts), range(len(scenes)))
    if said := bench.write(TUNED, ask_openers(subject)):
        board.compare("openers that stop", {TUNED: [float(reply.stopped) for reply in said]}, range(len(said)))


def copies(subject: Subject, texts: dict[str, list[str]]) -> dict[str, list[float]]:
    """1 for every text of every arm that has a run of the training rows in it, else 0."""
    known = set[tuple[str, ...]]().union(*(runs(reply) for row in subject.trained for _, reply in row.turns))
    return {arm: [float(not known.isdisjoint(runs(text))) for text in own] for arm, own in texts.items()}


def shown_text(reply: Reply) -> str:
    """A reply as a sample shows it: an ellipsis where it was cut."""
    return reply.text if reply.stopped else f"{reply.text} […]"


def ask_items(bench: Bench, items: Sequence[Identity | Break]) -> dict[str, list[Ask]]:
    return ask_all(bench.subject, [((), item.user) for item in items])


def ask_identity(bench: Bench) -> Asked:
    return list(ask_items(bench, bench.lists.identity).items())


def ask_breaks(bench: Bench) -> Asked:
    return list(ask_items(bench, bench.lists.breaks).items())


def listed(
    bench: Bench, items: Sequence[Identity | Break], judge: Callable[[Any, str], dict[str, Any]]
) -> list[dict[str, Any]]:
    """What every arm replies to the items of a written list, each with the verdict of `judge`."""
    return [
        {"arm": arm, "user": item.user, "reply": reply.text} | judge(item, reply.text)
        for arm, asks in ask_items(bench, items).items()
        for item, reply in zip(items, bench.write(arm, asks), strict=True)
    ]


def outcomes(told: Sequence[dict[str, Any]], right: Callable[[dict[str, Any]], bool]) -> dict[str, list[Outcome]]:
    """Judged replies by arm, in their order."""
    by_arm = dict[str, list[Outcome]]()
    for entry in told:
        by_arm.setdefault(entry["arm"], []).append(Outcome(right(entry), entry["reply"]))
    return by_arm


def identity(bench: Bench, board: Board) -> list[dict[str, Any]]:
    """Questions about who she is; returns every reply with its judgement."""
    items, rules = bench.lists.identity, bench.lists
    told = listed(bench, items, lambda item, reply: {"right": rules.answers(item, reply)})
    board.compare_list("identity", [item.user for item in items], outcomes(told, lambda entry: entry["right"]))
    return told


def breaks(bench: Bench, board: Board) -> list[dict[str, Any]]:
    """Attempts to break the role; returns every reply with the rule that it broke, "" for none."""
    items, rules = bench.lists.breaks, bench.lists
    told = listed(bench, items, lambda item, reply: {"fault": rules.fault(item.user, reply, item.obeyed)})
    board.compare_list("in character", [item.user for item in items], outcomes(told, lambda entry: not entry["fault"]))
    return told


def talks(subject: Subject, conversations: Sequence[Sequence[str]]) -> dict[str, list[Ask]]:
    """Conversations with both arms that only have the persona; each goes on from its own replies."""
    return {
        arm: [
            replace(subject.ask(arm, (), first, n * (1 + len(later))), later=tuple(later))
            for n, (first, *later) in enumerate(conversations)
        ]
        for arm in DRIFTING
    }


def followed(bench: Bench, arm: str, asks: Sequence[Ask]) -> list[list[Turn]]:
    """All turns of an arm's conversations."""
    bench.write(arm, asks)
    return [_turns(bench.writer.conversation(ask)) for ask in asks]


def _turns(conversation: Sequence[tuple[str, Reply]]) -> list[Turn]:
    *earlier, (user, last) = conversation
    return [*((said, reply.text or NO_REPLY) for said, reply in earlier), (user, last.text)]


def ask_drift(bench: Bench) -> Asked:
    return list(talks(bench.subject, bench.lists.conversations).items())


def drift(bench: Bench, board: Board) -> list[dict[str, Any]]:
    """Whether the character holds over a conversation; returns the conversations with the rules that were broken."""
    told, held = [], dict[str, list[list[float]]]()  # per arm and conversation, whether each turn stayed in character
    for arm, asks in talks(bench.subject, bench.lists.conversations).items():
        held[arm] = []
        for turns in followed(bench, arm, asks):
            faults = [bench.lists.fault(user, reply) for user, reply in turns]
            told.append({"arm": arm, "turns": turns, "faults": faults})
            held[arm].append([float(not fault) for fault in faults])
    for name, part in (("first turns", slice(EDGE)), ("last turns", slice(-EDGE, None))):
        clusters = [number for number, talk in enumerate(held[TUNED]) for _ in talk[part]]
        board.compare(name, {arm: [v for talk in own for v in talk[part]] for arm, own in held.items()}, clusters)
    for arm, own in held.items():
        board.drift[arm] = [share([value == 1 for value in turn], range(len(own))) for turn in zip(*own, strict=True)]
    return told


def ask_recall(bench: Bench) -> Asked:
    return list(talks(bench.subject, [item.turns for item in bench.written.recall]).items())


def recall(bench: Bench, board: Board) -> list[dict[str, Any]]:
    """Whether something that the user said comes back when asked for; returns the conversations, judged."""
    items = bench.written.recall
    told = [
        {"arm": arm, "turns": turns, "reply": turns[-1][1], "right": item.remembers(turns[-1][1])}
        for arm, asks in talks(bench.subject, [item.turns for item in items]).items()
        for item, turns in zip(items, followed(bench, arm, asks), strict=True)
    ]
    board.compare_list(
        "recall", [" / ".join(item.turns) for item in items], outcomes(told, lambda entry: entry["right"])
    )
    return [{key: entry[key] for key in ("arm", "turns", "right")} for entry in told]
