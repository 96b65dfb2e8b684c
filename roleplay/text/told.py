"""What a visitor has told, said back: "my cat is called Tom" becomes "Your cat is called Tom."

A small model rarely finds one fact in a conversation, and takes up a reply that it is shown. So what was told is shown
to it as such a reply. It knows the persons of Chinese and English; other languages are quoted.
"""

import re

_FIRST_PERSON = re.compile(r"[我咱俺]|敝姓|\b(?:i|my|me|mine|our|we|us)\b", re.I)
_ASKS = r"\b(?:who|whom|whose|what|whats|which|where|when|how|why"
_QUESTION = re.compile(rf"[?？]|[吗呢么]\W*$|^\W*{_ASKS}|do|does|did|can|could|should|would|will|is|are|am)\b", re.I)
_ASKING = re.compile(
    rf"[?？吗呢么]|什么|[哪谁几啥怎]|多少|记得|说|猜|{_ASKS}|remember|remind|repeat|tell|say|guess|whisper)\b", re.I
)
_SENTENCE = re.compile(r"(?<=[。！？.!?])\s*(?=\S)")
_SECOND_PERSON = re.compile(r"[你您]|\byou", re.I)
_CHINESE = {"我们": "你们", "咱们": "你们", "咱": "你", "俺": "你", "我": "你", "敝姓": "你姓"}
_CHINESE |= dict.fromkeys(("小女子", "在下", "奴婢", "嫔妾"), "你")
_ENGLISH = {"i": "you", "my": "your", "me": "you", "mine": "yours", "myself": "yourself", "am": "are"}
_ENGLISH |= {"we": "you", "our": "your", "us": "you", "ours": "yours"}
_ENGLISH |= {"i'm": "you are", "im": "you are", "i was": "you were", "i've": "you have", "i'd": "you would"}
_TO_SECOND = _CHINESE | _ENGLISH
_WORD = "|".join(sorted(_ENGLISH, key=len, reverse=True))
_PERSON = re.compile("|".join(_CHINESE) + rf"|\b(?:{_WORD})\b(?!['’])", re.I)


def of_oneself(text: str) -> bool:
    """Whether somebody speaks of himself in a text."""
    return bool(_FIRST_PERSON.search(text))


def is_question(text: str) -> bool:
    """Whether a text is a question, by its mark, its last word or its first."""
    return bool(_QUESTION.search(text))


def asks_about_oneself(text: str) -> bool:
    """Whether somebody may be asking, in whatever form, for something of his own."""
    return of_oneself(text) and bool(_ASKING.search(text))


def sentences(text: str) -> list[str]:
    """The sentences of a text."""
    return _SENTENCE.split(text.strip())


def said_back(text: str) -> str:
    """What somebody has said, to him; in quotation marks where it speaks of the one that it was said to."""
    if _SECOND_PERSON.search(text):
        return f"你说过：“{text}”" if re.search(r"[\u3400-\u9fff]", text) else f"You said: “{text}”"
    turned = _PERSON.sub(lambda found: _TO_SECOND[found[0].lower().replace("’", "'")], text.replace("’", "'"))
    stop = "" if re.search(r"\W$", turned) else "。" if re.search(r"[\u3400-\u9fff]", turned) else "."
    return turned[0].upper() + turned[1:] + stop
