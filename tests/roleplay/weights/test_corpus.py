"""An adapter's training rows, found again: the right files, the same split, and nothing outside the data folders."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roleplay.errors import DataError
from roleplay.text.rows import file_sha256, read_rows
from roleplay.text.splits import split_rows
from roleplay.weights import training_rows
from roleplay.weights.adapters import Adapter

TEXTS = ("雪夜", "梅林", "更漏", "香炉", "棋局", "书信", "晚膳", "画眉", "秋千", "灯会")
ROWS = [{"instruction": f"{text}如何？", "output": f"说到{text}，且容臣妾想想。"} for text in TEXTS]


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Adapter:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "rows.json"
    file.write_text(json.dumps(ROWS, ensure_ascii=False))
    monkeypatch.setattr(training_rows, "FOLDERS", (tmp_path / "elsewhere", tmp_path / "data"))
    record = {"file": "rows.json", "sha256": file_sha256(file), "rows": len(ROWS)}
    training = {"data": [record], "settings": {"held_out": 0.3, "seed": 5}}
    return Adapter("mine", tmp_path / "mine", 8, 4.0, "", "", "gemma", "", training)


def test_rows_are_split_as_in_the_training(adapter: Adapter, tmp_path: Path) -> None:
    train, held_out, files = training_rows.rows_of(adapter)
    assert (train, held_out) == split_rows(read_rows(tmp_path / "data" / "rows.json")[0], 0.3, 5)
    assert len(train) + len(held_out) == len(ROWS) and held_out
    assert [{key: file[key] for key in ("file", "sha256", "rows")} for file in files] == adapter.training["data"]


@pytest.mark.parametrize("recorded", ["rows.json", "ink.json"])
def test_rows_are_found_in_a_characters_folder_by_what_they_hold(
    adapter: Adapter, tmp_path: Path, recorded: str
) -> None:
    """Every character has a rows.json, and what was one file may have become a folder."""
    file, ink, other = tmp_path / "data" / "rows.json", tmp_path / "data" / "ink", tmp_path / "data" / "other"
    ink.mkdir()
    other.mkdir()
    (other / "rows.json").write_text("[]")
    file = file.rename(ink / "rows.json")
    record = adapter.training["data"][0] | {"file": recorded}
    trained = replace(adapter, training=adapter.training | {"data": [record]})
    assert training_rows.find_data(trained) == [file]
    file.write_text("[]")
    with pytest.raises(DataError, match="rows.json has changed since mine was trained"):
        training_rows.find_data(trained)


def test_rows_to_learn_may_change_where_the_same_ones_are_held_out(adapter: Adapter, tmp_path: Path) -> None:
    file = tmp_path / "data" / "rows.json"
    split = [row | {"split": "held_out" if number < 2 else "train"} for number, row in enumerate(ROWS)]
    file.write_text(json.dumps(split))
    held_out = training_rows.rows_of(adapter, [str(file)])[1]
    record = {"held_out": {"sha256": training_rows.held_out_sha256(held_out)}}
    trained = replace(adapter, training=adapter.training | record)
    more = {"instruction": "又一句新话", "output": "又一句新答。", "split": "train"}
    file.write_text(json.dumps([more, *split]))
    assert training_rows.rows_of(trained)[1][0].turns == held_out[0].turns
    split[0]["split"] = "train"
    file.write_text(json.dumps(split))
    with pytest.raises(DataError, match="rows.json has changed since mine was trained"):
        training_rows.rows_of(trained)


def test_rows_are_found_wherever_they_were(adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of the project by the way to them, and outside by what this machine alone has noted."""
    monkeypatch.setattr(training_rows, "PROJECT", tmp_path / "project")
    for place, name in (("project/deep/down/mine.json", "deep/down/mine.json"), ("far/away/mine.json", "mine.json")):
        file = tmp_path / place
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(ROWS))
        monkeypatch.chdir(file.parent)
        *_, files = training_rows.load_rows(["mine.json"], 0.3, 5)
        assert files[0]["file"] == name
        if name == "mine.json":
            training_rows.remember(training_rows.FOLDERS[-1], ["mine.json"], files)
        monkeypatch.chdir("/")
        trained = replace(adapter, training=adapter.training | {"data": files})
        assert training_rows.find_data(trained) == [file]
        file.rename(file.with_name("moved.json"))
        with pytest.raises(DataError, match="mine.json, which mine was trained on, is gone"):
            training_rows.find_data(trained)


def test_a_folder_of_rows_and_a_hubs_data_set_are_found_again(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, runs = tmp_path / "far" / "rows", training_rows.FOLDERS[-1]
    folder.mkdir(parents=True)
    (folder / "train.json").write_text(json.dumps(ROWS))
    monkeypatch.chdir(folder.parent)
    for name in ("rows", "rows:train"):
        _, held_out, files = training_rows.load_rows([name], 0.3, 5)
        training_rows.remember(runs, [name], files)
        record = {"data": files, "held_out": {"sha256": training_rows.held_out_sha256(held_out)}}
        trained = replace(adapter, training=adapter.training | record)
        assert training_rows.find_data(trained) == [folder.with_name(name)]
        assert [row.turns for row in training_rows.rows_of(trained)[1]] == [row.turns for row in held_out]
    training_rows.remember(runs, ["you/rows:test"], files)
    assert training_rows.find_data(trained) == [Path("you/rows:test")]
    training_rows.remember(runs, ["rows"], files)
    folder.rename(folder.with_name("moved"))
    with pytest.raises(DataError, match="which mine was trained on, is gone"):
        training_rows.find_data(trained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": []}, "names no data"),
        (
            {"data": [{"file": "nowhere.json", "sha256": ""}]},
            "say where it is with train.evaluate --adapter .*mine --data FILE",
        ),
        *(
            ({"data": [{"file": name, "sha256": ""}]}, "which is not in the project")
            for name in ("../data/rows.json", "/etc/passwd", "data/../../x", "C:/x", "..\\x")
        ),
        ({"data": [{"file": "rows.json", "sha256": "0"}]}, "has changed since"),
        ({"data": [{"file": "rows.json"}]}, "does not say which files"),
        ({"data": 7}, "does not say which files"),
        ({"settings": []}, "does not say how"),
        ({"settings": {"held_out": "<b>"}}, "does not say how"),
        ({"settings": {"held_out": 0}}, "0 held-out rows"),
    ],
)
def test_rows_that_cannot_be_had_are_told(adapter: Adapter, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        training_rows.rows_of(replace(adapter, training=adapter.training | change))
