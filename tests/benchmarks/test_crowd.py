"""The loop of votes on a tiny Gemma, whole, and what the benchmark says of one that does not hold."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import crowd
from benchmarks.crowd import COINS, TASTE, Crowd, Flags, crowds, taste
from roleplay.environment import ROOT
from roleplay.errors import DataError
from roleplay.results.tally import Tally
from roleplay.weights import training_rows
from tests import tiny
from train.measuring.gate import BETTER, IDENTITY, MARGIN, RIGHT, UNDECIDED, WORSE

USER = "Is there snow?"
LIKED, DISLIKED = "There is snow.", "I would rather speak of the plum blossoms in the garden."


def test_the_taste_is_for_the_questions_words_and_an_early_end() -> None:
    assert taste(USER, LIKED) > taste(USER, "Is there snow? " + "Yes, and more. " * 9) > taste(USER, "")
    assert taste("下雪了吗", "下雪了。") > taste("下雪了吗", "没有。")


def test_a_crowd_votes_for_words_and_not_for_a_pane() -> None:
    users = [f"{USER} {number}" for number in range(400)]
    shares = {}
    for one in crowds(Flags()):
        votes = [one.vote(user, LIKED, DISLIKED) for user in users]
        swapped = [one.vote(user, DISLIKED, LIKED) for user in users]
        assert all({a, b} == {"left", "right"} for a, b in zip(votes, swapped, strict=True))
        shares[one.name] = votes.count("left") / len(users)
        assert one.vote(USER, LIKED, LIKED) == "tie"
    assert shares[TASTE] == pytest.approx(0.9, abs=0.05) and shares[COINS] == pytest.approx(0.5, abs=0.08)
    assert Crowd(TASTE, taste, 0.0, 0).vote(USER, "snow.", "SNOW!") == "tie"


HELD = {
    TASTE: {
        "compared": {TASTE: {"verdict": BETTER}},
        "gate": [{"name": MARGIN, "verdict": BETTER}, {"name": IDENTITY, "verdict": UNDECIDED}],
    },
    COINS: {
        "compared": {COINS: {"verdict": UNDECIDED}},
        "gate": [{"name": MARGIN, "verdict": UNDECIDED}, {"name": RIGHT, "verdict": UNDECIDED}],
    },
}


def test_a_promise_that_does_not_hold_is_named() -> None:
    assert crowd.broken(HELD) == []
    bad = copy.deepcopy(HELD)
    bad[TASTE]["compared"][TASTE]["verdict"], bad[COINS]["compared"][COINS]["verdict"] = UNDECIDED, BETTER
    bad[TASTE]["gate"][1]["verdict"], bad[COINS]["gate"][0]["verdict"] = WORSE, BETTER
    bad[COINS]["gate"][1]["verdict"] = WORSE
    assert [sentence.split(":")[-1].split()[-1] for sentence in crowd.broken(bad)] == [
        "better",
        "identity",
        "undecided",
        "pairs",
        "likelier",
    ]
    assert [crowd.verdict(Tally(*wins)) for wins in ((40, 10), (10, 40), (25, 25), (0, 0))] == [
        BETTER,
        WORSE,
        UNDECIDED,
        UNDECIDED,
    ]


def test_rows_without_a_message_are_refused() -> None:
    with pytest.raises(DataError, match="name others with --data"):
        crowd.draw_messages([], 3, 0)


def test_the_whole_loop_runs_on_a_tiny_model_and_says_what_came_of_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through page, votes, training, gate and page again; so few votes need not make a random model better."""
    tiny.gemma().save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    monkeypatch.setattr(training_rows, "PROJECT", tmp_path)
    rows = [
        {"instruction": f"{n} {word}?", "output": f"{word}."} for n in range(40) for word in ("snow", "plum", "tea")
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    *_, files = training_rows.load_rows([tmp_path / "rows.json"], training_rows.HELD_OUT, training_rows.SEED)
    told = json.loads((folder / "training.json").read_text(encoding="utf-8")) | {"data": files}
    told["persona"] = {"name": "Nobody", "system_prompt": "Be brief.", "greeting": "", "openers": []}
    (folder / "training.json").write_text(json.dumps(told), encoding="utf-8")
    report, base = tmp_path / "crowd.json", str(tmp_path / "base")
    few = Flags(json=str(report), adapter=str(folder), base_model=base, dtype="float32", votes=20, comparisons=6)
    status = crowd.run(replace(few, epochs=1.0))
    found, printed = json.loads(report.read_text(encoding="utf-8")), capsys.readouterr().out
    assert status == bool(found["broken"]) and all(sentence in printed for sentence in found["broken"])
    assert "20 votes of each crowd" in printed and "learnt from coins: " in printed
    for name, arm in found["arms"].items():
        assert sum(arm["votes"][kind] for kind in ("for the adapter", "for the other side", "ties")) == 20
        assert arm["pairs"]["learnt"] > 5 and arm["gate"][0]["name"] == MARGIN
        assert sum(arm["compared"][name][kind] for kind in ("adapter", "base", "ties")) == 6
    assert not list((tmp_path / "adapters").glob("learnt*")) and not list((ROOT / "adapters").glob("learnt*"))
