"""Validate and explain a file of training rows before a run is spent on it.

    python -m dataset.check dataset/zhenhuan.json --html runs/zhenhuan_check.html

It prints what it found and writes the report (`--html`, one file that opens offline), the same as JSON (`--json`) and
a set with weights in place of copies (`--dedupe`) where asked. Exit status: 0, or 1 when something found would spoil
a training run (rows that cannot be read or do not fit, a control token in a reply, held-out rows that stand in the
training part too), or 2 when the check itself cannot be made.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from statistics import mean, median
from typing import Any

from transformers import AutoTokenizer

from dataset import report as html_report
from dataset.report import Finding, Lengths, Repeated, Report, Segment
from roleplay.disk import write_json
from roleplay.environment import Environment
from roleplay.errors import DataError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.personas import ZHEN_HUAN, Persona, load_persona
from roleplay.text.prompts import IGNORED, TEMPLATES, PromptEncoder
from roleplay.text.rows import Row, file_sha256, load_json, parse_row
from roleplay.text.splits import near_duplicates
from roleplay.weights import base_models, embedded

EXAMPLES = 5  # how many rows a finding names
HEAVY = 0.01  # the share of an epoch from which one repeated row is named
MAX_WEIGHT = 100  # what a row may weigh (roleplay/text/rows.py)
_HAN, _LATIN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]"), re.compile(r"[A-Za-z\u00c0-\u024f]+")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class CheckFlags:
    file: str = flag("", "the rows, as a JSON list or JSON Lines", place="first")
    held_out: str = flag("", "a second file whose rows are held out; none of them may stand in the first")
    persona: str = flag("", "a persona file; its system prompt counts into the lengths (none: the built-in one)")
    template: str = flag("gemma", "the prompt layout that lengths and preview use", choices=tuple(TEMPLATES))
    tokenizer: str = flag(
        embedded.NAME, "whose tokens are counted: embedded, a Hub id, modelscope:OWNER/NAME, a folder"
    )
    max_tokens: int = flag(1024, "the longest row that fits, prompt and replies together", within=(1, inf))
    html: str = flag("", "write the report with plots to this file")
    json: str = flag("", "write the report as JSON to this file; - prints it in place of the text")
    dedupe: str = flag("", "write each distinct row once to this file, its weight that of all its copies (at most 100)")


def language(text: str) -> str:
    """zh, en (any Latin script), other, or mixed when none has nine tenths; a Latin word counts as one character."""
    han, latin = len(_HAN.findall(text)), len(_LATIN.findall(text))
    other = len(_LETTER.findall(_LATIN.sub("", _HAN.sub("", text))))
    total = han + latin + other
    shares = {"zh": han, "en": latin, "other": other}
    return next((name for name, count in shares.items() if total and count >= 0.9 * total), "mixed")


def dedupe(values: Sequence[dict[str, Any]], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The first value of every set of copies, `weight` summed over them; copies on two sides of a split stay apart."""
    weights: Counter[tuple] = Counter()
    first: dict[tuple, dict[str, Any]] = {}
    for value, row in zip(values, rows, strict=True):
        key = (row.turns, row.split)
        weights[key] += row.weight  # type: ignore[assignment]  # a Counter of floats
        first.setdefault(key, value)
    return [
        value if weights[key] == 1 else value | {"weight": min(round(weights[key], 6), MAX_WEIGHT)}
        for key, value in first.items()
    ]


def _named(rows: Iterable[Row]) -> list[str]:
    return [f"{row.where}: {row.turns[-1][0]} → {row.turns[-1][1]}" for row in list(rows)[:EXAMPLES]]


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
        findings.append(Finding("warning", f"{text} (--dedupe writes weights in their place)", named[:EXAMPLES]))
    heavy = [item for item in repeated if item.share >= HEAVY]
    findings += [Finding("warning", f"one row alone is {i.share:.1%} of an epoch: {i.user}", []) for i in heavy]
    distinct = [same[0] for same in copies.values()]
    # Rows of one scene share their history, so the last turn alone says whether two teach the same.
    pairs = near_duplicates(["\n".join(row.turns[-1]) for row in distinct]) if len(distinct) > 1 else []
    if pairs:
        near = len({number for pair in pairs for number in pair})
        named = [
            f"{distinct[a].where} and {distinct[b].where}: {distinct[b].turns[-1][1]}" for a, b in pairs[:EXAMPLES]
        ]
        findings.append(Finding("warning", f"{near:,} distinct rows are nearly the same as another", named))
    return findings, repeated


