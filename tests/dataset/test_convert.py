"""Saved chats and files of rows become one set: what is dropped, what a review changes, what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dataset.convert import ConvertFlags, collect, convert, review
from page.chat.exchanges import Exchange
from page.chat.saved import as_rows
from roleplay.engine.protocol import ADAPTER, Answer
from roleplay.environment import ROOT
from roleplay.errors import RoleplayError
from roleplay.text import card_files, png
from roleplay.text.rows import read_rows


def chat(path: Path, *turns: tuple[str, str]) -> str:
    """A file as the page saves it."""
    said = [Exchange(user, {ADAPTER: Answer(reply, stop="end")}) for user, reply in turns]
    path.write_text(as_rows(said), encoding="utf-8")
    return str(path)


HELLO, COLD, BYE = ("Hello.", "Good evening."), ("Cold?", "Cold enough."), ("Bye.", "Mind the steps.")


def test_saved_chats_and_rows_become_one_set(tmp_path, capsys):
    rows = tmp_path / "old.jsonl"
    rows.write_text(json.dumps({"instruction": "Who?", "output": "Amos.", "scene": "name", "weight": 2}) + "\n")
    files = [
        chat(tmp_path / "a.json", HELLO, COLD),
        chat(tmp_path / "b.json", HELLO),
        chat(tmp_path / "c.json", HELLO, COLD),
        chat(tmp_path / "d.json", BYE),
        str(rows),
    ]
    out = tmp_path / "rows.json"
    convert(ConvertFlags(files, str(out)))
    assert [row.turns for row in read_rows(out)[0]] == [(HELLO, COLD), (BYE,), (("Who?", "Amos."),)]
    assert json.loads(out.read_text())[2] == json.loads(rows.read_text())
    printed = capsys.readouterr().out
    assert f"{files[1]} row 1: {files[0]} row 1 goes on from it; dropped" in printed
    assert f"{files[2]} row 1: the same as {files[0]} row 1; dropped" in printed
    assert "3 rows with 4 exchanges from 5 files" in printed
    convert(ConvertFlags([str(out), chat(tmp_path / "e.json", COLD)], str(out)))
    assert len(read_rows(out)[0]) == 4


def test_a_cards_example_dialogue_becomes_starter_rows(tmp_path, capsys):
    told = {"name": "Amos", "description": "Keeps it.", "mes_example": "{{user}}: Cold?\n{{char}}: Cold enough."}
    (tmp_path / "card.json").write_text(json.dumps(told))
    picture = card_files.write_png({"data": told | {"mes_example": "{{user}}: Bye.\nAmos: Go."}}, png.plain_picture())
    (tmp_path / "card.png").write_bytes(picture)
    files = [str(tmp_path / name) for name in ("card.json", "card.png", "rows.json")]
    convert(ConvertFlags(files))
    assert [row.turns for row in read_rows(files[-1])[0]] == [(COLD,), (("Bye.", "Go."),)]
    assert f"1 rows of its example dialogue; its persona is taken by --persona {files[0]}" in capsys.readouterr().out


def test_a_review_keeps_drops_and_edits_exchanges(tmp_path):
    found = collect([chat(tmp_path / "a.json", HELLO, COLD, BYE), chat(tmp_path / "b.json", BYE)])
    answers = iter(["", "what?", "e", "Colder than you.", "d", "drop"])
    (left,) = review(found, lambda text: next(answers))
    assert left.turns == (HELLO, ("Cold?", "Colder than you."))
    row = {"instruction": "Read.", "input": "a letter", "output": "No.", "context": "Ann: Hm.", "history": [list(BYE)]}
    (tmp_path / "c.json").write_text(json.dumps([row]))
    for answers, turns in (
        (iter("dk"), (("Ann: Hm.\nRead.\na letter", "No."),)),
        (iter("kd"), (BYE,)),
        (iter("kk"), (BYE, ("Ann: Hm.\nRead.\na letter", "No."))),
    ):
        (left,) = review(collect([str(tmp_path / "c.json")]), lambda text, answers=answers: next(answers))
        assert left.turns == turns


def test_what_is_only_shown_stays_so(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"messages": [
        {"role": "user", "content": HELLO[0]}, {"role": "assistant", "content": HELLO[1], "weight": 0},
        {"role": "user", "content": COLD[0]}, {"role": "assistant", "content": COLD[1]},
        {"role": "user", "content": BYE[0]}, {"role": "assistant", "content": BYE[1]},
    ]}))  # fmt: skip
    short = chat(tmp_path / "b.json", HELLO)
    out = tmp_path / "rows.json"
    convert(ConvertFlags([str(tmp_path / "a.json"), short], str(out)))
    assert [row.learnt for row in read_rows(out)[0]] == [(COLD, BYE), (HELLO,)]  # the long one does not teach the other
    for given, left in (("kkdk", [(COLD,), (HELLO,)]), ("dkkk", [(COLD, BYE), (HELLO,)]), ("kddk", [(HELLO,)])):
        answers = iter(given)
        rows = review(collect([str(out)]), lambda text, answers=answers: next(answers))
        assert [row.parsed.learnt for row in rows] == left


def test_a_review_in_the_terminal(tmp_path):
    file, out = chat(tmp_path / "a.json", HELLO, COLD), tmp_path / "rows.json"
    command = [sys.executable, "-m", "dataset.convert", file, "--out", str(out), "--review"]
    ended = subprocess.run(command, input="k\n", capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 2 and not out.exists()
    assert ended.stderr == "error: the review was ended before its last exchange: nothing was written\n"
    done = subprocess.run(command, input="k\nd\n", capture_output=True, text=True, cwd=ROOT)
    assert "Good evening." in done.stdout and [row.turns for row in read_rows(out)[0]] == [(HELLO,)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("chat.md", "# Amos", "save it on the page as training rows"),
        ("chat.json", "[]", "holds no rows"),
        ("chat.json", '[{"chosen": "a", "rejected": "b"}]', "these are preference rows"),
        ("chat.json", '["Hello."]', "row 1: str where an object with instruction and output belongs"),
        ("chat.json", '[{"instruction": "a", "output": ""}]', "row 1: output is ''"),
    ],
)
def test_what_is_refused_says_what_it_needs(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(RoleplayError, match=message) as caught:
        convert(ConvertFlags([str(tmp_path / name)], str(tmp_path / "rows.json")))
    assert "\n" not in str(caught.value) and not (tmp_path / "rows.json").exists()


def test_a_set_that_is_there_is_not_overwritten(tmp_path):
    file = chat(tmp_path / "a.json", HELLO)
    with pytest.raises(RoleplayError, match=r"b.json exists: choose another --out"):
        convert(ConvertFlags([file], chat(tmp_path / "b.json", COLD)))
    with pytest.raises(RoleplayError, match=r"b.json exists: choose another --out"):
        convert(ConvertFlags([file, str(tmp_path / "b.json")]))
    with pytest.raises(RoleplayError, match="Give files and --out"):
        convert(ConvertFlags([file]))


def test_rows_of_any_form_become_this_projects_own(tmp_path, capsys):
    said = [{"from": "system", "value": "You are Amos."}, {"from": "human", "value": "Who?"}]
    chats = {"conversations": [*said, {"from": "gpt", "value": "Amos."}], "scene": "name", "id": 3}
    (tmp_path / "chats.jsonl").write_text(json.dumps(chats) + "\n")
    (tmp_path / "pairs.csv").write_text("q,a\nCold?,Cold enough.\n", encoding="utf-16")
    out = tmp_path / "rows.json"
    convert(ConvertFlags([str(tmp_path / "chats.jsonl"), str(tmp_path / "pairs.csv"), str(out)]))
    assert json.loads(out.read_text()) == [
        {"scene": "name", "instruction": "Who?", "output": "Amos.", "history": [], "system": "You are Amos."},
        {"instruction": "Cold?", "output": "Cold enough."},
    ]
    printed = capsys.readouterr().out
    assert "read as sharegpt" in printed and "not used: id (1)" in printed and "read as UTF-16" in printed
