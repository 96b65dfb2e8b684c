"""What texts mean: the mean of a model's hidden states, and a projection under which wordings of a matter are near."""

from collections.abc import Sequence
from functools import partial
from zlib import crc32

import numpy as np
import pytest
import torch

from roleplay.engine.decoder import Decoder
from roleplay.engine.states import mean_states as states_of
from roleplay.text.meaning import ids_of
from roleplay.text.prompts import PromptEncoder
from roleplay.text.retrieval import Known
from tests import tiny
from train.learning.meaning import SIZE, learn_meaning, mean_states

MATTERS, WORDINGS, TELLING, HIDDEN = 40, 6, 8, 48
KNOWN = [Known((f"{m} said {w}", f"reply {m}"), str(m)) for m in range(MATTERS) for w in range(WORDINGS)]
ENCODER = PromptEncoder(tiny.tokenizer())
BY_IDS = {tuple(ids_of(ENCODER, one.turn[0])): one for one in KNOWN}


def states(texts: Sequence[Sequence[int]], depth: int) -> np.ndarray:
    """A few numbers tell the matter; the others are larger, and tell nothing."""
    found = []
    for ids in texts:
        one = BY_IDS[tuple(ids)]
        telling = np.random.default_rng(int(one.matter)).normal(size=TELLING)
        other = np.random.default_rng(crc32(one.turn[0].encode())).normal(size=HIDDEN - TELLING)
        found.append([*telling, *(3 * other + 5)])
    return np.array(found, np.float32)


def first_of_its_own(vectors: np.ndarray) -> float:
    """The share of texts to which another of their matter is nearest."""
    alike = vectors @ vectors.T - 2 * np.eye(len(vectors))
    return float(np.mean([KNOWN[i].matter == KNOWN[alike[i].argmax()].matter for i in range(len(KNOWN))]))


def test_wordings_of_a_matter_come_near_to_one_another() -> None:
    meaning = learn_meaning(KNOWN, ENCODER, states, layers=10, seed=0)
    assert meaning and meaning.depth == 4 and meaning.vectors.shape == (len(KNOWN), SIZE)
    raw = mean_states([one.turn[0] for one in KNOWN], ENCODER, states, 4)
    centered = raw - raw.mean(0)
    assert first_of_its_own(centered / np.linalg.norm(centered, axis=1, keepdims=True)) < 0.5
    assert first_of_its_own(meaning.vectors) > 0.9
    assert np.linalg.norm(meaning.vectors, axis=1) == pytest.approx(1)
    text = KNOWN[7].turn[0]
    assert meaning.nearness(ENCODER, states)(text) == pytest.approx(meaning.vectors @ meaning.vectors[7], abs=1e-5)
    again = learn_meaning(KNOWN, ENCODER, states, layers=10, seed=0)
    assert again and (again.vectors == meaning.vectors).all()


def test_where_no_matter_has_two_wordings_there_is_nothing_to_learn() -> None:
    assert learn_meaning(KNOWN[::WORDINGS], ENCODER, states, layers=10, seed=0) is None


def test_mean_states_are_those_of_the_model() -> None:
    model, depth = tiny.gemma(), 1
    texts = ["who is it", "你好", "a much longer text than the others"]
    found = mean_states(texts, ENCODER, partial(states_of, Decoder(model)), depth)
    for text, own in zip(texts, found, strict=True):
        with torch.inference_mode():
            hidden = model(torch.tensor([ids_of(ENCODER, text)]), output_hidden_states=True).hidden_states[depth]
        assert own == pytest.approx(hidden[0, 1:].mean(0).numpy(), abs=1e-5)
