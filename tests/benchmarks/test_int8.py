"""The likelihoods that the benchmark of int8 takes from the engine are those of the evaluation."""

from pathlib import Path

import pytest

from benchmarks.int8 import DecoderLosses
from roleplay.engine.decoder import Decoder
from roleplay.text.prompts import PromptEncoder
from roleplay.weights import base_models, inspection
from tests import tiny
from train.measuring.losses import Losses

TURNS = [(("问？", "这是答。"),), (("早。", "早安。"), ("坐？", "且坐，不急。")), (("Who?", "It is I."),)]


@tiny.NEEDS_INT8
def test_likelihoods_are_those_of_the_evaluation_and_nearly_in_8_bits(tmp_path: Path) -> None:
    adapter, encoder = inspection.inspect(tiny.adapter(tmp_path / "tiny")), PromptEncoder(tiny.tokenizer(), "gemma")
    examples = [encoder.example("你是甄嬛。", turns) for turns in TURNS]
    choice = ("", "")
    base = base_models.BaseModel(tiny.gemma(), tiny.tokenizer(), tiny.BASE_NAME, "random", choice, choice, choice)
    exact, rounded = (DecoderLosses(Decoder(base.model, int8), adapter) for int8 in (False, True))
    own, near = ([one.nats(name, examples, float) for name in ("", adapter.name)] for one in (exact, rounded))
    losses = Losses(base, [adapter])  # the last, for the model gives no scores afterwards
    for side, name in enumerate(("", adapter.name)):
        assert own[side] == pytest.approx(losses.nats(name, examples, float), rel=1e-5)
        assert near[side] == pytest.approx(own[side], rel=0.02) and near[side] != own[side]
