"""A character as a folder: found by name or path, known again from a training, and made anew."""

import json
from pathlib import Path
from typing import Any

import pytest

from dataset import new
from roleplay.errors import DataError
from roleplay.text import characters, personas
from roleplay.text.characters import load_character, trained_as
from roleplay.text.rows import read_rows
from roleplay.text.splits import groups, near_duplicates_between, split_rows
from train.measuring.rules import load_lists
from train.measuring.sheet import load_prompts
from train.measuring.written import load_facts, load_recall

PROMPT = personas.default().system_prompt


def test_zhen_huan_is_a_folder_with_every_file() -> None:
    character = load_character("zhenhuan")
    assert character.persona == personas.default() and character.name == "zhenhuan"
    files = (character.rows, character.lists, character.facts, character.recall, character.sheet)
    assert [path.name for path in files if path] == [
        "rows.json",
        "lists.json",
        "facts.json",
        "recall.json",
        "sheet.json",
    ]
    assert characters.names() == ["keeper", "wukong", "zhenhuan"]  # the pattern for new ones is none


@pytest.mark.parametrize("name", ["keeper", "wukong"])
def test_a_whole_example_passes_its_own_rules(name: str) -> None:
    character = load_character(name)
    assert character.rows and character.lists and character.facts and character.recall and character.sheet
    rows, lists = read_rows(character.rows)[0], load_lists(character.lists)
    facts, recall, sheet = load_facts(character.facts), load_recall(character.recall), load_prompts(character.sheet)
    _, held_out = split_rows(rows, 0.1)
    assert 3 * len(groups(held_out)) >= 2 * len(sheet)  # what a sheet of one adapter and the base model asks for
    assert [turn for row in rows for turn in row.turns if lists.fault(*turn)] == []
    check = lists.check_rules()
    assert (check.false_alarms, check.missed) == (0, 0) and check.good and check.broken
    asked = [item.user for item in (*facts, *lists.identity, *lists.breaks)] + [item.turns[-1] for item in recall]
    said = [user for row in rows for user, _ in row.turns]
    assert near_duplicates_between(said, asked, 0.5) == []


def test_a_folder_anywhere_by_its_path_and_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "ink").mkdir()
    (tmp_path / "ink" / "persona.json").write_text(json.dumps({"name": "Ink", "system_prompt": "You are Ink."}))
    character = load_character(str(tmp_path / "ink"))
    assert (character.name, character.persona.name) == ("ink", "Ink")
    assert character.rows is character.lists is character.facts is character.recall is character.sheet is None


def test_no_such_character_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no character 'nobody': choose from keeper, wukong, zhenhuan") as caught:
        load_character("nobody")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no character"):
        load_character(str(tmp_path))


@pytest.mark.parametrize(
    ("training", "name"),
    [
        ({"settings": {"character": "zhenhuan"}}, "zhenhuan"),
        ({"settings": {}, "persona": {"system_prompt": PROMPT}}, "zhenhuan"),
        ({"settings": {"character": "keeper"}, "persona": {"name": "Another", "system_prompt": "I."}}, None),
        ({"settings": {"character": "zhenhuan", "persona": "me.json"}, "persona": {"system_prompt": "I."}}, None),
        ({"settings": {"character": "../zhenhuan"}, "persona": {"system_prompt": "I."}}, None),
        ({"settings": {"character": "template"}}, None),
        ({"settings": {"character": ["zhenhuan"]}}, None),
        ({"settings": 7, "persona": "x"}, None),
        ({}, None),
    ],
)
def test_whom_an_adapter_was_trained_as(training: dict[str, Any], name: str | None) -> None:
    found = trained_as(training)
    assert (found.name if found else None) == name


def test_a_new_character_has_worked_lines_in_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = tmp_path / characters.PATTERN
    pattern.symlink_to(characters.FOLDER / characters.PATTERN)
    monkeypatch.setattr(characters, "FOLDER", tmp_path)
    new.main(["mara"])
    assert "README.md" in capsys.readouterr().out
    character = load_character("mara")
    assert character.rows and character.lists and (character.folder / "facts.md").read_text(encoding="utf-8")
    train, held_out = split_rows(read_rows(character.rows)[0], 0.1)
    assert train and held_out
    lists = load_lists(character.lists)
    check = lists.check_rules()
    assert (check.false_alarms, check.missed) == (0, 0) and check.good and check.broken
    assert character.facts and load_facts(character.facts) and character.recall and load_recall(character.recall)
    readme = (character.folder / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in character.folder.iterdir()} - {"README.md"}
    assert all(f"`{file}`" in readme for file in files) and "--character mara" in readme and "NAME" not in readme


@pytest.mark.parametrize(("name", "message"), [("zhenhuan", "exists"), ("../up", "no name for a folder"), ("", "no")])
def test_what_no_folder_is_made_for(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        new.make(name)
    assert "\n" not in str(caught.value)
