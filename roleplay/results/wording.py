"""The words for votes and figures in English and Chinese, from en.json and zh.json beside this file.

Sentences of a tally and a scoreboard; what its measures and arms are called and mean (the keys are those of
`board.MEASURES` and `board.ARMS`); and what blind readers are told and found.
"""

from pathlib import Path
from typing import Any

from roleplay.disk import read_json

_WORDS: dict[str, Any] = {
    language: read_json(Path(__file__).with_name(f"{language}.json")) for language in ("en", "zh")
}

TEXTS: dict[str, dict[str, str]] = {language: words["sentences"] for language, words in _WORDS.items()}
MEASURES: dict[str, dict[str, tuple[str, str]]] = {
    language: {key: (name, meaning) for key, (name, meaning) in words["measures"].items()}
    for language, words in _WORDS.items()
}
SUMMARY: dict[str, dict[str, str]] = {language: words["summary"] for language, words in _WORDS.items()}
FLIPS: dict[str, str] = {language: words["flips"] for language, words in _WORDS.items()}
ARMS: dict[str, dict[str, str]] = {language: words["arms"] for language, words in _WORDS.items()}
READING: dict[str, dict[str, Any]] = {language: words["reading"] for language, words in _WORDS.items()}
