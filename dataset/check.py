"""Validate and explain a file of training rows before a run is spent on it.

    python -m dataset.check --character zhenhuan --html runs/zhenhuan_check.html
    python -m dataset.check mine.json more.csv --persona me.json
    python -m dataset.check --character zhenhuan --surprise --json runs/zhenhuan_check.json
    python -m dataset.check pairs.jsonl --character mara    # preference pairs: what train.prefer would make of them

It prints what it found and writes the report (`--html`, one file that opens offline), the same as JSON (`--json`) and
a set with weights in place of copies (`--dedupe`) where asked. With `--surprise` it names the ten rows that the base
model finds hardest to guess, and the JSON has all of them. Exit status: 0, or 1 when something found would spoil
a training run, which is all that train.lora refuses with the same flags (rows that cannot be read or do not fit, rows
of which none can be held out, held-out rows that stand in the training part too), a control token in a reply, and a
file of the character that train.evaluate refuses, or 2 when the check itself cannot be made. With --character it says
which questions that judge stand in the rows. Of preference pairs (prompt, chosen, rejected) it reports those that are
repeated, contradictory, one-sided or too long, as text and JSON.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from statistics import mean, median
from typing import Any

from tqdm import tqdm

from dataset import check_pairs
from dataset import report as html_report
from dataset.findings import (
    NAMED_ROWS,
    find_control_tokens,
    find_copies,
    find_long,
    find_openings,
    find_overlap,
    find_prompts,
    find_split,
    find_taught_again,
    named_rows,
)
from dataset.garbage import find_garbage
from dataset.judging import find_judged
from dataset.report import Finding, Lengths, Report, Segment
from roleplay.disk import check_writable, write_json, write_text
from roleplay.environment import Environment
from roleplay.errors import DataError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text import limits, personas
from roleplay.text.characters import Character, load_character
from roleplay.text.languages import language
from roleplay.text.pairs import holds_pairs
from roleplay.text.personas import Persona, load_persona
from roleplay.text.prompts import IGNORED, TEMPLATES, PromptEncoder
from roleplay.text.reading.forms import FORMS
from roleplay.text.rows import MAX_WEIGHT, Row, RowFile, read_row_file, read_rows, source_sha256, system_notes
from roleplay.weights import base_models, embedded
from roleplay.weights.training_rows import HELD_OUT, SEED


@dataclass(frozen=True)
class CheckFlags:
    files: list[str] = flag([], "the rows, in any form of docs/rows.md; those of --character", place="may be first")
    character: str = flag("", "a folder under dataset/, or a path: its rows and persona where none are given")
    held_out: str = flag("", "a second file of rows, none of which may stand in the first, or train.lora's share")
    seed: int = flag(SEED, "the seed that train.lora is given, which draws the held-out rows", within=(0, 2**32 - 1))
    retrieval: bool = flag(False, "whether train.lora is given it: rows too long to be looked up are refused then")
    persona: str = flag("", "a persona or a character card; it counts into the lengths (none: Zhen Huan's)")
    format: str = flag("", "the form of the rows, where it is recognised wrongly", choices=("", *FORMS))
    template: str = flag("gemma", "the prompt layout that lengths and preview use", choices=tuple(TEMPLATES))
    tokenizer: str = flag(
        embedded.NAME, "whose tokens are counted: embedded, a Hub id, modelscope:OWNER/NAME, a folder"
    )
    max_tokens: int = flag(
        0,
        "the longest row that fits, prompt and replies together; 0: what train.lora or train.prefer takes",
        within=(0, inf),
    )
    surprise: bool = flag(False, "say how surprising every row is to the base model with the persona; takes minutes")
    base_model: str = flag("", "the base model that --surprise asks; chosen by the device where none is given")
    html: str = flag("", "write the report with plots to this file")
    json: str = flag("", "write the report as JSON to this file; - prints it in place of the text")
    dedupe: str = flag("", "write each distinct row once to this file, its weight that of all its copies (at most 100)")


@dataclass(frozen=True)
class Reading:
    """How a training would read the rows."""

    encoder: PromptEncoder
    persona: Persona
    max_tokens: int = limits.ROW_TOKENS
    held_out: float = HELD_OUT
    seed: int = SEED
    retrieval: bool = False


def dedupe(values: Sequence[dict[str, Any]], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The first value of every set of copies, `weight` summed over them; copies on two sides of a split stay apart."""
    weights: Counter[tuple] = Counter()
    first: dict[tuple, dict[str, Any]] = {}
    for value, row in zip(values, rows, strict=True):
        key = (row.turns, row.history_weights, row.split)
        weights[key] += row.weight  # type: ignore[assignment]  # a Counter of floats
        first.setdefault(key, value)
    return [
        value if weights[key] == 1 else value | {"weight": min(round(weights[key], 6), MAX_WEIGHT)}
        for key, value in first.items()
    ]


