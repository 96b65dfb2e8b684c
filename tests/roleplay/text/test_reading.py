"""What people bring is read as they mean it, or refused in one line that names the place: files, encodings, forms."""

import codecs
import json
import re
from pathlib import Path

import pytest

from roleplay.environment import ROOT
from roleplay.errors import DataError
from roleplay.text.known import every_turn
from roleplay.text.reading.forms import FORMS
from roleplay.text.rows import as_value, parse_row, read_row_file, read_rows, system_notes

CASES = ROOT.parent / "shared" / "cases"
GOOD = [
    {"instruction": "今晚有雾吗？", "output": "有，雾号响过两回。"},
    {"instruction": "Who wrote in your logbook?", "output": "The keeper before me. His last page is blank."},
    {"instruction": "灯为什么转？", "output": "不转，船家便分不清是灯还是星。"},
]
TURNS = [((row["instruction"], row["output"]),) for row in GOOD]
TEXT = json.dumps(GOOD, ensure_ascii=False, indent=1)
BROKEN = TEXT.replace('"不转，船家便分不清是灯还是星。"', "203")
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in GOOD)
DOCUMENTED = re.findall(r"^\| `([\w-]+)` \| `(\{.+\})` \|$", (ROOT / "docs" / "rows.md").read_text("utf-8"), re.M)


def write(folder: Path, content: str | bytes, name: str = "rows.json") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", codecs.BOM_UTF8 + TEXT.encode()),
        ("rows.json", TEXT.replace("\n", "\r\n")),
        ("rows.txt", TEXT),
        ("rows", TEXT),
        ("rows.json", LINES),
        ("ROWS.JSONL", LINES),
        ("rows.jsonl", codecs.BOM_UTF8 + LINES.encode().replace(b"\n", b"\r\n\r\n")),
        ("rows.jsonl", TEXT),
        ("rows.json", TEXT.encode("utf-16")),
        ("rows.json", TEXT.encode("utf-16-le")),
        ("rows.json", TEXT.encode("utf-16-be")),
        ("rows.json", TEXT.encode("utf-32")),
        ("rows.json", TEXT.encode("gb18030")),
        ("rows.jsonl", LINES.encode("gb18030")),
        ("rows.jsonl", "\n".join(json.dumps(row, indent=1) for row in GOOD)),
        ("rows.json", LINES.replace("}\n", "},\n")),
        ("rows.json", json.dumps(GOOD[:2]) + "\n" + json.dumps(GOOD[2:])),
        ("rows.json", json.dumps([[row["instruction"], row["output"]] for row in GOOD])),
        ("rows.json", json.dumps({"data": {"train": GOOD, "test": GOOD[:1]}})),
        ("rows.json", json.dumps({"tags": ["a"], "examples": GOOD})),
        ("rows.json", json.dumps({str(number): row for number, row in enumerate(GOOD)})),
        (
            "rows.csv",
            "messages\n" + "".join('"[[""' + f'{row["instruction"]}"",""{row["output"]}' + '""]]"\n' for row in GOOD),
        ),
        ("rows.json", f'{{"train": {TEXT}, "version": 2}}'),
        ("rows.json", f'{{"version": "1", "data":\n{LINES.join("[]").replace(chr(10), ",").replace(",]", "]")}\n}}'),
        ("rows.json", json.dumps({"rows": [{"row_idx": 0, "row": row} for row in GOOD]})),
        ("rows.csv", "Instruction,Input,Output\n" + "".join(f'{r["instruction"]},,"{r["output"]}"\n' for r in GOOD)),
        ("rows.csv", "instruction;output\r\n" + "".join(f"{r['instruction']};{r['output']}\r\n" for r in GOOD)),
        ("rows.tsv", "instruction\toutput\n" + "".join(f"{r['instruction']}\t{r['output']}\n" for r in GOOD)),
        (
            "rows.csv",
            codecs.BOM_UTF8 + "问题,回答\n".encode() + "".join(f'{q},"{a}"\n' for ((q, a),) in TURNS).encode(),
        ),
    ],
)
def test_a_file_is_read_by_what_it_holds(tmp_path, name, content):
    assert [row.turns for row in read_rows(write(tmp_path, content, name))[0]] == TURNS