def find_overlap(rows: Sequence[Row]) -> list[Finding]:
    """Held-out rows that stand in the training part too, by text or by scene."""
    held = {number for number, row in enumerate(rows) if row.split == "held_out"}
    if not held:
        return [Finding("note", "no row is held out here; train.lora then holds out whole scenes and look-alikes", [])]
    findings = []
    pairs = [(a, b) for a, b in near_duplicates([row.text for row in rows]) if (a in held) != (b in held)]
    if pairs:
        both = len({number for pair in pairs for number in pair} & held)
        named = [f"{rows[a].where} and {rows[b].where}: {rows[b].turns[-1][1]}" for a, b in pairs[:EXAMPLES]]
        findings.append(Finding("error", f"{both:,} held-out rows (nearly) stand in the training part", named))
    scenes = [{rows[n].scene for n in numbers} - {""} for numbers in (held, set(range(len(rows))) - held)]
    if shared := sorted(scenes[0] & scenes[1]):
        text = f"{len(shared):,} scenes have rows on both sides of the split"
        findings.append(Finding("error", text, shared[:EXAMPLES]))
    return findings


def find_control_tokens(rows: Sequence[Row], encoder: PromptEncoder) -> list[Finding]:
    """Control tokens spelled out in a text; they are encoded as ordinary ones, so a reply would teach the letters."""
    tokens = sorted(encoder.tokenizer.convert_ids_to_tokens(list(encoder.control_ids)), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, tokens)))
    replies = [row for row in rows if any(pattern.search(reply) for _, reply in row.turns)]
    users = [row for row in rows if any(pattern.search(user) for user, _ in row.turns)]
    found = [
        ("error", "a reply with a control token in it, which the model would learn to write out", replies),
        ("warning", "a user's text with a control token in it, read as plain letters", users),
    ]
    return [Finding(level, f"{len(rows):,} rows have {what}", _named(rows)) for level, what, rows in found if rows]


def find_prompts(rows: Sequence[Row]) -> list[Finding]:
    """What users say again and again to different answers."""
    replies: dict[str, list[str]] = {}
    for row in rows:
        if len(row.turns) == 1:
            replies.setdefault(row.turns[0][0], []).append(row.turns[0][1])
    common = sorted((item for item in replies.items() if len(set(item[1])) > 1), key=lambda item: -len(item[1]))
    if not common:
        return []
    named = [f"{len(said)} rows, {len(set(said))} replies: {user}" for user, said in common[:EXAMPLES]]
    return [Finding("note", f"{len(common):,} prompts are answered in more than one way", named)]


def find_taught_again(rows: Sequence[Row]) -> list[Finding]:
    """Replies in a history that are rows of their own in the same scene."""
    own = {(row.scene, row.turns[-1][1]) for row in rows if row.scene}
    again = sum((row.scene, reply) in own for row in rows for _, reply in row.turns[:-1])
    text = f"{again:,} earlier replies are rows of their own too: train with the loss on the last reply of a row"
    return [Finding("note", text, [])] if again else []


def preview(row: Row, encoder: PromptEncoder, persona: Persona) -> list[Segment]:
    """A row as the model reads it, cut where the loss begins and ends."""
    example = encoder.example(persona.system_prompt, row.turns)
    segments: list[tuple[bool, list[int]]] = []
    for token, label in zip(example.input_ids, example.labels, strict=True):
        labelled = label != IGNORED
        if not segments or segments[-1][0] != labelled:
            segments.append((labelled, []))
        segments[-1][1].append(token)
    return [Segment(str(encoder.tokenizer.decode(ids)), labelled) for labelled, ids in segments]


