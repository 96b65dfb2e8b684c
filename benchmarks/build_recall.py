"""Count how many rows of huanhuan.json `dataset.build` finds again in the screenplay that the set was made from.

    python -m benchmarks.build_recall

It reads shared/data, writes nothing, and exits with status 1 when fewer than 99 % are found.

A row stands in the files when its reply directly follows its line in them, once everything that is not dialogue is
taken away: headings, stage directions, speakers' names, space and punctuation. This is read straight from the text,
without the builder's parser. It is found when a built row of the character has the line in its `instruction` and the
reply in its `output`, and a scene id; a built row may hold more, since huanhuan.json cuts some lines at a colon. Rows
whose two texts occur in the files but apart are counted too: they are phrases such as 皇上万福金安 in other episodes.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rows import FOLDERS, public
from dataset.build import build
from dataset.screenplay import read_screenplays
from roleplay.errors import DataError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.rows import load_json

GOAL = 0.99
_DIRECTION = re.compile(r"（[^（）]*）")
_NOT_DIALOGUE = re.compile(r"^(?:第\S+[集幕]\S*$|[^：；，。！？]{1,12}，?[：；])", re.MULTILINE)


@dataclass(frozen=True)
class Flags:
    data: str = flag(
        str((public("screenplay") or FOLDERS[-1] / "screenplay").parent),
        "the folder with huanhuan.json and screenplay/*.txt",
    )
    missed: bool = flag(False, "list the rows that stand in the files and were not found")


@dataclass(frozen=True)
class Recall:
    """Counts of distinct rows: in the set, with both texts anywhere in the files, standing in them, found."""

    rows: int
    apart: int
    standing: int
    found: int
    exact: int  # found with both texts equal, not only contained
    missed: list[tuple[str, str]]

    @property
    def share(self) -> float:
        return self.found / self.standing


def bare(text: str) -> str:
    """Words only: no stage direction, space or punctuation."""
    return re.sub(r"[\W_]+", "", _DIRECTION.sub("", text))


def dialogue(text: str) -> str:
    """The bare dialogue of a script, one line after the other."""
    return bare(_NOT_DIALOGUE.sub("", _DIRECTION.sub("", text)))


def measure(data: Path, character: str = "甄嬛") -> Recall:
    """The builder's recall on the files under `data`; raises `DataError` when they are not there."""
    scripts = sorted((data / "screenplay").glob("*.txt"))
    if not scripts:
        raise DataError(f"{data}/screenplay has no scripts; give the folder with --data")
    text = "\n".join(dialogue(script.read_text(encoding="utf-8")) for script in scripts)
    pairs = {(bare(row["instruction"]), bare(row["output"])) for row in load_json(data / "huanhuan.json")}
    standing = sorted((line, reply) for line, reply in pairs if line + reply in text)
    rows = build(read_screenplays(scripts), [character])
    built = {(bare(row["instruction"]), bare(row["output"])) for row in rows if row["scene"]}
    missed = [(a, b) for a, b in standing if not any(a in line and b in reply for line, reply in built)]
    apart = sum(line in text and reply in text for line, reply in pairs)
    exact = sum(pair in built for pair in standing)
    return Recall(len(pairs), apart, len(standing), len(standing) - len(missed), exact, missed)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse(Flags, __doc__, argv)
    recall = measure(Path(settings.data))
    print(f"{recall.rows:6,} distinct rows in {Path(settings.data) / 'huanhuan.json'}")
    print(f"{recall.apart:6,} of them with both texts somewhere in the files")
    print(f"{recall.standing:6,} of them standing in the files, the reply right after the line")
    print(
        f"{recall.found:6,} of these found, each with a scene id: {recall.share:.1%} ({recall.exact:,} word for word)"
    )
    if settings.missed:
        print("\n".join(f"       {line} / {reply}" for line, reply in recall.missed))
    if recall.share < GOAL:
        sys.exit(1)


if __name__ == "__main__":
    with one_line_errors():
        main()
