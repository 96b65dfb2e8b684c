"""Rows that would teach garbage are named, and ordinary ones are not."""

import pytest

from dataset.garbage import GARBAGE, find_garbage
from roleplay.environment import ROOT
from roleplay.text.rows import Row, read_rows

MACRO, TOKEN, THOUGHT, MARKUP, NOTHING, WRONG = GARBAGE


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{{char}} looks at {{user}}.", MACRO),
        ("I am {{ name }}.", MACRO),
        ("Good morning, {user}.", MACRO),
        ("Good morning, [Your Name].", MACRO),
        ("<USER> sits down.", MACRO),
        ("我叫【姓名】。", MACRO),
        ("Hello ${first_name}!", MACRO),
        ("TODO: write this one", MACRO),
        ("Well.<|im_end|>", TOKEN),
        ("<|start_header_id|>assistant<|end_header_id|>Well.", TOKEN),
        ("[INST] Well. [/INST]", TOKEN),
        ("Well.</s>", TOKEN),
        ("<｜Assistant｜>好。", TOKEN),
        ("Well.\n### Instruction:\nGo on.", TOKEN),
        ("<think>He greets me.</think>Good morning.", THOUGHT),
        ("Good morning.</reasoning>", THOUGHT),
        ("Salt &amp; bread.", MARKUP),
        ("Caf&eacute;", MARKUP),
        ("One &rarr; two", MARKUP),
        ("Salt&nbsp;fish &#39;and&#39; bread", MARKUP),
        ("One.<br/>Two.", MARKUP),
        ('<p class="x">One.</p>', MARKUP),
        ("null", NOTHING),
        ("None.", NOTHING),
        (" N/A ", NOTHING),
        ("无", NOTHING),
        ("Read this.\nNaN", NOTHING),
        ("Wait\x00 here.", WRONG),
        ("鍚� 锟斤拷", WRONG),
        ("donâ€™t go", WRONG),
    ],
)
def test_garbage_is_named_with_its_row(text: str, what: str) -> None:
    for turns, replies in (((("早。", text),), 1), (((text, "早。"),), 0), ((("早。", text), ("去。", "来。")), 1)):
        (finding,) = find_garbage([Row((("一", "二"),), where="row 1"), Row(turns, where="row 2")])
        assert finding.level == "warning" and finding.text.startswith(f"1 rows hold {what}, {replies:,} of them")
        assert len(finding.examples) == 1 and finding.examples[0].startswith("row 2: ")


@pytest.mark.parametrize(
    "text",
    [
        "None of them came back.",
        "无妨，坐罢。",
        "I < you and you > me.",
        "Salt &pepper; and bread",
        "Tom & Jerry; [laughs] {softly}",
        "3 <5 | 7> 2",
        "[sits down] Well.",
        "【叹气】罢了。",
        "It is null and void.",
        "某年某月",
        "No, todo está bien.",
        "I think <so>.",
    ],
)
def test_ordinary_rows_pass(text: str) -> None:
    assert find_garbage([Row((("早。", text),)), Row(((text, "早。"),))]) == []


@pytest.mark.parametrize("name", ["zhenhuan", "keeper", "wukong"])
def test_our_own_rows_hold_none(name: str) -> None:
    assert find_garbage(read_rows(ROOT / "dataset" / name / "rows.json")[0]) == []
