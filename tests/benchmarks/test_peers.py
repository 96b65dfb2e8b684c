"""What `benchmarks.peers` compares is comparable: the arms say the same from one model, and lose the same."""

import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from benchmarks import peer_files, peers
from benchmarks.generation import random_adapter
from benchmarks.peer_loop import ADAPTER, BASE
from benchmarks.peer_torch import Ours, Peft
from roleplay.environment import ROOT
from roleplay.errors import RoleplayError
from roleplay.weights import base_models
from roleplay.weights.adapters import Adapter, read_weights
from tests import tiny

ARM = """
import json
from pathlib import Path
from benchmarks.peer_loop import Answered, serve

class Arm:
    def __init__(self, task):
        self.name, self.weights = task["arm"], task["weights"]

    def answer(self, sides):
        print("what a library prints")
        with Path("turns").open("a") as turns:
            print(self.name, len(sides), file=turns)
        return Answered(0.1, 0.1 + 0.2 * len(sides), {side: [1, 2, self.weights] for side in sides})

    def nats(self, ids, places):
        return [ids[place] / 4 for place in places]

serve(Arm)
"""
ROW = [1, 9, 8, 7, 6, 5], [2, 4, 5]  # token ids, and the places of those that the loss is on


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[base_models.BaseModel, Adapter]:
    folder = tmp_path_factory.mktemp("peers")
    tiny.gemma().save_pretrained(folder / "base")
    tiny.tokenizer().save_pretrained(folder / "base")
    base = base_models.load(str(folder / "base"), folder, "float32")
    return base, random_adapter(base, folder / "random")


def test_ours_and_peft_answer_and_lose_alike(made: tuple[base_models.BaseModel, Adapter]) -> None:
    base, adapter = made
    prompt = adapter.encoder(base.tokenizer).prompt(adapter.persona, (), "Snow?")
    task = {"prompt": prompt, "user": "Snow?", "tokens": 5}
    ours, theirs = (kind(base, adapter, task) for kind in (Ours, Peft))
    answers = [arm.answer([ADAPTER, BASE]) for arm in (ours, theirs)]
    assert answers[0].ids == answers[1].ids and len(answers[0].ids[BASE]) == 5
    assert answers[0].ids[ADAPTER] != answers[0].ids[BASE]
    assert all(0 < answer.first < answer.seconds for answer in answers)
    assert ours.nats(*ROW) == pytest.approx(theirs.nats(*ROW), rel=1e-4)
    logits = theirs.model(torch.tensor([ROW[0]])).logits[0].detach().log_softmax(-1)
    assert ours.nats(*ROW) == pytest.approx([-float(logits[at - 1, ROW[0][at]]) for at in ROW[1]], rel=1e-4)


def test_llama_cpp_is_given_every_matrix_of_the_adapter(
    made: tuple[base_models.BaseModel, Adapter], tmp_path: Path
) -> None:
    _, adapter = made
    peer_files.write_lora(adapter, tiny.LAYERS, tmp_path / "lora.gguf")
    reader, weights = gguf.GGUFReader(tmp_path / "lora.gguf"), read_weights(adapter)
    assert reader.fields["adapter.lora.alpha"].contents() / adapter.rank == adapter.scaling
    tensors = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    assert len(tensors) == len(weights) == 2 * 7 * tiny.LAYERS
    for own, theirs in (
        ("self_attn.q_proj.lora_A", "attn_q.weight.lora_a"),
        ("mlp.up_proj.lora_B", "ffn_up.weight.lora_b"),
    ):
        assert torch.equal(tensors[f"blk.1.{theirs}"], weights[f"base_model.model.model.layers.1.{own}.weight"])


def test_medians_count_memory_once_a_request() -> None:
    runs = [{"first": first, "seconds": first + 0.4} for first in (0.1, 0.3, 0.2)]
    assert peers.summarise(runs, 5, reading=0.05) == {
        **{"first_token_ms": 200.0, "token_ms": 100.0, "seconds": 0.6, "memory_read_share": 0.5}
    }


def test_every_arm_is_told_the_same_and_a_library_that_is_missing_is_named(
    made: tuple[base_models.BaseModel, Adapter],
) -> None:
    _, adapter = made
    found = peers.commands(peers.Flags(arms=["ours", "peft"]), adapter, [1, 2])
    assert {task["arm"]: task["prompt"] for _, task in found.values()} == {"ours": [1, 2], "peft": [1, 2]}
    with pytest.raises(RoleplayError, match="no llama.cpp in nowhere: make bench-peers installs it"):
        peers.commands(peers.Flags(arms=["q8_0"], library="nowhere"), adapter, [1, 2])


def test_arms_take_turns_in_both_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    monkeypatch.setattr(peers, "read_speed", lambda device: 1e-9)  # GB a second
    (tmp_path / "runs" / "peers").mkdir(parents=True)
    weights = {"ours": 0.05, "q8_0": 0.02}
    arms = {
        arm: peers.Process(arm, [sys.executable, "-c", ARM], {"arm": arm, "weights": size, "threads": 1})
        for arm, size in weights.items()
    }
    report = peers.measure(arms, [ROW], peers.Flags(tokens=3, repeats=1))
    for process in arms.values():
        process.close()
    turns = ["ours 1", "ours 2", "q8_0 1", "q8_0 2"]
    assert (tmp_path / "turns").read_text().splitlines() == [*turns, *reversed(turns)]
    assert report["arms"]["ours"] | {"memory_gb": 0} == {
        **{"held_out_loss": round((8 + 6 + 5) / 12, 4), "memory_gb": 0, "first_tokens_as_ours": {ADAPTER: 3, BASE: 3}},
        "one": {"first_token_ms": 100.0, "token_ms": 100.0, "seconds": 0.3, "memory_read_share": 0.5},
        "both": {"first_token_ms": 100.0, "token_ms": 200.0, "seconds": 0.5, "memory_read_share": 0.25},
    }
    other = report["arms"]["q8_0"]
    assert other["both"]["memory_read_share"] == 0.2  # its weights are read for each of two requests
    assert other["first_tokens_as_ours"] == {ADAPTER: 2, BASE: 2} and other["memory_gb"] > 0
    assert [line.split()[0] for line in list(peers.table(report))[1:]] == ["ours", "q8_0"]


def test_an_arm_that_ends_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    (tmp_path / "runs" / "peers").mkdir(parents=True)
    task: dict[str, Any] = {"threads": 1}
    dead = peers.Process("dead", [sys.executable, "-c", "raise SystemExit('out of memory')"], task)
    with pytest.raises(RoleplayError, match="dead has ended: out of memory; see .*dead.log"):
        dead.ask({"sides": [ADAPTER]})
    dead.process.wait()
