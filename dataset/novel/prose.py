"""Novels to chapters of speeches: finds what is said and the narration around it, and does not ask who speaks.

Speech stands in “…”, "…", 「…」, 『…』, ‘…’, '…' or after a dash that opens the paragraph; the outermost marks that the
text uses most are its own. A speech that goes on after “said X” or in the next paragraph is one speech. Chapters are
told by their headings (第N回, 卷N, CHAPTER N, Chapter One, a title after a Roman numeral).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from roleplay.text.reading.decoding import lines_of, read_text

_NUMERAL = r"[\d〇○零一二两三四五六七八九十百千]+"
_UNDER_TWENTY = (
    r"one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|first|second|third|fourth|fifth|sixth|seventh|"
    r"eighth|ninth|tenth|eleventh|twelfth|(?:thir|four|fif|six|seven|eigh|nine)teen(?:th)?|last"
)
_WORDED = (
    rf"(?:{_UNDER_TWENTY}|(?:twent|thirt|fort|fift|sixt|sevent|eight|ninet)(?:y|ieth)(?:[-\s](?:{_UNDER_TWENTY}))?)"
)
_PART = r"(?i:chapter|adventure|part|book|stave|letter)"
_HEADING = re.compile(
    rf"#*\s*(?:(?:正文\s*)?[【\[]?(?:第\s*{_NUMERAL}\s*[回章节節卷折部]|卷\s*{_NUMERAL}|楔子|引子|序章|尾声)"
    rf"(?:[\s：:、.】\]].*|)|附录\s.*|{_PART}\s+[IVXLC\d]+\b.*|(?:[IVXLC]+|\d+)\.\s+[A-Z][^a-z]{{3,}}"
    # in words or small letters it may begin a sentence: "Part one of it was easy."
    rf"|(?=[A-Z]){_PART}\s+(?i:(?:the\s+)?{_WORDED}|[ivxlc]+)(?:\s*[.:,—–-].*|\s+[^a-z\s].*|)"
    r"|(?i:prologue|epilogue)\.?)"
)
_BREAK = re.compile(r"(?:[IVXLC]+|\d+)\.?|(?:[*＊·~—-]\s*){3,}")
_SPOKEN_END = re.compile(r"[.!?。！？…—-][’'）)」』]*$")
_COLON = re.compile(r"[：:；]$")
_SAYS = "道说說問问曰叫喊答喝骂笑云"  # how a tag before a speech ends, and the name of a speaker does not
_WIDE = re.compile(r"[\u2e80-\uffff]")


@dataclass
class Utterance:
    """One speech: its parts and the narration of its paragraph before, inside and after, and of paragraphs before."""

    parts: list[str]
    lead: str = ""
    inside: list[str] = field(default_factory=list)
    tail: str = ""
    between: list[str] = field(default_factory=list)
    opens: bool = True  # the first of its paragraph
    scene: int = 0

    @property
    def text(self) -> str:
        """What is said, as one text."""
        return _joined(self.parts)

    @property
    def line(self) -> str:
        """The same as it reads without its tags: the comma before a tag that ends a sentence becomes a full stop."""
        gaps = [*self.inside, "."]
        ended = [re.sub(r"[,，]$", "." if part[-1] == "," else "。", part) for part in self.parts]
        spoken = zip(self.parts, ended, gaps, strict=True)
        return _joined([new if gap.endswith((".", "。")) else old for old, new, gap in spoken])


def _joined(parts: Sequence[str]) -> str:
    joined = parts[0]
    for part in parts[1:]:
        joined += ("" if _WIDE.match(joined[-1:]) else " ") + part
    return joined


@dataclass
class Chapter:
    name: str
    utterances: list[Utterance] = field(default_factory=list)
    closing: list[str] = field(default_factory=list)  # the narration after the last speech


def _width(line: str) -> int:
    return len(line) + len(_WIDE.findall(line))


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a text whose lines are whole paragraphs, or are wrapped between empty or indented lines."""
    lines = [line.rstrip() for line in lines_of(text)]
    inner = [_width(a) for a, b in pairwise(lines) if a and b and not b[0].isspace()]
    widest = max(map(_width, lines), default=0)
    full = sum(width >= 0.7 * max(inner) for width in inner) if inner else 0
    if not (inner and max(inner) >= 40 and widest <= 120 and full >= 0.7 * len(inner)):
        yield from (line.strip() for line in lines if line.strip())
        return
    block: list[str] = []
    for line in [*lines, ""]:
        if block and (not line or line[0].isspace() or _HEADING.fullmatch(line)):
            yield ("" if _WIDE.match(block[0][-1]) else " ").join(block)
            block = []
        if line:
            block.append(line.strip())


