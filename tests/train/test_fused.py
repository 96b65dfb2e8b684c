"""The fused projections and norms compute what peft and transformers do, and keep as much as the estimate says."""

from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

from roleplay.weights.architectures import ARCHITECTURES
from tests import tiny
from tests.train.test_packing import examples, gemma_1, gemma_2, gemma_3, gradients, prepare, with_lora
from train.learning import memory, packing
from train.learning.fused import _kept, _LoraProduct, _norm

ROWS, WIDE, NARROW, RANK = 7, 12, 5, 3


def test_dropout_keeps_its_share_of_values() -> None:
    torch.manual_seed(0)
    kept = _kept(torch.Size([1001, 999]), 0.3, torch.device("cpu"))
    assert set(kept.unique().tolist()) == {0, 1}
    assert kept.double().mean().item() == pytest.approx(0.7, abs=0.002)  # four standard deviations
    assert kept.double().mean(0).std() < 2 * (0.21 / 1001) ** 0.5  # and no column more than another


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_projection_has_the_gradients_of_autograd(dropout: float) -> None:
    torch.manual_seed(0)
    shapes = (ROWS, WIDE), (NARROW, WIDE), (RANK, WIDE), (NARROW, RANK)
    x, weight, a, b = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    torch.manual_seed(1)
    y = _LoraProduct.apply(x, weight.detach(), a, b, 0.7, dropout)
    torch.manual_seed(1)
    kept = _kept(x.shape, dropout, x.device).double() / (1 - dropout) if dropout else torch.ones_like(x)
    expected = x @ weight.detach().T + 0.7 * (x * kept) @ a.T @ b.T
    torch.testing.assert_close(y, expected)
    towards = torch.randn_like(y)
    for found, wanted in zip(*(torch.autograd.grad(o, (x, a, b), towards) for o in (y, expected)), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_norm_has_the_gradient_of_autograd() -> None:
    torch.manual_seed(0)
    norm = Gemma3RMSNorm(WIDE)
    norm.weight.data.normal_()
    norm.requires_grad_(False)
    x = torch.randn(2, ROWS, WIDE, requires_grad=True)
    found, expected = _norm(norm, x), norm(x)
    torch.testing.assert_close(found, expected)
    towards = torch.randn_like(x)
    one, other = (torch.autograd.grad(y, x, towards)[0] for y in (found, expected))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("build", [gemma_1, gemma_2, gemma_3])
def test_dropout_is_the_same_when_activations_are_recomputed(build) -> None:  # type: ignore[no-untyped-def]
    results = []
    for checkpointing in (False, True):
        model = prepare(with_lora(build(), dropout=0.4), True).train()
        if checkpointing:
            model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(2)
        results.append(gradients(model, model(**packing.collate(examples())).loss))
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, rtol=1e-9, atol=0)


def kept_bytes(model: Any, batch: dict[str, Any]) -> int:
    """Of all storages that autograd holds after a forward pass, the model's own left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(**batch).loss
    assert loss.requires_grad
    return sum(size for address, size in storages.items() if address not in own)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_estimate_is_what_a_layer_keeps(kind: str, dropout: float) -> None:
    batch, kept, estimates = packing.collate(examples()), [], []
    for layers in (2, 5):  # all sliding in Gemma 3, so that both have the same masks
        shape = dict(hidden_size=64, intermediate_size=160, num_attention_heads=4, num_key_value_heads=1, head_dim=24)
        model = prepare(with_lora(tiny.of_kind(kind, **shape, num_hidden_layers=layers), dropout), True)
        kept.append(kept_bytes(model.train(), batch))
        estimates.append(memory.activation_bytes(model.config, batch["input_ids"].numel(), 8, dropout > 0))
    assert kept[1] - kept[0] == pytest.approx(estimates[1] - estimates[0], rel=0.1)