def preview(row: Row, reading: Reading) -> list[Segment]:
    """A row as the model reads it, cut where the loss begins and ends."""
    encoder, persona = reading.encoder, reading.persona
    example = encoder.without_loss(encoder.example(persona.system_prompt, row.turns), row.unlearnt)
    segments: list[tuple[bool, list[int]]] = []
    for token, label in zip(example.input_ids, example.labels, strict=True):
        labelled = label != IGNORED
        if not segments or segments[-1][0] != labelled:
            segments.append((labelled, []))
        segments[-1][1].append(token)
    return [Segment(str(encoder.tokenizer.decode(ids)), labelled) for labelled, ids in segments]


def examine(
    found: RowFile, where: str, reading: Reading, held: Sequence[Row] = (), character: Character | None = None
) -> Report:
    """Everything that is found in a file of rows, and in what judges their character; `held` are rows of another,
    held-out file."""
    encoder, persona, max_tokens = reading.encoder, reading.persona.system_prompt, reading.max_tokens
    rows, broken = found.rows, found.broken
    if not rows:
        raise DataError(f"{where}: no row can be read; the first says {'; then '.join(broken[:NAMED_ROWS])}")
    findings = [Finding("error", f"{len(broken):,} rows cannot be read", broken[:NAMED_ROWS])] if broken else []
    examples = [encoder.without_loss(encoder.example(persona, row.turns), row.unlearnt) for row in rows]
    reply = [sum(label != IGNORED for label in example.labels) for example in examples]
    total = [len(example.input_ids) for example in examples]
    findings += find_long(rows, examples, encoder, persona, max_tokens)
    findings += find_control_tokens(rows, encoder) + find_garbage(rows) + find_openings(rows)
    parted = [*rows, *(replace(row, split="held_out") for row in held)]
    findings += find_overlap(parted) or find_split(parted, reading.held_out, reading.seed, reading.retrieval)
    findings += [Finding("warning", note, []) for note in system_notes(rows, persona)]
    judged, wrong = find_judged(rows, character) if character else ({}, [])
    findings += wrong
    copied, repeated = find_copies(rows)
    findings += copied + find_taught_again(rows) + find_prompts(rows)
    crossed = [row for row in rows if {language(part) for part in row.turns[-1]} == {"zh", "en"}]
    if crossed:
        findings.append(Finding("note", f"{len(crossed):,} rows answer in another language", named_rows(crossed)))
    levels = ("error", "warning", "note")
    return Report(
        file=where,
        read=found.notes,
        rows=found.size,
        distinct=len({row.turns for row in rows}),
        scenes=len({row.scene for row in rows} - {""}),
        held_out=sum(row.split == "held_out" for row in rows),
        persona=reading.persona.name,
        max_tokens=max_tokens,
        judged=judged,
        findings=sorted(findings, key=lambda finding: levels.index(finding.level)),
        lengths=Lengths([t - r for t, r in zip(total, reply, strict=True)], reply),
        languages=dict(Counter(language(row.text) for row in rows).most_common()),
        turns=dict(sorted(Counter(len(row.turns) for row in rows).items())),
        repeated=repeated[:10],
        preview=[preview(rows[n], reading) for n in sorted({0, len(rows) // 2, len(rows) - 1})],
    )


def as_text(report: Report) -> str:
    """The report for a terminal; ⟦ ⟧ marks the tokens of the preview that carry the loss."""
    facts = (
        f"{report.rows:,} rows, {report.distinct:,} distinct, {report.scenes:,} scenes, {report.held_out:,} held out"
    )
    lines = [f"{report.file}: {facts}", *(f"{'':14}{note}" for note in report.read)]
    for name, counts in (("prompt", report.lengths.prompt), ("reply", report.lengths.reply)):
        lines.append(
            f"{name + ' tokens':14}mean {mean(counts):.1f}, median {median(counts):g}, longest {max(counts):,}"
        )
    lines.append("languages     " + ", ".join(f"{name} {count:,}" for name, count in report.languages.items()))
    lines.append("turns         " + ", ".join(f"{turns}: {count:,}" for turns, count in report.turns.items()))
    if report.judged:
        lines.append("judged by     " + ", ".join(f"{file} {count:,}" for file, count in report.judged.items()))
    for finding in report.findings:
        lines.append(f"{finding.level:14}{finding.text}")
        lines += [f"{'':14}  {' '.join(example.split()):.150}" for example in finding.examples]
    lines.append(f"preview       as {report.persona} reads it; what is learnt stands in ⟦ ⟧")
    for row in report.preview:
        text = "".join(f"⟦{part.text}⟧" if part.labelled else part.text for part in row)
        lines.append("\n" + text)
    return "\n".join(lines)


def _write(path: str, text: str) -> None:
    write_text(Path(path), text)
    print(f"wrote {path}", file=sys.stderr)


def _sources(settings: CheckFlags, character: Character | None) -> tuple[list[str], Persona]:
    """The files of rows and the persona; raises `DataError` where no file is named."""
    files = settings.files or ([str(character.rows)] if character and character.rows else [])
    if not files:
        lacking = f"{character.folder} has no rows.json: " if character else "no rows to check: "
        raise DataError(f"{lacking}give a file, or a --character with rows")
    if settings.persona:
        return files, load_persona(settings.persona)
    if character:
        return files, character.persona
    default = personas.default()
    return files, replace(default, name=f"{default.name} (no --character or --persona was given)")


def _read(files: Sequence[str], form: str) -> RowFile:
    """All files as one; a row of several says which it stands in."""
    several = len(files) > 1
    parts = {file: read_row_file(file, form, file if several else "") for file in files}
    return RowFile(
        [value for part in parts.values() for value in part.values],
        [row for part in parts.values() for row in part.rows],
        [fault for part in parts.values() for fault in part.broken],
        [f"{file}: {note}" if several else note for file, part in parts.items() for note in part.notes],
    )


def _held_out(given: str, form: str) -> tuple[list[Row], float]:
    """The rows of a second file, or the share to hold out; raises `DataError` for neither."""
    try:
        share = float(given or HELD_OUT)
    except ValueError:
        return read_rows(given, form)[0], HELD_OUT
    if not 0 <= share <= 0.5:
        raise DataError(f"--held-out {given}: give a share from 0 to 0.5, or a file of rows")
    return [], share


def _surprise(settings: CheckFlags, rows: Sequence[Row], persona: Persona) -> tuple[dict[str, Any], str]:
    """Every row's surprise for the JSON, and the most surprising ones for a terminal."""
    from dataset import surprise  # peft takes a second to import

    environment = Environment()
    base = base_models.load(settings.base_model or environment.base_model, environment.cache)
    print(*base.describe(), sep="\n", file=sys.stderr)
    with tqdm(total=len(rows), unit="row") as bar:
        found = surprise.surprises(rows, base, settings.template, persona.system_prompt, bar.update)
    return {"base_model": base.hub_id, "rows": [asdict(row) for row in found]}, surprise.as_text(found)


def _finish(settings: CheckFlags, facts: dict[str, Any], text: str) -> None:
    """Write and print what was found; ends the program with status 1 where an error is among it."""
    as_json = json.dumps(facts, ensure_ascii=False, indent=1)
    if settings.json not in ("", "-"):
        _write(settings.json, as_json + "\n")
    print(as_json if settings.json == "-" else text)  # last: whoever reads it may stop reading
    if any(finding["level"] == "error" for finding in facts["findings"]):
        sys.exit(1)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse(CheckFlags, __doc__, argv)
    character = load_character(settings.character) if settings.character else None
    files, persona = _sources(settings, character)
    for file in (settings.json, settings.html, settings.dedupe):
        if file not in ("", "-"):
            check_writable(Path(file).parent)
    folder, _ = base_models.fetch(settings.tokenizer, Environment().cache)
    encoder = PromptEncoder(base_models.read_tokenizer(folder), settings.template)
    if any(map(holds_pairs, files)):
        for name in ("html", "dedupe", "surprise", "held_out", "seed", "retrieval"):
            if getattr(settings, name):
                raise DataError(f"--{name.replace('_', '-')} is for training rows, and these are pairs: leave it out")
        most = settings.max_tokens or limits.PAIR_TOKENS
        pairs = check_pairs.examine(files, encoder, persona.system_prompt, most)
        _finish(settings, asdict(pairs), check_pairs.as_text(pairs))
        return
    found, where = _read(files, settings.format), ", ".join(files)
    held, share = _held_out(settings.held_out, settings.format)
    most = settings.max_tokens or limits.ROW_TOKENS
    reading = Reading(encoder, persona, most, share, settings.seed, settings.retrieval)
    report = examine(found, where, reading, held, character)

    facts = asdict(report) | {"sha256": ", ".join(source_sha256(file, found.rows) for file in files)}
    text = as_text(report)
    if settings.surprise:
        facts["surprise"], told = _surprise(settings, found.rows, persona)
        text += f"\n\n{told}"
    if settings.html:
        _write(settings.html, html_report.render(report))
    if settings.dedupe:
        if found.broken:
            raise DataError(f"{where}: {len(found.broken)} rows cannot be read; mend them, then --dedupe")
        write_json(Path(settings.dedupe), dedupe(found.values, found.rows))
        print(f"wrote {settings.dedupe}", file=sys.stderr)
    _finish(settings, facts, text)


if __name__ == "__main__":
    with one_line_errors():
        main()
