"""Any two sides: an adapter at a strength beside the base model, another or itself, each as if it were alone."""

from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from roleplay.engine import strengths
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE, Question, Request, Sampling, Speaker
from roleplay.errors import AdapterError, RoleplayError
from roleplay.weights import base_models, inspection, layout
from tests import tiny

# With dice, both sides of a random model as small as this draw the same.
GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0, frequency_penalty=0.0, max_new_tokens=12)
BOTH = dict.fromkeys((ADAPTER, BASE), Question("", (), "你是谁？"))
REQUEST = Request(BOTH, GREEDY, "tiny")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    """With an adapter, and one whose matrices B are three halves of its."""
    folder = tiny.adapter(tmp_path_factory.mktemp("adapters") / "tiny")
    more = tiny.adapter(folder.parent / "more")
    weights = load_file(folder / layout.WEIGHTS)
    save_file({k: w * 1.5 if ".lora_B." in k else w for k, w in weights.items()}, more / layout.WEIGHTS)
    chosen = ("cpu", "test"), ("float32", "test"), ("sdpa", "test")
    base = base_models.BaseModel(tiny.gemma(), tiny.tokenizer(), tiny.BASE_NAME, "random", *chosen)
    return LocalEngine(base, [inspection.inspect(folder), inspection.inspect(more)], 400)


def texts(local: LocalEngine, request: Request) -> dict[str, str]:
    *_, last = local.answer(request)
    return {side: answer.text for side, answer in last.items()}


def test_a_strength_of_0_is_the_base_model_bit_for_bit_and_1_the_adapter(local: LocalEngine) -> None:
    plain = texts(local, REQUEST)
    assert plain[ADAPTER] != plain[BASE]
    assert texts(local, replace(REQUEST, strength=0.0)) == dict.fromkeys(BOTH, plain[BASE])
    assert texts(local, replace(REQUEST, other=Speaker("tiny"))) == dict.fromkeys(BOTH, plain[ADAPTER])
    assert texts(local, replace(REQUEST, other=Speaker("tiny", 0.0))) == plain
    *_, last = local.answer(REQUEST)
    for strength in (0.0, 1.0):
        pieces = local.score(replace(REQUEST, strength=strength), last[BASE])
        apart = [piece.logprobs[ADAPTER] - piece.logprobs[BASE] for piece in pieces]
        assert (apart == pytest.approx([0.0] * len(apart), abs=1e-4)) is (strength == 0)


def test_two_strengths_stand_side_by_side_as_each_would_alone(local: LocalEngine) -> None:
    """Three halves of the adapter is the adapter whose matrices are three halves."""
    asked = replace(REQUEST, strength=1.5, other=Speaker("more"))
    assert len(set(texts(local, asked).values())) == 1
    asked = replace(REQUEST, strength=0.5, other=Speaker("tiny", 1.5))
    alone = texts(local, replace(asked, questions={ADAPTER: BOTH[ADAPTER]}))
    alone |= texts(local, replace(asked, questions={BASE: BOTH[BASE]}))
    for _ in range(2):  # the second time from kept caches
        assert texts(local, asked) == alone
    *_, last = local.answer(asked)
    pieces = local.score(replace(asked, other=Speaker("more")), last[BASE])
    assert [piece.logprobs[BASE] for piece in pieces] == pytest.approx(
        [piece.logprobs[BASE] for piece in local.score(asked, last[BASE])], abs=1e-4
    )


def test_the_strengths_that_were_asked_for_last_are_kept(local: LocalEngine) -> None:
    kept, trained = strengths.Strengths(), local._attached["tiny"].voice
    first = kept.voice(trained, 0.1)
    assert kept.voice(trained, 0.1) is first and kept.voice(trained, 1.0) is trained
    for number in range(2, 2 + strengths.KEPT):
        kept.voice(trained, number / 10)
    assert kept.voice(trained, 0.1) is not first and kept.voice(trained, 0.1).key == first.key
    assert first.lora and trained.lora
    assert first.lora.layers is trained.lora.layers and (trained.lora.strength, first.lora.strength) == (1.0, 0.1)


def test_an_adapter_that_is_removed_is_kept_at_no_strength(local: LocalEngine) -> None:
    texts(local, replace(REQUEST, adapter="more", strength=0.3))
    gone = local._attached["more"].adapter
    key = local._attached["more"].voice.key, 0.3
    assert key in local._strengths._voices
    local.remove("more")
    assert key not in local._strengths._voices
    local.add(gone)


@pytest.mark.parametrize("strength", [-0.1, 1.6, float("nan")])
def test_who_cannot_speak_is_a_sentence(local: LocalEngine, strength: float) -> None:
    with pytest.raises(RoleplayError, match="choose a number from 0 to 1.5"):
        texts(local, replace(REQUEST, strength=strength))
    with pytest.raises(AdapterError, match="no adapter 'nobody'"):
        texts(local, replace(REQUEST, other=Speaker("nobody")))
