"""Screenplays in three notations to rows: who answers whom, in which scene, with what before it."""

import json
from pathlib import Path

import pytest

from benchmarks import build_recall
from dataset.build import build, main
from dataset.screenplay import join_texts, read_screenplays, without_directions
from roleplay.environment import ROOT
from roleplay.errors import DataError, RoleplayError
from roleplay.text.rows import read_rows

CHINESE = """第一集

第1幕
（御花园，夜）
甲：今夜月色真好。
乙（抬头）：是呢。（叹气）只是冷。
甲：披上这件罢。
甲：别冻着了。
乙；谢姐姐。
（丙入）
乙：谁在那里？
丙：是我。
丁：还有我。
乙：都坐罢。

第2幕：
乙：昨夜的事，莫要再提。
甲：记下了。

第1幕（续）
甲：天快亮了。
乙：回去罢。
"""

ENGLISH = """Scene 1
Anna: Is the kettle on?
Boris (from the door): It is. [He coughs.] Sit down.
Anna: I would rather
    stand, if I may.
Boris: As you like.

Scene 2
Anna: Good night.
Boris: Good night, Anna.
"""

FOUNTAIN = """Title: Tea
Author: nobody

INT. KITCHEN - NIGHT

Rain against the glass.

ANNA
(quietly)
Is the *kettle* on?

BORIS (O.S.)
It is.
Sit down.

/* cut this
BORIS
Never said. */

ANNA (CONT'D)
Thank you. [[too polite?]]

@McBoris
Not at all.

CUT TO:

EXT. STREET - DAY #2A#

ANNA
Taxi!

BORIS ^
Here, Anna.
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_chinese_script(tmp_path: Path) -> None:
    rows = build(read_screenplays([write(tmp_path, "play.txt", CHINESE)]), ["乙"])
    assert [(row["instruction"], row["output"], row["scene"], row["speaker"]) for row in rows] == [
        ("今夜月色真好。", "是呢。只是冷。", "第1幕", "甲"),
        ("披上这件罢。别冻着了。", "谢姐姐。", "第1幕", "甲"),
        ("还有我。", "都坐罢。", "第1幕", "丁"),
        ("天快亮了。", "回去罢。", "第1幕", "甲"),
    ]
    assert "history" not in rows[0] and "context" not in rows[0]
    assert rows[1]["history"] == [["甲：今夜月色真好。", "是呢。只是冷。"]]
    # What she says after a stage direction answers nobody, and is remembered with the reply before it.
    assert rows[2]["history"][-1] == ["甲：披上这件罢。别冻着了。", "谢姐姐。谁在那里？"]
    assert rows[2]["context"] == "丙：是我。"
    assert rows[3]["history"][-1] == ["丙：是我。\n丁：还有我。", "都坐罢。"]


def test_directions_kept(tmp_path: Path) -> None:
    rows = build(read_screenplays([write(tmp_path, "play.txt", CHINESE)]), ["乙"], directions="keep")
    assert rows[0]["output"] == "（抬头）是呢。（叹气）只是冷。"
    assert rows[0]["context"] == "（御花园，夜）"
    assert rows[2]["context"] == "（丙入）\n乙：谁在那里？\n丙：是我。"


@pytest.mark.parametrize(("lines", "history", "context"), [(0, 0, False), (1, 0, True), (12, 2, True)])
def test_earlier_lines_are_bounded(tmp_path: Path, lines: int, history: int, context: bool) -> None:
    row = build(read_screenplays([write(tmp_path, "play.txt", CHINESE)]), ["乙"], lines=lines)[2]
    assert (len(row.get("history", [])), "context" in row) == (history, context)


def test_english_script(tmp_path: Path) -> None:
    rows = build(read_screenplays([write(tmp_path, "play.txt", ENGLISH)]), ["Boris"])
    assert [(row["instruction"], row["output"], row["scene"]) for row in rows] == [
        ("Is the kettle on?", "It is. Sit down.", "Scene 1"),
        ("I would rather stand, if I may.", "As you like.", "Scene 1"),
        ("Good night.", "Good night, Anna.", "Scene 2"),
    ]
    assert rows[1]["history"] == [["Anna: Is the kettle on?", "It is. Sit down."]]


def test_fountain(tmp_path: Path) -> None:
    script = write(tmp_path, "tea.fountain", FOUNTAIN)
    rows = build(read_screenplays([script]), ["BORIS", "McBoris"])
    assert [(row["instruction"], row["output"], row["scene"]) for row in rows] == [
        ("Is the kettle on?", "It is. Sit down.", "INT. KITCHEN - NIGHT"),
        ("Thank you.", "Not at all.", "INT. KITCHEN - NIGHT"),
        ("Taxi!", "Here, Anna.", "2A"),
    ]
    assert set(read_screenplays([script]).cast()) == {"ANNA", "BORIS", "McBoris"}


@pytest.mark.parametrize(
    ("text", "cast"),
    [
        ("甲：好。\nhttp://example.org/a\n12:30 出发", ["甲"]),
        ("甲：好。\n他说，今天不行：改日罢。", ["甲"]),
        ("甲；好。", []),  # a semicolon alone names nobody
        ("众人、甲：好。", ["众人、甲"]),
        ("Dr. O'Neil: Well.", ["Dr. O'Neil"]),
        ("甲（低头），：好。", ["甲"]),
    ],
)
def test_who_counts_as_a_speaker(tmp_path: Path, text: str, cast: list[str]) -> None:
    assert list(read_screenplays([write(tmp_path, "a.txt", text)]).cast()) == cast


def test_scene_ids_are_unique_and_continued_scenes_resume_across_files(tmp_path: Path) -> None:
    one = write(tmp_path, "one.txt", "第1幕\n甲：一。\n第1幕\n甲：二。\n")
    two = write(tmp_path, "two.txt", "甲：零。\n第1幕（续）\n乙：三。\n")
    scenes = read_screenplays([one, two]).scenes
    assert [(scene.id, [speech.text for speech in scene.speeches]) for scene in scenes] == [
        ("第1幕", ["一。"]),
        ("第1幕 #2", ["二。", "三。"]),
        ("two", ["零。"]),
    ]


def test_lines_without_a_speaker_are_named(tmp_path: Path) -> None:
    play = read_screenplays([write(tmp_path, "a.txt", "甲：好。\n我来了。\n（下）\n")])
    assert play.unlabelled == [f"{tmp_path / 'a.txt'} line 2: 我来了。"]


def test_lines_end_where_an_editor_ends_them(tmp_path: Path) -> None:
    play = read_screenplays([write(tmp_path, "a.txt", "第1场\n甲：一\u2028乙说二。\n\f乙：二。\n旁白没有人")])
    assert [(s.speaker, s.text) for s in play.scenes[0].speeches[:2]] == [("甲", "一\u2028乙说二。"), ("乙", "二。")]
    assert play.unlabelled == [f"{tmp_path / 'a.txt'} line 4: 旁白没有人"]


@pytest.mark.parametrize(
    ("text", "bare"),
    [("（笑（低声））好。", "好。"), ("Yes. (beat) No.", "Yes. No."), ("【注】是", "是"), ("（未完", "（未完")],
)
def test_without_directions(text: str, bare: str) -> None:
    assert without_directions(text) == bare


def test_join_texts() -> None:
    assert join_texts("好。", "走罢。") == "好。走罢。"
    assert join_texts("Well.", "Go.") == "Well. Go."


def test_command_writes_the_same_readable_rows_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = write(tmp_path, "play.txt", CHINESE)
    for name in ("a.json", "b.json"):
        main([str(script), "--character", "乙", "--output", str(tmp_path / name)])
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    rows = read_rows(tmp_path / "a.json")[0]
    assert rows[2].turns[-1] == ("丙：是我。\n还有我。", "都坐罢。")
    capsys.readouterr()
    main([str(script), "--list"])
    assert capsys.readouterr().out.split() == ["6", "乙", "5", "甲", "1", "丙", "1", "丁"]


TALK = [("船工", "今晚有雾吗？"), ("林照", "有，雾号响过两回。")]
SAME = {
    "bold.md": "## 第一幕\n\n" + "\n\n".join(f"**{name}**：{text}" for name, text in TALK),
    "inside.md": "\n".join(f"- **{name}：** {text}" for name, text in TALK),
    "wide.txt": "\n".join(f"{name} : {text}" for name, text in TALK),
    "quoted.txt": "第一幕\n" + "\n".join(f"{name}：“{text}”" for name, text in TALK),
    "voices.vtt": "WEBVTT\n\n第一幕\n\n"
    + "\n\n".join(f"00:0{n}.000 --> 00:0{n}.900\n<v {name}>{text}" for n, (name, text) in enumerate(TALK)),
    "subtitles.srt": "\r\n\r\n".join(
        f"{n}\r\n00:00:0{n},000 --> 00:00:0{n},900\r\n{name}：{text}" for n, (name, text) in enumerate(TALK, 1)
    ),
    "subtitles.vtt": "WEBVTT\n\n"
    + "\n\n".join(f"00:0{n}.000 --> 00:0{n}.900\n{a}：{b}" for n, (a, b) in enumerate(TALK)),
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "utf-16"])
def test_a_script_is_read_however_it_was_written_down(tmp_path: Path, name: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(SAME[name].encode(encoding))
    play = read_screenplays([tmp_path / name])
    (row,) = build(play, ["林照"])
    assert (row["instruction"], row["output"], row["speaker"]) == ("今晚有雾吗？", "有，雾号响过两回。", "船工")
    assert play.unlabelled == [] and bool(play.notes) == (encoding != "utf-8-sig")


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    script = write(tmp_path, "play.txt", CHINESE)
    with pytest.raises(DataError, match="no speaker '戊': there are .*乙"):
        build(read_screenplays([script]), ["戊"])
    with pytest.raises(DataError, match="none.txt: no such file"):
        read_screenplays([tmp_path / "none.txt"])
    with pytest.raises(RoleplayError, match="--character NAME"):
        main([str(script)])


@pytest.mark.skipif(
    not (ROOT.parent / "shared" / "data" / "screenplay").is_dir(), reason="no ../shared/data/screenplay"
)
def test_recall_on_the_real_screenplay() -> None:
    data = ROOT.parent / "shared" / "data"
    recall = build_recall.measure(data)
    assert recall.standing > 1000
    assert recall.share >= build_recall.GOAL
    scripts = sorted((data / "screenplay").glob("*.txt"))
    assert len(build(read_screenplays(scripts), ["华妃"])) > 400  # any character of the cast


def test_recall_reads_the_files_by_itself(tmp_path: Path) -> None:
    (tmp_path / "screenplay").mkdir()
    write(tmp_path / "screenplay", "1.txt", "第1幕\n皇帝（笑）：来了？\n甄嬛：来了。（坐）\n皇帝：坐。\n华妃：是。\n")
    pairs = [("来了？", "来了。"), ("坐。", "是。"), ("别处的话。", "没有。")]
    rows = [{"instruction": line, "input": "", "output": reply} for line, reply in pairs]
    write(tmp_path, "huanhuan.json", json.dumps(rows))
    recall = build_recall.measure(tmp_path)
    assert (recall.rows, recall.standing, recall.found, recall.missed) == (3, 2, 1, [("坐", "是")])
    with pytest.raises(SystemExit) as stopped:
        build_recall.main(["--data", str(tmp_path)])
    assert stopped.value.code == 1
