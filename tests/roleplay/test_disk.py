"""Folders that are whole or absent, whoever writes them at the same time."""

import threading
from pathlib import Path

import pytest

from roleplay.disk import write_text, written_whole
from roleplay.errors import RoleplayError
from tests.disk import largest_file


def test_two_that_write_one_folder_come_one_after_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "me"

    def write_second() -> None:
        with written_whole(folder) as part:
            (part / "second").write_text("whole")

    second = threading.Thread(target=write_second)
    with written_whole(folder) as part:
        (part / "first").write_text("whole")
        second.start()
        second.join(0.3)
        assert second.is_alive() and (part / "first").exists()
    second.join()
    assert [path.name for path in tmp_path.rglob("*")] == ["me", "second"]


def test_a_file_that_does_not_fit_is_told_as_its_folder(tmp_path: Path) -> None:
    sentence = r"cannot write .*/me \(.*\): free some disk and go on$"
    whole = written_whole(tmp_path / "me", " and go on")
    with largest_file(1000), pytest.raises(RoleplayError, match=sentence), whole as part:
        write_text(part / "curve", "x" * 5000)
    assert list(tmp_path.iterdir()) == []
