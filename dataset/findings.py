"""What may be wrong with a set of rows: repeats, leaks between the parts, control tokens, prompts of many answers."""

import re
from collections.abc import Iterable, Sequence

from dataset.report import Finding, Repeated
from roleplay.errors import DataError
from roleplay.text.prompts import Example, PromptEncoder
from roleplay.text.rows import Row
from roleplay.text.splits import near_duplicates, near_duplicates_between, repeat_by_weight, sides, split_rows
from roleplay.weights.examples import lookup_notes

NAMED_ROWS = 5  # how many rows a finding names
HEAVY = 0.01  # the share of an epoch from which one repeated row is named
LONG_OPENING, MANY = 12, 8  # columns that most of at least so many rows begin or end with: they tell nothing
_DIRECTION = re.compile(r"[（(【\[*][^（(【\[*]+[）)】\]*]")


def named_rows(rows: Iterable[Row]) -> list[str]:
    """The first few rows with where they stand."""
    return [f"{row.where}: {row.turns[-1][0]} → {row.turns[-1][1]}" for row in list(rows)[:NAMED_ROWS]]


def find_copies(rows: Sequence[Row]) -> tuple[list[Finding], list[Repeated]]:
    """Rows that repeat another word for word or nearly, with what they weigh."""
    total = sum(row.weight for row in rows)
    copies: dict[tuple, list[Row]] = {}
    for row in rows:
        copies.setdefault(row.turns, []).append(row)
    repeated = [
        Repeated(turns[-1][0], turns[-1][1], len(same), sum(row.weight for row in same) / total)
        for turns, same in copies.items()
        if len(same) > 1 or same[0].weight > 1
    ]
    repeated.sort(key=lambda item: -item.share)
    findings = []
    if extra := len(rows) - len(copies):
        share = sum(row.weight for same in copies.values() if len(same) > 1 for row in same) / total
        text = f"{extra:,} rows repeat another word for word; the repeated ones are {share:.1%} of an epoch"
        named = [f"{item.copies} × {item.user} → {item.reply}" for item in repeated if item.copies > 1]
        findings.append(Finding("warning", f"{text} (--dedupe writes weights in their place)", named[:NAMED_ROWS]))
    heavy = [item for item in repeated if item.share >= HEAVY]
    findings += [Finding("warning", f"one row alone is {i.share:.1%} of an epoch: {i.user}", []) for i in heavy]
    distinct = [same[0] for same in copies.values()]
    # Rows of one scene share their history, so the last turn alone says whether two teach the same.
    pairs = near_duplicates(["\n".join(row.turns[-1]) for row in distinct]) if len(distinct) > 1 else []
    if pairs:
        near = len({number for pair in pairs for number in pair})
        named = [
            f"{distinct[a].where} and {distinct[b].where}: {distinct[b].turns[-1][1]}" for a, b in pairs[:NAMED_ROWS]
        ]
        findings.append(Finding("warning", f"{near:,} distinct rows are nearly the same as another", named))
    return findings, repeated


def find_overlap(rows: Sequence[Row]) -> list[Finding]:
    """Held-out rows that stand in the training part too, by text or by scene."""
    train, held = sides(rows)
    findings = []
    pairs = near_duplicates_between([row.text for row in held], [row.text for row in train])
    if pairs:
        both = len({a for a, _ in pairs})
        named = [f"{held[a].where} and {train[b].where}: {train[b].turns[-1][1]}" for a, b in pairs[:NAMED_ROWS]]
        findings.append(Finding("error", f"{both:,} held-out rows (nearly) stand in the training part", named))
    scenes = [{row.scene for row in side} - {""} for side in (held, train)]
    if shared := sorted(scenes[0] & scenes[1]):
        text = f"{len(shared):,} scenes have rows on both sides of the split"
        findings.append(Finding("error", text, shared[:NAMED_ROWS]))
    return findings


def find_control_tokens(rows: Sequence[Row], encoder: PromptEncoder) -> list[Finding]:
    """Control tokens spelled out in a text; they are encoded as ordinary ones, so a reply would teach the letters."""
    tokens = sorted(encoder.tokenizer.convert_ids_to_tokens(list(encoder.control_ids)), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, tokens)))
    replies = [row for row in rows if any(pattern.search(reply) for _, reply in row.learnt)]
    users = [row for row in rows if any(pattern.search(user) for user, _ in row.turns)]
    found = [
        ("error", "a reply with a control token in it, which the model would learn to write out", replies),
        ("warning", "a user's text with a control token in it, read as plain letters", users),
    ]
    return [Finding(level, f"{len(rows):,} rows have {what}", named_rows(rows)) for level, what, rows in found if rows]


