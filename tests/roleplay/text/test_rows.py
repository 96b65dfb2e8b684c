"""Rows of data: what is refused and how it is told, and splits that do not leak."""

import json
from dataclasses import replace
from hashlib import sha256

import pytest

from roleplay.environment import ROOT
from roleplay.errors import DataError
from roleplay.text import splits
from roleplay.text.rows import Row, read_rows
from roleplay.text.splits import (
    FEW_HELD_OUT,
    check_no_overlap,
    draw_share,
    groups,
    name_few,
    near_duplicates,
    near_duplicates_between,
    repeat_by_weight,
    situations,
    split_rows,
)

OWN = ROOT / "dataset" / "zhenhuan" / "rows.json"
GOOD = {"instruction": "你是谁？", "input": "", "output": "我是甄嬛。"}

BAD_ROWS = [
    ("a text", "row 2: str where an object"),
    ({**GOOD, "output": ""}, "row 2: output is ''"),
    ({**GOOD, "output": "  "}, "row 2: output is '  '"),
    ({"instruction": "x"}, "row 2: output is None"),
    ({**GOOD, "instruction": 7}, "row 2: instruction is 7"),
    ({**GOOD, "input": ["x"]}, "row 2: input is ['x']"),
    ({**GOOD, "output": "星 \ud83d"}, "row 2: output is '星 \\ud83d', with half an emoji"),
    ({**GOOD, "output": "x\ud83d"}, "half an emoji"),
    ({**GOOD, "history": [["only one"]]}, "row 2: history must be a list of"),
    ({**GOOD, "history": "no"}, "row 2: history must be a list of"),
    ({**GOOD, "history": [["a", " "]]}, "row 2: history must be a list of"),
    ({**GOOD, "split": "test"}, "row 2: split is 'test'"),
    ({**GOOD, "weight": 0}, "row 2: weight is 0"),
    ({**GOOD, "weight": True}, "row 2: weight is True"),
    ({**GOOD, "weight": 10**600}, "row 2: weight is inf"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_a_bad_row_is_named(tmp_path, row, message):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([GOOD, row]), encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"[]", "holds no rows"),
        (b"{}", "holds no rows"),
        (b'[{"instruction": ', "not JSON (line 1: cut off at the end)"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="none.json: no such file"):
        read_rows(tmp_path / "none.json")


def test_json_lines_and_turns(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = {"instruction": "写两句", "input": "雪", "output": "好。", "history": [["a", "b"]], "weight": 2.5}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (read,) = read_rows(path)[0]
    assert read.turns == (("a", "b"), ("写两句\n雪", "好。"))
    assert [len(repeat_by_weight([read], seed)) for seed in range(20)] != [2] * 20
    assert {len(repeat_by_weight([read], seed)) for seed in range(20)} == {2, 3}


def rows(*texts: str, scene: str = "") -> list[Row]:
    return [Row((("问：" + text, "答：" + text),), scene, where=text) for text in texts]


def test_near_duplicates_ignore_case_and_punctuation():
    texts = ["The snow fell all night long.", "the snow, fell all night long!", "Plum blossom by the wall"]
    assert near_duplicates(texts) == [(0, 1)]


def test_a_group_is_a_scene_and_its_near_duplicates():
    a, b, c, d = rows("snow over the palace roofs", "SNOW over the palace roofs!", "tea in the garden", "a lost kite")
    b, c = (Row(r.turns, "scene-1", where=r.where) for r in (b, c))
    assert groups([a, b, c, d]) == [[0, 1, 2], [3]]


def test_a_split_keeps_groups_whole_and_is_fixed():
    everything = [Row(((f"q{n} {n * 7919}", f"r{n} {n * 104729}"),), f"scene-{n // 3}") for n in range(300)]
    train, held_out = split_rows(everything, 0.1, seed=1)
    assert (train, held_out) == split_rows(everything, 0.1, seed=1)
    assert len(train) + len(held_out) == 300
    assert 24 <= len(held_out) <= 30
    assert not {r.scene for r in train} & {r.scene for r in held_out}


def test_a_row_that_is_to_be_learnt_more_often_is_not_held_out():
    everything = [Row(((f"q{n} {n * 7919}", f"r{n} {n * 104729}"),), weight=1 + (n % 2)) for n in range(40)]
    _, held_out = split_rows(everything, 0.25)
    assert len(held_out) == 10 and {row.weight for row in held_out} == {1}
    fallbacks = [replace(row, scene=f"fallback: {n}") if row.weight > 1 else row for n, row in enumerate(everything)]
    plain = [replace(row, weight=1) for row in fallbacks]
    assert not any(row.scene for row in split_rows(plain, 0.25)[1])
    told = [replace(row, split="held_out" if row.weight > 1 else "") for row in everything]
    assert {row.weight for row in split_rows(told, 0.25)[1]} == {2}


def test_few_held_out_rows_are_named():
    few = [Row((("a", "b"), ("who\nare you?", "me")), where="/somewhere/mine.json row 7")]
    assert name_few(few) == ["held out     mine.json row 7: who are you?"]
    assert name_few(few * FEW_HELD_OUT) == []


PERSONA = "From now on you are Lin Zhao, who has kept the north light alone for eleven winters. You say little. "
CHAIN = [" ".join(sha256(bytes([n + i])).hexdigest()[:8] for i in range(12)) for n in range(40)]  # each like the next


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ([Row(((f"{PERSONA}\nWhat of {n * 7919}?", f"Nothing of {n * 104729}."),)) for n in range(100)], 0),
        ([Row(((f"What of {n * 7919}?", f"(puts down the oil can) {n * 104729}."),)) for n in range(100)], 0),
        ([Row(((f"What of {n * 7919}?", f"Nothing of {n * 104729}."),), "card") for n in range(100)], 1),
        ([Row(((text, "yes"),)) for text in CHAIN], 1),
        ([Row(((f"What of {n * 7919}?", f"Nothing of {n * 104729}."),)) for n in range(3)], 0),
    ],
    ids=["a persona in every row", "one direction before every reply", "one scene for all", "a chain", "three rows"],
)
def test_rows_that_share_a_text_or_a_scene_can_be_held_out(made, told):
    notes = []
    train, held_out = split_rows(made, 0.1, 0, notes.append)
    assert len(train) + len(held_out) == len(made)
    assert 2 <= len(held_out) <= max(2, len(made) // 10)
    assert bool(notes) == bool(told) == any("(--persona)" in note for note in notes)
    assert len(situations(held_out)) > 1  # so that an interval can be given


def test_near_duplicates_are_found_behind_a_persona_and_copies_stay_together():
    apart = [f"{PERSONA}What of the {n * 7919} ships at {n * 104729}?" for n in range(30)]
    assert near_duplicates([*apart, apart[3].upper()]) == [(3, 30)]
    assert near_duplicates(["……", "！！", "……"]) == [(0, 2)]
    assert near_duplicates([PERSONA] * 20) == [(a, b) for a in range(1) for b in range(1, 20)]


@pytest.mark.parametrize("block", [2, 2048])
def test_near_duplicates_between_two_lists_are_those_of_both_together(monkeypatch, block):
    monkeypatch.setattr(splits, "BLOCK", block)
    some = ["The snow fell all night long.", "……", "A lost kite", "Plum blossom by the wall"]
    others = ["……", "plum blossom, by the wall!", "the snow fell all night, long", "Plum blossom by the wall", "a tea"]
    together = [(a, b - 4) for a, b in near_duplicates([*some, *others]) if a < 4 <= b]
    assert near_duplicates_between(some, others) == together == [(0, 2), (1, 0), (3, 1), (3, 3)]
    assert near_duplicates_between([], others) == near_duplicates_between(some, []) == []


def test_a_group_that_is_too_large_stays_whole_where_others_can_be_held_out():
    together = [Row(((f"What of {n * 7919}?", f"Nothing of {n * 104729}."),), "long") for n in range(40)]
    alone = [Row(((f"Where is {n * 7907}?", f"Behind {n * 104711}."),)) for n in range(60)]
    _, held_out = split_rows([*together, *alone], 0.1)
    assert len(held_out) == 10 and not any(row.scene for row in held_out)


@pytest.mark.parametrize(
    ("made", "share", "message"),
    [
        (rows("snow"), 0.1, "nothing can be held out of 1; add rows"),
        (rows(*["snow over the roofs"] * 6), 0.1, "5 of them are copies of another"),
        ([replace(row, weight=2.0) for row in rows("a", "b", "c")], 0.1, "every row has a weight above 1"),
        (rows("a", "b", "c"), 0.0, "give a --held-out above 0"),
        (
            [Row((("a", "b"),), split="train"), Row((("c", "d"),), split="train")],
            0.1,
            "2 training and 0 held-out rows by",
        ),
    ],
)
def test_why_nothing_can_be_held_out(made, share, message):
    with pytest.raises(DataError, match=message):
        split_rows(made, share)


def test_rows_that_no_epoch_draws_are_refused():
    with pytest.raises(DataError, match="so low that none was drawn"):
        repeat_by_weight([replace(row, weight=0.01) for row in rows("snow", "rain")], 0)


def test_overlap_is_refused():
    train, held_out = rows("snow over the palace roofs"), rows("Snow over the palace roofs.")
    with pytest.raises(DataError, match="nearly the same"):
        check_no_overlap(train, held_out)
    marked = [
        Row(r.turns, split=s, where=r.where) for r, s in zip([*train, *held_out], ("train", "held_out"), strict=True)
    ]
    with pytest.raises(DataError, match="belong together"):
        split_rows(marked, 0.1)


def test_the_projects_own_rows():
    """What dataset/README.md says of them: size, languages, multi-turn rows, and a held-out part that is apart."""
    own = read_rows(OWN)[0]
    train, held_out = split_rows(own, 0.5)
    check_no_overlap(train, held_out)
    assert sum(len(r.turns) == 1 for r in own) >= 600
    assert sum(len(r.turns) > 1 for r in own) >= 60
    assert 0.03 <= len(held_out) / len(own) <= 0.11
    assert any(len(r.turns) > 1 for r in held_out)
    assert not {r.scene for r in train} & {r.scene for r in held_out}
    english = sum(r.turns[-1][1].isascii() for r in own) / len(own)
    assert 0.15 <= english <= 0.36


def test_less_than_one_pass_sees_a_part_of_the_rows() -> None:
    every = list(range(100))
    part = draw_share(every, 0.3, seed=1)
    assert len(set(part)) == 30 and part == draw_share(every, 0.3, seed=1) != draw_share(every, 0.3, seed=2)
    assert (
        draw_share(every, 1, seed=1) == draw_share(every, 2.5, seed=1) == every
        and len(draw_share(every, 1e-6, seed=1)) == 1
    )
