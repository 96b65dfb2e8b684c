"""Blind votes: what is acknowledged is on the disk, torn lines are repaired, and figures are those of the textbook."""

import json
import os
import random
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from huggingface_hub import constants

from dataset import preferences as command
from dataset.preferences import preferences
from roleplay.engine.protocol import ADAPTER, BASE, Question, Request, Sampling
from roleplay.errors import DataError, HubError, RoleplayError
from roleplay.results.intervals import wilson
from roleplay.results.tally import Tally, count
from roleplay.results.votes import Ballot, Box, Vote, cast, prompt_sha256, read_votes
from tests.hub_server import READ_ONLY, Hub

ASKED = Question("You are a consort.", (("hello", "good evening"),), "who are you?")
GIVEN = {ADAPTER: "Your servant.", BASE: "A language model."}


def vote(choice: str = "left", order: tuple[str, str] = (ADAPTER, BASE), base: Question = ASKED) -> Vote:
    request = Request({ADAPTER: ASKED, BASE: base}, Sampling(seed=7), "zhenhuan")
    return cast(choice, Ballot(request, GIVEN, order, {"template": "gemma"}))


@pytest.mark.parametrize(
    ("choice", "order", "winner"),
    [
        ("left", (ADAPTER, BASE), ADAPTER),
        ("left", (BASE, ADAPTER), BASE),
        ("right", (ADAPTER, BASE), BASE),
        ("tie", (ADAPTER, BASE), ""),
        ("bad", (BASE, ADAPTER), ""),
    ],
)
def test_winner_follows_the_shown_order(choice: str, order: tuple[str, str], winner: str) -> None:
    assert vote(choice, order).winner == winner


def test_votes_are_read_back_as_written(tmp_path: Path) -> None:
    box = Box(tmp_path / "new" / "votes")
    for choice in ("left", "tie"):
        box.add(vote(choice))
    assert [v.choice for v in box.votes()] == ["left", "tie"]
    assert box.votes()[0].prompt_sha256[ADAPTER] == prompt_sha256(ASKED) != prompt_sha256(replace(ASKED, user="?"))
    assert box.votes()[0].texts == GIVEN


@pytest.mark.parametrize("torn", [b'{"choice": "le', b"\xe7\x94", b"{}", b'{"a": 1}\n{"b"'])
def test_a_torn_last_line_is_repaired(tmp_path: Path, torn: bytes) -> None:
    box = Box(tmp_path)
    box.add(vote("left"))
    whole = box.path.read_bytes()
    torn = torn.rsplit(b"\n", 1)[-1]
    box.path.write_bytes(whole + torn)
    assert [v.choice for v in box.votes()] == ["left"]
    box.add(vote("right"))
    assert [v.choice for v in box.votes()] == ["left", "right"]
    assert box.path.read_bytes().startswith(whole)
    assert torn not in box.path.read_bytes()[len(whole) :].splitlines()