def find_prompts(rows: Sequence[Row]) -> list[Finding]:
    """What users say again and again to different answers."""
    replies: dict[str, list[str]] = {}
    for row in rows:
        if len(row.turns) == 1:
            replies.setdefault(row.turns[0][0], []).append(row.turns[0][1])
    common = sorted((item for item in replies.items() if len(set(item[1])) > 1), key=lambda item: -len(item[1]))
    if not common:
        return []
    named = [f"{len(said)} rows, {len(set(said))} replies: {user}" for user, said in common[:NAMED_ROWS]]
    return [Finding("note", f"{len(common):,} prompts are answered in more than one way", named)]


def find_taught_again(rows: Sequence[Row]) -> list[Finding]:
    """Replies in a history that are rows of their own in the same scene."""
    own = {(row.scene, row.turns[-1][1]) for row in rows if row.scene}
    again = sum((row.scene, reply) in own for row in rows for _, reply in row.learnt[:-1])
    text = f"{again:,} earlier replies are rows of their own too: train with the loss on the last reply of a row"
    return [Finding("note", text, [])] if again else []


def find_split(rows: Sequence[Row], held_out: float, seed: int, retrieval: bool) -> list[Finding]:
    """What splitting says, and looking up where rows are to be, for which `train.lora` would refuse the rows or warn
    of them."""
    told = list[str]()
    try:
        train, held = split_rows(rows, held_out, seed, told.append)
        repeat_by_weight(train, seed)
        told += lookup_notes(train) if retrieval else []
    except DataError as error:
        return [Finding("error", f"train.lora would refuse these rows: {error}", [])]
    warnings = [Finding("warning", what, []) for what in told]
    if any(row.split for row in rows):
        return warnings
    text = f"no row says that it is held out; train.lora would hold out {len(held):,}, in whole scenes and look-alikes"
    return [*warnings, Finding("note", text, named_rows(held))]


def find_long(
    rows: Sequence[Row], examples: Sequence[Example], encoder: PromptEncoder, persona: str, most: int
) -> list[Finding]:
    """Rows whose last turn alone is too long, which `train.lora` refuses, and those that lose their oldest turns."""
    refused, shortened = list[Row](), list[Row]()
    for row, example in zip(rows, examples, strict=True):
        if len(example.input_ids) > most:
            last = encoder.example(persona, row.turns[-1:], "last")
            (refused if len(last.input_ids) > most else shortened).append(row)
    found = [
        ("error", f"take more than {most:,} tokens with the persona, which train.lora refuses", refused),
        ("warning", f"take more than {most:,} tokens with the persona, so their oldest turns are left out", shortened),
    ]
    return [Finding(level, f"{len(long):,} rows {what}", named_rows(long)) for level, what, long in found if long]


def _shared_start(a: str, b: str) -> str:
    return a[: next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))]


def _opening(texts: Sequence[str]) -> str:
    """What more than half of the texts begin with: the middle one of them in order begins with it too."""
    half = len(texts) // 2
    ordered = sorted(texts)
    return max((_shared_start(ordered[i], ordered[i + half]) for i in range(len(texts) - half)), key=len)


def _is_long(shared: str) -> bool:
    """Whether so much, or a stage direction, is no chance; a wide (Chinese, Japanese) character is two columns."""
    return len(shared) + sum(letter > "\u2e7f" for letter in shared) >= LONG_OPENING or bool(_DIRECTION.search(shared))


def find_openings(rows: Sequence[Row]) -> list[Finding]:
    """A persona before or after what users say, or one beginning or end for most replies."""
    findings = []
    if len({row.turns for row in rows}) < MANY:
        return []
    sides = (
        ("user's texts", "if it says who speaks, it is a persona: take it out of the rows and give it with --persona"),
        ("replies", "the model would say it in every reply: take it out of the rows"),
    )
    for side, (name, advice) in enumerate(sides):
        texts = [turns[0][side] for turns in {row.turns for row in rows}]
        ending = _opening([text[::-1] for text in texts])[::-1]
        findings += [
            Finding("warning", f"more than half of the {name} {what} alike; {advice}", [shared])
            for what, shared in (("begin", _opening(texts)), ("end", ending))
            if _is_long(shared)
        ]
    return findings
