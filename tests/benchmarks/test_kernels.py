"""What a step and an update launch stays few: it can be counted without a card, and on one it is what they wait for."""

from benchmarks.kernels import adapter_of, model_of, step_kernels, update_kernels
from roleplay.engine.decoder import Decoder


def test_a_fixed_step_is_launched_at_once_and_is_as_long_for_many_rows() -> None:
    model = model_of("tiny")
    decoder = Decoder(model)
    lora = adapter_of(model, decoder)
    few, many = (step_kernels(decoder, lora, rows) for rows in (2, 8))
    assert many["fixed"].total() == few["fixed"].total() < many["eager"].total()
    assert many["launched"].total() == few["launched"].total() <= 10
    assert many["fixed"]["attention"] == len(decoder.layers)


def test_an_update_computes_attention_once_a_layer() -> None:
    found = update_kernels(model := model_of("tiny"))
    assert found["attention"] == found["attention backward"] == model.config.num_hidden_layers
