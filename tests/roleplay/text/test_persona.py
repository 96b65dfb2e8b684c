"""Personas read from files: what is taken, and what each refusal says."""

import json

import pytest

from roleplay.errors import DataError
from roleplay.text.personas import Persona, load_persona
from tests.tiny import ZHEN_HUAN

GOOD = {"name": "Ink", "system_prompt": "You are Ink.", "greeting": "Sit.", "openers": ["Who are you?"]}


def test_a_persona_from_a_file(tmp_path):
    path = tmp_path / "me.json"
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    persona = load_persona(path)
    assert (persona.name, persona.openers) == ("Ink", ("Who are you?",))
    path.write_text(json.dumps({"name": "Ink", "system_prompt": "You are Ink."}), encoding="utf-8")
    assert load_persona(path).openers == ()


def test_marks_nulls_line_ends_and_halves_of_characters_are_mended(tmp_path):
    path, value = tmp_path / "me.json", GOOD | {"greeting": None, "openers": ["a\r\nb", "\ud83d"]}
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(value).encode())
    assert load_persona(path) == Persona("Ink", "You are Ink.", "", ("a\nb", "?"))


def test_a_key_that_is_not_known_is_named(tmp_path, capsys):
    path = tmp_path / "me.json"
    path.write_text(json.dumps(GOOD | {"avatar": "none", "age": 7}), encoding="utf-8")
    assert load_persona(path).name == "Ink"
    assert capsys.readouterr().err == f"note: {path}: not used: avatar, age\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not a readable persona"),
        (b"\xff\xfe", "not a readable persona"),
        (b"[]", "a list where a persona belongs, an object with the keys name, system_prompt, greeting, openers"),
        (json.dumps(GOOD | {"openers": "hi"}).encode(), "openers a list of texts"),
        (json.dumps(GOOD | {"openers": [1]}).encode(), "openers a list of texts"),
        (json.dumps(GOOD | {"system_prompt": 1}).encode(), "must be texts"),
        (json.dumps(GOOD | {"system_prompt": " "}).encode(), "system_prompt is empty"),
        (b'{"name": "Ink"}', "system_prompt is empty"),
        (json.dumps(GOOD | {"name": " "}).encode(), "name is empty"),
        (json.dumps(GOOD | {"name": "x" * 101}).encode(), "name has 101 characters; 100 fit, so shorten it"),
        (
            json.dumps(GOOD | {"system_prompt": "x" * 2001}).encode(),
            "system_prompt is 2,001 characters long; 2,000 fit, so shorten it",
        ),
        (
            json.dumps(GOOD | {"greeting": "x" * 4000}).encode(),
            "name, greeting and openers are 4,015 characters long together; 4,000 fit, so shorten them",
        ),
        (json.dumps(GOOD, ensure_ascii=False).replace("Ink", "守灯人").encode("gb18030"), "not UTF-8"),
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
