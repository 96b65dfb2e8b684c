"""The rows that a benchmark's figures are on: found where they lie, and named with the figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import learning_curve, rows, training
from roleplay.errors import DataError
from roleplay.text.rows import file_sha256, read_rows
from roleplay.weights import devices


@pytest.mark.parametrize("place", range(len(rows.FOLDERS)))
def test_public_rows_are_found_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    folders = [tmp_path / str(number) for number in range(len(rows.FOLDERS))]
    monkeypatch.setattr(rows, "FOLDERS", folders)
    assert rows.default_data() == str(rows.OWN)
    folders[place].mkdir()
    (folders[place] / "huanhuan.json").write_text("[]")
    assert rows.default_data() == str(folders[place] / "huanhuan.json")


def test_the_rows_and_the_dtype_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    told = rows.tell(str(rows.OWN), found := read_rows(rows.OWN)[0], "float32")
    assert told == {"file": "rows.json", "rows": len(found), "sha256": file_sha256(rows.OWN), "dtype": "float32"}
    assert capsys.readouterr().out == f"rows         {rows.OWN}: {len(found):,} rows\ndtype        float32\n"


def test_a_learning_curve_names_its_rows_and_takes_no_runs_on_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = rows.tell(str(rows.OWN), read_rows(rows.OWN)[0], devices.choose_dtype(devices.choose_device()[0])[0])
    told, file = capsys.readouterr().out, tmp_path / "curve.json"
    monkeypatch.setattr("sys.argv", ["learning_curve", "--rows", "30", "--json", str(file)])
    file.write_text(json.dumps({"data": data, "runs": [{"rows": 30, "times": 1.0}]}))
    learning_curve.main()
    assert capsys.readouterr().out == told
    file.write_text(json.dumps({"data": data | {"dtype": "float64"}, "runs": [{"rows": 30, "times": 1.0}]}))
    with pytest.raises(DataError, match="runs on other rows or in another dtype: choose another --json"):
        learning_curve.main()


@pytest.mark.parametrize(("ours", "same"), [([3.0, 2.5], True), ([3.0, 2.6], False)])
def test_arms_that_learn_something_else_are_seen(ours: list[float], same: bool) -> None:
    arms: dict[str, Any] = {"tutorial": {"losses": [3.01, 2.5]}, "ours": {"losses": ours}}
    assert training.same_losses({"bfloat16": {"arms": arms}}) is same
