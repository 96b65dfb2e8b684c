"""Characters of other programs: what each form becomes, what is named as left out, and what is refused."""

import base64
import io
import json
import struct
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from roleplay.errors import DataError
from roleplay.text import card_files, cards, personas, png
from roleplay.text.rows import parse_row

V1 = {
    "name": "Mara",
    "description": "{{char}} keeps the light at Skerry Point. {{user}} is wet through.",
    "personality": "plain, kind",
    "scenario": "A gale; {{user}}'s boat is lost.",
    "first_mes": "Come in, {{user}}. {{char}} takes {{user}}'s coat.",
    "mes_example": "<START>\n{{user}}: Is it lonely here?\n{{char}}: Some nights.\nNot many.\n{{user}}: And now?\n"
    "{{char}}: Now there is <USER>.\n<start>\n{{char}}: Unasked.\n<START>\n<USER>: Who built it?\nMara: My father.",
}
V2 = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "name": "the old place of a name",
    "data": V1
    | {
        "system_prompt": "",
        "post_history_instructions": "Stay short.",
        "alternate_greetings": ["The lamp still burns.", "x" * 900, ""],
        "character_book": {"entries": [{"keys": ["gale"]}, {"keys": ["light"]}]},
        "tags": [],
        "creator_notes": "",
        "extensions": {"regex_scripts": [{"scriptName": "a"}], "world": ""},
    },
}
V3 = V2 | {"spec": "chara_card_v3", "spec_version": "3.0", "data": V2["data"] | {"nickname": "Skip", "assets": None}}
YAML = """
name: No
greeting: Come in, {{user}}.
context: |
  {{char}} keeps the light.
  <START>
  {{user}}: Is it far?
  {{char}}: Not by boat.
your_name: ~
"""
PROMPT = (
    "You are Mara. Mara keeps the light at Skerry Point. The visitor is wet through.\n"
    "Personality: plain, kind\nScenario: A gale; the visitor's boat is lost."
)


def chunk(kind: bytes, body: bytes, length: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(body) if length is None else length)
        + kind
        + body
        + struct.pack(">I", zlib.crc32(kind + body))
    )


def packed(value: Any) -> bytes:
    return base64.b64encode(json.dumps(value).encode())


def picture(*chunks: bytes) -> bytes:
    """A PNG with more in it: before its end stand the chunks."""
    plain = png.plain_picture(4, 6)
    return plain[:-12] + b"".join(chunks) + plain[-12:]


def text(keyword: bytes, body: bytes) -> bytes:
    return chunk(b"tEXt", keyword + b"\0" + body)


def load(folder: Path, data: Any, name: str = "card.json") -> personas.Persona:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return personas.load_persona(path)


@pytest.mark.parametrize("card", [V1, V2], ids=["V1", "V2"])
def test_a_tavern_card_becomes_a_persona_with_its_macros_filled(tmp_path: Path, card: Any) -> None:
    persona = load(tmp_path, card)
    assert (persona.name, persona.system_prompt) == ("Mara", PROMPT)
    assert persona.greeting == "Come in. Mara takes your coat."
    assert persona.openers[:2] == ("Is it lonely here?", "Who built it?")


def test_what_has_no_place_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    persona = load(tmp_path, V3)
    assert persona.system_prompt.startswith("You are Mara (Skip). Skip keeps the light")
    assert persona.openers == ("Is it lonely here?", "Who built it?", "The lamp still burns.")
    said = capsys.readouterr().err
    assert said == (
        f"note: {tmp_path / 'card.json'}: read as a Tavern card V3; no place here for greetings (1 long), "
        "post_history_instructions, lorebook (2 entries), extensions (regex_scripts)\n"
    )
    load(tmp_path, V1 | {"description": "It is {{time}} in {{// nobody's }}{{idle_duration}}."})
    assert "stays as written: {{time}}, {{idle_duration}}" in capsys.readouterr().err