def test_a_guessed_encoding_is_said(tmp_path):
    assert any("GB18030" in note for note in read_rows(write(tmp_path, TEXT.encode("gb18030")))[1])
    assert any("UTF-16" in note for note in read_rows(write(tmp_path, TEXT.encode("utf-16")))[1])
    for text, encoding in (("“Who’s there?”—“The wind.”", "gb18030"), ("Café: “closed”", "cp1252")):
        content = json.dumps([{"instruction": "Who?", "output": text}], ensure_ascii=False).encode(encoding)
        assert read_rows(write(tmp_path, content))[0][0].turns[0][1] == text
    damaged = TEXT.encode("gb18030").replace("雾".encode("gb18030"), b"\xce", 1)
    with pytest.raises(DataError, match=r"damaged GB18030 \(line 3\)"):
        read_rows(write(tmp_path, damaged))
    damaged = TEXT.encode().replace("雾".encode(), "雾".encode()[:2], 1)
    with pytest.raises(DataError, match=r"damaged UTF-8 \(byte 3\d, line 3\)"):
        read_rows(write(tmp_path, damaged))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.json", TEXT[:-40], "cut off at the end"),
        ("rows.json", TEXT[:-2] + ",\n]", "line 13: a comma before the list's end"),
        ("rows.json", TEXT.replace("},", "}", 1), "line 6: a comma or the list's end is missing"),
        ("rows.jsonl", LINES.replace('响过两回。"}', "", 1), "not JSON (line 1: the line is cut off)"),
        (
            "rows.json",
            "\n" + LINES.replace('he blank."}', "", 1).replace('blank."}', ""),
            "line 3: the line is cut off",
        ),
        ("rows.json", TEXT.replace("雾号", "雾\n号"), "line 4: a line end, a tab or another control character"),
        ("rows.json", json.dumps([{"text": "### Human: a ### Assistant: b"}]), "these are whole prompts"),
        ("rows.json", json.dumps({"columns": ["a"], "data": [["b"]]}), "orient='records'"),
        ("rows.csv", "text\nhello\n", "neither JSON nor a table"),
        ("rows.json", "[" * 100_000, "nested too deeply"),
        ("rows.json", "7", "holds no rows"),
        ("rows.json", "\n\n", "the file is empty"),
        (
            "rows.json",
            json.dumps({key: {str(n): r[key] for n, r in enumerate(GOOD)} for key in GOOD[0]}),
            "orient='rec",
        ),
        ("rows.json", json.dumps({key: [r[key] for r in GOOD] for key in GOOD[0]}), "orient='records'"),
        ("rows.json", json.dumps([{"title": "x", "body": "y"}]), "its keys are title, body; rename what is said"),
        (
            "rows.json",
            json.dumps({"name": "Mara", "system_prompt": "Mara."}),
            "this is a persona or a character card",
        ),
        ("rows.json", json.dumps({"name": "Mara", "version": 2}), "holds no rows under its keys (name, version)"),
        ("rows.json", json.dumps([{"prompt": "x", "chosen": "y", "rejected": "z"}]), "these are preference rows"),
        ("rows.xlsx", b"PK\x03\x04....", "a zip or Excel file; save it as CSV in UTF-8"),
        ("rows.parquet", b"PAR1....", "no readable Parquet"),
        ("novel.txt", "It was a dark night.\nNobody came.", "neither JSON nor a table"),
        ("rows.csv", "instruction,output\nhello,well, well\n", "line 2: 3 cells under 2 columns"),
        ("rows.csv", 'instruction,output\nhello,"well\n', "no readable table"),
    ],
)
def test_what_is_no_file_of_rows_is_told_in_one_line(tmp_path, name, content, message):
    path = write(tmp_path, content, name)
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert message in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_the_line_of_a_broken_row_is_its_line_in_the_file(tmp_path):
    for content, place in [
        (BROKEN, "line 10, row 3: output is 203"),
        (
            "\n\n" + LINES.replace('"The keeper before me. His last page is blank."', "{}"),
            "line 4, row 2: output is {}",
        ),
        (',instruction,output\n0,"a\nb",c\n1,d,\n', "line 4, row 2: output is None"),
        (f'{{"of": [1,\n2], "data": {BROKEN}, "n": []\n}}', "line 11, row 3: output is 203"),
        (f'{{"note": "data",\n"all": {{"n": 1,\n"rows" :\n{BROKEN}\n}} }}', "line 13, row 3: output is 203"),
        (
            f'{{"rows": [{{"row": {json.dumps(GOOD[0])}}},\n{{"row": {{"instruction": "a"}}}}]}}',
            "line 2, row 2: output is None",
        ),
    ]:
        found = read_row_file(write(tmp_path, content, "rows.csv" if content[0] == "," else "rows.json"))
        (fault,) = found.broken
        assert fault.startswith(place) and len(found.rows) == found.size - 1


