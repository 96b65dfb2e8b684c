"""Turn screenplays and novels into training rows for one character of the cast.

    python -m dataset.build SCRIPT... --list
    python -m dataset.build SCRIPT... --character 甄嬛 --output runs/zhenhuan_script.json
    python -m dataset.build NOVEL --character 行者 --alias 行者=孙悟空,大圣 --output runs/wukong.json
    python -m dataset.build NOVEL --speeches runs/speeches.jsonl

Every line of the character that answers someone becomes a row: `instruction` is the line before it and `speaker`
who said it, `output` the character's line, `history` the earlier exchanges of the scene and `context` what was said
since the last of them, each line with its speaker, and `scene` the scene's id. A stage direction on a line of its own
ends a speech; what the character says after it answers nobody and stays in the history of later rows. A reply stands
in the history of later rows too, so train on these rows with the loss on the last reply alone. The scripts may be
`name（direction）：line` under 第N幕 headings, `Name: line`, or Fountain (dataset/screenplay.py). A file with more
quotation marks than labels is a novel (dataset/novel): its speakers are told by tags, pronouns and turns, narration
counts as directions, and a speech whose speaker cannot be told is answered by no row. The same files always give the
same rows, and no model is needed.
"""

import difflib
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset.novel.prose import is_prose, marks_note
from dataset.novel.speeches import NovelSpeech, as_screenplay, proposals, read_novels
from dataset.screenplay import SOMEBODY, Scene, Screenplay, Speech, join_texts, read_screenplays
from roleplay.disk import write_json, write_text
from roleplay.errors import DataError, RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.reading.decoding import read_text


@dataclass(frozen=True)
class BuildFlags:
    scripts: list[str] = flag([], "the screenplays or novels, in order", place="first")
    character: list[str] = flag([], "whose lines become replies; several names where the script changes the name")
    output: str = flag("", "the JSON file to write")
    lines: int = flag(12, "earlier lines of the scene kept with a row; 0 leaves the line that is answered alone")
    directions: str = flag("drop", "what happens to stage directions", choices=("drop", "keep"))
    alias: list[str] = flag([], "names of one person: NAME=OTHER,OTHER makes every OTHER a NAME")
    min_confidence: float = flag(
        0.7, "how sure the speaker of a novel's speech must be; higher leaves more speeches to nobody", within=(0, 1)
    )
    speeches: str = flag("", "the JSON Lines file to write every speech of a novel to: speaker, text, cue, chapter")
    list: bool = flag(False, "show the cast with line counts, and names that may be one person, and stop")


def said(speech: Speech) -> str:
    """`Name: text` as history and context show it."""
    if speech.speaker in ("", SOMEBODY):
        return speech.text
    return speech.speaker + ("：" if speech.speaker[-1] > "\u2e7f" else ": ") + speech.text


def exchanges(speeches: Sequence[Speech], names: Collection[str]) -> tuple[list[list[str]], list[Speech]]:
    """[others' lines, the character's reply] pairs, and the speeches since the last of them."""
    pairs: list[list[str]] = []
    heard: list[Speech] = []
    for speech in speeches:
        if speech.speaker in names and any(other.speaker not in ("", *names) for other in heard):
            pairs.append(["\n".join(map(said, heard)), speech.text])
            heard = []
        elif speech.speaker in names and pairs and not heard:
            pairs[-1][1] = join_texts(pairs[-1][1], speech.text)
        else:
            heard.append(speech)
    return pairs, heard


def scene_rows(scene: Scene, names: Collection[str], lines: int, directions: str) -> list[dict[str, Any]]:
    """The rows of one scene, in order; `lines` bounds how many earlier lines go into `history` and `context`."""
    if directions == "drop":
        speeches = [Speech(s.speaker, s.spoken, s.lines) for s in scene.speeches if s.spoken]
    else:
        speeches = [s for s in scene.speeches if s.text]
    rows: list[dict[str, Any]] = []
    asked = -1  # where the line stands that the next reply answers; below 0 there is none
    for here, speech in enumerate(speeches):
        if speech.speaker not in names:
            if speech.speaker:
                asked = here if speech.speaker != SOMEBODY else -1
            continue
        if asked >= 0 and speech.spoken:
            history, heard = exchanges(speeches[max(0, asked - lines) : asked], names)
            instruction = "\n".join(s.text for s in speeches[asked:here])
            row = {"instruction": instruction, "input": "", "output": speech.text, "history": history}
            row |= {"context": "\n".join(map(said, heard)), "scene": scene.id, "speaker": speeches[asked].speaker}
            rows.append({key: value for key, value in row.items() if value or key == "input"})
        asked = -1
    return rows


