"""Sections that ask how likely a text is and generate nothing: losses on held-out rows and on plain text."""

from roleplay.results.board import BARE_BASE, BASE_WITH_ROWS, TUNED
from roleplay.text.prompts import IGNORED, Example
from roleplay.text.retrieval import NEAREST
from roleplay.text.rows import Row
from train.measuring.figures import Board
from train.measuring.losses import PACK, label_count
from train.measuring.progress import Work, scoring
from train.measuring.subject import Bench, Subject


def row_example(subject: Subject, arm: str, row: Row) -> Example:
    """A held-out row as an arm sees it, with labels on the row's own replies and nowhere else."""
    persona, encoder = subject.persona(arm), subject.encodes(arm)
    own = encoder.without_loss(encoder.example(persona, row.turns, where=row.where), row.unlearnt)
    shown = subject.shown(arm, row.turns[0][0])  # found by the opening message: a later one is not known yet
    return encoder.behind(persona, shown, own)


def loss(bench: Bench, board: Board) -> None:
    """Held-out loss per token, paired by row and resampled by scene."""
    subject, values, counts = bench.subject, {}, []
    for arm in subject.arms:
        examples = [row_example(subject, arm, row) for row in subject.held_out]
        counts = [float(label_count(example)) for example in examples]  # the same in every arm
        values[arm] = bench.nats(arm, examples)
    board.compare("held-out loss", values, subject.groups, counts)


def loss_texts(bench: Bench) -> dict[str, Work]:
    subject = bench.subject
    own = subject.mean_tokens([row.text for row in subject.held_out])
    labels = subject.mean_tokens(["\n".join(reply for _, reply in row.turns) for row in subject.held_out])
    shown = NEAREST * subject.mean_tokens([row.text for row in subject.trained])
    looking = {BASE_WITH_ROWS, *([TUNED] if subject.adapter.looked_up.turns else [])}
    lengths = {arm: own + shown * (arm in looking) + subject.prefix_tokens(arm) / PACK for arm in subject.arms}
    return {arm: scoring(len(subject.held_out), tokens, labels) for arm, tokens in lengths.items()}


def plain(bench: Bench, board: Board) -> None:
    """Loss on text that has nothing to do with the role, without a persona."""
    subject = bench.subject
    for name, texts in _plain_texts(bench).items():
        examples = [Example([subject.encoder.tokenizer.bos_token_id, *ids], [IGNORED, *ids]) for ids in texts]
        arms = (BARE_BASE, TUNED)
        values = {arm: bench.nats(arm, examples) for arm in arms}
        board.compare(name, values, range(len(texts)), [float(len(ids)) for ids in texts])


def _plain_texts(bench: Bench) -> dict[str, list[list[int]]]:
    """The texts of every language as token ids, by the measure; an interval takes two of a language."""
    found = {}
    for language, name in (("zh", "plain Chinese"), ("en", "plain English")):
        texts = [bench.subject.encoder.encode(item.text) for item in bench.lists.plain if item.language == language]
        if len(texts) > 1:
            found[name] = texts
    return found


def plain_texts(bench: Bench) -> dict[str, Work]:
    texts = [ids for own in _plain_texts(bench).values() for ids in own]
    tokens = sum(map(len, texts)) / max(1, len(texts))
    return dict.fromkeys((BARE_BASE, TUNED), scoring(len(texts), tokens, tokens))
