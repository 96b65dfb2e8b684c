"""How long to train by the number of rows, and what is said when a run ends."""

from pathlib import Path

import pytest

from train.learning import recipe


@pytest.mark.parametrize("rows", [30, 80, 300, 1000, 3000, 10000, 30000])
def test_more_rows_are_passed_over_less_often_and_updated_more_often(rows):
    few, many = recipe.choose(rows), recipe.choose(3 * rows)
    assert few.epochs >= many.epochs >= 1
    assert few.epochs * rows / few.batch_size <= many.epochs * 3 * rows / many.batch_size
    assert few.batch_size <= many.batch_size


def test_what_is_asked_is_kept_and_the_rest_is_chosen():
    assert recipe.choose(80, epochs=3).epochs == 3
    assert recipe.choose(80, epochs=3).batch_size == recipe.choose(80).batch_size
    asked = recipe.choose(80, epochs=3, batch_size=10)
    assert (asked.epochs, asked.batch_size) == (3, 10)
    assert asked.reason == "3 epochs, 10 rows an update, 24 updates: as asked"


def test_processes_share_the_chosen_batch_evenly():
    assert recipe.choose(80, multiple=3).batch_size == 6
    assert recipe.choose(20000, multiple=3).batch_size == 18


def test_small_sets_are_named_and_large_ones_are_not():
    few = recipe.warnings(12, 3)
    assert any(line.startswith("12 rows are few") for line in few)
    assert any(line.startswith("3 held-out rows") for line in few)
    assert recipe.warnings(300, 30) == []


def test_the_end_of_a_run_shows_replies_and_what_helps_when_they_do_not_end():
    said = [{"prompt": f"ask {n}", "reply": f"reply {n}", "ended": n < 2} for n in range(4)]
    results = {"last_replies": said, "base_held_out_loss": 5.0, "held_out_loss": 3.25}
    lines = recipe.closing(Path("adapters/me"), results, 9)
    assert lines[:4] == [*(f"  ask {n}  →  reply {n}" for n in range(3)), "2 of 4 replies end by themselves"]
    assert "--epochs" in lines[4]
    assert lines[5:] == ["adapters/me: held-out loss 5.000 -> 3.250 nat per token on 9 rows"]
    ended = results | {"last_replies": [reply | {"ended": True} for reply in said]}
    assert not any("--epochs" in line for line in recipe.closing(Path("adapters/me"), ended, 9))
