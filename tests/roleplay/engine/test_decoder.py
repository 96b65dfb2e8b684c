"""The forward pass for generation agrees with transformers and peft, and keeps the sides apart."""

import itertools
import random
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from roleplay.engine.cache import KeyValues
from roleplay.engine.decoder import Decoder, Lora, Segment
from roleplay.engine.matrix import Int8Matrix, Matrix
from roleplay.errors import ModelError
from tests import tiny

WINDOW = 8


def gemma3() -> PreTrainedModel:
    return tiny.gemma(num_hidden_layers=7, num_key_value_heads=1, sliding_window=WINDOW)


def grouped() -> PreTrainedModel:
    return tiny.gemma(num_attention_heads=4, num_key_value_heads=2, query_pre_attn_scalar=5, sliding_window=WINDOW)


def gemma1() -> PreTrainedModel:
    return tiny.of_kind("gemma", num_hidden_layers=3)


def gemma2() -> PreTrainedModel:
    return tiny.of_kind("gemma2", num_attention_heads=4, num_key_value_heads=2, sliding_window=WINDOW, **tiny.CAPS)


def vaultgemma() -> PreTrainedModel:
    return tiny.of_kind("vaultgemma", sliding_window=WINDOW, **tiny.CAPS)


@pytest.fixture(params=[gemma3, grouped, gemma1, gemma2, vaultgemma], ids=lambda make: make.__name__)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A model whose norms are no identity."""
    made = request.param()
    with torch.no_grad():
        for weight in made.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return made


def tokens(count: int, seed: int = 1) -> list[int]:
    return random.Random(seed).choices(range(3, 260), k=count)


def expected(model: PreTrainedModel | PeftModel, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float()


def last_logits(decoder: Decoder, *segments: Segment) -> torch.Tensor:
    return decoder.head(decoder.forward(segments))


def with_lora(model: PreTrainedModel, modules: list[str]) -> tuple[PeftModel, dict[str, torch.Tensor]]:
    config = LoraConfig(r=4, lora_alpha=8, target_modules=modules, init_lora_weights=False, task_type="CAUSAL_LM")
    torch.manual_seed(3)
    attached = get_peft_model(model, config).eval()
    weights = {k.replace(".default", ""): v.detach() for k, v in attached.state_dict().items() if "lora_" in k}
    return attached, weights


@pytest.mark.parametrize("chunks", [(40,), (5, 35), (5, 1, 1, 9, 10, 1, 13), (20, 20), (1,) * 40], ids=str)
def test_logits_are_those_of_transformers(model: PreTrainedModel, chunks: tuple[int, ...]) -> None:
    ids, decoder = tokens(40), Decoder(model)
    reference, cache = expected(model, ids), decoder.new_cache()
    for end, count in zip(itertools.accumulate(chunks), chunks, strict=True):
        logits = last_logits(decoder, Segment(ids[end - count : end], cache))
        torch.testing.assert_close(logits[0], reference[end - 1], atol=1e-4, rtol=1e-4)


def test_greedy_tokens_are_those_of_generate(model: PreTrainedModel) -> None:
    prompt, new = tokens(20), 24
    generate: Any = model.generate
    wanted = generate(torch.tensor([prompt]), max_new_tokens=new, do_sample=False, eos_token_id=None)
    decoder = Decoder(model)
    cache, got, pending = decoder.new_cache(), list(prompt), prompt
    for _ in range(new):
        pending = [int(last_logits(decoder, Segment(pending, cache)).argmax())]
        got += pending
    assert got == wanted[0].tolist()


def test_fusing_changes_neither_the_model_nor_its_memory(model: PreTrainedModel) -> None:
    ids, before = tokens(12), {name: weight.clone() for name, weight in model.state_dict().items()}
    reference = expected(model, ids)
    Decoder(model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert torch.equal(expected(model, ids), reference)
    attention = model.model.layers[0].self_attn
    storages = {getattr(attention, name).weight.untyped_storage().data_ptr() for name in ("q_proj", "k_proj", "v_proj")}
    assert len(storages) == 1


ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize("modules", [ALL, ["q_proj", "v_proj"], ["up_proj"]], ids=lambda names: names[-1])
def test_adapter_logits_are_those_of_peft(model: PreTrainedModel, modules: list[str]) -> None:
    decoder = Decoder(model)
    attached, weights = with_lora(model, modules)
    lora, ids = Lora(decoder, weights, 2.0), tokens(30)
    adapted, cache, plain = expected(attached, ids), decoder.new_cache(), decoder.new_cache()
    with attached.disable_adapter():
        base = expected(attached, ids)
    assert not torch.allclose(adapted, base, atol=1e-2)
    last_logits(decoder, Segment(ids[:25], cache, lora), Segment(ids[:10], plain))
    both = last_logits(decoder, Segment(ids[25:], cache, lora), Segment(ids[10:11], plain))
    torch.testing.assert_close(both, torch.stack([adapted[-1], base[10]]), atol=1e-4, rtol=1e-4)


def test_the_base_side_is_the_same_bits_beside_any_adapter(model: PreTrainedModel) -> None:
    decoder = Decoder(model)
    _, weights = with_lora(model, ALL)
    ids, beside = tokens(20), []
    for lora in (None, Lora(decoder, weights, 2.0), Lora(decoder, weights, -50.0)):
        caches = decoder.new_cache(), decoder.new_cache()
        last_logits(decoder, Segment(ids, caches[0], lora), Segment(ids[:15], caches[1]))
        logits = last_logits(decoder, Segment(ids[:1], caches[0], lora), Segment(ids[15:16], caches[1]))
        beside.append((logits[1], *caches[1].part(0, 16)[0, 0].clone().unbind()))
    assert all(torch.equal(a, b) for other in beside[1:] for a, b in zip(beside[0], other, strict=True))


@pytest.mark.parametrize("int8", [False, pytest.param(True, marks=tiny.NEEDS_INT8)])
def test_a_row_has_the_same_bits_beside_any_others(int8: bool) -> None:
    """In bfloat16, where a step computes a token of each and reads a prompt as well."""
    model = tiny.gemma(hidden_size=64, head_dim=64, num_key_value_heads=1, sliding_window=WINDOW)
    _, weights = with_lora(tiny.gemma(hidden_size=64, head_dim=64, num_key_value_heads=1), ALL)
    decoder = Decoder(model.to(torch.bfloat16), int8)
    loras = None, Lora(decoder, weights, 2.0), Lora(decoder, weights, -1.0)
    for own in loras[:2]:
        seen = []
        for others in (0, 1, 2, 5, 16, 33):
            caches = [decoder.new_cache() for _ in range(others + 1)]
            for number, cache in enumerate(caches):
                past = tokens(5 + 3 * number % 40, number)
                decoder.forward([Segment(past, cache, loras[number % 3] if number else own)])
            neighbours = [
                Segment(tokens(1 + 29 * (n == 7), n), cache, loras[n % 3]) for n, cache in enumerate(caches[1:], 1)
            ]
            mine, half = Segment([7], caches[0], own), others // 2
            seen.append(last_logits(decoder, *neighbours[:half], mine, *neighbours[half:])[half])
        assert all(torch.equal(logits, seen[0]) for logits in seen)


@tiny.NEEDS_INT8
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_of_8_bits_give_nearly_the_same_scores(dtype: torch.dtype) -> None:
    model = tiny.gemma(hidden_size=64, head_dim=64, num_key_value_heads=1).to(dtype)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    _, weights = with_lora(tiny.gemma(hidden_size=64, head_dim=64, num_key_value_heads=1), ALL)
    ids, scores = tokens(30), []
    for int8 in (False, True):
        decoder = Decoder(model, int8)
        products = [decoder.head_product, *(product for layer in decoder.layers for product in layer.products)]
        assert {type(product) for product in products} == {Int8Matrix if int8 else Matrix}
        segments = [Segment(ids, decoder.new_cache(), lora) for lora in (None, Lora(decoder, weights, 2.0))]
        scores.append(last_logits(decoder, *segments))
    apart = (scores[1] - scores[0]).norm(dim=1) / scores[0].norm(dim=1)
    assert torch.all(apart > 1e-4) and torch.all(apart < 0.05)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@tiny.NEEDS_INT8
@pytest.mark.parametrize("vnni", [True, False])
def test_a_product_of_8_bits_rounds_every_row_and_every_output_by_itself(
    vnni: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not vnni:
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    scale = torch.tensor([1e-3, 1.0, 1e3])
    x, weight = (torch.randn(3, 200) * scale[:, None] for _ in range(2))
    apart = (Int8Matrix(weight)(x) - x @ weight.T) / scale / scale[:, None]  # of numbers up to some 40
    assert apart.abs().max() < 1.2
    x[2, 5], weight[1] = torch.nan, 0.0  # a row that has failed, and an output that is nothing
    product = Int8Matrix(weight)(x)
    assert product.isnan().tolist() == [[False] * 3, [False] * 3, [True] * 3]
    assert torch.equal(product[:2, 1], torch.zeros(2))
    ones = torch.ones(2, 512)  # the largest sums there are
    torch.testing.assert_close(Int8Matrix(ones)(ones), ones @ ones.T)


OF_THE_EMBEDDED_MODEL = [(1536, 640), (640, 1024), (4096, 640), (640, 2048), (16, 640), (640, 16), (262_144, 640)]


@pytest.mark.parametrize("shape", OF_THE_EMBEDDED_MODEL, ids=str)
def test_a_row_of_a_product_has_the_same_bits_beside_any_others(shape: tuple[int, int]) -> None:
    """With the kernels that real shapes and two threads choose."""
    matrix, threads = Matrix(torch.empty(shape, dtype=torch.bfloat16).normal_()), torch.get_num_threads()
    if not matrix.blocked:
        pytest.skip("this CPU does not multiply bfloat16")
    x, y = (torch.randn(48, size).to(torch.bfloat16) for size in shape[::-1])
    torch.set_num_threads(2)
    try:
        for rows in (4, 8, 17, 34, 48):
            assert torch.equal(matrix(x[:1]), matrix(x[:rows].flip(0))[-1:])
            few, many = (matrix.add_to(y[:count].clone(), x[:count]) for count in (4, rows))
            assert torch.equal(few[0], many[0])
    finally:
        torch.set_num_threads(threads)


@tiny.NEEDS_INT8
@pytest.mark.parametrize("shape", OF_THE_EMBEDDED_MODEL, ids=str)
def test_in_8_bits_too(shape: tuple[int, int]) -> None:
    matrix, x = Int8Matrix(torch.randn(shape)), torch.randn(48, shape[1])
    for rows in (4, 8, 17, 34, 48):
        assert torch.equal(matrix(x[:1]), matrix(x[:rows].flip(0))[-1:])


@pytest.mark.parametrize("rows", [1, 2, 3, 17])
@pytest.mark.parametrize("features", [6, 1500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_matrix_multiplies_as_a_linear_layer_does(rows: int, features: int, dtype: torch.dtype) -> None:
    x, weight = torch.randn(rows, features).to(dtype), torch.randn(5, features).to(dtype)
    result = Matrix(weight)(x)
    assert result.is_contiguous()
    assert result.shape == (rows, 5)
    torch.testing.assert_close(result, x @ weight.T, atol=1e-3, rtol=1e-1 if dtype == torch.bfloat16 else 1e-4)


@torch.inference_mode()
def test_a_cache_grows_by_doubling_and_keeps_what_it_holds() -> None:
    cache = KeyValues(2, 1, 4, torch.float32, torch.device("cpu"))
    cache.reserve(100)
    cache.part(0, 100)[0, 1] = 7.0
    cache.length, first = 100, cache.bytes
    cache.reserve(129)
    assert cache.bytes == 2 * first
    assert torch.equal(cache.part(0, 100)[0, 1], torch.full((1, 100, 4), 7.0))


def test_a_failed_pass_leaves_the_caches_as_they_were(model: PreTrainedModel) -> None:
    decoder = Decoder(model)
    ids, cache = tokens(9), decoder.new_cache()
    last_logits(decoder, Segment(ids[:8], cache))
    with pytest.raises(IndexError):
        decoder.forward([Segment([ids[8], 10**6], cache)])
    assert cache.length == 8
    logits = last_logits(decoder, Segment(ids[8:], cache))
    torch.testing.assert_close(logits[0], expected(model, ids)[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "change",
    [{"attention_bias": True}, {"attn_logit_softcapping": 30.0}, {"use_bidirectional_attention": True}],
    ids=lambda change: next(iter(change)),
)
def test_variants_that_it_does_not_compute_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=next(iter(change))):
        Decoder(tiny.gemma(**change))
