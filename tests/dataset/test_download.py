"""A public set from a file, a URL and both hubs, and a novel from a URL; each server a local stand-in."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest

from dataset import build, download
from dataset.download import main
from roleplay.environment import ROOT
from roleplay.errors import DataError, HubError, RoleplayError
from roleplay.text.rows import read_rows
from tests.disk import largest_file

ROWS = [{"instruction": f"第{n}问？", "input": "", "output": f"答{n}，" + chr(0x4E00 + n) * 9} for n in range(40)]
BODY = json.dumps(ROWS, ensure_ascii=False).encode()
SHA256 = hashlib.sha256(BODY).hexdigest()
NOVEL = (  # as Project Gutenberg sends one: framed, in traditional characters, lines of 35 characters
    "The Project Gutenberg eBook of 燈塔\r\n\r\n*** START OF THE PROJECT GUTENBERG EBOOK 燈塔 ***\r\n"
    "\r\n第九回     霧號\r\n\r\n船工問林照道：「今晚可有大霧麼？燈塔上一盞燈，照不見半里的水面，我那條船\r\n"
    "上還有三十個人。」林照笑道：「有，霧號響過兩回。教他們收了帆，等天亮了再走\r\n罷。」\r\n"
    "\r\n第一○回     歸航\r\n\r\n船工道：「走罷？」林照道：「天亮了。」船工道：「我去。」林照道：「好。」\r\n"
    "*** END OF THE PROJECT GUTENBERG EBOOK 燈塔 ***\r\n“Project Gutenberg” is a trademark.\r\n"
).encode()
COMMIT = "b" * 40
HUB_ANSWERS = {
    f"/api/datasets/o/n/revision/{name}": {"id": "o/n", "sha": COMMIT, "siblings": [{"rfilename": "huanhuan.json"}]}
    for name in ("main", COMMIT)
} | {
    f"/api/datasets/o/n/tree/{COMMIT}": [{"type": "file", "path": "huanhuan.json", "size": len(BODY), "oid": "a" * 40}],
    "/api/v1/datasets/o/n/repo/tree": {
        "Code": 200,
        "Success": True,
        "Data": {
            "TotalCount": 1,
            "Files": [{"Name": "huanhuan.json", "Path": "huanhuan.json", "Type": "blob", "Size": len(BODY)}],
        },
    },
}


class _Hub(BaseHTTPRequestHandler):
    """As much of Hugging Face, ModelScope and a plain web server as one small data set needs."""

    def do_GET(self) -> None:
        path = urlparse(self.path).path
        if path in HUB_ANSWERS:
            status, body = 200, json.dumps(HUB_ANSWERS[path]).encode()
        elif path.endswith("/huanhuan.json") or path == "/api/v1/datasets/o/n/repo":
            status, body = 200, BODY
        elif path.endswith("/novel.txt"):
            status, body = 200, NOVEL
        else:
            status, body = 404, b"{}"
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if body is BODY else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"' + "c" * 40 + '"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


@pytest.mark.parametrize("source", ["hf:o/n", "modelscope:o/n:huanhuan.json"])
def test_hubs(server: str, tmp_path: Path, source: str) -> None:
    """In a process of its own: both hubs read their endpoint when they are imported."""
    environment = {"HF_ENDPOINT": server, "MODELSCOPE_ENDPOINT": server, "HF_HOME": str(tmp_path / "hf")}
    environment |= {"MODELSCOPE_CACHE": str(tmp_path / "ms"), "MODELSCOPE_HOME": str(tmp_path / "home")}
    command = ["-m", "dataset.download", "huanhuan", "--source", source, "--output", str(tmp_path / "h.json")]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"sha256   {SHA256}" in done.stdout and "licence  the rows are" in done.stdout
    assert json.loads((tmp_path / "h.json").read_text(encoding="utf-8")) == ROWS
    assert json.loads((tmp_path / "h.source.json").read_text(encoding="utf-8"))["source"] == source


def test_url_and_its_hash(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["huanhuan", "--source", f"{server}/x/huanhuan.json", "--output", str(tmp_path / "h.json")]
    with pytest.raises(DataError, match=f"SHA-256 is {SHA256}, not 0000"):
        main([*flags, "--sha256", "0" * 64])
    assert list(tmp_path.iterdir()) == []
    main([*flags, "--sha256", SHA256.upper()])
    assert "split    none" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.json", "h.source.json"]


def test_a_changed_file_is_refused_until_its_hash_is_given(tmp_path: Path) -> None:
    source = tmp_path / "source.json"
    flags = ["huanhuan", "--source", str(source), "--output", str(tmp_path / "h.json")]
    source.write_bytes(BODY)
    main(flags)
    changed = json.dumps(ROWS[:30]).encode()
    source.write_bytes(changed)
    with pytest.raises(DataError, match="it was changed; pass --sha256"):
        main(flags)
    assert len(read_rows(tmp_path / "h.json")[0]) == 40
    main([*flags, "--sha256", hashlib.sha256(changed).hexdigest()])
    assert len(read_rows(tmp_path / "h.json")[0]) == 30


def test_no_rows_lie_there_without_their_hash(tmp_path: Path) -> None:
    (tmp_path / "source.json").write_bytes(BODY)
    flags = ["huanhuan", "--source", str(tmp_path / "source.json"), "--output", str(tmp_path / "out" / "h.json")]
    with largest_file(1000), pytest.raises(RoleplayError, match="cannot write .*h.json"):
        main(flags)
    assert os.listdir(tmp_path / "out") == ["h.source.json"]


def test_a_novel_is_text_that_rows_are_built_from(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    novel, rows = tmp_path / "x.txt", tmp_path / "rows.json"
    main(["xiyouji", "--source", f"{server}/novel.txt", "--output", str(novel)])
    assert f"{novel}: 2 chapters with 6 speeches from {server}/novel.txt" in capsys.readouterr().out
    assert "Gutenberg" not in novel.read_text(encoding="utf-8")
    record = json.loads((tmp_path / "x.source.json").read_text(encoding="utf-8"))
    assert (record["sha256"], record["chapters"]) == (hashlib.sha256(NOVEL).hexdigest(), 2)
    build.main([str(novel), "--character", "林照", "--output", str(rows)])
    first = json.loads(rows.read_text(encoding="utf-8"))[0]
    assert first["output"] == "有，霧號響過兩回。教他們收了帆，等天亮了再走罷。" and first["speaker"] == "船工"

    page = tmp_path / "login.html"
    page.write_text('<p class="a">Sign in: "now"</p>', encoding="utf-8")
    with pytest.raises(DataError, match="it was changed"):
        main(["xiyouji", "--source", str(page), "--output", str(novel)])
    with pytest.raises(DataError, match="login.html is no novel with chapters"):
        main(["xiyouji", "--source", str(page), "--output", str(tmp_path / "y.txt")])
    assert not (tmp_path / "y.txt").exists() and not (tmp_path / "y.source.json").exists()


def test_split_by_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, table = tmp_path / "source.json", tmp_path / "scenes.csv"
    source.write_bytes(BODY)
    lines = [f"{download.row_key(row)},{number // 4}" for number, row in enumerate(ROWS[:36])]
    table.write_text("\n".join(["row_sha256_16,scene", *lines]) + "\n", encoding="utf-8")
    flags = ["huanhuan", "--source", str(source), "--scenes", str(table), "--held-out", "0.25"]
    outputs = [tmp_path / name for name in ("a.json", "b.json")]
    for output in outputs:
        main([*flags, "--output", str(output)])
    assert "36 rows have a scene" in capsys.readouterr().out
    rows = read_rows(outputs[0])[0]
    sides = {row.scene: {other.split for other in rows if other.scene == row.scene} for row in rows if row.scene}
    assert len(sides) == 9 and all(len(side) == 1 for side in sides.values())
    assert 4 <= sum(row.split == "held_out" for row in rows) <= 10
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_the_first_source_that_answers_is_taken(server: str, tmp_path: Path) -> None:
    address = f"{server}/huanhuan.json"
    source, file = download.fetch_first([f"{server}/gone.json", address], tmp_path)
    assert source == address and file.read_bytes() == BODY
    with pytest.raises(HubError, match="gone.json cannot be fetched.*404.*neither a file.*give --source"):
        download.fetch_first([f"{server}/gone.json", "nowhere"], tmp_path)


def test_errors_leave_nothing_behind(tmp_path: Path) -> None:
    source = tmp_path / "source.json"
    source.write_text(json.dumps([{"instruction": "甲"}]), encoding="utf-8")
    table = tmp_path / "scenes.csv"
    table.write_text("a,b\n1,2\n", encoding="utf-8")
    output = tmp_path / "h.json"
    cases = [
        (["nothing"], "no public set 'nothing': there are huanhuan"),
        (["huanhuan", "--source", str(source)], "source.json row 1: output is None"),
        (["huanhuan", "--source", str(source), "--held-out", "1"], "--held-out is 1.0"),
        (["xiyouji", "--scenes", str(table)], "--scenes is for rows, and xiyouji is a novel"),
    ]
    for flags, message in cases:
        with pytest.raises(DataError, match=message):
            main([*flags, "--output", str(output)])
    with pytest.raises(DataError, match="no table with the columns row_sha256_16 and scene"):
        download.add_scenes(ROWS, table)
    assert not output.exists()


@pytest.mark.parametrize(
    ("names", "message"), [([], "it has none"), (["a.json", "b.jsonl"], r"a.json, b.jsonl\): name it, hf:o/n:FILE")]
)
def test_a_repository_must_hold_one_file_of_rows(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).write_text("[]")
    with pytest.raises(HubError, match=message):
        download._only_rows(tmp_path, "hf:o/n")