def test_letters_that_only_look_like_line_ends_stay_and_returns_go(tmp_path):
    said = "听浪。\u2028再听钟。\u0085慢些。\x0b\x0c"
    row = {"instruction": "a\r\nb\rc", "output": said + "d\r\ne", "history": [["f\r\ng", "h"]]}
    (read,) = read_rows(write(tmp_path, json.dumps(row, ensure_ascii=False) + "\n\n", "rows.jsonl"))[0]
    assert read.turns == (("f\ng", "h"), ("a\nb\nc", said + "d\ne"))


def test_absent_doubled_and_unknown_keys(tmp_path):
    absent = {"input": None, "history": None, "scene": None, "weight": None, "split": None}
    text = json.dumps([GOOD[0] | absent, GOOD[1] | {"input": float("nan"), "id": 7, "wieght": 2}, GOOD[2]])
    read, notes = read_rows(write(tmp_path, text))
    assert [row.turns for row in read] == TURNS
    assert any(note.endswith("not used: id (1), wieght (1)") for note in notes)
    twice = '[{"instruction": "a", "output": "b", "output": "b"}, {"instruction": "a", "output": "b", "output": "c"}]'
    assert read_row_file(write(tmp_path, twice)).broken == ["row 2: output is 'b' and again 'c'; give it a text"]
    for text in (twice.replace('"b", "output"', '"b", "Output"'), twice.replace("}, {", "}]\n\ufeff[{", 1)):
        assert "output is 'b' and again 'c'" in read_row_file(write(tmp_path, text)).broken[0]
    both = json.dumps([GOOD[0] | {"response": "Another.", "Response ": "Another."}])
    assert read_row_file(write(tmp_path, both)).notes[-1] == "not used: response (1)"
    half = '[{"instruction": "a", "output": "b", "\\ud83d": 1}]'
    assert read_row_file(write(tmp_path, half)).notes[-1] == "not used: \\ud83d (1)"
    huge = f'[{{"instruction": "a", "output": "b", "weight": {"9" * 5000}}}]'
    assert "weight is inf" in read_row_file(write(tmp_path, huge)).broken[0]


@pytest.mark.parametrize(("form", "example"), DOCUMENTED, ids=[form for form, _ in DOCUMENTED])
def test_every_form_has_an_example_that_is_recognised(tmp_path, form, example):
    """The examples are those of docs/rows.md."""
    path = write(tmp_path, f"[{example}]")
    found = read_row_file(path)
    assert found.notes[-1].startswith(f"read as {form} (") and not found.broken
    assert found.rows[0].turns[-1] in [("Is there fog?", "Twice tonight."), ("今晚有雾吗？", "响过两回。")]
    assert read_row_file(path, form).rows == found.rows
    assert found.rows == [parse_row(as_value(row), row.where) for row in found.rows]


def test_the_table_of_forms_is_whole():
    assert [form for form, _ in DOCUMENTED] == list(FORMS)


def chat(*said: tuple[str, str]) -> dict:
    return {"messages": [{"role": role, "content": text} for role, text in said]}


