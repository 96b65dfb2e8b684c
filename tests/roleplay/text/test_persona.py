"""Personas read from files: what is taken, and what each refusal says."""

import json

import pytest

from roleplay.errors import DataError
from roleplay.text.personas import load_persona
from tests.tiny import ZHEN_HUAN

GOOD = {"name": "Ink", "system_prompt": "You are Ink.", "greeting": "Sit.", "openers": ["Who are you?"]}


def test_a_persona_from_a_file(tmp_path):
    path = tmp_path / "me.json"
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    persona = load_persona(path)
    assert (persona.name, persona.openers) == ("Ink", ("Who are you?",))
    path.write_text(json.dumps({"name": "Ink", "system_prompt": "You are Ink."}), encoding="utf-8")
    assert load_persona(path).openers == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not a readable persona"),
        (b"\xff\xfe", "not a readable persona"),
        (b"[]", "a persona is a JSON object with the keys"),
        (json.dumps(GOOD | {"age": 7}).encode(), "a persona is a JSON object with the keys"),
        (json.dumps(GOOD | {"openers": "hi"}).encode(), "openers a list of texts"),
        (json.dumps(GOOD | {"openers": [1]}).encode(), "openers a list of texts"),
        (json.dumps(GOOD | {"system_prompt": 1}).encode(), "must be texts"),
        (json.dumps(GOOD | {"system_prompt": " "}).encode(), "system_prompt is empty"),
        (b'{"name": "Ink"}', "must be texts"),
        (json.dumps(GOOD | {"system_prompt": "x" * 2001}).encode(), "is 2,001 characters long; 2,000 fit"),
        (json.dumps(GOOD | {"openers": ["x" * 3998]}).encode(), "are 4,005 characters long together; 4,000 fit"),
    ],
)
def test_what_is_no_persona(tmp_path, content, message):
    path = tmp_path / "me.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        load_persona(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_built_in_persona_has_everything_the_page_shows():
    assert ZHEN_HUAN.greeting
    assert any(opener.isascii() for opener in ZHEN_HUAN.openers)
    assert any(not opener.isascii() for opener in ZHEN_HUAN.openers)
