"""Folders that are whole or absent, whoever writes them at the same time."""

import threading
from pathlib import Path

from roleplay.disk import written_whole


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