def build(play: Screenplay, names: Sequence[str], lines: int = 12, directions: str = "drop") -> list[dict[str, Any]]:
    """The rows of a character under one or several names; raises `DataError` when the cast has no such speaker."""
    cast = play.cast()
    for name in names:
        if name not in cast:
            near = difflib.get_close_matches(name, cast, cutoff=0.3) or [known for known, _ in cast.most_common(5)]
            raise DataError(f"no speaker {name!r}: there are {', '.join(near) or 'none'}; --list shows the whole cast")
    return [row for scene in play.scenes for row in scene_rows(scene, names, lines, directions)]


def read_aliases(texts: Sequence[str]) -> dict[str, str]:
    """{other: name} of `NAME=OTHER,OTHER` texts; raises `DataError` for one of another form."""
    aliases: dict[str, str] = {}
    for text in texts:
        name, equals, others = text.partition("=")
        listed = [other.strip() for other in others.replace("，", ",").split(",")]
        if not (name.strip() and equals and all(listed)):
            raise DataError(f"--alias {text!r} is not of the form NAME=OTHER,OTHER")
        aliases |= dict.fromkeys(listed, name.strip())
    return aliases


def read_sources(settings: BuildFlags) -> tuple[Screenplay, list[NovelSpeech]]:
    """The files as one screenplay, and the speeches of those that are novels; raises `DataError`."""
    aliases = read_aliases(settings.alias)
    texts = {path: read_text(path) for path in settings.scripts if not path.endswith(".fountain")}
    novels = [path for path, (text, _) in texts.items() if is_prose(text)]
    play = read_screenplays([path for path in settings.scripts if path not in novels])
    for scene in play.scenes:
        scene.speeches = [replace(s, speaker=aliases.get(s.speaker, s.speaker)) for s in scene.speeches]
    speeches = read_novels(novels, aliases, settings.min_confidence) if novels else []
    if novels:
        told = sum(bool(speech.speaker) for speech in speeches)
        print(
            f"{', '.join(novels)}: read as prose, {len(speeches):,} speeches, {told:,} with a speaker", file=sys.stderr
        )
    notes = [f"{path}: {note}" for path in novels for note in (texts[path][1], marks_note(texts[path][0])) if note]
    return Screenplay(play.scenes + as_screenplay(speeches).scenes, play.unlabelled, play.notes + notes), speeches


def show_cast(play: Screenplay, speeches: Sequence[NovelSpeech]) -> None:
    """Print who speaks how often, and `--alias` proposals for a novel."""
    for name, count in play.cast().most_common():
        print(f"{count:6,}  {name}")
    for name, other, times in proposals(speeches):
        print(f"perhaps one person ({times:,} turns): --alias {name}={other}")


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse(BuildFlags, __doc__, argv)
    play, speeches = read_sources(settings)
    print(*play.notes, sep="\n", end="\n" if play.notes else "", file=sys.stderr)
    if play.unlabelled:
        print(f"{len(play.unlabelled)} lines have no speaker and count as stage directions:", file=sys.stderr)
        print("\n".join(f"  {line[:100]}" for line in play.unlabelled[:5]), file=sys.stderr)
    if settings.speeches:
        if not speeches:
            raise DataError("--speeches is for novels, and none of these files is one")
        rows = [{"speaker": s.speaker, "text": s.text, "cue": s.cue, "chapter": s.chapter} for s in speeches]
        write_text(Path(settings.speeches), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        print(f"{settings.speeches}: {len(rows):,} speeches")
    if settings.list:
        show_cast(play, speeches)
    if settings.list or (settings.speeches and not settings.output):
        return
    if not settings.character or not settings.output:
        raise RoleplayError("whose lines, and where to? Give --character NAME and --output FILE, or --list")
    if settings.lines < 0:
        raise RoleplayError(f"--lines is {settings.lines}; give 0 or more")
    rows = build(play, settings.character, settings.lines, settings.directions)
    if not rows:
        raise DataError(f"{settings.character[0]} answers nobody in these scripts; another character may (--list)")
    output = Path(settings.output)
    write_json(output, rows)
    spoken = sum(play.cast()[name] for name in settings.character)
    scenes = len({row["scene"] for row in rows})
    print(f"{output}: {len(rows):,} rows from {spoken:,} lines of {settings.character[0]} in {scenes:,} scenes")


if __name__ == "__main__":
    with one_line_errors():
        main()
