"""Know whether a training worked: an adapter against its base model, every figure with its 95 % interval.

    python -m train.evaluate
    python -m train.evaluate --adapter adapters/zhenhuan-gemma3-270m adapters/mine --json boards.json
    python -m train.evaluate --sections choice facts recall              # does she answer what she was asked?
    python -m train.evaluate --sections loss replies --no-retrieval      # three arms, and no written lists
    python -m train.evaluate --sheet sheet.html                          # replies for people to read blind
    python -m train.evaluate --sheet sheet.html --scores ann.json bo.json

The arms are the base model without and with the persona, the base model with the persona and the four nearest
training rows as example turns (retrieval), and the adapter. It is judged by the lists of the character that it was
trained as (dataset/NAME/); what that character lacks is skipped. It prints a table, and writes scoreboard.json,
scoreboard.png and a new card into the adapter's folder, unless a scoreboard of it there has more figures. A base model
seldom stops, so base arms get --base-tokens and the adapter gets the page's 256; "stop rate" counts the shorter length
for all of them. A base model gives the same replies in every evaluation on one machine with as many threads.
With --sheet nothing is measured: readers who don't know whose replies they read mark them, and --scores reads that.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from tqdm import tqdm

from roleplay.disk import check_writable, write_json
from roleplay.environment import ROOT, Environment
from roleplay.errors import DataError, RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.results import board as scoreboard
from roleplay.results.board import BARE_BASE, BASE_WITH_PERSONA, BASE_WITH_ROWS, TUNED, aligned, table, verdicts
from roleplay.text import splits
from roleplay.text.characters import Character, load_character, trained_as
from roleplay.text.known import every_turn
from roleplay.text.prompts import PromptEncoder
from roleplay.text.retrieval import Retriever, RetrievingEncoder
from roleplay.text.rows import file_sha256
from roleplay.weights import base_models, inspection, layout
from roleplay.weights.adapters import Adapter
from roleplay.weights.training_rows import rows_of
from train.measuring.figures import Board
from train.measuring.losses import Losses
from train.measuring.progress import Progress, Work
from train.measuring.replies import Writer
from train.measuring.rules import NO_LISTS
from train.measuring.sections import SECTIONS
from train.measuring.sheet import Prompt, load_prompts
from train.measuring.subject import Bench, Subject
from train.measuring.written import Written, load_written
from train.publishing import card, plots, sheet

RECORDED = ("prompts", "base_tokens", "choice_rows", "considered")  # settings that a scoreboard names
BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"


@dataclass(frozen=True)
class EvaluationFlags:
    adapter: list[str] = flag([str(ROOT / "adapters" / "zhenhuan-gemma3-270m")], "adapter folders to measure")
    base_model: str = flag("", "the base model they were trained on; chosen by the device where none is given")
    data: list[str] = flag([], "files with the held-out rows; those of the adapter's training where none is given")
    character: str = flag(
        "", "whose lists judge: a folder under dataset/, or a path; by default whom it was trained as"
    )
    lists: str = flag("", "questions, attempts and rules, in place of the character's lists.json")
    facts: str = flag("", "questions about her life with four answers each, in place of the character's facts.json")
    recall: str = flag("", "conversations that ask for what was said, in place of the character's recall.json")
    sections: list[str] = flag(list(SECTIONS), "what to measure; fewer take less time")
    retrieval: bool = flag(True, "measure the base model with retrieved rows as well")
    prompts: int = flag(32, "held-out rows, each from another scene, that every arm answers; more narrow the intervals")
    choice_rows: int = flag(
        200, "held-out rows with ten replies to choose from; more narrow the interval", within=(1, inf)
    )
    base_tokens: int = flag(
        64, "length of a base model's reply; more take longer, for it seldom stops", within=(1, inf)
    )
    considered: bool = flag(
        False, "measure the best of eight replies, as the page's preset; the scoreboard stays as it is"
    )
    json: str = flag("", "file to write all boards to, as one list")
    sheet: str = flag("", "write a sheet for blind readers to this file (sheet.html) instead of measuring")
    sheet_prompts: str = flag("", "what visitors ask on the sheet, in place of the character's sheet.json")
    scores: list[str] = flag([], "what readers of --sheet saved; it goes into the scoreboards of its adapters")


def prepare(adapter: Adapter, own: PromptEncoder, settings: EvaluationFlags) -> tuple[Subject, list[dict[str, Any]]]:
    """Split the rows as the training did, and say which files they are from; `own` encodes for the adapter.

    Raises `DataError` for too few of them.
    """
    trained, held_out, files = rows_of(adapter, settings.data)
    groups = [0] * len(held_out)
    for number, group in enumerate(splits.situations(held_out)):
        for i in group:
            groups[i] = number
    if len(set(groups)) < 2:
        raise DataError(f"{files[0]['file']}: the held-out rows are of one scene; an interval needs two scenes or more")
    arms = (
        (BARE_BASE, BASE_WITH_PERSONA, BASE_WITH_ROWS, TUNED)
        if settings.retrieval
        else (BARE_BASE, BASE_WITH_PERSONA, TUNED)
    )
    encoder = PromptEncoder(own.tokenizer, adapter.template)
    retriever = own.retriever if isinstance(own, RetrievingEncoder) else Retriever(every_turn(trained))
    shown = retriever, encoder, own, settings.considered
    return Subject(adapter, arms, settings.base_tokens, held_out, groups, trained, *shown), files


def character_of(adapter: Adapter, settings: EvaluationFlags) -> Character | None:
    return load_character(settings.character) if settings.character else trained_as(adapter.training)


def visitors(adapter: Adapter, settings: EvaluationFlags) -> list[Prompt]:
    """What is asked on a sheet; raises `RoleplayError` where there is nothing to ask, or the sheet cannot be new."""
    sheet.check_new(Path(settings.sheet))
    character = character_of(adapter, settings)
    if file := settings.sheet_prompts or (character and character.sheet):
        return load_prompts(Path(file))
    raise RoleplayError(f"{adapter.name}: its character has no sheet.json; say what to ask with --sheet-prompts")


def judge(adapter: Adapter, settings: EvaluationFlags) -> tuple[str, Written]:
    """Whom an adapter is judged as, "" for none in dataset/, and what was written for that character.

    Raises `DataError` for a character or a file that is asked for and cannot be read.
    """
    character = character_of(adapter, settings)
    print(f"judged as    {character.name if character else 'no character of dataset/'}: {adapter.name}")
    own = (character.lists, character.facts, character.recall) if character else (None, None, None)
    named = (Path(file) if file else None for file in (settings.lists, settings.facts, settings.recall))
    return character.name if character else "", load_written(*(a or b for a, b in zip(named, own, strict=True)))


def plan(bench: Bench, names: Sequence[str]) -> dict[str, dict[str, Work]]:
    """The sections that have something to measure, each with its work; a sentence says which are skipped, and why."""
    planned = {name: work for name in names if (work := SECTIONS[name].plan(bench))}
    for needs in dict.fromkeys(SECTIONS[name].needs for name in names if name not in planned):
        skipped = ", ".join(name for name in names if name not in planned and SECTIONS[name].needs == needs)
        print(f"skipped      {skipped} of {bench.subject.adapter.name}: there is no {needs}")
    return planned


def measure(bench: Bench, planned: dict[str, dict[str, Work]], settings: EvaluationFlags) -> dict[str, Any]:
    """One adapter's board: the sections that are planned, and how they were measured."""
    subject, board, readable = bench.subject, Board(), dict[str, Any]()
    for name, work in planned.items():
        bench.progress.begin(f"{subject.adapter.name}, {name}", work)
        if told := SECTIONS[name].enter(bench, board):
            readable[name] = told
    return {
        **board.as_json(),
        "rule": f"The first single-turn rows among {len(bench.rows)} held-out rows, each from another scene, in the "
        f"order of the file, at the page's {'considered' if settings.considered else 'default'} sampling; "
        "the base model has the persona and "
        f"{settings.base_tokens} tokens.",
        "held_out": {
            "rows": len(subject.held_out),
            "groups": len(set(subject.groups)),
            "answered": len(bench.rows),
        },
        **rules(bench),
        "settings": {key: value for key, value in asdict(settings).items() if key in RECORDED},
        "replies": readable,
    }


