"""What a visitor has told, said back: "my cat is called Tom" becomes "Your cat is called Tom."

A small model rarely finds one fact in a conversation, and takes up a reply that it is shown. So what was told is shown
to it as such a reply. It knows the persons of Chinese and English; where it can't turn them it quotes.
"""

import re
from collections.abc import Iterable

from roleplay.text.languages import is_mostly_chinese

_CHINESE = {"我们": "你们", "咱们": "你们", "俺们": "你们", "咱家": "你", "敝姓": "你姓", "朕": "皇上"}
_CHINESE |= dict.fromkeys(("咱", "俺", "我", "在下", "小女子", "奴婢", "奴才", "嫔妾", "臣妾", "妾身"), "你")
_CHINESE |= dict.fromkeys(("微臣", "草民", "民女", "本宫", "本人"), "你")
_ENGLISH = {"i am": "you are", "am i": "are you", "i'm": "you're", "im": "you're", "i was": "you were"}
_ENGLISH |= {"was i": "were you", "i wasn't": "you weren't", "i've": "you've", "ive": "you've", "i'll": "you'll"}
_ENGLISH |= {"i'd": "you'd", "i": "you", "my": "your", "me": "you", "myself": "yourself", "we": "you", "our": "your"}
_ENGLISH |= {"ours": "yours", "us": "you", "ourselves": "yourselves", "is mine": "is yours", "are mine": "are yours"}
_TO_SECOND = _CHINESE | _ENGLISH


def _longest_first(words: dict[str, str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


# 现在下棋, 在下午 and 自我 are none, nor is an address, the US, or World War I.
_SELF = rf"(?<![自忘现])(?!在下[午周月个面次半])(?:{_longest_first(_CHINESE)})"
_PERSON = re.compile(rf"{_SELF}|(?<![\w@.'])(?<!War )(?:{_longest_first(_ENGLISH)})(?![\w@]|\.\w)", re.I)
_SECOND_PERSON = re.compile(r"[你您]|\byou(?:r|rs|rself)?\b", re.I)
_ABBREVIATED = "".join(rf"(?<!\b{word}\.)" for word in ("Dr", "Mr", "Ms", "Mrs", "St"))
_SENTENCE = re.compile(rf"(?<=[。！？])(?=[^。！？”’」])\s*|(?<=[.!?]){_ABBREVIATED}\s+")
_CLAUSE = re.compile(r"(?<=[，；])\s*|(?<=[,;])\s+")
_ASK = "(?:who|whom|whose|what|which|where|when|how|why)"
_DO = "(?:do|does|did|can|could|should|would|will|is|are|am|was|were|have|has)"
_OPENS = rf"^\W*(?:{_ASK}(?:'?s| {_DO}| (?:much|many|old))|{_DO} (?:i|you|my|your))\b"
_QUESTION = re.compile(rf"[?？]|[吗呢么]\W*$|什么|[谁哪几啥怎]|多少|{_OPENS}", re.I)
_REQUEST = rf"\b(?:{_ASK}|whats|did|do|remember|remind|repeat|tell|say|guess|whisper)\b"
_ASKING = re.compile(rf"[?？吗呢么]|什么|[哪谁几啥怎]|多少|记得|说|猜|{_REQUEST}", re.I)


def asks_about_oneself(text: str) -> bool:
    """Whether somebody may be asking, in whatever form, for something of his own."""
    return bool(_PERSON.search(text) and _ASKING.search(text))


def statements(text: str) -> list[str]:
    """The sentences of a text without the clauses that ask something; those that only ask are left out."""
    told = []
    for sentence in _SENTENCE.split(text.strip()):
        clauses = _CLAUSE.split(sentence)
        kept = [clause for clause in clauses if not _QUESTION.search(clause)]
        if len(kept) == len(clauses):
            told.append(sentence)
        elif kept:
            told.append(joined(kept).rstrip(" ，；,;"))
    return [sentence for sentence in told if sentence]


def joined(pieces: Iterable[str]) -> str:
    """Clauses or sentences as one text; Chinese stops and commas have no space behind them."""
    return re.sub(r"(?<=[。！？，；”’」]) ", "", " ".join(pieces))


def said_back(text: str) -> str:
    """What somebody has said, to him; in quotation marks where it speaks of the one that it was said to."""
    text = text.replace("’", "'")
    turned = _PERSON.sub(lambda found: found[0] if found[0] == "US" else _TO_SECOND[found[0].lower()], text)
    chinese = is_mostly_chinese(text)
    if _SECOND_PERSON.search(text):
        return f"你说过：“{text}”" if chinese else f"You said: “{text}”"
    stop = "" if re.search(r"[\W_]$", turned) else "。" if chinese else "."
    return turned[:1].upper() + turned[1:] + stop
