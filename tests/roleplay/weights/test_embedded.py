"""The committed adapter on the embedded model, the real thing: it answers and stops, and the base model differs."""

import json

import pytest

from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE, Question, Request, Sampling
from roleplay.environment import ROOT, Environment
from roleplay.text.rows import file_sha256
from roleplay.weights import base_models, inspection
from roleplay.weights.training_rows import find_data
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
    data = training["data"][0]
    assert data["sha256"] == file_sha256(find_data(inspection.inspect(FOLDER))[0])
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
