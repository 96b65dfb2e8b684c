"""Which language a text is in, told by its letters. It knows no words."""

import re

_HAN, _LATIN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]"), re.compile(r"[A-Za-z\u00c0-\u024f]+")
_LETTER = re.compile(r"[^\W\d_]")


def language(text: str) -> str:
    """zh, en (any Latin script), other, or mixed when none has nine tenths; a Latin word counts as one character."""
    han, latin = len(_HAN.findall(text)), len(_LATIN.findall(text))
    other = len(_LETTER.findall(_LATIN.sub("", _HAN.sub("", text))))
    total = han + latin + other
    shares = {"zh": han, "en": latin, "other": other}
    return next((name for name, count in shares.items() if total and count >= 0.9 * total), "mixed")


def is_mostly_chinese(text: str) -> bool:
    """Whether it has more Chinese characters than Latin words."""
    return len(_HAN.findall(text)) > len(_LATIN.findall(text))