class _Marks:
    """Which marks open and close a speech in this text."""

    def __init__(self, text: str) -> None:
        before = r"(?:^|(?<=[\s—(：:，-]))"  # an opening mark stands at the begin, behind a space or behind a tag
        single = len(re.findall(rf"{before}['‘](?=\w)", text, re.MULTILINE))
        counts = {'“"＂': len(re.findall(f'[“＂]|{before}"', text, re.MULTILINE))}
        counts |= {"「": text.count("「"), "『": text.count("『") - text.count("「"), "'‘": single}
        counts["—–"] = len(re.findall(r"^\s*[—–]", text, re.MULTILINE))
        self.style = max(counts, key=lambda style: counts[style])
        self.count = counts[self.style]
        self.dashes = self.style == "—–"

    def kind(self, text: str, at: int, depth: int) -> str:
        """ "(", ")" or "" for the character at a place, `depth` speeches being open."""
        char, before, after = text[at], text[at - 1 : at], text[at + 1 : at + 2]
        if char == '"' and '"' in self.style:
            return ")" if depth else "("
        if self.style == "'‘" and char in "'‘’":
            if not depth:
                opens = char != "’" and (before in " \t—-(" or _WIDE.match(before)) and after.strip()
                return "(" if opens else ""
            ends = char != "‘" and before in ",.!?;:—-…，。！？；：" and (not after.isalnum() or _WIDE.match(after))
            return ")" if ends else ""
        if char in {'“"＂': "“", "「": "「", "『": "『"}.get(self.style, ""):
            return "("
        return ")" if char in {'“"＂': "”＂", "「": "」", "『": "』"}.get(self.style, "") else ""

    def cut(self, paragraph: str, spoken: bool) -> tuple[list[tuple[bool, str]], bool]:
        """[is speech, text] segments of a paragraph, and whether a speech goes on after it as `spoken` did into it."""
        if self.dashes:
            pieces = re.split(r"(?:^|(?<=[,.!?…，。！？;；]))\s*[—–]+\s*", paragraph)
            spoken_first = not pieces[0]
            pieces = pieces[1:] if spoken_first else pieces[:1]
            return [(spoken_first and not n % 2, piece) for n, piece in enumerate(pieces) if piece], False
        segments: list[tuple[bool, str]] = []
        start, depth, nested = 0, int(spoken), 0
        for at, char in enumerate(paragraph):
            nested += (char == "‘") - (char == "’") if depth else -nested
            kind = self.kind(paragraph, at, depth)
            if (kind == "(" and depth == 0) or (kind == ")" and depth == 1):
                segments.append((depth == 1, paragraph[start:at]))
                start, depth = at + 1, 1 - depth
            elif kind == "(" and nested > 0:
                depth += 1
            elif kind == "(":  # the mark that ends the speech before is missing: it ends with the sentence
                sentence = re.match(r"[\s\S]*[。！？.!?]", paragraph[start:at])
                end = start + sentence.end() if sentence else at
                segments += [(True, paragraph[start:end]), (False, paragraph[end:at])]
                start = at + 1
            elif kind == ")" and depth > 1:
                depth -= 1
        segments.append((depth > 0, paragraph[start:]))
        return [(speech, text.strip()) for speech, text in segments if text.strip()], depth > 0

    def goes_on(self, following: Sequence[str]) -> int:
        """1 when a speech left open goes on in the next paragraph behind a new mark, 2 when without one, else 0."""
        for ahead, paragraph in enumerate(following[:16]):
            if _HEADING.fullmatch(paragraph):
                return 0
            kinds = (self.kind(paragraph, at, int(at > 0)) for at in range(len(paragraph)))
            first = next(((kind, at) for at, kind in enumerate(kinds) if kind), None)
            if first and first[0] == "(":
                return int(not ahead and first[1] == 0)
            if first:
                return 2
        return 0


def is_prose(text: str) -> bool:
    """Whether a text is a novel and no script: more paragraphs hold quotation marks than labels of speakers."""
    marks = _Marks(text)
    label = rf"^[ \t\u3000]*[^\s“”\"「『：:，。,.]{{1,20}}(?:(?<![{_SAYS}])\s*[：:]|\s*[：:](?!\s*[“\"「『]))"
    return marks.count > len(re.findall(label, text, re.MULTILINE))


