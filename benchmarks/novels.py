"""Count how often `dataset.build` tells the speaker of a novel's speech, on speeches that were labelled by reading.

    python -m benchmarks.novels
    python -m benchmarks.novels --wrong

It reads shared/data/novels and tests/dataset/novel_labels.json, which holds starts and names alone, and writes nothing.
The labels stand in lots, each drawn by lot and labelled before the builder was run on it. What it then told wrong was
looked at, so no lot is new to the rules any more. Precision is over the speeches that got a speaker, recall over
those whose speaker the text tells.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.rows import FOLDERS, public
from dataset.novel.speeches import NovelSpeech, read_novels
from roleplay.environment import ROOT
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse

LABELS = ROOT / "tests" / "dataset" / "novel_labels.json"


@dataclass(frozen=True)
class Flags:
    novels: str = flag(str(public("novels") or FOLDERS[-1] / "novels"), "the folder with the novels")
    min_confidence: float = flag(0.7, "how sure a speaker must be", within=(0, 1))
    wrong: bool = flag(False, "list what was told wrong or not at all")


@dataclass
class Count:
    """Speeches that got a speaker, that got the right one, and whose speaker can be told, found or not."""

    given: int = 0
    right: int = 0
    known: int = 0
    found: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def precision(self) -> float:
        return self.right / self.given

    @property
    def recall(self) -> float:
        return self.found / self.known

    def add(self, speech: NovelSpeech, label: str) -> None:
        known, hit = "" not in label.split("/"), same(speech.speaker, label)
        self.given += bool(speech.speaker)
        self.right += bool(speech.speaker) and hit
        self.known += known
        self.found += known and hit
        if not hit and (speech.speaker or known):
            self.wrong.append(f"{speech.chapter}: {speech.speaker or 'nobody'}, not {label}: {speech.text[:20]}")


def same(name: str, label: str) -> bool:
    """Whether a speaker is one of the labelled names, or a longer form of one; an empty name in a label is "nobody"."""
    return any(
        name == one or (name.lstrip("那这") == one != "") or (len(one) > 1 < len(name) and (one in name or name in one))
        for one in label.split("/")
    )


def measure(novel: Path, min_confidence: float = 0.7) -> dict[str, Count]:
    """The counts of each lot of labels of a novel, by the lot's name; raises `DataError` for a file that is no text."""
    speeches = read_novels([novel], {}, min_confidence)
    counts: dict[str, Count] = {}
    for lot, parts in json.loads(LABELS.read_text(encoding="utf-8"))[novel.name].items():
        count = counts.setdefault(lot, Count())
        for part in parts:
            chapter = iter([speech for speech in speeches if speech.chapter == part["chapter"]])
            for start, label in part["speeches"]:
                count.add(next(speech for speech in chapter if start in speech.text), label)
    return counts


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse(Flags, __doc__, argv)
    for novel in json.loads(LABELS.read_text(encoding="utf-8")):
        for lot, count in measure(Path(settings.novels) / novel, settings.min_confidence).items():
            shares = f"precision {count.precision:.1%}, recall {count.recall:.1%}"
            print(f"{novel}: {lot}: {count.known} speeches, {shares}")
            print("".join(f"    {line}\n" for line in count.wrong if settings.wrong), end="")


if __name__ == "__main__":
    with one_line_errors():
        main()
