"""Novels to speeches with their speakers, and to rows: small texts in every style, and two real novels."""

import json
from pathlib import Path

import pytest

from benchmarks import novels
from dataset.build import main
from dataset.novel.prose import is_prose, read_chapters
from dataset.novel.speeches import read_novels
from roleplay.environment import ROOT
from roleplay.errors import DataError
from roleplay.text.rows import read_rows

NOVELS = ROOT.parent / "shared" / "data" / "novels"
FLOORS = {"xiyouji-001-080.txt": (0.97, 0.95), "holmes-01-09.txt": (0.90, 0.80)}  # least precision and recall

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
    ("said", "speaker"),
    [(("John Smith", "John"), "John Smith"), (("John Smith", "John Clay", "John Harker", "John"), "John")],
)
def test_a_first_name_is_joined_to_the_one_who_bears_it(tmp_path: Path, said: tuple[str, ...], speaker: str) -> None:
    text = "".join(f'"There is fog tonight," said {name}, turning to the lamp.\n\n' for name in said)
    assert read_novels([write(tmp_path, text)], {}, 0.5)[-1].speaker == speaker


@pytest.mark.parametrize(
    "text",
    [
        "「走罢。」他说。\n「好。」\n",
        "『走罢。』他说。\n『好。』\n",
        "——走罢。\n——好。\n",
        "他说：“走罢。”\n她说：“好。”\n",
        "他说：‘走罢。’她说：‘好。’\n",
        '他说："走罢。"\n她说:"好。"\n',
    ],
)
def test_chinese_styles_of_quotes(tmp_path: Path, text: str) -> None:
    assert [u.text for u in read_chapters(write(tmp_path, text))[0].utterances] == ["走罢。", "好。"]


def test_a_speaker_that_cannot_be_told_is_nobody(tmp_path: Path) -> None:
    assert [s.speaker for s in read_novels([write(tmp_path, "“走罢。”\n\n“好。”\n")], {}, 0.7)] == ["", ""]


TALK = "林照道：“来了。”船工道：“来了。”" * 3 + "\n"  # enough for both to be known


@pytest.mark.parametrize(
    ("text", "speaker"),
    [
        ("船工道：“走罢。”\n即转身，解了缆绳，叫道：“上船！”", "船工"),
        ("船工道：“走罢。”\n他放下灯，走到门口，又道：“上船！”", "船工"),
        ("林照道：“走罢。”\n他道：“好。”", "船工"),
        ("船工道：“几时开船？”\n道：“天亮。”", "林照"),
        ("林照道：“几时到？”船工道：“天亮。”\n又问：“远么？”", "林照"),
        ("林照道：“水兵何在？”水兵道：“大王神机妙算。”\n教：“开船！”", "林照"),
        ("船工道：“谁？”\n正说间，门外闪出一个老兵，拱手道：“借火。”", "老兵"),
        ("船工道：“谁？”\n早有张、李二童子接着，问道：“何往？”", "张、李二童子"),
        ("船工道：“谁？”\n第三个水兵大惊道：“不好！”", "第三个水兵"),
        ("船工道：“谁？”\n那守塔的看见，急忙报道：“船来了。”", "守塔的"),
        ("船工道：“谁？”\n才过桥来，后边的走上前道：“是我。”", "后边的"),
        ("船工道：“谁？”\n只听得门响，原来是张三、李四等，走进来道：“是我。”", "张三、李四等"),
        ("船工忽抬头，见林照拦住道：“那里走？”", "林照"),
        ("船工道：“你听，有诗为证：”\n“塔高灯远，雾里行船。”", "船工"),
        ("船工立在塔上，咬牙切齿，暗恨林照道：“好。”", "船工"),
        ("船工闻言，径到塔上，见林照俯伏启奏道：“好。”", "船工"),
        ("林照道：“谁？”\n那群水兵都走。群猴道：“是我。”", "群猴"),
        ("林照道：“谁？”\n只听得塔上有人叫道：“是我。”", ""),
        ("林照道：“谁？”\n林照走来。你看那城里，男女老小，无不夸奖，俱道：“好！”", "船工"),
        ("船工道：“谁？”\n渔夫们都笑道：“是我。”", "渔夫们"),
        ("船工道：“谁？”\n张、王、李道：“是我。”", "张、王、李"),
        ("船工道：“谁？”\n白发船工笑道：“是我。”", "白发船工"),
        ("忽见一个巡更官，上前问道：“谁？”船工道：“我。”\n巡更官即至船头道：“上岸。”", "巡更官"),
        ("船工道：“谁？”\n船工正惊，只听林照叫道：“是我。”", "林照"),
        ("船工道：“谁？”\n忽见林照在树上，他又笑道：“你看。”", "船工"),
        ("船工闻言，即教水兵看守，众水兵前后照看，他却上前说道：“好。”", "船工"),
        ("船工一见，认得是林照，满面欢喜道：“你来了！”", "船工"),
        ("船工要走，被那老兵拉着道：“且住。”", "老兵"),
        ("船工抬头，塔门上写着：“夜航灯塔。”", ""),
        ("船工道：“谁？”\n哀痛多时道：“是我。”", "船工"),
        ("船工問林照道：“有霧麼？”", "船工"),  # and in traditional characters
        ("船工道：“誰？”\n那守塔的看見，急忙報道：“船來了。”", "守塔的"),
        ("林照道：“誰？”\n眾水兵聽說，齊聲應道：“是我。”", "眾水兵"),
    ],
)
def test_who_speaks_in_chinese_narration(tmp_path: Path, text: str, speaker: str) -> None:
    assert read_novels([write(tmp_path, TALK + text)], {}, 0.5)[-1].speaker == speaker


