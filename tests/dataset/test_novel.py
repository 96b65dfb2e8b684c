"""Novels to speeches with their speakers, and to rows: small texts in every style, and two real novels."""

import json
from pathlib import Path

import pytest

from dataset.build import main
from dataset.novel.prose import is_prose, read_chapters
from dataset.novel.speeches import read_novels
from roleplay.environment import ROOT
from roleplay.errors import DataError
from roleplay.text.rows import read_rows

NOVELS = ROOT.parent / "shared" / "data" / "novels"
LABELS = Path(__file__).with_name("novel_labels.json")
FLOORS = {"xiyouji-001-080.txt": (0.97, 0.90), "holmes-01-09.txt": (0.90, 0.80)}  # least precision and recall

CHINESE = """第一回　灯塔
船工问林照道：“今晚有雾吗？”林照笑道：“有，雾号响过两回。”
船工道：“那船怎么办？”林照道：“等。”
第二回　归航
林照道：“天亮了。”船工道：“走罢。”
"""
ENGLISH = """CHAPTER I

"Is there fog tonight?" asked Mr. Mills.

"There is," said Anna, turning to the lamp. "The horn went twice.

"And it will go again."

"What of the ship?"

"It waits."
"""


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "novel.txt"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_a_chinese_novel_in_any_common_encoding(tmp_path: Path, encoding: str) -> None:
    speeches = read_novels([write(tmp_path, CHINESE, encoding)], {}, 0.7)
    assert [(s.speaker, s.text) for s in speeches[:3]] == [
        ("船工", "今晚有雾吗？"),
        ("林照", "有，雾号响过两回。"),
        ("船工", "那船怎么办？"),
    ]
    assert speeches[1].cue == "林照笑道"
    assert [s.chapter for s in speeches[3:5]] == ["第一回 灯塔", "第二回 归航"]


@pytest.mark.parametrize(("opening", "closing"), [('"', '"'), ("“", "”"), ("‘", "’"), ("'", "'")])
def test_english_turns_go_on_without_tags_in_every_style_of_quotes(tmp_path: Path, opening: str, closing: str) -> None:
    text = ENGLISH.replace(' "', f" {opening}").replace('\n"', f"\n{opening}").replace('"', closing)
    speeches = read_novels([write(tmp_path, text)], {}, 0.5)
    assert [s.speaker for s in speeches] == ["Mr. Mills", "Anna", "Mr. Mills", "Anna"]
    assert speeches[1].text == "There is, The horn went twice. And it will go again."
    assert speeches[1].line == "There is. The horn went twice. And it will go again."


@pytest.mark.parametrize(
    "text",
    [
        "「走罢。」他说。\n「好。」\n",
        "『走罢。』他说。\n『好。』\n",
        "——走罢。\n——好。\n",
        "他说：“走罢。”\n她说：“好。”\n",
    ],
)
def test_chinese_styles_of_quotes(tmp_path: Path, text: str) -> None:
    assert [u.text for u in read_chapters(write(tmp_path, text))[0].utterances] == ["走罢。", "好。"]


def test_a_speaker_that_cannot_be_told_is_nobody(tmp_path: Path) -> None:
    assert [s.speaker for s in read_novels([write(tmp_path, "“走罢。”\n\n“好。”\n")], {}, 0.7)] == ["", ""]


def test_what_is_only_named_in_quotes_is_no_speech(tmp_path: Path) -> None:
    path = write(tmp_path, "石上写着“花果山”三个字。猴王道：“好。”\n")
    assert [u.text for u in read_chapters(path)[0].utterances] == ["好。"]


@pytest.mark.parametrize(
    ("text", "prose"), [(CHINESE, True), (ENGLISH, True), ("甲：好。\n乙：“是”么？\n", False), ("甲：“好。”\n", False)]
)
def test_novels_are_told_from_scripts(text: str, prose: bool) -> None:
    assert is_prose(text) is prose


def test_commands_make_rows_and_speeches_of_a_novel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    novel, rows, lines = write(tmp_path, CHINESE), tmp_path / "rows.json", tmp_path / "speeches.jsonl"
    for _ in range(2):
        main(
            [
                str(novel),
                "--character",
                "守塔人",
                "--alias",
                "守塔人=林照",
                "--output",
                str(rows),
                "--speeches",
                str(lines),
            ]
        )
    made = read_rows(rows)[0]
    assert [row.turns[-1] for row in made] == [("今晚有雾吗？", "有，雾号响过两回。"), ("那船怎么办？", "等。")]
    first = json.loads(lines.read_text(encoding="utf-8").splitlines()[1])
    assert first == {"speaker": "守塔人", "text": "有，雾号响过两回。", "cue": "林照笑道", "chapter": "第一回 灯塔"}
    capsys.readouterr()
    main([str(novel), "--list"])
    assert capsys.readouterr().out.split() == ["3", "船工", "3", "林照"]


def test_an_alias_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="NAME=OTHER"):
        main([str(write(tmp_path, CHINESE)), "--list", "--alias", "林照"])


def same(name: str, label: str) -> bool:
    """Whether a speaker is one of the labelled names, or a longer form of one; an empty name in a label is "nobody"."""
    return any(
        name == one or (name.lstrip("那这") == one != "") or (len(one) > 1 < len(name) and (one in name or name in one))
        for one in label.split("/")
    )


@pytest.mark.skipif(not NOVELS.is_dir(), reason="no ../shared/data/novels")
@pytest.mark.parametrize("name", sorted(FLOORS))
def test_speakers_of_a_real_novel(name: str) -> None:
    speeches = read_novels([NOVELS / name], {}, 0.7)
    given = right = found = wanted = 0
    for part in json.loads(LABELS.read_text(encoding="utf-8"))[name]["kept_aside"]:
        chapter = [speech for speech in speeches if speech.chapter == part["chapter"]]
        at = -1
        for start, label in part["speeches"]:
            at = next(n for n in range(at + 1, len(chapter)) if start in chapter[n].text)
            hit = same(chapter[at].speaker, label)
            given += bool(chapter[at].speaker)
            right += bool(chapter[at].speaker) and hit
            known = "" not in label.split("/")
            wanted += known
            found += known and hit
    assert right / given >= FLOORS[name][0]
    assert found / wanted >= FLOORS[name][1]
