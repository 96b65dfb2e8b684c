"""On a CUDA GPU, training and generation pass the tests of the CPU, and flash attention agrees with PyTorch's."""

import importlib.util
from collections.abc import Iterator

import pytest
import torch

from roleplay.engine.protocol import Sampling
from roleplay.engine.sampling import Drawing, next_tokens
from tests.roleplay.engine.test_decoder import (  # noqa: F401 - collected here once more, on the GPU
    model,
    test_adapter_logits_are_those_of_peft,
    test_greedy_tokens_are_those_of_generate,
    test_logits_are_those_of_transformers,
    test_the_base_side_is_the_same_bits_beside_any_adapter,
)
from tests.roleplay.engine.test_fixed import (  # noqa: F401 - likewise, as CUDA graphs
    test_a_running_batch_says_the_same_by_fixed_steps,
    test_logits_are_those_of_the_decoder_while_rows_join_and_leave,
    test_what_does_not_fit_is_left_to_the_decoder,
)
from tests.train import test_packing
from tests.train.test_packing import (  # noqa: F401 - likewise
    test_a_row_does_not_see_its_neighbours,
    test_activation_checkpointing_changes_nothing,
    test_loss_and_every_gradient_are_exact,
    test_twenty_updates_end_at_the_same_weights,
)
from train.learning import packing

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")


@pytest.fixture(autouse=True)
def on_the_gpu() -> Iterator[None]:
    with torch.device("cuda"):
        yield


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_dice_are_those_of_the_cpu(temperature: float) -> None:
    sampling, reply = Sampling(temperature=temperature, frequency_penalty=0.5, seed=5), [7, 7, 9]
    scores, prompt = torch.randn(50, 1000, device="cpu"), torch.arange(3, device="cpu")
    here = next_tokens(scores.cuda(), [Drawing(prompt.cuda(), reply, sampling)] * len(scores))
    assert here == next_tokens(scores, [Drawing(prompt, reply, sampling)] * len(scores))


@pytest.mark.skipif(not importlib.util.find_spec("flash_attn"), reason="flash-attn is not installed")
@pytest.mark.parametrize("build", [test_packing.gemma_1, test_packing.gemma_3])
def test_flash_attention_keeps_packed_rows_apart(build) -> None:  # type: ignore[no-untyped-def]
    batch, found = packing.collate(test_packing.examples(), share_prefix=False), []
    for attention in ("sdpa", "flash_attention_2"):
        tuned = test_packing.prepare(test_packing.with_lora(build()), share_prefix=False).bfloat16()
        base = tuned.get_base_model()
        base.loss_function.weight = base.loss_function.weight.bfloat16()
        base.set_attn_implementation(attention)
        loss = tuned(**batch).loss
        found.append((loss, torch.cat([g.flatten() for g in test_packing.gradients(tuned, loss).values()])))
    (plain, exact), (flash, close) = found
    torch.testing.assert_close(flash, plain, rtol=1e-2, atol=0)
    assert (close - exact).norm() < 0.1 * exact.norm()
