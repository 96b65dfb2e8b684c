"""The sections of an evaluation, each a function that enters its figures into a board. It knows no flags and no files.

Generated replies are measured on independent prompts, one row a scene; losses on all held-out rows, by scene.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from peft import PeftModel

from roleplay.engine.protocol import Question, Sampling
from roleplay.results.board import BARE_BASE, BASE_WITH_PERSONA, BASE_WITH_ROWS, TUNED, WRITTEN
from roleplay.text.prompts import Example, PromptEncoder, Turn
from roleplay.text.retrieval import Retriever
from roleplay.text.rows import Row
from roleplay.weights import base_models
from roleplay.weights.adapters import Adapter
from train.learning import packing
from train.learning.attention import ATTENTION
from train.learning.loss import ChunkedLoss, label_losses, use_chunked_loss
from train.measuring.figures import Board
from train.measuring.replies import Ask, Reply, Writer
from train.measuring.resampling import share
from train.measuring.rules import Break, Identity, Lists
from train.measuring.text_metrics import chrf, runs

PACK = 16  # rows computed at once for their loss
DRIFTING = (BASE_WITH_PERSONA, TUNED)  # the arms that have a character to lose, and nothing but it to keep it by
EDGE = 3  # turns at either end of a conversation that are compared for drift
PAGE_TOKENS = Sampling().max_new_tokens
SAMPLES = 3

Done = Callable[[int], object]  # is told how many items were done


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

    def persona(self, arm: str) -> str:
        return "" if arm == BARE_BASE else self.adapter.persona

    def shown(self, arm: str, user: str) -> list[Turn]:
        """The example turns that an arm is given before the conversation."""
        return self.retriever.examples(user) if arm == BASE_WITH_ROWS else []

    def ask(self, arm: str, turns: Sequence[Turn], user: str, seed: int, **changes: Any) -> Ask:
        """What an arm is asked, at the page's default sampling; the same seed gives all arms the same dice."""
        length = PAGE_TOKENS if arm == TUNED else self.base_tokens
        question = Question(self.persona(arm), (*self.shown(arm, user), *turns), user)
        name = self.adapter.name if arm == TUNED else ""
        return Ask(name, self.adapter.template, question, Sampling(max_new_tokens=length, seed=seed, **changes))

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


class Losses:
    """Losses of a base model with and without adapters; the model can no longer return logits afterwards."""

    def __init__(self, base: base_models.BaseModel, loaded: Sequence[Adapter]) -> None:
        use_chunked_loss(base.model)
        base.model.set_attn_implementation(ATTENTION)
        self._loss: ChunkedLoss = base.model.loss_function
        self._model = base.model  # peft puts its layers into it
        self._names = {adapter.name: f"adapter{number}" for number, adapter in enumerate(loaded)}  # no dots for peft
        first, *others = loaded
        self._peft = PeftModel.from_pretrained(base.model, str(first.folder), adapter_name=self._names[first.name])
        for adapter in others:
            self._peft.load_adapter(str(adapter.folder), adapter_name=self._names[adapter.name])
        self._model.eval()
        self._known: dict[tuple[str, tuple[int, ...]], float] = {}

    def nats(self, adapter: str, examples: Sequence[Example], done: Done) -> list[float]:
        """Negative log-likelihood of all labels of every example; `adapter` is "" for the base model."""
        todo = [example for example in examples if (adapter, tuple(example.input_ids)) not in self._known]
        done(len(examples) - len(todo))
        if adapter:
            self._peft.set_adapter(self._names[adapter])
            self._compute(adapter, todo, done)
        else:
            with self._peft.disable_adapter():
                self._compute(adapter, todo, done)
        return [self._known[adapter, tuple(example.input_ids)] for example in examples]

    def _compute(self, adapter: str, examples: Sequence[Example], done: Done) -> None:
        for first in range(0, len(examples), PACK):
            part = examples[first : first + PACK]
            batch = {
                key: value.to(self._model.device) if key not in ("use_cache", "pack") else value
                for key, value in packing.collate(part).items()
            }
            losses = label_losses(self._model, self._loss, batch).double()
            for example, own in zip(part, losses.split([label_count(example) for example in part]), strict=True):
                self._known[adapter, tuple(example.input_ids)] = float(own.sum())
            done(len(part))


def label_count(example: Example) -> int:
    return sum(label != packing.IGNORED for label in example.labels)


