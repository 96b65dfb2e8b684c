"""The fused projections and norms compute what peft and transformers do, and keep as much as the estimate says."""

import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

from roleplay.text.prompts import Example
from roleplay.weights.architectures import ARCHITECTURES
from tests import tiny
from tests.train.test_packing import examples, gemma_1, gemma_2, gemma_3, gradients, prepare, with_lora
from train.learning import memory, packing
from train.learning.attention import Heads, Pack, Scores, _attend_at_once
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


class Peak(TorchDispatchMode):
    """Counts the bytes of the storages that are there at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, call: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = call(*args, **(kwargs or {}))
        for tensor in (found for found in tree_leaves(out) if isinstance(found, torch.Tensor)):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.sizes:
                self.sizes[storage.data_ptr()] = storage.nbytes()
                weakref.finalize(storage, self.sizes.pop, storage.data_ptr(), None)
                self.most = max(self.most, sum(self.sizes.values()))
        return out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_soft_capped_scores_take_what_the_estimate_says(dtype: torch.dtype) -> None:
    config, tokens = tiny.of_kind("gemma2", num_attention_heads=4).config, 256
    query, key, value = (torch.randn(1, heads, tokens, 8, dtype=dtype, requires_grad=True) for heads in (4, 2, 2))
    with Peak() as peak:
        _attend_at_once(Heads(query, key, value), Pack(tokens, []), Scores(0.3, 0, 0.7)).sum().backward()
    assert 0.9 < memory.capped_bytes(config, tokens, dtype.itemsize) / peak.most < 1.25
    assert memory.capped_bytes(tiny.gemma().config, tokens, dtype.itemsize) == 0


def test_a_gpu_has_room_for_the_capped_scores_of_a_whole_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen rows of 500 tokens: their scores take 8 GB and one layer's activations next to nothing."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10 * 10**9, 10 * 10**9))
    rows = [Example([1] * 500, [1] * 500)] * 16
    plans = {}
    for kind in ("gemma", "gemma2"):
        config = tiny.of_kind(kind, num_attention_heads=8, num_hidden_layers=1).config
        model: Any = SimpleNamespace(config=config, device=torch.device("cuda"), dtype=torch.bfloat16)
        for checkpointing in ("auto", "on"):
            wishes = memory.Wishes(16, True, checkpointing)
            plans[kind, checkpointing] = memory.plan(model, rows, False, wishes).rows
    assert plans == {("gemma", "auto"): 16, ("gemma", "on"): 16, ("gemma2", "auto"): 8, ("gemma2", "on"): 8}
