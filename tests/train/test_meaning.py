"""What texts mean: what a model's first layers learn, and summaries of their states."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

from roleplay.engine.decoder import Decoder
from roleplay.engine.states import features, reader_of
from roleplay.text.known import FALLBACK, Known
from roleplay.text.meaning import READ, SUMMARIES, Floats, Meaning, Projection, Tokens
from roleplay.text.prompts import PromptEncoder
from roleplay.weights.adapters import PROJECTIONS
from roleplay.weights.base_models import BaseModel
from tests import tiny
from train.learning.meaning import (
    COMMON,
    LONGEST,
    SCALING,
    SIZE,
    first_layers,
    learn_meaning,
    learnable_features,
    learnable_vectors,
    learnt_by,
    meaning_of,
    rarity_of,
    tell_apart,
)

ENCODER = PromptEncoder(tiny.tokenizer())
TELLING, WORDINGS = "abcdefghijkl", 6  # a letter that tells the matter, among others that tell nothing
LOT = random.Random(0)
KNOWN = [
    Known(("".join(LOT.sample(said, len(said))), f"reply {letter}"), letter)
    for letter in TELLING
    for _ in range(WORDINGS)
    for said in [[letter, letter, *LOT.choices("qrstuvwxyz", k=LOT.randint(2, 8))]]
]
TEXTS = [one.turn[0] for one in KNOWN]
RARITY = rarity_of(TEXTS, ENCODER)


@pytest.fixture(scope="module")
def base() -> BaseModel:
    choice = ("cpu", "test")
    return BaseModel(tiny.gemma(), tiny.tokenizer(), tiny.BASE_NAME, "random", choice, choice, choice)


@pytest.fixture(scope="module")
def meaning(base: BaseModel) -> Meaning:
    learnt = learn_meaning(KNOWN, base, seed=0)
    assert learnt
    return learnt


def first_of_its_own(vectors: Floats) -> float:
    """The share of texts to which another of their matter is nearest."""
    alike = vectors @ vectors.T - 2 * np.eye(len(vectors))
    return float(np.mean([KNOWN[i].matter == KNOWN[alike[i].argmax()].matter for i in range(len(KNOWN))]))


def test_wordings_of_a_matter_come_near_to_one_another(base: BaseModel, meaning: Meaning) -> None:
    assert meaning.depth == 1 and meaning.vectors.shape == (len(KNOWN), SIZE)
    assert np.linalg.norm(meaning.vectors, axis=1) == pytest.approx(1)
    raw = features(Decoder(base.model), [RARITY.tokens(ENCODER, text) for text in TEXTS], 1)
    raw = (raw - raw.mean(0)) / (raw.std(0) + 1e-6)
    before = first_of_its_own(raw / np.linalg.norm(raw, axis=1, keepdims=True))
    assert first_of_its_own(meaning.vectors) > 1.5 * before > 0
    nearness = meaning.nearness(ENCODER, reader_of(Decoder(base.model), meaning))
    assert nearness(TEXTS[7]) == pytest.approx(meaning.vectors @ meaning.vectors[7], abs=1e-3)


def test_what_is_learnt_is_the_same_again_and_the_base_stays_as_it_is(base: BaseModel, meaning: Meaning) -> None:
    before = {key: values.clone() for key, values in base.model.state_dict().items()}
    again = learn_meaning(KNOWN, base, seed=0)
    assert again and (again.vectors == meaning.vectors).all()
    after = base.model.state_dict()
    assert [*after] == [*before] and all(torch.equal(after[key], values) for key, values in before.items())
    assert all(np.abs(values).max() > 0 for values in meaning.lora.values())


def test_what_was_learnt_reads_other_rows_too(base: BaseModel, meaning: Meaning) -> None:
    some = KNOWN[5:9] + KNOWN[5:6]
    again = meaning_of(some, base, meaning)
    assert again.vectors == pytest.approx(meaning.vectors[5:9], abs=1e-5) and again.text_of.tolist() == [0, 1, 2, 3, 0]
    assert again.projection is meaning.projection and again.lora is meaning.lora


def test_the_wordings_of_a_fallback_are_read_and_not_drawn_together(base: BaseModel, meaning: Meaning) -> None:
    fallbacks = [Known((letter, "Go on."), f"{FALLBACK}{letter < 'v'}") for letter in "qrstuvwxyz"]
    again = learn_meaning([*KNOWN, *fallbacks], base, seed=0)
    assert again and len(again.vectors) == len(KNOWN) + len(fallbacks)
    assert again.kinds.weights.shape[0] == 2 and again.kind_of.tolist() == [-1] * len(KNOWN) + [
        int(letter >= "v") for letter in "qrstuvwxyz"
    ]
    assert learn_meaning([*KNOWN[::WORDINGS], *fallbacks], base, seed=0) is None


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_fallbacks_are_told_apart(count: int) -> None:
    kind_of = np.arange(9 * count) // 9
    texts = [Tokens([0] * (1 + 10 * kind), [0.0]) for kind in kind_of]
    projection = Projection(np.full(2, 9.0), np.ones(2), np.eye(2))
    kinds = tell_apart(texts, kind_of, lambda part: np.array([[len(text.ids), 9] for text in part]), projection)
    assert kinds.weights.shape == (count, 2)
    lengths = np.array([[1 + 10 * kind - 9, 0] for kind in range(count)]).reshape(count, 2)
    probabilities = kinds.probabilities(lengths)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    certain = kinds.certainties(lengths)  # alone, a fallback is never likelier than by chance
    assert certain.shape == (count, count) and (certain.diagonal() > 0).all() == (count > 1 or not count)
    assert certain.min(initial=0) == 0 and certain.max(initial=0) <= 1
    assert [row.argmax() for row in probabilities] == [*range(count)]


def test_where_no_matter_has_two_wordings_there_is_nothing_to_learn(base: BaseModel) -> None:
    assert learn_meaning(KNOWN[::WORDINGS], base, seed=0) is None


def test_a_projection_gives_what_its_layer_gives() -> None:
    lot = np.random.default_rng(0)
    center, deviation, linear, found = (lot.normal(3, 2, size) for size in (9, 9, (4, 9), (20, 9)))
    expected = F.normalize(F.linear(torch.from_numpy((found - center) / deviation), torch.from_numpy(linear)))
    assert Projection(center, deviation, linear).vectors(found) == pytest.approx(expected.numpy())


def test_a_rare_token_counts_more() -> None:
    counts = rarity_of(["a b", "a c", "a d", "a a"], ENCODER)
    a, b = (ENCODER.encode(text)[-1] for text in ("a", "a b"))
    assert counts[a] == COMMON and counts[b] == pytest.approx(np.log(4))
    unknown = counts.tokens(ENCODER, "ξ")
    assert unknown.weights == [0.0, *[max(counts.values())] * (len(unknown.ids) - 1)]


def test_a_long_message_is_compared_by_its_beginning() -> None:
    """While it is read nobody else gets a token, and one that fits no prompt is refused only then."""
    whole = RARITY.tokens(ENCODER, " ".join("𠮟" * 2000))
    assert len(whole.ids) == len(whole.weights) == 1 + READ
    assert RARITY.tokens(ENCODER, "a b").ids == [ENCODER.tokenizer.bos_token_id, *ENCODER.encode("a b")]


@pytest.mark.parametrize("learnt", [False, True])
def test_features_are_summaries_of_the_models_states(base: BaseModel, meaning: Meaning, learnt: bool) -> None:
    """As a chat computes them, and as they are learned by, padded beside one another."""
    said = ["who is it", "你好", "a much longer text than the others, " + "so long that its end goes " * LONGEST]
    texts = [RARITY.tokens(ENCODER, text) for text in said]
    config = LoraConfig(r=3, lora_alpha=3 * SCALING, target_modules=[*PROJECTIONS])
    layers: Any = get_peft_model(first_layers(base.model, 1), config)
    if learnt:
        for name, weight in layers.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight, std=0.1)
    cut = [Tokens(text.ids[:LONGEST], text.weights[:LONGEST]) for text in texts]
    with torch.no_grad():
        found = learnable_features(layers, texts).numpy()
        for text, own in zip(cut, found, strict=True):
            hidden = layers(torch.tensor([text.ids])).last_hidden_state[0].numpy()
            mean = np.average(hidden, axis=0, weights=text.weights)
            assert own == pytest.approx(np.concatenate([mean, hidden[1:].max(0), hidden[-1]]), abs=1e-5)
            assert len(own) == SUMMARIES * hidden.shape[1]
    same = replace(meaning, lora=learnt_by(layers))
    assert reader_of(Decoder(base.model), same)(cut) == pytest.approx(found, abs=1e-4)
    assert (features(Decoder(base.model), cut, 1) == pytest.approx(found, abs=1e-4)) is not learnt


def test_texts_come_back_in_the_order_in_which_they_were_given(base: BaseModel) -> None:
    texts = [RARITY.tokens(ENCODER, text) for text in ("a much longer one", "b", "cde", "f and g")]
    layers: Any = get_peft_model(first_layers(base.model, 1), LoraConfig(target_modules=["q_proj"]))
    with torch.no_grad():
        found, one_by_one = (
            learnable_vectors(layers, texts, lambda x: x),
            [learnable_vectors(layers, [t], lambda x: x)[0] for t in texts],
        )
    assert torch.allclose(found, torch.stack(one_by_one), atol=1e-5)


def test_first_layers_give_what_the_whole_model_has_there(base: BaseModel) -> None:
    ids = torch.tensor([[2, 5, 7, 9]])
    with torch.no_grad():
        whole = base.model(ids, output_hidden_states=True).hidden_states[1]
        assert torch.equal(first_layers(base.model, 1)(ids).last_hidden_state, whole)
