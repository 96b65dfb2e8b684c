"""What a console, a pipe, a full disk and Ctrl-C do to a command: one line, and the status that is documented."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from roleplay.disk import write_json, write_text
from roleplay.environment import ROOT
from roleplay.errors import RoleplayError
from tests.disk import largest_file

SCRIPT = "第1场\n船工：今晚有雾吗？\n林照：有，雾号响过两回。\n"


def run(*command: str, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="ascii",
        check=False,
    )


@pytest.fixture
def script(tmp_path: Path) -> str:
    (tmp_path / "s.txt").write_text(SCRIPT, encoding="utf-8")
    return str(tmp_path / "s.txt")


def test_a_narrow_console_gets_numbers_for_signs(script: str) -> None:
    done = run("dataset.build", script, "--list", PYTHONUTF8="0", PYTHONIOENCODING="cp1252")
    assert done.returncode == 0 and "1  \\u6797\\u7167" in done.stdout and done.stderr == ""
    refused = run("dataset.build", script, "--character", "无", "--output", "x", PYTHONIOENCODING="cp1252")
    assert refused.returncode == 2 and refused.stderr.startswith("error: no speaker '\\u65e0'")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_cannot_be_written_is_one_line(script: str) -> None:
    with open("/dev/full", "w") as full:
        done = run("dataset.build", script, "--list", stdout=full.fileno())
    assert done.returncode == 2 and done.stderr.startswith("error: [Errno 28]") and done.stderr.count("\n") == 1


def test_a_reader_that_has_gone_is_no_error(script: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run("dataset.build", script, "--list", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.json"
    write_text(path, "before")
    with largest_file(1000), pytest.raises(RoleplayError, match=r"cannot write .*rows.json \(File too large\)"):
        write_text(path, "x" * 5000)
    assert path.read_text() == "before" and os.listdir(path.parent) == ["rows.json"]
    with pytest.raises(RoleplayError, match="cannot write"):
        write_text(tmp_path / "new", "x")
    with pytest.raises(RoleplayError, match=r"half an emoji, '\\ud83d'\): write it whole"):
        write_text(path, "\ud83d")
    with pytest.raises(RoleplayError, match="take Infinity and NaN"):
        write_json(path, {"score": float("inf")})
    assert path.read_text() == "before" and os.listdir(path.parent) == ["rows.json"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
@pytest.mark.parametrize("command", [["train.lora", "--name", "x"], ["dataset.check", "x.json"]], ids=["lora", "check"])
def test_ctrl_c_while_a_library_loads_is_one_line(command: list[str]) -> None:
    with subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while process.poll() is None and "numpy" not in maps.read_text():
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    assert (process.returncode, told) == (130, "stopped\n")


def test_a_report_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"instruction": "a", "output": "b"}]))
    done = run("dataset.check", str(rows), "--html", str(tmp_path / "file" / "r.html"))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: cannot write to") and done.stderr.count("\n") == 1