def test_of_a_random_macro_the_first_is_taken(tmp_path: Path) -> None:
    told = "It is {{random:wet,dry}}, {{pick::a gale::a calm}}{{hidden_key:x}}, and {{random: {{char}}, Ada}} waits."
    assert load(tmp_path, {"name": "Mara", "description": told, "first_mes": ""}).system_prompt == (
        "You are Mara. It is wet, a gale, and Mara waits."
    )


def test_parts_that_are_too_long_together_are_named_with_their_lengths(tmp_path: Path) -> None:
    card = {**V2, "data": V2["data"] | {"description": "x" * 1990}}
    with pytest.raises(DataError) as error:
        load(tmp_path, card)
    assert str(error.value).endswith(
        "system_prompt is 2,075 characters long; 2,000 fit, so shorten description (1,990), personality (11), "
        "scenario (35)"
    )
    with pytest.raises(DataError, match=r"so shorten context \(2,500\)"):
        load(tmp_path, b"name: Ada\ncontext: " + b"x" * 2500, "ada.yaml")


def test_a_greeting_that_is_too_long_gives_way_to_an_alternate_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = {**V2, "data": V2["data"] | {"first_mes": "x" * 9000}}
    persona = load(tmp_path, card)
    assert persona.greeting == "The lamp still burns." and len(persona.openers) == 2
    assert "no place here for greetings (2 long)" in capsys.readouterr().err


@pytest.mark.timeout(120)  # where a pattern tried one place twice it would take hours
def test_millions_of_signs_are_read_at_once(tmp_path: Path) -> None:
    for text in (" " * 300_000, "{{" + " " * 300_000, "{{user}}" * 100_000, "{{random:" * 50_000, "a:" * 200_000):
        with pytest.raises(DataError):
            load(tmp_path, V1 | {"name": "x", "description": f"x{text}x", "mes_example": f"{{{{user}}}}: {text}"})
        with pytest.raises(DataError, match="name has"):
            load(tmp_path, V1 | {"name": f"x{text}x", "description": text})


def test_a_chinese_card_gets_chinese_words(tmp_path: Path) -> None:
    card = {
        "name": "林照",
        "description": "<BOT> 守着灯塔，对 <USER> 很客气。",
        "personality": "寡言",
        "first_mes": "进来，{{user}}！",
    }
    persona = load(tmp_path, card)
    assert persona.system_prompt == "你是林照。林照守着灯塔，对访客很客气。\n性格：寡言"
    assert persona.greeting == "进来！"
    told = load(tmp_path, card | {"description": "你是守灯人。"})
    assert told.system_prompt == "你是守灯人。\n性格：寡言"


def test_text_generation_webui_in_yaml_and_json(tmp_path: Path) -> None:
    persona = load(tmp_path, YAML.encode(), "me.yaml")
    assert persona == personas.Persona("No", "You are No. No keeps the light.", "Come in.", ("Is it far?",))
    older = {"char_name": "Mara", "char_persona": "Keeps the light.", "char_greeting": "Hm?", "world_scenario": "Fog."}
    plain = YAML.replace("  <START>\n", "\n")
    assert load(tmp_path, plain.encode(), "me.yaml").system_prompt == "You are No. No keeps the light."
    assert load(tmp_path, older) == personas.Persona("Mara", "You are Mara. Keeps the light.\nScenario: Fog.", "Hm?")


def test_a_system_prompt_of_the_card_comes_first_and_alone_says_who_speaks(tmp_path: Path) -> None:
    card = {**V2, "data": V2["data"] | {"system_prompt": "{{original}} Write as {{Char}}.", "personality": None}}
    assert load(tmp_path, card).system_prompt.startswith("Write as Mara.\nMara keeps the light")


