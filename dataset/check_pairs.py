"""What may be wrong with preference pairs: what `train.prefer` refuses or leaves out, and what they teach besides."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from dataset.findings import NAMED_ROWS, find_control_tokens
from dataset.preferences import one_sided, review, sentences
from dataset.report import Finding
from roleplay.errors import DataError
from roleplay.text.pairs import HELD_OUT, Pair, parse_pair, prompt_groups, split_pairs
from roleplay.text.prompts import PromptEncoder
from roleplay.text.rows import Row, load_json
from roleplay.weights.training_rows import SEED


@dataclass(frozen=True)
class PairsReport:
    """`usable` are left of the `pairs`, on so many `prompts`; `chosen` and `rejected` are tokens of their replies."""

    file: str
    pairs: int
    usable: int
    prompts: int
    chosen: list[int]
    rejected: list[int]
    findings: list[Finding]


def examine(files: Sequence[str], encoder: PromptEncoder, persona: str, most: int) -> PairsReport:
    """Everything found in files of pairs whose sides may take `most` tokens; raises `DataError` where none is read."""
    pairs, broken = _read(files)
    where = ", ".join(files)
    if not pairs:
        raise DataError(f"{where}: no pair can be read; the first says {broken[0]}")
    usable, left_out = review(pairs)
    findings = [Finding("error", f"{len(broken):,} pairs cannot be read", broken[:NAMED_ROWS])] if broken else []
    if long := [pair for pair in usable if _tokens(pair, encoder, persona) > most]:
        text = f"{len(long):,} pairs take more than {most:,} tokens with the persona, which train.prefer refuses"
        findings.append(Finding("error", text, _named(long)))
    findings += find_control_tokens([Row(((pair.user, pair.chosen),), where=pair.where) for pair in usable], encoder)
    findings += _split(usable)
    told = sentences(left_out, len(pairs))
    findings += [
        Finding("warning", sentence, _named(out)) for sentence, out in zip(told, left_out.values(), strict=True)
    ]
    findings += [Finding("warning", sentence, []) for sentence in one_sided(usable)]
    prompts = len(set(prompt_groups(usable))) if usable else 0
    chosen = [len(encoder.encode(pair.chosen)) for pair in usable]
    rejected = [len(encoder.encode(pair.rejected)) for pair in usable]
    return PairsReport(where, len(pairs), len(usable), prompts, chosen, rejected, findings)


def _read(files: Sequence[str]) -> tuple[list[Pair], list[str]]:
    """All pairs that can be read, and a sentence for each row that cannot."""
    pairs, broken = list[Pair](), list[str]()
    for file in files:
        for number, value in enumerate(load_json(file), 1):
            try:
                pairs.append(parse_pair(value, f"{file} row {number}"))
            except DataError as error:
                broken.append(str(error))
    return pairs, broken


def _tokens(pair: Pair, encoder: PromptEncoder, persona: str) -> int:
    """Tokens of the longer side without the turns before, which may be left out."""
    sides = (encoder.example(pair.persona or persona, [(pair.user, said)]) for said in (pair.chosen, pair.rejected))
    return max(len(side.input_ids) for side in sides)


def _split(pairs: Sequence[Pair]) -> list[Finding]:
    """What holding pairs out says, for which `train.prefer` may refuse them."""
    try:
        _, held = split_pairs(pairs, HELD_OUT, SEED)
    except DataError as error:
        return [Finding("error", f"train.prefer would refuse these pairs: {error}", [])]
    return [Finding("note", f"train.prefer would hold out {len(held):,} pairs, by prompt", [])]


def _named(pairs: Sequence[Pair]) -> list[str]:
    return [f"{pair.where}: {pair.user} → {pair.chosen} (not: {pair.rejected})" for pair in pairs[:NAMED_ROWS]]


def as_text(report: PairsReport) -> str:
    """The report for a terminal."""
    lines = [f"{report.file}: {report.pairs:,} pairs, {report.usable:,} usable, on {report.prompts:,} prompts"]
    for name, counts in (("chosen", report.chosen), ("rejected", report.rejected)):
        if counts:
            lines.append(f"{name + ' tokens':16}mean {mean(counts):.1f}, longest {max(counts):,}")
    for finding in report.findings:
        lines.append(f"{finding.level:16}{finding.text}")
        lines += [f"{'':16}  {' '.join(example.split()):.150}" for example in finding.examples]
    return "\n".join(lines)
