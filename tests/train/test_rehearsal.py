"""The model is held to what it would have said untuned: the loss is what it is said to be, and less is forgotten."""

import pytest
import torch
from torch.nn import functional as F

from roleplay.engine.soft_caps import soft_cap
from roleplay.text.prompts import PromptEncoder
from roleplay.text.rows import Row
from roleplay.weights.architectures import plain_attention
from tests import tiny
from train.learning import rehearsal
from train.learning.adapter import attach_lora
from train.learning.attention import ATTENTION
from train.learning.loss import use_chunked_loss

ROWS = [Row(((f"what of the {thing}?", f"the {thing} is cold."),)) for thing in ("moon", "snow", "gate", "lamp")]


@pytest.fixture(params=["gemma3_text", "gemma2"])
def model(request):
    base = tiny.of_kind(request.param, **(tiny.CAPS if request.param == "gemma2" else {}))
    base.set_attn_implementation(ATTENTION)
    use_chunked_loss(base)
    return attach_lora(base, r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"])


def logits(model, text):
    """Of every next token (tokens - 1, vocabulary), the text computed alone."""
    base = model.get_base_model()
    base.set_attn_implementation(plain_attention(base.config)[0])
    hidden = model(input_ids=torch.tensor([text.example.input_ids])).logits[0, :-1]
    base.set_attn_implementation(ATTENTION)
    return soft_cap(hidden @ base.loss_function.weight.t(), base.loss_function.cap)


def test_the_loss_is_the_cross_entropy_between_the_two_distributions(model):
    texts = rehearsal.prepare(model, PromptEncoder(tiny.tokenizer()), ROWS)
    assert len(texts) == len(ROWS)
    before = [logits(model, text).detach().softmax(-1) for text in texts]
    entropy = torch.cat([-(p * p.log()).sum(-1) for p in before]).mean()
    torch.testing.assert_close(
        rehearsal.rehearsal_loss(model, texts), entropy, rtol=1e-4, atol=0
    )  # the least that it can be
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.5)
    after = torch.cat([-(p * F.log_softmax(logits(model, t), -1)).sum(-1) for p, t in zip(before, texts, strict=True)])
    loss = rehearsal.rehearsal_loss(model, texts)
    torch.testing.assert_close(loss, after.mean(), rtol=1e-4, atol=0)
    assert loss > entropy * 1.0003


def test_every_text_comes_round(model):
    texts = rehearsal.prepare(model, PromptEncoder(tiny.tokenizer()), ROWS)
    seen = [text.example.input_ids for update in range(2) for text in rehearsal.of_update(texts, update)]
    assert sorted(seen) == sorted(text.example.input_ids for text in texts)
    assert len(rehearsal.of_update(texts[:1], 7)) == 1


def test_long_sets_are_thinned_evenly(model, monkeypatch):
    monkeypatch.setattr(rehearsal, "TEXTS", 2)
    texts = rehearsal.prepare(model, PromptEncoder(tiny.tokenizer()), ROWS)
    words = [PromptEncoder(tiny.tokenizer()).decode(text.example.input_ids) for text in texts]
    assert ["moon" in words[0], "gate" in words[1], len(words)] == [True, True, 2]