def examine(
    values: Sequence[Any],
    where: str,
    encoder: PromptEncoder,
    persona: Persona,
    max_tokens: int,
    held: Sequence[Row] = (),
) -> tuple[Report, list[Row]]:
    """Everything found in the values of a file, and its usable rows; `held` are rows of another, held-out file."""
    rows, broken = [], []
    for number, value in enumerate(values, 1):
        try:
            rows.append(parse_row(value, f"row {number}"))
        except DataError as error:
            broken.append(str(error))
    findings = []
    if broken:
        findings.append(Finding("error", f"{len(broken):,} rows cannot be read", broken[:EXAMPLES]))
    if not rows:
        raise DataError(f"{where}: no row can be read; the first says {broken[0]}")
    examples = [encoder.example(persona.system_prompt, row.turns) for row in rows]
    reply = [sum(label != IGNORED for label in example.labels) for example in examples]
    total = [len(example.input_ids) for example in examples]
    if long := [row for row, length in zip(rows, total, strict=True) if length > max_tokens]:
        findings.append(Finding("error", f"{len(long):,} rows take more than {max_tokens:,} tokens", _named(long)))
    findings += find_control_tokens(rows, encoder)
    findings += find_overlap([*rows, *(replace(row, split="held_out") for row in held)])
    copied, repeated = find_copies(rows)
    findings += copied + find_taught_again(rows) + find_prompts(rows)
    crossed = [row for row in rows if {language(part) for part in row.turns[-1]} == {"zh", "en"}]
    if crossed:
        findings.append(Finding("note", f"{len(crossed):,} rows answer in another language", _named(crossed)))
    levels = ("error", "warning", "note")
    report = Report(
        file=where,
        rows=len(values),
        distinct=len({row.turns for row in rows}),
        scenes=len({row.scene for row in rows} - {""}),
        held_out=sum(row.split == "held_out" for row in rows),
        persona=persona.name,
        max_tokens=max_tokens,
        findings=sorted(findings, key=lambda finding: levels.index(finding.level)),
        lengths=Lengths([t - r for t, r in zip(total, reply, strict=True)], reply),
        languages=dict(Counter(language(row.text) for row in rows).most_common()),
        turns=dict(sorted(Counter(len(row.turns) for row in rows).items())),
        repeated=repeated[:10],
        preview=[preview(rows[n], encoder, persona) for n in sorted({0, len(rows) // 2, len(rows) - 1})],
    )
    return report, rows


def as_text(report: Report) -> str:
    """The report for a terminal; ⟦ ⟧ marks the tokens of the preview that carry the loss."""
    facts = (
        f"{report.rows:,} rows, {report.distinct:,} distinct, {report.scenes:,} scenes, {report.held_out:,} held out"
    )
    lines = [f"{report.file}: {facts}"]
    for name, counts in (("prompt", report.lengths.prompt), ("reply", report.lengths.reply)):
        lines.append(
            f"{name + ' tokens':14}mean {mean(counts):.1f}, median {median(counts):g}, longest {max(counts):,}"
        )
    lines.append("languages     " + ", ".join(f"{name} {count:,}" for name, count in report.languages.items()))
    lines.append("turns         " + ", ".join(f"{turns}: {count:,}" for turns, count in report.turns.items()))
    for finding in report.findings:
        lines.append(f"{finding.level:14}{finding.text}")
        lines += [f"{'':14}  {example[:150]}" for example in finding.examples]
    for row in report.preview:
        text = "".join(f"⟦{part.text}⟧" if part.labelled else part.text for part in row)
        lines.append("\n" + text)
    return "\n".join(lines)


def _write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    print(f"wrote {path}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse(CheckFlags, __doc__, argv)
    values = load_json(settings.file)
    held = (
        [parse_row(v, f"{settings.held_out} row {n}") for n, v in enumerate(load_json(settings.held_out), 1)]
        if settings.held_out
        else []
    )
    persona = load_persona(settings.persona) if settings.persona else ZHEN_HUAN
    folder, _ = base_models.fetch(settings.tokenizer, Environment().cache)
    encoder = PromptEncoder(AutoTokenizer.from_pretrained(folder, local_files_only=True), settings.template)

    report, rows = examine(values, settings.file, encoder, persona, settings.max_tokens, held)

    as_json = json.dumps(asdict(report) | {"sha256": file_sha256(settings.file)}, ensure_ascii=False, indent=1)
    print(as_json if settings.json == "-" else as_text(report))
    if settings.json not in ("", "-"):
        _write(settings.json, as_json + "\n")
    if settings.html:
        _write(settings.html, html_report.render(report))
    if settings.dedupe:
        if len(rows) < len(values):
            raise DataError(f"{settings.file}: {len(values) - len(rows)} rows cannot be read; mend them, then --dedupe")
        write_json(Path(settings.dedupe), dedupe(values, rows))
        print(f"wrote {settings.dedupe}", file=sys.stderr)
    if any(finding.level == "error" for finding in report.findings):
        sys.exit(1)


if __name__ == "__main__":
    with one_line_errors():
        main()
