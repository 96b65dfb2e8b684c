"""What texts mean: summaries of a model's hidden states, and a network under which wordings of a matter are near."""

from collections.abc import Sequence
from functools import partial
from zlib import crc32

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from roleplay.engine.decoder import Decoder
from roleplay.engine.states import features as features_of
from roleplay.text.meaning import SUMMARIES, Tokens
from roleplay.text.prompts import PromptEncoder
from roleplay.text.retrieval import Known
from tests import tiny
from train.learning.meaning import COMMON, SIZE, find_all, learn_meaning, learn_network, rarity_of

MATTERS, WORDINGS, TELLING, HIDDEN = 40, 6, 8, 48
KNOWN = [Known((f"{m} said {w}", f"reply {m}"), str(m)) for m in range(MATTERS) for w in range(WORDINGS)]
ENCODER = PromptEncoder(tiny.tokenizer())
TEXTS = [one.turn[0] for one in KNOWN]
RARITY = rarity_of(TEXTS, ENCODER)
TOKENS = [RARITY.tokens(ENCODER, text) for text in TEXTS]
BY_IDS = {tuple(text.ids): one for text, one in zip(TOKENS, KNOWN, strict=True)}


def features(texts: Sequence[Tokens], depth: int) -> np.ndarray:
    """A few numbers tell the matter; the others are larger, and tell nothing."""
    found = []
    for text in texts:
        one = BY_IDS[tuple(text.ids)]
        telling = np.random.default_rng(int(one.matter)).normal(size=TELLING)
        other = np.random.default_rng(crc32(one.turn[0].encode())).normal(size=HIDDEN - TELLING)
        found.append([*telling, *(3 * other + 5)])
    return np.array(found, np.float32)


def first_of_its_own(vectors: np.ndarray) -> float:
    """The share of texts to which another of their matter is nearest."""
    alike = vectors @ vectors.T - 2 * np.eye(len(vectors))
    return float(np.mean([KNOWN[i].matter == KNOWN[alike[i].argmax()].matter for i in range(len(KNOWN))]))


def test_wordings_of_a_matter_come_near_to_one_another() -> None:
    meaning = learn_meaning(KNOWN, ENCODER, features, layers=10, seed=0)
    assert meaning and meaning.depth == 4 and meaning.vectors.shape == (len(KNOWN), SIZE)
    raw = find_all(TOKENS, features, 4)
    centered = raw - raw.mean(0)
    assert first_of_its_own(centered / np.linalg.norm(centered, axis=1, keepdims=True)) < 0.5
    assert first_of_its_own(meaning.vectors) > 0.9
    assert np.linalg.norm(meaning.vectors, axis=1) == pytest.approx(1)
    text = KNOWN[7].turn[0]
    assert meaning.nearness(ENCODER, features)(text) == pytest.approx(meaning.vectors @ meaning.vectors[7], abs=1e-5)
    again = learn_meaning(KNOWN, ENCODER, features, layers=10, seed=0)
    assert again and (again.vectors == meaning.vectors).all()


def test_where_no_matter_has_two_wordings_there_is_nothing_to_learn() -> None:
    assert learn_meaning(KNOWN[::WORDINGS], ENCODER, features, layers=10, seed=0) is None


def test_a_network_gives_what_its_layers_give() -> None:
    """By torch's own layers, with every part of it away from what does nothing."""
    lot = np.random.default_rng(0)
    found = lot.normal(3, 5, (60, HIDDEN)).astype(np.float32)
    network = learn_network(found, [[n, n + 1] for n in range(0, 60, 2)], seed=0)
    assert all(np.abs(values).min() > 0 for values in (network.deviation, network.bias)) and network.deviation.max() > 2
    linear, inward, bias, outward = (torch.from_numpy(values) for values in network[2:])
    x = torch.from_numpy((found - found.mean(0)) / found.std(0))
    y = F.linear(x, linear) + F.linear(F.linear(x, inward, bias).relu(), outward)
    assert network.vectors(found) == pytest.approx(F.normalize(y).numpy(), abs=1e-4)


def test_a_rare_token_counts_more() -> None:
    counts = rarity_of(["a b", "a c", "a d", "a a"], ENCODER)
    a, b = (ENCODER.encode(text)[-1] for text in ("a", "a b"))
    assert counts[a] == COMMON and counts[b] == pytest.approx(np.log(4))
    unknown = counts.tokens(ENCODER, "ξ")
    assert unknown.weights == [0.0, *[max(counts.values())] * (len(unknown.ids) - 1)]


def test_features_are_summaries_of_the_models_states() -> None:
    model, depth = tiny.gemma(), 1
    texts = [RARITY.tokens(ENCODER, text) for text in ("who is it", "你好", "a much longer text than the others")]
    found = find_all(texts, partial(features_of, Decoder(model)), depth)
    for text, own in zip(texts, found, strict=True):
        with torch.inference_mode():
            hidden = model(torch.tensor([text.ids]), output_hidden_states=True).hidden_states[depth][0].numpy()
        mean = np.average(hidden, axis=0, weights=text.weights)
        assert own == pytest.approx(np.concatenate([mean, hidden[1:].max(0), hidden[-1]]), abs=1e-5)
        assert len(own) == SUMMARIES * hidden.shape[1]
