"""The reading sheet as files, and the way back from readers' marks to an adapter's scoreboard.

sheet.html opens offline and saves a reader's marks; sheet.txt holds the same for those who read without a browser.
Which conversation is whose stands in sheet.key.json, which no reader opens.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from roleplay.disk import read_json, write_json, write_text
from roleplay.errors import DataError, RoleplayError
from roleplay.results import board as scoreboard
from roleplay.results import reading
from roleplay.results.board import ARMS, WRITTEN, aligned
from roleplay.templates import template
from roleplay.text.rows import file_sha256
from roleplay.weights import layout
from train.measuring import marks
from train.measuring import sheet as contents
from train.measuring.replies import Writer
from train.measuring.sheet import Prompt, Talk
from train.measuring.subject import Subject
from train.publishing import card

TEXT, KEY = ".txt", ".key.json"
NEARLY_FULL = 1.8  # a mean mark of the written conversations from which reader and rubric are believed


def write_sheet(path: Path, subjects: Sequence[Subject], prompts: Sequence[Prompt], writer: Writer) -> None:
    """Let every arm answer the prompts, and write the sheet, its text and its key.

    Raises `RoleplayError` where a key is there already, since the marks of its readers would be worth nothing without
    it, and where the disk does not take the files.
    """
    check_new(path)
    scenes = subjects[0].scenes
    asked = contents.fitting(prompts, 1 + len(subjects), len(scenes))
    if len(asked) < len(prompts):
        few = f"{len(scenes)} independent held-out rows; with more, less than a quarter of the sheet would be written"
        print(f"asked        {len(asked)} of {len(prompts)} prompts: there are {few}")
    messages = sum(len(prompt.turns) for prompt in asked)
    with tqdm(total=(1 + len(subjects)) * messages, unit="reply") as bar:
        answered = contents.answer(subjects, asked, writer, bar.update)
    talks = contents.shuffle([*answered, *contents.pick_written(scenes, answered)])
    adapter = subjects[0].adapter
    values = {
        "sheet": hashlib.sha256("".join(talk.id for talk in talks).encode()).hexdigest()[:8],
        "name": adapter.training.get("persona", {}).get("name", "the character"),
        "persona": adapter.persona,
        "talks": talks,
        "rubric": marks.RUBRIC,
        "how": marks.HOW,
    }
    for file, name in ((path, "sheet.html.jinja"), (path.with_suffix(TEXT), "sheet.txt.jinja")):
        write_text(file, template(__file__, name, {}).render(values))
    write_json(path.with_suffix(KEY), _key(talks, subjects))
    print(f"wrote {path} with {len(talks)} conversations, the same as {path.with_suffix(TEXT).name}, and")
    print(f"{path.with_suffix(KEY).name}, which says whose they are and is not for the readers")


def check_new(path: Path) -> None:
    """Raises `RoleplayError` for a name but *.html, and where a sheet of this name was written before."""
    if path.suffix != ".html":
        raise RoleplayError(f"the sheet {str(path)!r} is a page: give it a name that ends in .html")
    if path.with_suffix(KEY).exists():
        raise RoleplayError(f"{path.with_suffix(KEY)} is there already: choose another name, or remove it")


def _key(talks: Sequence[Talk], subjects: Sequence[Subject]) -> dict[str, Any]:
    folders = {subject.adapter.name: subject.adapter.folder for subject in subjects}
    return {
        "adapters": {
            name: {"folder": str(folder.resolve()), "sha256": file_sha256(folder / layout.WEIGHTS)}
            for name, folder in folders.items()
        },
        "conversations": {talk.id: asdict(marks.Source(talk.arm, talk.language, talk.adapter)) for talk in talks},
    }


def enter_marks(path: Path, scores: Sequence[str]) -> list[dict[str, Any]]:
    """Print what the readers of a sheet found, and enter it into the scoreboard of each of its adapters.

    Returns the readings in the order of the adapters. Raises `DataError` for files that do not belong together, and
    for an adapter that was trained anew since.
    """
    if not path.name:
        raise RoleplayError("--scores wants the --sheet that was read beside it")
    key = path.with_suffix(KEY)
    try:
        value = read_json(key, "not the key of a sheet", "give the --sheet that the readers had")
        sources = {id: marks.Source(**source) for id, source in value["conversations"].items()}
        adapters = {name: (Path(own["folder"]), str(own["sha256"])) for name, own in value["adapters"].items()}
        if unknown := sorted({source.arm for source in sources.values()} - set(ARMS)):
            raise ValueError(f"{unknown[0]!r:.40} is unknown")
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{key}: not the key of a sheet ({error!r:.80}); write the sheet again") from error
    readings = [marks.load_reading(Path(file), sources) for file in scores]
    if len({reading.reader for reading in readings}) < len(readings):
        raise DataError(f"two of {', '.join(scores)} are of the same reader: agreement wants two")
    for own in readings:
        print(f"{own.reader}: {len(own.marks)} of {len(sources)} conversations read")
    found = []
    for name, (folder, sha256) in adapters.items():
        found.append(marks.summarise(readings, sources, name))
        print(f"\n{name}, 95 % intervals\n{show(found[-1])}")
        _enter(folder, sha256, found[-1])
    return found


def show(found: dict[str, Any]) -> str:
    """A reading as text for a terminal, with a warning where its readers did not know good replies."""
    lines = aligned([row[:-1] for row in reading.table(found)])
    written = found["arms"].get(WRITTEN, {}).get("all", {})
    low = [name for name in ("sense", "answers") if written and written[name]["value"] < NEARLY_FULL]
    doubt = [f"The written replies should come near 2 for {' and '.join(low)}: doubt the readers."] if low else []
    return "\n".join([*lines, "", *reading.sentences(found), *doubt])


def _enter(folder: Path, sha256: str, found: dict[str, Any]) -> None:
    """Put a reading into an adapter's scoreboard.json and its card."""
    path = folder / layout.BOARD
    if not (folder / layout.WEIGHTS).is_file() or file_sha256(folder / layout.WEIGHTS) != sha256:
        raise DataError(f"{folder}: not the adapter that was read, which was moved or trained anew; write a new sheet")
    if not path.is_file():
        print(f"not entered: measure {folder.name} with train.evaluate first, then give the scores again")
        return
    write_json(path, {**scoreboard.read(path), "reading": found})
    print(f"entered into {path} and {card.write_card(folder).name}")


def keep_reading(folder: Path, board: dict[str, Any]) -> dict[str, Any]:
    """A new board with the reading of the old one, where it is of the same weights."""
    try:
        old = read_json(folder / layout.BOARD)
        return {**board, "reading": old["reading"]} if old["weights"] == board["weights"] else board
    except (DataError, LookupError, TypeError):  # never read, or not by this program
        return board