@pytest.mark.parametrize(
    ("record", "turns", "system", "note"),
    [
        (
            chat(("system", "You are Mara."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
            (("a", "b"), ("c", "d")),
            "You are Mara.",
            "",
        ),
        (chat(("assistant", "Come in."), ("user", "a"), ("assistant", "b")), (("a", "b"),), "", "a greeting"),
        (chat(("user", "a"), ("assistant", "b"), ("user", "c")), (("a", "b"),), "", "a last message without a reply"),
        (chat(("user", "a"), ("user", "b"), ("assistant", "c")), (("a\nb", "c"),), "", ""),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "model", "content": "b"}],
            (("a", "b"),),
            "",
            "",
        ),
        ({"conversation": [["a", "b"], ["c", "d"]]}, (("a", "b"), ("c", "d")), "", ""),
        ({"conversation": [{"system": "s", "input": "a", "output": "b"}]}, (("a", "b"),), "s", ""),
        (
            {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]},
            (("a", "b"),),
            "",
            "",
        ),
        (
            {"query": "c", "response": "d", "history": chat(("user", "a"), ("assistant", "b"))["messages"]},
            (("a", "b"), ("c", "d")),
            "",
            "",
        ),
        ({"指令": "改写", "输入": "雪", "输出": "好"}, (("改写\n雪", "好"),), "", ""),
        ({"instruction": "", "input": "a", "output": "b"}, (("a", "b"),), "", ""),
        ({"Question": "a", "Answer": "b", "System": "s", "scene": "x"}, (("a", "b"),), "s", ""),
    ],
)
def test_conversations_become_turns(tmp_path, record, turns, system, note):
    (row, _), notes = read_rows(write(tmp_path, json.dumps([record, record])))
    assert (row.turns, row.system) == (turns, system)
    assert note in " ".join(notes) and ("left out" in " ".join(notes)) == bool(note)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (chat(("user", "a"), ("tool", "b")), "row 2: a message is from 'tool'"),
        (chat(("user", "a")), "row 2: nobody is answered"),
        (chat(("user", ""), ("assistant", "b")), "row 2: a message is empty"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only texts are taught"),
        ({"messages": "none"}, "row 2: 'n' where a message belongs"),
        ({"instruction": "a", "output": "b"}, "row 2: is not in the form messages"),
    ],
)
def test_a_broken_conversation_is_named(tmp_path, record, message):
    good = chat(("user", "a"), ("assistant", "b"))
    (fault,) = read_row_file(write(tmp_path, json.dumps([good, record, good]))).broken
    assert message in fault


def test_what_a_message_says_beside_its_text_is_named(tmp_path):
    record = chat(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    record["messages"][1] |= {"weight": 1, "tool_calls": None}
    record["messages"][0]["name"] = record["messages"][2]["name"] = "Ann"
    notes = read_row_file(write(tmp_path, json.dumps([record, record]))).notes
    assert notes[1:] == ["the key 'name' of a message is not used, in 2 rows"]


def weighed(*weights: float | None) -> dict:
    """A chat whose replies have these weights."""
    talk = chat(*((role, f"{role} {n}") for n in range(len(weights)) for role in ("user", "assistant")))
    for message, weight in zip(talk["messages"][1::2], weights, strict=True):
        message["weight"] = weight
    return talk


@pytest.mark.parametrize(
    ("record", "turns", "learnt"),
    [
        (weighed(0, 1), 2, [1]),
        (weighed(0, None, 0, 1), 4, [1, 3]),
        (weighed(1, 0, 1, 0, 0), 3, [0, 2]),
        (
            {
                "conversations": [
                    {"from": m["role"], "value": m["content"], "weight": m.get("weight")}
                    for m in weighed(0, 1)["messages"]
                ]
            },
            2,
            [1],
        ),
        ({"instruction": "a", "output": "b", "history": weighed(1, 0)["messages"]}, 3, [0, 2]),
        (
            {"instruction": "a", "output": "b", "history": [["c", "d"], ["e", "f"]], "history_weights": [0, 1]},
            3,
            [1, 2],
        ),
        (chat(("user", "a"), ("assistant", "b")), 1, [0]),
    ],
)
def test_a_reply_of_weight_0_is_shown_and_not_learnt(tmp_path, record, turns, learnt):
    ((row,), notes) = read_rows(write(tmp_path, json.dumps([record])))
    assert len(row.turns) == turns and row.learnt == tuple(row.turns[n] for n in learnt)
    assert [one.turn for one in every_turn([row])] == list(row.learnt)
    assert parse_row(as_value(row), row.where) == row
    assert ("left out" in " ".join(notes)) == (record == weighed(1, 0, 1, 0, 0))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (weighed(0, 0), "row 1: every reply has the weight 0, so none is to be learnt; remove the row"),
        (weighed(0.5, 1), "row 1: a reply has the weight 0.5; give it 1, or 0"),
        (GOOD[0] | {"history_weights": [0]}, "row 1: history_weights is [0]; give 0"),
        (GOOD[0] | {"history": [["a", "b"]], "history_weights": [2]}, "row 1: history_weights is [2]; give 0"),
    ],
)
def test_weights_that_teach_nothing_or_say_nothing_are_named(tmp_path, record, message):
    assert read_row_file(write(tmp_path, json.dumps([record]))).broken[0].startswith(message)