def row_example(subject: Subject, arm: str, row: Row) -> Example:
    """A held-out row as an arm sees it, with labels on the row's own replies and nowhere else."""
    persona = subject.persona(arm)
    own = subject.encoder.example(persona, row.turns, where=row.where)
    shown = subject.shown(arm, row.turns[0][0])  # found by the opening message: a later one is not known yet
    longer = subject.encoder.example(persona, [*shown, *row.turns], where=row.where)
    prefix = len(subject.encoder.prefix(persona))
    unlabelled = len(longer.input_ids) - len(own.input_ids) + prefix
    return Example(longer.input_ids, [packing.IGNORED] * unlabelled + own.labels[prefix:], row.where)


def loss(subject: Subject, board: Board, losses: Losses, done: Done) -> None:
    """Held-out loss per token, paired by row and resampled by scene."""
    values, counts = {}, []
    for arm in subject.arms:
        examples = [row_example(subject, arm, row) for row in subject.held_out]
        counts = [float(label_count(example)) for example in examples]  # the same in every arm
        values[arm] = losses.nats(subject.adapter.name if arm == TUNED else "", examples, done)
    board.compare("held-out loss", values, subject.groups, counts)


def plain(subject: Subject, lists: Lists, board: Board, losses: Losses, done: Done) -> None:
    """Loss on text that has nothing to do with the role, without a persona."""
    bos: int = subject.encoder.tokenizer.bos_token_id
    for language, name in (("zh", "plain Chinese"), ("en", "plain English")):
        texts = [subject.encoder.encode(item.text) for item in lists.plain if item.language == language]
        examples = [Example([bos, *ids], [packing.IGNORED, *ids]) for ids in texts]
        arms = ((BARE_BASE, ""), (TUNED, subject.adapter.name))
        values = {arm: losses.nats(adapter, examples, done) for arm, adapter in arms}
        board.compare(name, values, range(len(texts)), [float(len(ids)) for ids in texts])


Message = tuple[Sequence[Turn], str]  # what the user says, after the turns before it


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


def ask_talks(subject: Subject, lists: Lists) -> dict[str, list[Ask]]:
    """The conversations, with both arms that only have the persona; each goes on from its own replies."""
    return {
        arm: [
            replace(subject.ask(arm, (), first, n * (1 + len(later))), later=tuple(later))
            for n, (first, *later) in enumerate(lists.conversations)
        ]
        for arm in DRIFTING
    }


def write_all(
    subject: Subject, sections: Sequence[str], rows: Sequence[Row], lists: Lists, writer: Writer, done: Done
) -> None:
    """Generate whatever the sections judge in one batch that stays full; they will find every reply known."""
    asks = list[Ask]()
    if "drift" in sections:  # first, for one turn of it waits for another
        asks += chain(*ask_talks(subject, lists).values())
    if "replies" in sections:
        asks += chain(ask_openers(subject), ask_scenes(subject), *ask_all(subject, held_out_messages(rows)).values())
    for section, items in (("identity", lists.identity), ("breaks", lists.breaks)):
        if section in sections:
            asks += chain(*ask_all(subject, [((), item.user) for item in items]).values())
    writer.write(asks, done)


def answers(subject: Subject, messages: Sequence[Message], writer: Writer) -> dict[str, list[Reply]]:
    return {arm: writer.write(asks) for arm, asks in ask_all(subject, messages).items()}


