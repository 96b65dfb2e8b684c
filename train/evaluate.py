"""Know whether a training worked: an adapter against its base model, every figure with its 95 % interval.

    python -m train.evaluate
    python -m train.evaluate --adapter adapters/zhenhuan-gemma3-270m adapters/mine --json boards.json
    python -m train.evaluate --sections loss replies --no-retrieval      # three arms, and no written lists

The arms are the base model without and with the persona, the base model with the persona and the three nearest
training rows as example turns (retrieval), and the adapter. It prints a table; when every section was measured it also
writes scoreboard.json, scoreboard.png and a new card into the adapter's folder. A base model seldom stops, so base
arms get --base-tokens and the adapter gets the page's 256; "stop rate" counts the shorter length for all of them.
"""

from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from tqdm import tqdm

from roleplay.disk import write_json
from roleplay.environment import ROOT, Environment
from roleplay.errors import DataError, RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.results.board import BARE_BASE, BASE_WITH_PERSONA, BASE_WITH_ROWS, TUNED, table, verdicts
from roleplay.text import splits
from roleplay.text.prompts import PromptEncoder
from roleplay.text.retrieval import Retriever
from roleplay.text.rows import file_sha256
from roleplay.weights import base_models, inspection, layout
from roleplay.weights.adapters import Adapter
from roleplay.weights.training_rows import rows_of
from train.measuring.figures import Board
from train.measuring.losses import Losses
from train.measuring.replies import Writer
from train.measuring.rules import load_lists
from train.measuring.sections import SECTIONS, write_all
from train.measuring.sheet import load_prompts
from train.measuring.subject import Bench, Subject
from train.publishing import card, plots, sheet


@dataclass(frozen=True)
class EvaluationFlags:
    adapter: list[str] = flag([str(ROOT / "adapters" / "zhenhuan-gemma3-270m")], "adapter folders to measure")
    base_model: str = flag("", "the base model they were trained on; chosen by the device where none is given")
    data: list[str] = flag([], "files with the held-out rows; those of the adapter's training where none is given")
    lists: str = flag(str(ROOT / "dataset" / "eval_lists.json"), "questions, attempts and rules, written for Zhen Huan")
    sections: list[str] = flag(list(SECTIONS), "what to measure; fewer take less time")
    retrieval: bool = flag(True, "measure the base model with retrieved rows as well")
    prompts: int = flag(32, "held-out rows, each from another scene, that every arm answers; more narrow the intervals")
    base_tokens: int = flag(
        64, "length of a base model's reply; more take longer, for it seldom stops", within=(1, inf)
    )
    json: str = flag("", "file to write all boards to, as one list")
    sheet: str = flag("", "write a sheet for blind readers to this file (sheet.html) instead of measuring")
    sheet_prompts: str = flag(str(ROOT / "dataset" / "zhenhuan" / "sheet.json"), "what the arms answer on the sheet")
    scores: list[str] = flag([], "what readers of --sheet saved; it goes into the scoreboards of its adapters")


def prepare(
    adapter: Adapter, base: base_models.BaseModel, settings: EvaluationFlags
) -> tuple[Subject, list[dict[str, Any]]]:
    """Split the rows as the training did, and say which files they are from; raises `DataError` for too few of them."""
    trained, held_out, files = rows_of(adapter, settings.data)
    groups = [0] * len(held_out)
    for number, group in enumerate(splits.groups(held_out)):
        for i in group:
            groups[i] = number
    if len(set(groups)) < 2:
        raise DataError(f"{files[0]['file']}: the held-out rows are of one scene; an interval needs two scenes or more")
    arms = (
        (BARE_BASE, BASE_WITH_PERSONA, BASE_WITH_ROWS, TUNED)
        if settings.retrieval
        else (BARE_BASE, BASE_WITH_PERSONA, TUNED)
    )
    encoder = PromptEncoder(base.tokenizer, adapter.template)
    return Subject(adapter, arms, settings.base_tokens, held_out, groups, trained, Retriever(trained), encoder), files