def test_a_reply_that_is_not_to_be_learnt_is_refused(tmp_path):
    rows = [{"prompt": "a", "completion": "b", "label": label} for label in (True, False)]
    assert read_row_file(write(tmp_path, json.dumps(rows))).broken == [
        "row 2: label is false, so its reply is one that is not to be learnt; remove the row"
    ]


def test_a_form_that_is_asked_for_is_taken(tmp_path):
    both = [{"instruction": "a", "output": "b", "question": "c", "answer": "d"}]
    path = write(tmp_path, json.dumps(both))
    assert read_rows(path)[0][0].turns == (("a", "b"),)
    assert read_rows(path, "question-answer")[0][0].turns == (("c", "d"),)
    with pytest.raises(DataError, match="no form 'tavern': choose from alpaca, sharegpt"):
        read_rows(path, "tavern")


def test_a_system_text_that_is_not_the_personas_is_named(tmp_path):
    rows = read_rows(write(tmp_path, json.dumps([{**row, "system": f"You are {n}."} for n, row in enumerate(GOOD)])))[0]
    assert system_notes(rows[:1], "You are 0.") == []
    (note,) = system_notes(rows, "You are 0.\n")
    assert note.startswith("2 rows have 2 system texts, such as 'You are 1.'") and "--persona" in note


def test_parquet_folders_and_splits(tmp_path):
    import datasets

    nested = [{"messages": chat(("user", q), ("assistant", a))["messages"], "id": 1} for ((q, a),) in TURNS]
    made = datasets.DatasetDict(train=datasets.Dataset.from_list(nested), test=datasets.Dataset.from_list(nested[:1]))
    made["train"].to_parquet(str(tmp_path / "rows.bin"))
    assert [row.turns for row in read_rows(tmp_path / "rows.bin")[0]] == TURNS
    made.save_to_disk(str(tmp_path / "saved"))
    read, notes = read_rows(tmp_path / "saved")
    assert [row.turns for row in read] == TURNS and any("its split train; not test" in note for note in notes)
    assert [row.turns for row in read_rows(f"{tmp_path}/saved:test")[0]] == TURNS[:1]
    with pytest.raises(DataError, match="no split 'valid'; name one as .*saved:SPLIT, of train, test"):
        read_rows(f"{tmp_path}/saved:valid")
    (tmp_path / "plain").mkdir()
    write(tmp_path / "plain", LINES, "train.jsonl")
    assert [row.turns for row in read_rows(tmp_path / "plain")[0]] == TURNS
    with pytest.raises(DataError, match="dataset/none: no such file"):  # no id of a hub: dataset/ is here
        read_rows("dataset/none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: cannot be read as a data set"):
        read_rows(tmp_path / "empty")


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")
@pytest.mark.parametrize(
    ("case", "rows"),
    [
        ("d01_bom_json", 6),
        ("d05_sharegpt", 6),
        ("d08_csv", 6),
        ("d12_crlf", 7),
        ("d13_u2028_jsonl", 7),
        ("d20_gbk", 6),
        ("d22_wrapped_object", 6),
        ("d23_nan_input", 6),
        ("d37_qa_chinese_keys", 6),
    ],
)
def test_what_people_bring(case, rows):
    (file,) = (path for path in (CASES / case).iterdir() if path.name != "EXPECTED.txt")
    read = read_rows(file)[0]
    assert len(read) == rows and "\r" not in "".join(row.text for row in read)