def rules(bench: Bench) -> dict[str, Any]:
    """How far the rules err: on replies labelled by hand, and on the replies of the held-out rows."""
    if bench.lists == NO_LISTS:
        return {}
    references = [(row.turns[-1][0], row.turns[-1][1]) for row in bench.subject.held_out]
    blamed = sum(bool(bench.lists.fault(*turn)) for turn in references)
    return {"rules": asdict(bench.lists.check_rules()) | {"references": len(references), "blamed": blamed}}


def show(board: dict[str, Any]) -> str:
    """A board as text for a terminal."""
    held_out = board["held_out"]
    lines = [f"{board['adapter']}: {held_out['rows']} held-out rows of {held_out['groups']} scenes, 95 % intervals"]
    for part, title in (("arms", ""), ("differences", "\nThe adapter less:")):
        lines += [title] if title else []
        lines += aligned([row[:-1] for row in table(board, part)])
    return "\n".join([*lines, "", *verdicts(board)])


def evaluate(settings: EvaluationFlags) -> list[dict[str, Any]]:
    """Measure every adapter and write what is to be written; raises `RoleplayError` for anything a user can mend."""
    if unknown := sorted(set(settings.sections) - set(SECTIONS)):
        raise RoleplayError(f"unknown section {unknown[0]!r}: choose from {', '.join(SECTIONS)}")
    if settings.prompts < 2:
        raise RoleplayError(f"prompts is {settings.prompts}: an interval needs 2 or more")
    if settings.scores:
        return sheet.enter_marks(Path(settings.sheet), settings.scores)
    for file in (settings.json, settings.sheet):
        if file:
            check_writable(Path(file).parent)
    environment = Environment()
    loaded = [inspection.inspect(Path(folder)) for folder in settings.adapter]
    if len({adapter.name for adapter in loaded}) < len(loaded):
        raise RoleplayError(f"two of {', '.join(settings.adapter)} have the same name: rename a folder")
    asked = visitors(loaded[0], settings) if settings.sheet else []
    judges = [judge(adapter, settings) for adapter in loaded]
    base = base_models.load(settings.base_model or environment.base_model, environment.cache)
    print(*base.describe(), sep="\n")
    fingerprint = base_models.fingerprint(base.model)
    writer = Writer(base, loaded, fingerprint)
    prepared = [prepare(adapter, writer.encoders[adapter.name], settings) for adapter in loaded]
    if settings.sheet:
        sheet.write_sheet(Path(settings.sheet), [subject for subject, _ in prepared], asked, writer)
        return []
    losses = Losses(base, loaded)

    boards = []
    with tqdm(bar_format=BAR, smoothing=0) as bar:
        progress = Progress(lambda cost: bar.update(min(cost, bar.total - bar.n)), bar.set_description)  # rounding
        shared = (writer, losses, progress, settings.choice_rows)
        benches = [
            Bench(subject, subject.prompts(settings.prompts), written, *shared)
            for (subject, _), (_, written) in zip(prepared, judges, strict=True)
        ]
        plans = [plan(bench, settings.sections) for bench in benches]
        bar.reset(sum(work.cost for planned in plans for arms in planned.values() for work in arms.values()))
        for bench, planned, (_, files), (character, _) in zip(benches, plans, prepared, judges, strict=True):
            adapter = bench.subject.adapter
            made_of = {
                "base_model": {"fingerprint": fingerprint, "dtype": base.dtype[0]},
                "weights": {"sha256": file_sha256(adapter.folder / layout.WEIGHTS)},
                "data": files,
                "character": character,
            }
            boards.append({"adapter": adapter.name, **made_of, **measure(bench, planned, settings)})
    for board in boards:
        print(f"\n{show(board)}")
    if settings.json:
        write_json(Path(settings.json), boards)
    for adapter, board in zip(loaded, boards, strict=True):
        if not settings.considered:
            write_board(adapter.folder, board)
    return boards


def figures_lost(folder: Path, board: dict[str, Any]) -> int:
    """How many figures of an adapter's scoreboard, if that is of the same weights, a new one lacks."""
    try:
        old = scoreboard.read(folder / layout.BOARD)
    except DataError:
        return 0  # none yet, or not one that this program reads
    had, has = ({(arm, name) for arm, values in own["arms"].items() for name in values} for own in (old, board))
    return len(had - has) if old.get("weights") == board["weights"] else 0


def write_board(folder: Path, board: dict[str, Any]) -> None:
    """Everything in an adapter's folder that tells of its figures; a fuller scoreboard of the same weights is kept."""
    if lost := figures_lost(folder, board):
        print(f"kept {folder / layout.BOARD}: it has {lost} figures that were not measured now")
        return
    write_json(folder / layout.BOARD, sheet.keep_reading(folder, board))
    plots.scoreboard(board, folder / layout.BOARD_PLOT)
    print(f"wrote {folder / layout.BOARD}, {layout.BOARD_PLOT} and {card.write_card(folder).name}")


def main() -> None:
    settings = parse(EvaluationFlags, __doc__)
    with one_line_errors():
        evaluate(settings)


if __name__ == "__main__":
    main()