@pytest.mark.parametrize(
    "data",
    [
        picture(text(b"chara", packed(V2))),
        picture(text(b"Chara", packed(V1))),
        picture(text(b"comment", b"x" * 99), text(b"ccv3", packed(V2)), text(b"chara", packed(V1 | {"name": "old"}))),
        picture(chunk(b"zTXt", b"chara\0\0" + zlib.compress(packed(V1)))),
        picture(chunk(b"iTXt", b"chara\0\1\0en\0chara\0" + zlib.compress(packed(V1)))),
        picture(chunk(b"iTXt", b"chara\0\0\0\0\0" + packed(V1))),
        picture(text(b"chara", json.dumps(V1).encode())),
    ],
    ids=["chara", "V1 and any case", "ccv3 before chara", "zTXt", "iTXt packed", "iTXt", "as it is"],
)
def test_a_card_in_a_png(tmp_path: Path, data: bytes) -> None:
    assert load(tmp_path, data, "card.png").system_prompt == PROMPT


HOSTILE: dict[str, tuple[bytes, str]] = {
    "no card": (picture(), "a picture with no character in it"),
    "cut off": (picture(text(b"chara", packed(V1)))[:200], "the PNG is cut off"),
    "only a signature": (png.SIGNATURE, "the PNG is cut off"),
    "a length beyond the end": (picture(chunk(b"tEXt", b"chara\0e30=", 0x7FFFFFFF)), "the PNG is cut off"),
    "a wrong checksum": (picture(text(b"chara", packed(V1))[:-1] + b"!"), "the PNG is damaged"),
    "a bomb": (picture(chunk(b"zTXt", b"chara\0\0" + zlib.compress(bytes(50 << 20)))), "has more than 8 MB"),
    "not zlib": (picture(chunk(b"zTXt", b"chara\0\0nonsense")), "cannot be unpacked"),
    "not base64": (picture(text(b"chara", b"a")), "the card in the PNG is damaged"),
    "not JSON": (picture(text(b"chara", base64.b64encode(b"{"))), "not a readable persona"),
    "nested too deep": (picture(text(b"chara", base64.b64encode(b"[" * 100_000))), "not a readable persona"),
    "a PNG in a PNG": (picture(text(b"chara", base64.b64encode(picture()))), "not a readable persona"),
    "a huge number": (b'{"name": ' + b"9" * 5000 + b"}", "not a readable persona"),
    "a JPEG": (b"\xff\xd8\xff\xe0" + bytes(99), "a JPEG is not read"),
    "a WebP": (b"RIFF\0\0\0\0WEBP", "a WebP picture is not read"),
    "a CHARX": (b"PK\3\4" + bytes(99), "an archive is not read"),
    "UTF-16": (json.dumps(V1).encode("utf-16"), "not UTF-8"),
    "an empty file": (b"", "not a readable persona"),
    "a plain text": (b"Mara keeps the light.", "a str where a persona belongs"),
    "YAML that makes objects": (b"name: !!python/object/apply:os.getcwd []\ncontext: x", "name is a list"),
    "YAML that refers to itself": (b"name: &a [*a, *a]\ncontext: x", "not a readable persona"),
    "YAML that doubles": (b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nname: *c\ncontext: x", "name is a list"),
    "YAML nested too deep": (b"name: " + b"[" * 20_000, "not a readable persona"),
    "a lot of YAML": (b"name: Mara\n" * 50_000, "more than 256 KB"),
    "a card without data": (json.dumps({"spec": "chara_card_v2", "data": []}).encode(), "without an object under data"),
    "a lorebook": (json.dumps({"spec": "lorebook_v3", "data": {"name": "x"}}).encode(), "spec is 'lorebook_v3'"),
    "a name that is a number": (json.dumps(V1 | {"name": 7}).encode(), "name is a int where a text belongs"),
    "a card without a name": (json.dumps(V1 | {"name": None}).encode(), "name is empty"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_refused_is_refused_in_a_sentence(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(DataError) as error:
        load(tmp_path, data, "card.png")
    assert message in str(error.value) and str(error.value).startswith(f"{tmp_path / 'card.png'}: ")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_file_that_never_ends_and_one_that_is_none() -> None:
    with pytest.raises(DataError, match="has more than 32 MB"):
        card_files.read_file("/dev/zero")
    with pytest.raises(DataError, match="No such file"):
        card_files.read_file("/nowhere/me.json")
    with pytest.raises(DataError, match="Is a directory"):
        card_files.read_file("/")


def test_example_dialogue_becomes_rows(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps(V3), encoding="utf-8")
    rows = cards.rows_of_card(tmp_path / "card.json")
    assert [parse_row(row, "").turns for row in rows] == [
        (("Is it lonely here?", "Some nights.\nNot many."), ("And now?", "Now there is you.")),
        (("Who built it?", "My father."),),
    ]
    examples = "{{random_user_1}}: Hm?\n**Mara:** Yes, {{user}}.\n{{user}}: So?\n{{char}}: {{trim}}"
    (tmp_path / "card.json").write_text(json.dumps(V1 | {"mes_example": examples}), encoding="utf-8")
    assert [(row["instruction"], row["output"]) for row in cards.rows_of_card(tmp_path / "card.json")] == [
        ("Hm?", "Yes.")
    ]
    (tmp_path / "card.json").write_text(json.dumps(V1 | {"mes_example": "He nods."}), encoding="utf-8")
    with pytest.raises(DataError, match="no example dialogue in it"):
        cards.rows_of_card(tmp_path / "card.json")


def test_a_persona_goes_out_as_a_card_and_comes_back(tmp_path: Path) -> None:
    card = cards.make_card(asdict(personas.default()))
    assert load(tmp_path, card) == personas.default()
    data = card_files.write_png(card, picture(text(b"chara", b"old"), text(b"Software", b"camera")))
    assert load(tmp_path, data, "card.png") == personas.default()
    assert png.read_texts(data, ("software",), "") == {}
    with pytest.raises(DataError, match="the picture: not a PNG"):
        card_files.write_png(card, b"nonsense")


# The fields of `data` in the published CharacterCardV3 (kwaroran/character-card-spec-v3) that are not optional.
STRINGS = (
    *("name", "description", "creator", "character_version", "mes_example", "system_prompt"),
    *("post_history_instructions", "first_mes", "personality", "scenario", "creator_notes"),
)
LISTS = ("tags", "alternate_greetings", "group_only_greetings")


@pytest.mark.parametrize(
    ("keyword", "spec", "version"), [("ccv3", "chara_card_v3", "3.0"), ("chara", "chara_card_v2", "2.0")]
)
def test_a_card_has_every_field_that_its_specification_asks_for(keyword: str, spec: str, version: str) -> None:
    data = card_files.write_png(cards.make_card(asdict(personas.default())), png.plain_picture())
    card = json.loads(base64.b64decode(png.read_texts(data, (keyword,), "")[keyword], validate=True))
    assert (card["spec"], card["spec_version"], card.keys()) == (spec, version, {"spec", "spec_version", "data"})
    assert all(isinstance(card["data"][key], str) for key in STRINGS)
    assert all(isinstance(card["data"][key], list) for key in LISTS)
    assert isinstance(card["data"]["extensions"], dict)
    assert card["data"].keys() == {*STRINGS, *LISTS, "extensions"}


def test_the_plain_picture_opens_as_a_picture() -> None:
    with Image.open(io.BytesIO(png.plain_picture())) as image:
        assert image.size == (400, 600)
        assert image.getpixel((0, 0)) != image.getpixel((200, 300))


def test_parts_that_are_not_used_may_be_anything(tmp_path: Path) -> None:
    odd = {"alternate_greetings": "x", "tags": 3, "extensions": [], "character_book": [1], "data": "more"}
    assert load(tmp_path, {**V3, "data": V3["data"] | odd}).name == "Mara"
