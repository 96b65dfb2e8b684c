"""What `benchmarks.generation` times is right: every arm says what transformers says."""

import pytest
import torch
from peft import PeftModel

from benchmarks import agreement
from benchmarks.generation import USER, Flags, random_adapter, time_arms
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE
from roleplay.errors import RoleplayError
from roleplay.text.prompts import PromptEncoder
from roleplay.weights import base_models
from tests import tiny

FLAGS = Flags(tokens=6, repeats=1)
Arms = tuple[PeftModel, PromptEncoder, dict[str, dict[str, list[str]]]]


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Arms:
    """A tiny model whose tokens are clearly apart, and what every arm says of it."""
    folder = tmp_path_factory.mktemp("generation")
    model = tiny.gemma()
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn_like(weight)
    model.save_pretrained(folder / "base")
    tiny.tokenizer().save_pretrained(folder / "base")
    base = base_models.load(str(folder / "base"), folder, "float32")
    adapter = random_adapter(base, folder / "random")
    engine = LocalEngine(base, [adapter])
    encoder = engine.encoders["gemma"]
    encoder.stop_ids = ()
    attached = PeftModel.from_pretrained(base.model, str(adapter.folder)).eval()
    measured, memory = time_arms(engine, attached, encoder, FLAGS)
    assert memory.keys() == measured.keys()
    return (
        attached,
        encoder,
        {
            side: {arm: [run.said[side] for run in runs] for arm, runs in measured.items() if side in runs[0].said}
            for side in (ADAPTER, BASE)
        },
    )


def compare(arms: Arms, side: str, arm: str, text: str) -> dict[str, str]:
    model, encoder, _ = arms
    return agreement.compare(model, encoder, encoder.prompt("", (), USER), FLAGS.tokens, {side: {arm: [text]}})


def test_every_arm_says_the_same(arms: Arms) -> None:
    model, encoder, said = arms
    told = agreement.compare(model, encoder, encoder.prompt("", (), USER), FLAGS.tokens, said)
    assert told == dict.fromkeys(
        [f"{arm}, {ADAPTER}" for arm in ("stock_one", "two_calls", "one", "both")]
        + [f"{arm}, {BASE}" for arm in ("two_calls", "both")],
        "same",
    )


def test_an_arm_that_says_something_else_ends_the_benchmark(arms: Arms) -> None:
    _, _, said = arms
    swapped = said[BASE]["both"][0]
    assert swapped != said[ADAPTER]["both"][0]
    with pytest.raises(RoleplayError, match="both answers .* on the adapter side, where transformers says"):
        compare(arms, ADAPTER, "both", swapped)


def test_rounding_may_choose_between_tokens_that_are_as_likely(arms: Arms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(agreement.TIES, "float32", 100.0)
    told = compare(arms, BASE, "both", arms[2][ADAPTER]["both"][0])
    assert told["both, base"].startswith("parts where two tokens are ")