def test_no_acknowledged_vote_is_lost_by_a_kill(tmp_path: Path) -> None:
    acknowledged, dice = 0, random.Random(0)
    for _ in range(20):
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            box = Box(tmp_path)
            while True:
                box.add(vote())
                os.write(writer, b".")
        os.close(writer)
        acknowledged += len(os.read(reader, 1))  # a busy machine may take long to start it
        time.sleep(dice.uniform(0.0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while block := os.read(reader, 1 << 16):
            acknowledged += len(block)
        os.close(reader)
        assert len(Box(tmp_path).votes()) >= acknowledged
    assert acknowledged <= len(Box(tmp_path).votes()) <= acknowledged + 20
    Box(tmp_path).add(vote("tie"))
    assert Box(tmp_path).votes()[-1].choice == "tie"


def test_votes_reach_a_dataset_repository_and_come_back(server: Hub, tmp_path: Path) -> None:
    first = Box.on_hub(tmp_path / "first", "me/votes")
    first.add(vote("left"))
    first.close()
    repo = server.repos["datasets/me/votes"]
    assert repo.private
    assert repo.files == {first.path.name: first.path.read_bytes()}
    second = Box.on_hub(tmp_path / "second", "me/votes")  # a restarted Space has an empty disk
    second.add(vote("right"))
    second.close()
    assert sorted(v.choice for v in second.votes()) == ["left", "right"]
    assert repo.files == {box.path.name: box.path.read_bytes() for box in (first, second)}


def test_a_restart_never_sends_an_old_copy(server: Hub, tmp_path: Path) -> None:
    old = Box.on_hub(tmp_path / "old", "me/votes")
    for _ in range(10):
        old.add(vote())
    old.close()
    new = Box.on_hub(tmp_path / "new", "me/votes")
    for _ in range(2):  # after the new one has fetched what there was
        old.add(vote())
    old.close()
    assert len(new.votes()) == 10
    new.add(vote())
    new.close()
    repo = server.repos["datasets/me/votes"]
    assert repo.files == {box.path.name: box.path.read_bytes() for box in (old, new)}
    assert repo.files[old.path.name].count(b"\n") == 12
    assert len(Box.on_hub(tmp_path / "third", "me/votes").votes()) == 13


def test_nothing_is_sent_but_what_this_process_writes(server: Hub, tmp_path: Path) -> None:
    for machine, votes in (("one", 5), ("two", 3)):
        for _ in range(votes):
            Box(tmp_path / machine).add(vote())  # a votes.jsonl of its own
        (tmp_path / machine / "notes.txt").write_text("mine")
        box = Box.on_hub(tmp_path / machine, "me/votes")
        box.add(vote())
        box.close()
        assert len(box.votes()) == {"one": 6, "two": 5}[machine]  # the second counts what the first has sent
    sent = server.repos["datasets/me/votes"].files
    assert len(sent) == 2
    assert all(name.startswith("votes-") and data.count(b"\n") == 1 for name, data in sent.items())
    again = Box.on_hub(tmp_path / "one", "me/votes")  # the same disk: its own file has come back as a copy
    assert len(again.votes()) == 7
    assert all(path.stat().st_mode & 0o222 == 0 for path in again.others.glob("*.jsonl"))


def test_a_public_dataset_repository_is_refused_unless_told(server: Hub, tmp_path: Path) -> None:
    server.add("datasets/me/votes", {}, private=False)
    with pytest.raises(HubError, match="is public, .* make it private, or set VOTES_PUBLIC=1"):
        Box.on_hub(tmp_path, "me/votes").close()
    box = Box.on_hub(tmp_path, "me/votes", public=True)
    box.add(vote())
    box.close()
    assert list(server.repos["datasets/me/votes"].files) == [box.path.name]


def test_a_dataset_repository_that_may_not_be_written_is_an_error(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", READ_ONLY)
    with pytest.raises(HubError, match="VOTES_REPO 'me/votes' cannot be used .*: check HF_TOKEN"):
        Box.on_hub(tmp_path, "me/votes")


@pytest.mark.parametrize(
    "repo", ["votes", "a/b/c", "me/..", "me/vo tes", "me/" + "x" * 200, "https://huggingface.co/me/x"]
)
def test_a_malformed_dataset_repository_is_one_line(server: Hub, tmp_path: Path, repo: str) -> None:
    with pytest.raises(HubError, match="VOTES_REPO .* cannot be used") as refused:
        Box.on_hub(tmp_path, repo)
    assert "\n" not in str(refused.value)


def test_a_hub_that_is_not_reached_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="VOTES_REPO 'me/votes' cannot be used .* network") as refused:
        Box.on_hub(tmp_path, "me/votes")
    assert "\n" not in str(refused.value)


def test_a_whole_line_that_is_no_vote_is_named(tmp_path: Path) -> None:
    Box(tmp_path).add(vote())
    with (tmp_path / "votes.jsonl").open("a") as file:
        file.write('{"choice": "left"}\n')
    with pytest.raises(DataError, match=r"votes\.jsonl line 2: not a vote"):
        read_votes(tmp_path / "votes.jsonl")


def test_a_vote_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "votes").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot be written"):
        Box(tmp_path / "votes").add(vote())


@pytest.mark.parametrize(
    ("wins", "total", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        (10, 10, 0.7225, 1.0),
        (0, 10, 0.0, 0.2775),
        (50, 100, 0.4038, 0.5962),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_interval(wins: int, total: int, low: float, high: float) -> None:
    assert wilson(wins, total) == pytest.approx((low, high), abs=5e-5)


def test_count_and_conclusion() -> None:
    votes = [vote("left"), vote("right", (BASE, ADAPTER)), vote("right"), vote("tie"), vote("bad")]
    tally = count(votes)
    assert tally == Tally(adapter=2, base=1, ties=1, bad=1, left=1, right=2)
    assert (tally.decisive, tally.votes, tally.conclusion, tally.sides_even) == (3, 5, "", True)
    assert Tally(adapter=20, base=2, left=11, right=11).conclusion == ADAPTER
    assert Tally(adapter=2, base=20, left=11, right=11).conclusion == BASE
    assert not Tally(adapter=11, base=11, left=20, right=2).sides_even


def test_preference_rows_need_one_prompt_and_a_winner() -> None:
    other = replace(ASKED, turns=(("hello", "hi"),))
    rows = preferences([vote("left"), vote("right"), vote("tie"), vote("left", base=other)])
    assert [row["chosen"][0]["content"] for row in rows] == [GIVEN[ADAPTER], GIVEN[BASE]]
    assert [row["rejected"][0]["content"] for row in rows] == [GIVEN[BASE], GIVEN[ADAPTER]]
    roles = [message["role"] for message in rows[0]["prompt"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert rows[0]["prompt"][-1]["content"] == ASKED.user
    assert json.loads(json.dumps(rows)) == rows


def test_preference_rows_go_into_a_folder_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Box(tmp_path / "votes").add(vote("left"))
    out = tmp_path / "new" / "deep" / "rows.jsonl"
    monkeypatch.setattr("sys.argv", ["preferences", "--votes", str(tmp_path / "votes"), "--out", str(out)])
    command.main()
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == preferences([vote("left")])
    monkeypatch.setattr("sys.argv", ["preferences", "--votes", str(tmp_path / "votes"), "--out", f"{out}/in/a/file"])
    with pytest.raises(RoleplayError, match="cannot write"):
        command.main()


def added_meanwhile(box: Box) -> threading.Thread:
    """A vote that another thread is adding; it has had time to be written."""
    thread = threading.Thread(target=box.add, args=(vote(),))
    thread.start()
    thread.join(0.5)
    return thread


def test_a_vote_waits_for_another_process_that_writes(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"):
        thread = added_meanwhile(Box(tmp_path))
        assert thread.is_alive() and not Box(tmp_path).path.exists()
    thread.join()
    assert len(Box(tmp_path).votes()) == 1


def test_a_vote_waits_while_the_file_goes_to_the_hub(server: Hub, tmp_path: Path) -> None:
    box = Box.on_hub(tmp_path, "me/votes")
    assert box._uploads
    with box._uploads.lock:
        thread = added_meanwhile(box)
        assert thread.is_alive() and not box.path.exists()
    thread.join()
    assert len(box.votes()) == 1
    box.close()


def test_a_vote_is_on_the_disk_itself_when_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = dict[int, int](), os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size

    monkeypatch.setattr(os, "fsync", noted)
    box = Box(tmp_path)
    box.add(vote())
    assert synced[box.path.stat().st_ino] == box.path.stat().st_size > 0
    assert tmp_path.stat().st_ino in synced  # where the name of a new file stands
