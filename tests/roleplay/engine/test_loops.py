"""A reply that goes round in circles is ended; what people write never counts as one."""

from dataclasses import replace

import pytest

from roleplay.engine.local import LocalEngine
from roleplay.engine.loops import repeats
from roleplay.engine.protocol import BASE, LOOP, Question, Request, Sampling
from roleplay.environment import ROOT
from roleplay.text.rows import read_rows
from tests.roleplay.engine.test_engine import base_model

GREEDY = Sampling(temperature=0.0, frequency_penalty=0.0, max_new_tokens=300)


@pytest.mark.parametrize(
    ("text", "round_in_circles"),
    [
        ("SUBSCRIBE TO THE DAILY TELEGRAPH\n" * 2, False),
        ("SUBSCRIBE TO THE DAILY TELEGRAPH\n" * 3, True),
        ("He said: " + "I am a light. You are a light. " * 3, True),
        ("I am a light. " * 3 + "And you?", False),
        ("哈" * 59, False),
        ("哈" * 60, True),
        ("好的，" * 20, True),
        ("no, no, no", False),
        ("", False),
    ],
)
def test_a_passage_again_and_again_is_a_loop(text: str, round_in_circles: bool) -> None:
    assert repeats(text) is round_in_circles


@pytest.mark.parametrize("character", ["keeper", "wukong", "zhenhuan"])
def test_no_row_of_a_character_is_one(character: str) -> None:
    rows = read_rows(ROOT / "dataset" / character / "rows.json")[0]
    assert not [reply for row in rows for _, reply in row.turns if repeats(reply)]


def test_the_engine_ends_a_loop_where_it_is_asked_to() -> None:
    engine, question = LocalEngine(base_model()), Question("", (), "hello")
    request = Request({BASE: question}, GREEDY)
    *_, whole = engine.answer(request)
    *_, cut = engine.answer(replace(request, cut_loops=True))
    assert (whole[BASE].stop, cut[BASE].stop) == ("length", LOOP)
    assert whole[BASE].text.startswith(cut[BASE].text) and repeats(cut[BASE].text)
    assert cut[BASE].tokens < 300