@pytest.mark.parametrize("marks", ["「」", "『』"])
def test_speech_in_rarer_marks_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str], marks: str) -> None:
    main([str(write(tmp_path, CHINESE + f"林照道：{marks[0]}好。{marks[1]}\n")), "--list"])
    assert "1 paragraphs seem to speak in 「 or 『 and not in “" in capsys.readouterr().err
    main([str(write(tmp_path, CHINESE.replace("那船", "那「船」"))), "--list"])
    assert "narration" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "heading",
    [
        *("第一回　灯塔", "第一○回　灯塔", "正文 第一章 灯塔", "【第一章】灯塔", "卷一 灯塔", "楔子 灯塔", "# 尾声"),
        *("CHAPTER I", "Chapter One", "CHAPTER THE FIRST", "Chapter Twenty-Two: Fog", "Book Two The Lamp", "Chapter i"),
    ],
)
def test_a_heading_opens_a_chapter(tmp_path: Path, heading: str) -> None:
    chapters = read_chapters(write(tmp_path, f"“走罢。”\n{heading}\n“好。”\n"))
    assert [(c.name, c.utterances[0].between) for c in chapters] == [
        ("novel", []),
        (heading.lstrip("# ").replace("　", " "), []),
    ]


@pytest.mark.parametrize(
    "line", ["Part one of it was easy.", "Book two was on the table.", "卷一张纸", "part one, and the second"]
)
def test_a_sentence_is_no_heading(tmp_path: Path, line: str) -> None:
    (chapter,) = read_chapters(write(tmp_path, f"“走罢。”\n{line}\n“好。”\n"))
    assert len(chapter.utterances) == 2


def test_what_is_only_named_in_quotes_is_no_speech(tmp_path: Path) -> None:
    path = write(tmp_path, "石上写着“花果山”三个字。猴王道：“好。”\n")
    assert [u.text for u in read_chapters(path)[0].utterances] == ["好。"]


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        (CHINESE, True),
        (ENGLISH, True),
        ('船工说："走罢。"\n林照说:"好。"\n', True),
        ("甲：好。\n乙：“是”么？\n", False),
        ("甲：“好。”\n", False),
    ],
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


@pytest.mark.skipif(not NOVELS.is_dir(), reason="no ../shared/data/novels")
@pytest.mark.parametrize("name", sorted(FLOORS))
def test_speakers_of_a_real_novel(name: str) -> None:
    count = novels.measure(NOVELS / name)["kept_aside"]
    assert count.precision >= FLOORS[name][0]
    assert count.recall >= FLOORS[name][1]