def marks_note(text: str) -> str:
    """A sentence where paragraphs speak in other marks than most, for they are read as narration; else ""."""
    marks = _Marks(text)
    others = "".join(mark for mark in "“「『" if mark not in marks.style)
    spoken = re.compile(rf"(?:^|[：:，])\s*[{others}]")
    lost = sum(bool(spoken.search(line)) and not set(marks.style) & set(line) for line in lines_of(text))
    if not lost or marks.dashes:
        return ""
    return (
        f"{lost:,} paragraphs seem to speak in {' or '.join(others)} and not in {marks.style[0]} as the others do; "
        "they are read as narration, so write all speech in one kind of marks"
    )


def _is_speech(text: str, before: str) -> bool:
    """Whether quoted text is said, not just named: it ends like a sentence, or a tag stands beside it."""
    if re.fullmatch(r"(?:[A-Z]\.\s?)+", text):  # initials
        return False
    if _SPOKEN_END.search(text) or not before:
        return True
    if _WIDE.search(text):
        return bool(re.search(r"[：:；]$|道$|[叫喝念道]声$", before))
    return (text[-1] in ",;:" and len(text.split()) > 1) or (before[-1] in ",:" and len(text.split()) > 1)


def _merged(segments: Sequence[tuple[bool, str]]) -> list[tuple[bool, str]]:
    """The segments with what is only named in quotation marks put back into the narration."""
    merged: list[tuple[bool, str]] = []
    for speech, text in segments:
        before = merged[-1][1] if merged and not merged[-1][0] else ""
        if speech and not _is_speech(text, before):
            speech, text = False, f"“{text}”"
        if not speech and merged and not merged[-1][0]:
            merged[-1] = (False, before + ("" if _WIDE.search(text) else " ") + text)
        else:
            merged.append((speech, text))
    return merged


def _interrupts(gap: str) -> bool:
    """Whether narration between two speeches of a paragraph parts one speech, and leads to no other speaker."""
    if re.search(rf"[{_SAYS}]；$", gap):  # a slip for the colon
        return False
    return bool(re.search(r"[,.!?;…—，。！？；-]$" if _WIDE.search(gap) else r"[^:]$", gap))


class _Book:
    def __init__(self, name: str) -> None:
        self.chapters = [Chapter(name)]
        self.scene = 0
        self.between: list[str] = []

    def open(self, name: str) -> None:
        self.chapters[-1].closing = self.between
        self.chapters.append(Chapter(name))
        self.between, self.scene = [], 0

    def add(self, segments: Sequence[tuple[bool, str]], goes_on: bool) -> None:
        """A paragraph; `goes_on` when its first segment continues the speech before."""
        said = self.chapters[-1].utterances
        first, lead, open_speech = True, "", None
        if goes_on and said and segments and segments[0][0]:
            said[-1].parts.append(segments[0][1])
            said[-1].inside.append("")
            open_speech, first, segments = said[-1], False, segments[1:]
        for speech, text in segments:
            if not speech:
                lead = text
                if open_speech is not None:
                    open_speech.tail = text
                continue
            if open_speech is not None and _interrupts(lead):
                open_speech.parts.append(text)
                open_speech.inside.append(lead)
                open_speech.tail = ""
            else:
                if first and not lead and self.between and _COLON.search(self.between[-1]):
                    lead = self.between.pop()
                if open_speech is not None and lead:
                    open_speech.tail = ""
                open_speech = Utterance([text], lead, between=self.between, opens=first, scene=self.scene)
                said.append(open_speech)
                self.between, first = [], False
            lead = ""
        if lead and (open_speech is None or _COLON.search(lead)):
            self.between.append(lead)


def read_chapters(path: Path) -> list[Chapter]:
    """The chapters of a novel that have speeches; raises `DataError` for a file that cannot be read."""
    text, _ = read_text(path)
    marks, book = _Marks(text), _Book(path.stem)
    blocks = list(paragraphs(text))
    titled = any(_HEADING.fullmatch(block) for block in blocks)
    goes_on = 0
    for number, block in enumerate(blocks):
        if not goes_on and len(block) < 100 and (_HEADING.fullmatch(block) or (not titled and _BREAK.fullmatch(block))):
            book.open(re.sub(r"\s+", " ", block.lstrip("# ")))
        elif not goes_on and _BREAK.fullmatch(block):
            book.scene += 1
        else:
            segments, left_open = marks.cut(block[1:] if goes_on == 1 else block, goes_on > 0)
            book.add(_merged(segments), goes_on > 0)
            goes_on = marks.goes_on(blocks[number + 1 :]) if left_open else 0
    book.chapters[-1].closing = book.between
    return [chapter for chapter in book.chapters if chapter.utterances]
