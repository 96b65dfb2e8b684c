"""The files that characters come in: JSON, YAML, or a PNG with JSON among its texts. It knows not what they say."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from roleplay.errors import DataError, first_line
from roleplay.text import png

MAX_FILE, MAX_JSON, MAX_YAML = 32 << 20, 8 << 20, 1 << 18  # bytes; a YAML file is read slowly
V3, V2 = "ccv3", "chara"  # keywords of a PNG's texts
_OTHER_KINDS = {b"\xff\xd8\xff": "a JPEG", b"RIFF": "a WebP picture", b"GIF8": "a GIF", b"PK\3\4": "an archive"}


def read_file(path: str | Path) -> Any:
    """The value that a file holds; raises `DataError` when it cannot be read or is too large."""
    try:
        with open(path, "rb") as file:
            return read_value(file.read(MAX_FILE + 1), str(path))
    except OSError as error:
        raise DataError(f"{path}: not a readable persona ({error.strerror}); give a JSON, PNG or YAML file") from error


def read_value(data: bytes, where: str) -> Any:
    """The same for a file's bytes, told apart by what they begin with; `where` is what messages call it."""
    if len(data) > MAX_FILE:
        raise DataError(f"{where}: has more than {MAX_FILE >> 20} MB; a card is smaller")
    if data.startswith(png.SIGNATURE):
        data = _text_of(data, where)
    for start, kind in _OTHER_KINDS.items():
        if data.startswith(start):
            raise DataError(f"{where}: {kind} is not read; export the character as PNG or JSON")
    if len(data) > MAX_JSON:
        raise DataError(f"{where}: has more than {MAX_JSON >> 20} MB of text; save the character with less in it")
    try:
        text = data.decode("utf-8-sig")
        return json.loads(text) if text.lstrip()[:1] in ("{", "[", "") else _yaml(text)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not a readable persona: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{where}: not a readable persona ({first_line(error):.100}); save it again") from error


def write_png(card: Mapping[str, Any], picture: bytes) -> bytes:
    """The picture with a V3 card in it, and the same as V2 for programs that know no V3; raises `DataError`."""
    older = {**card, "spec": "chara_card_v2", "spec_version": "2.0"}
    texts = {key: json.dumps(value, ensure_ascii=False).encode() for key, value in ((V2, older), (V3, card))}
    return png.write_texts(picture, {key: base64.b64encode(text) for key, text in texts.items()}, "the picture")


def _text_of(data: bytes, where: str) -> bytes:
    """The newest card in a PNG."""
    texts = png.read_texts(data, (V3, V2), where)
    if not texts:
        raise DataError(f"{where}: a picture with no character in it; export the card again, as PNG or JSON")
    text = texts.get(V3) or texts[V2]
    try:
        return text if text.lstrip().startswith(b"{") else base64.b64decode(text)  # some programs write it as it is
    except ValueError as error:
        raise DataError(f"{where}: the card in the PNG is damaged ({first_line(error)}); export it again") from error


def _yaml(text: str) -> Any:
    """Every scalar as it is written: a character may be called No. What YAML writes for nothing is left out."""
    if len(text) > MAX_YAML:
        raise ValueError(f"more than {MAX_YAML >> 10} KB that are not JSON")
    value = yaml.load(text, yaml.BaseLoader)  # makes texts, lists and mappings, and nothing else
    nothing = ("", "~", "null")
    return {key: part for key, part in value.items() if part not in nothing} if isinstance(value, dict) else value
