"""The committed adapter on the embedded model, the real thing: it answers and stops, and the base model differs."""

import json

import pytest

from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE, Question, Request, Sampling
from roleplay.environment import ROOT, Environment
from roleplay.text.rows import file_sha256, read_rows
from roleplay.weights import base_models, inspection
from roleplay.weights.training_rows import held_out_sha256
from tests.tiny import ZHEN_HUAN

FOLDER = ROOT / "adapters" / "zhenhuan-gemma3-270m"


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine(base_models.load("embedded", Environment().cache), [inspection.inspect(FOLDER)])


def test_what_is_committed():
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert not {name for name in files if "tokenizer" in name}
    assert sum(files.values()) < 16_000_000
    training = json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))
    looked_up = {ROOT / file["file"]: file["sha256"] for file in training["looked_up"]}
    assert looked_up == {path: file_sha256(path) for path in looked_up}
    held_out = [row for path in looked_up for row in read_rows(path)[0] if row.split == "held_out"]
    assert training["held_out"]["sha256"] == held_out_sha256(held_out)
    results = training["results"]
    assert results["held_out_loss"] <= results["base_held_out_loss"] - 1.0
    assert training["persona"]["system_prompt"] == ZHEN_HUAN.system_prompt


@pytest.mark.parametrize("opener", ZHEN_HUAN.openers)
def test_greedy_replies_to_the_openers_stop(engine, opener):
    question = Question(ZHEN_HUAN.system_prompt, (), opener)
    sampling = Sampling(temperature=0.0, repetition_penalty=1.0, frequency_penalty=0.0, max_new_tokens=256)
    *_, last = engine.answer(Request({ADAPTER: question}, sampling))
    assert last[ADAPTER].stop == "end"
    assert last[ADAPTER].text.strip()


def test_the_two_sides_differ(engine):
    question = Question(ZHEN_HUAN.system_prompt, (), "你是谁？")
    *_, last = engine.answer(Request({ADAPTER: question, BASE: question}, Sampling(temperature=0.0, max_new_tokens=48)))
    assert last[ADAPTER].text != last[BASE].text
