"""A GPU that cannot be had here: it gets the model only where it computes what the CPU does."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from roleplay.engine import apple
from roleplay.weights.base_models import BaseModel
from tests import tiny


def off_by_little(model: PreTrainedModel) -> None:
    """A device that rounds otherwise."""
    with torch.no_grad():
        for weight in model.parameters():
            weight += 1e-6 * torch.randn_like(weight)


def off_by_much(model: PreTrainedModel) -> None:
    """A device that computes something else."""
    with torch.no_grad():
        model.model.norm.weight += 3.0  # type: ignore[operator]


def without_numbers(model: PreTrainedModel) -> None:
    model.model.norm.weight.data.fill_(torch.nan)


def without_an_operation(model: PreTrainedModel) -> None:
    raise NotImplementedError("The operator 'aten::x' is not implemented for the MPS device.\nSee the site")


@pytest.mark.parametrize(
    ("move", "device", "why"),
    [
        (off_by_little, "mps", "the Apple GPU gives the CPU's logits"),
        (off_by_much, "cpu", "not the Apple GPU: it gives other logits (KL"),
        (without_numbers, "cpu", "not the Apple GPU: its logits are not finite"),
        (without_an_operation, "cpu", "not the Apple GPU: The operator 'aten::x' is not implemented"),
    ],
)
def test_only_a_device_that_agrees_is_taken(move: Callable[[PreTrainedModel], None], device: str, why: str) -> None:
    base = BaseModel(tiny.gemma(), tiny.tokenizer(), "tiny", "made here", ("cpu", ""), ("float32", ""), ("", ""))
    apple.settle(base, move)
    assert base.device[0] == device and base.device[1].startswith(why) and "\n" not in base.device[1]
    assert base.model.device.type == "cpu"  # where this machine has it
