"""Screenplays to scenes of speeches, in two notations: `Name: line` with scene headings, and Fountain.

A labelled line is `name：line`, `name（direction）：line` or `Name (direction): line`; a heading is `第N幕` (or 场, 景,
集, 回, 折), `Scene N`, `Act N` or `Episode N`. Fountain is told by the ending `.fountain` or by its INT. and EXT.
headings (https://fountain.io/syntax). Nothing here knows rows, a character or a model.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roleplay.text.reading.decoding import lines_of, read_text

SOMEBODY = "?"  # the speaker of a speech that cannot be told
_BRACKETED = r"[（(【\[][^（(【\[）)】\]]*[）)】\]]"
_CONTINUED = re.compile(r"续|\bcont", re.IGNORECASE)
_HEADING = re.compile(
    r"#*\s*(第\s*[\d〇零一二两三四五六七八九十百千]+\s*[幕场景集回折]|(?:scene|act|episode)\s+\w+)\b(.*)", re.IGNORECASE
)
_LABEL = re.compile(rf"([^\W\d_][\w .·・'’、&/-]{{0,29}}?)\s*((?:{_BRACKETED}\s*)*)[，,]?\s*([：；]|:(?!//))\s*(.*)")
_BOLD = re.compile(
    r"^\s*(?:[-+*>]\s+)?(\*{1,3}|__?)(?:([^*_]+?[:：])\s*\1|([^*_]+?)\s*\1(?=\s*[（(:：]))"
)  # **Name**: **Name:**
_VOICE = re.compile(r"^<v(?:\.\S+)?\s+([^>\n]+)>(.*?)(?:</v>)?$", re.MULTILINE)  # of a subtitle
_QUOTED = re.compile(r"“([^“”]*)”|「([^「」]*)」|\"([^\"]*)\"")
_TIMES = re.compile(  # number and times of a subtitle
    r"^(?:\d+[ \t]*\r?\n)?(?:\d+:)?\d\d:\d\d[,.]\d{3}[ \t]*-->.*$|\AWEBVTT.*$", re.MULTILINE
)
_FOUNTAIN_HEADING = re.compile(r"\.(?=[^.])|(?:INT|EXT|EST|INT\.?/EXT|I/E)[. ]", re.IGNORECASE)
_FOUNTAIN_MARK = re.compile(r"^(INT|EXT|EST|INT\.?/EXT|I/E)\. ", re.MULTILINE)
_FOUNTAIN_ASIDE = re.compile(r"/\*.*?\*/|\[\[.*?\]\]", re.DOTALL)


@dataclass(frozen=True)
class Speech:
    """What one speaker says in adjacent lines, directions in brackets; no speaker: a direction on its own line."""

    speaker: str
    text: str
    lines: int = 1

    @property
    def spoken(self) -> str:
        """The text without its stage directions."""
        return without_directions(self.text) if self.speaker else ""


@dataclass
class Scene:
    id: str
    speeches: list[Speech] = field(default_factory=list)


@dataclass
class Screenplay:
    """Scenes in order, their ids unique, and the lines that neither a speaker nor brackets account for."""

    scenes: list[Scene]
    unlabelled: list[str]  # "file.txt line 7: the text"
    notes: list[str] = field(default_factory=list)  # on how the files were read

    def cast(self) -> Counter[str]:
        """How many lines each speaker has."""
        lines: Counter[str] = Counter()
        for scene in self.scenes:
            for speech in scene.speeches:
                if speech.speaker not in ("", SOMEBODY):
                    lines[speech.speaker] += speech.lines
        return lines


def without_directions(text: str) -> str:
    """`text` without what stands in brackets, nested ones included."""
    while (shorter := re.sub(_BRACKETED, "", text)) != text:
        text = shorter
    return re.sub(r"[ \t]{2,}", " ", text).strip()


def join_texts(left: str, right: str) -> str:
    """Two texts of one speaker as one: with a space, except after a wide (Chinese, Japanese, Korean) character."""
    return left + ("" if not left or left[-1] > "\u2e7f" else " ") + right


def read_screenplays(paths: Sequence[str | Path]) -> Screenplay:
    """The files as one screenplay, in the order given; raises `DataError` for one that is missing or is no text.

    A heading that says it is continued (续, CONT'D) resumes its scene, across files too. Any other heading that
    comes again opens a new scene and is numbered: `第1幕`, `第1幕 #2`.
    """
    book = _Book()
    for path in map(Path, paths):
        text, note = read_text(path)
        book.notes += [f"{path}: {note}"] if note else []
        text = _VOICE.sub(r"\1: \2", _TIMES.sub(lambda found: "\n" * found[0].count("\n"), text))
        book.open(path.stem)
        if path.suffix == ".fountain" or _FOUNTAIN_MARK.search(text):
            _read_fountain(text, book)
        else:
            _read_labelled(text, path, book)
    return Screenplay([scene for scene in book.scenes if scene.speeches], book.unlabelled, book.notes)


class _Book:
    """The scenes so far; lines are added to the one that was opened last."""

    def __init__(self) -> None:
        self.scenes: list[Scene] = []
        self.unlabelled: list[str] = []
        self.notes: list[str] = []
        self._seen: Counter[str] = Counter()
        self._latest: dict[str, Scene] = {}

    def open(self, name: str, continued: bool = False) -> None:
        if not (continued and name in self._latest):
            self._seen[name] += 1
            number = self._seen[name]
            self._latest[name] = Scene(name if number == 1 else f"{name} #{number}")
            self.scenes.append(self._latest[name])
        self._current = self._latest[name]

    def add(self, speaker: str, text: str) -> None:
        speeches = self._current.speeches
        if speaker and speeches and speeches[-1].speaker == speaker:
            last = speeches[-1]
            speeches[-1] = Speech(speaker, join_texts(last.text, text), last.lines + 1)
        else:
            speeches.append(Speech(speaker, text))

    def extend(self, text: str) -> None:
        """The last speech goes on in another line of the file."""
        last = self._current.speeches.pop()
        self._current.speeches.append(Speech(last.speaker, join_texts(last.text, text), last.lines))


def _labels(lines: Sequence[str]) -> Iterator[re.Match[str] | None]:
    """The label of each line, if any; `；` for `：` is taken as a slip where the name is known from other lines."""
    found = [_LABEL.fullmatch(line.strip()) for line in lines]
    known = {label[1] for label in found if label and label[3] != "；"}
    for label in found:
        yield label if label and label[1] in known else None


def _read_labelled(text: str, path: Path, book: _Book) -> None:
    lines = [_BOLD.sub(r"\2\3", line) for line in lines_of(text)]
    in_speech = False  # only a line right below a speech can continue it
    for number, (line, label) in enumerate(zip(lines, _labels(lines), strict=True), 1):
        bare = line.strip()
        if heading := _HEADING.fullmatch(bare):
            book.open(re.sub(r"\s+", " ", heading[1]), bool(_CONTINUED.search(heading[2])))
            in_speech = False
        elif label:
            quoted = _QUOTED.fullmatch(label[4].strip())
            book.add(label[1].strip(), label[2].strip() + (quoted[quoted.lastindex or 0] if quoted else label[4]))
            in_speech = True
        elif not bare:
            in_speech = False
        elif in_speech and line[0] in " \t\u3000":
            book.extend(bare)
        else:
            book.add("", bare)
            in_speech = False
            if without_directions(bare):
                book.unlabelled.append(f"{path} line {number}: {bare}")


def _is_cue(line: str, before: str, after: str) -> bool:
    """Whether a Fountain line names who speaks next: `@Name`, or capitals between an empty line and a full one."""
    name = without_directions(line.rstrip(" ^"))
    shouted = name == name.upper() and re.search(r"[^\W\d_]", name) is not None and name.lower() != name
    return not before and bool(after) and (line.startswith("@") or (shouted and not line.startswith((">", "!", "."))))


def _read_fountain(text: str, book: _Book) -> None:
    lines = [line.strip() for line in lines_of(_FOUNTAIN_ASIDE.sub("", text))]
    if lines and re.match(r"[A-Za-z ]+:", lines[0]):  # the title page ends at the first empty line
        lines = lines[lines.index("") :] if "" in lines else []
    speaker = ""
    for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        if not line:
            speaker = ""
        elif speaker:
            book.add(speaker, re.sub(r"^~|[*_]", "", line))
        elif not before and _FOUNTAIN_HEADING.match(line):
            numbered = re.search(r"#([\w.-]+)#$", line)
            name = re.sub(r"\s*#[\w.-]+#$", "", line.lstrip("."))
            book.open(numbered[1] if numbered else without_directions(name), bool(_CONTINUED.search(name)))
        elif _is_cue(line, before, after):
            speaker = without_directions(line.lstrip("@").rstrip(" ^"))
        elif not line.startswith(("#", "=")) and not line.endswith(" TO:"):
            book.add("", line.strip("!><~ "))