def measure(bench: Bench, settings: EvaluationFlags, bar: tqdm) -> dict[str, Any]:
    """One adapter's board: the asked sections, and how they were measured."""
    subject, board, readable = bench.subject, Board(), dict[str, Any]()
    bar.set_description(f"{subject.adapter.name}, replies")
    write_all(bench, settings.sections)
    for name in settings.sections:
        bar.set_description(f"{subject.adapter.name}, {name}")
        if told := SECTIONS[name].enter(bench, board):
            readable[name] = told
    references = [(row.turns[-1][0], row.turns[-1][1]) for row in subject.held_out]
    return {
        **board.as_json(),
        "rule": f"The first single-turn rows among {len(bench.rows)} held-out rows, each from another scene, in the "
        "order of the file, at the page's default sampling; the base model has the persona and "
        f"{settings.base_tokens} tokens.",
        "held_out": {
            "rows": len(subject.held_out),
            "groups": len(set(subject.groups)),
            "answered": len(bench.rows),
        },
        "rules": asdict(bench.lists.check_rules())
        | {"references": len(references), "blamed": sum(bool(bench.lists.fault(*turn)) for turn in references)},
        "settings": {key: value for key, value in asdict(settings).items() if key in ("prompts", "base_tokens")},
        "replies": readable,
    }


def show(board: dict[str, Any]) -> str:
    """A board as text for a terminal."""
    held_out = board["held_out"]
    lines = [f"{board['adapter']}: {held_out['rows']} held-out rows of {held_out['groups']} scenes, 95 % intervals"]
    for part, title in (("arms", ""), ("differences", "\nThe adapter less:")):
        rows = [row[:-1] for row in table(board, part)]
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        lines += [title] if title else []
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
    return "\n".join([*lines, "", *verdicts(board)])


def evaluate(settings: EvaluationFlags) -> list[dict[str, Any]]:
    """Measure every adapter and write what is to be written; raises `RoleplayError` for anything a user can mend."""
    if unknown := sorted(set(settings.sections) - set(SECTIONS)):
        raise RoleplayError(f"unknown section {unknown[0]!r}: choose from {', '.join(SECTIONS)}")
    if settings.prompts < 2:
        raise RoleplayError(f"prompts is {settings.prompts}: an interval needs 2 or more")
    if settings.scores:
        return sheet.enter_marks(Path(settings.sheet), settings.scores)
    if settings.sheet:
        sheet.check_new(Path(settings.sheet))
    asked = load_prompts(Path(settings.sheet_prompts)) if settings.sheet else []
    environment = Environment()
    lists = load_lists(Path(settings.lists))
    loaded = [inspection.inspect(Path(folder)) for folder in settings.adapter]
    if len({adapter.name for adapter in loaded}) < len(loaded):
        raise RoleplayError(f"two of {', '.join(settings.adapter)} have the same name: rename a folder")
    base = base_models.load(settings.base_model or environment.base_model, environment.cache)
    print(*base.describe(), sep="\n")
    fingerprint = base_models.fingerprint(base.model)
    prepared = [prepare(adapter, base, settings) for adapter in loaded]
    writer = Writer(base, loaded, fingerprint)
    if settings.sheet:
        sheet.write_sheet(Path(settings.sheet), [subject for subject, _ in prepared], asked, writer)
        return []
    losses = Losses(base, loaded)

    boards = []
    with tqdm(unit="item") as bar:
        benches = [
            Bench(subject, subject.prompts(settings.prompts), lists, writer, losses, bar.update)
            for subject, _ in prepared
        ]
        bar.reset(sum(SECTIONS[name].items(bench) for bench in benches for name in settings.sections))
        for bench, (subject, files) in zip(benches, prepared, strict=True):
            board = measure(bench, settings, bar)
            weights = {"sha256": file_sha256(subject.adapter.folder / layout.WEIGHTS)}
            made_of = {"base_model": {"fingerprint": fingerprint}, "weights": weights, "data": files}
            boards.append({"adapter": subject.adapter.name, **made_of, **board})
    for (subject, _), board in zip(prepared, boards, strict=True):
        print(f"\n{show(board)}")
        if set(settings.sections) == set(SECTIONS):
            write_board(subject.adapter.folder, board)
    if settings.json:
        write_json(Path(settings.json), boards)
    return boards


def write_board(folder: Path, board: dict[str, Any]) -> None:
    """Everything in an adapter's folder that tells of its figures."""
    write_json(folder / layout.BOARD, sheet.keep_reading(folder, board))
    plots.scoreboard(board, folder / layout.BOARD_PLOT)
    print(f"wrote {folder / layout.BOARD}, {layout.BOARD_PLOT} and {card.write_card(folder).name}")


def main() -> None:
    settings = parse(EvaluationFlags, __doc__)
    with one_line_errors():
        evaluate(settings)


if __name__ == "__main__":
    main()
