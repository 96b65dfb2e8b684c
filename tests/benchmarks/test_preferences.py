"""The arms of the comparison with TRL compute the same updates, on a tiny Gemma."""

import json
from pathlib import Path

from benchmarks import preferences
from benchmarks.preferences import ARMS, SPEED, UPDATE, Flags, measure
from benchmarks.training import MEMORY, same_losses
from tests import tiny


def test_all_arms_learn_the_same_from_the_same_pairs(tmp_path: Path) -> None:
    tiny.gemma().save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    rows = [{"instruction": f"Is there tea {n}?", "output": f"There is, {n} cups."} for n in range(3 * UPDATE)]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    flags = Flags(shape=str(tmp_path / "base"), data=str(tmp_path / "rows.json"), updates=2)
    arms = {arm: measure(arm, "float32", flags) for arm in ARMS}
    assert same_losses({"float32": {"arms": arms}}) and all(len(arm["losses"]) == 3 for arm in arms.values())
    assert arms["ours"]["losses"][-1] != arms["ours"]["losses"][0]
    assert arms["trl"]["seconds_of_reference"] == 0 < arms["trl_tuned"]["seconds_of_reference"]
    assert arms["ours"]["tokens_computed"] < arms["trl_tuned"]["tokens_computed"] < arms["trl"]["tokens_computed"]
    assert all(arm[SPEED] > 0 and arm[MEMORY] >= 0 for arm in arms.values())
    summed = preferences.summary([arms["ours"]] * 2)
    assert summed["losses"] == arms["ours"]["losses"]