def replies(subject: Subject, rows: Sequence[Row], board: Board, writer: Writer) -> None:
    """Stop, length, likeness, variety and copying of replies to held-out rows."""
    said = answers(subject, held_out_messages(rows), writer)
    references = [row.turns[-1][1] for row in rows]
    limit, every = subject.base_tokens, range(len(rows))
    known = set[tuple[str, ...]]().union(*(runs(reply) for row in subject.trained for _, reply in row.turns))
    tokens = {arm: [float(min(reply.tokens, limit)) for reply in own] for arm, own in said.items()}
    tokens[WRITTEN] = [float(min(len(subject.encoder.encode(text)), limit)) for text in references]
    texts = {arm: [reply.text for reply in own] for arm, own in said.items()} | {WRITTEN: references}

    def likeness(own: Sequence[str]) -> list[float]:
        return [chrf(text, reference) for text, reference in zip(own, references, strict=True)]

    def copies(own: Sequence[str]) -> list[float]:
        return [float(not known.isdisjoint(runs(text))) for text in own]

    stops = {arm: [float(reply.stopped and reply.tokens < limit) for reply in own] for arm, own in said.items()}
    board.compare("stop rate", stops, every)
    board.compare("tokens", tokens, every)
    board.compare("chrF", {arm: likeness(texts[arm]) for arm in subject.arms}, every)
    board.compare("copied", {arm: copies(own) for arm, own in texts.items()}, every)
    board.compare_distinct(texts)
    scenes, told = subject.scenes, writer.write(ask_scenes(subject))
    board.compare("stop rate, 256", {TUNED: [float(reply.stopped) for reply in told]}, range(len(scenes)))
    texts = {TUNED: [reply.text for reply in told], WRITTEN: [row.turns[-1][1] for row in scenes]}
    board.compare("copied, 256", {arm: copies(own) for arm, own in texts.items()}, range(len(scenes)))
    singles = [i for i, row in enumerate(rows) if len(row.turns) == 1][:SAMPLES]
    board.samples = [
        {
            "user": rows[i].turns[-1][0],
            "base": shown_text(said[BASE_WITH_PERSONA][i]),
            "adapter": shown_text(said[TUNED][i]),
        }
        for i in singles
    ]


def shown_text(reply: Reply) -> str:
    """A reply as a sample shows it: an ellipsis where it was cut."""
    return reply.text if reply.stopped else f"{reply.text} […]"


def openers(subject: Subject, board: Board, writer: Writer) -> None:
    """Whether the adapter's likeliest replies to the persona's openers end."""
    if said := writer.write(ask_openers(subject)):
        board.compare("openers that stop", {TUNED: [float(reply.stopped) for reply in said]}, range(len(said)))


def listed(
    subject: Subject, items: Sequence[Identity | Break], writer: Writer, judge: Callable[[Any, str], Any]
) -> list[dict[str, Any]]:
    """What every arm replies to the items of a written list, each with the verdict of `judge`."""
    said = answers(subject, [((), item.user) for item in items], writer)
    return [
        {"arm": arm, "user": item.user, "reply": reply.text} | judge(item, reply.text)
        for arm, own in said.items()
        for item, reply in zip(items, own, strict=True)
    ]


def identity(subject: Subject, lists: Lists, board: Board, writer: Writer) -> list[dict[str, Any]]:
    """Questions about who she is; returns every reply with its judgement."""
    told = listed(subject, lists.identity, writer, lambda item, reply: {"right": lists.answers(item, reply)})
    right = {arm: [float(entry["right"]) for entry in told if entry["arm"] == arm] for arm in subject.arms}
    board.compare("identity", right, range(len(lists.identity)))
    return told


def breaks(subject: Subject, lists: Lists, board: Board, writer: Writer) -> list[dict[str, Any]]:
    """Attempts to break the role; returns every reply with the rule that it broke, "" for none."""
    told = listed(
        subject, lists.breaks, writer, lambda item, reply: {"fault": lists.fault(item.user, reply, item.obeyed)}
    )
    held = {arm: [float(not entry["fault"]) for entry in told if entry["arm"] == arm] for arm in subject.arms}
    board.compare("in character", held, range(len(lists.breaks)))
    return told


def drift(subject: Subject, lists: Lists, board: Board, writer: Writer) -> list[dict[str, Any]]:
    """Whether the character holds over a conversation; returns the conversations with the rules that were broken."""
    told, held = [], dict[str, list[list[float]]]()  # per arm and conversation, whether each turn stayed in character
    for arm, asks in ask_talks(subject, lists).items():
        held[arm] = []
        for ask in asks:
            faults = list[str]()
            for _ in range(1 + len(ask.later)):
                (reply,) = writer.write([ask])
                faults.append(lists.fault(ask.question.user, reply.text))
                last, ask = ask, ask.next(reply) if ask.later else ask
            turns = [*last.question.turns, (last.question.user, reply.text)]
            told.append({"arm": arm, "turns": turns, "faults": faults})
            held[arm].append([float(not fault) for fault in faults])
    for name, part in (("first turns", slice(EDGE)), ("last turns", slice(-EDGE, None))):
        clusters = [number for number in range(len(lists.conversations)) for _ in range(EDGE)]
        board.compare(name, {arm: [v for talk in own for v in talk[part]] for arm, own in held.items()}, clusters)
    for arm, own in held.items():
        board.drift[arm] = [share([value == 1 for value in turn], range(len(own))) for turn in zip(*own, strict=True)]
    return told
