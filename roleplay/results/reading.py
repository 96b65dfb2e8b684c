"""What blind readers found, as it stands in a scoreboard.json under "reading": checked, as a table, and in sentences.

`arms` holds {arm: {part: {"conversations": n, figure: estimate}}} with the parts all, zh and en; `readers` is how many
read, `kappa` how far two of them agree on each question (1 is always, 0 no more than by chance).
"""

from collections.abc import Mapping
from typing import Any

from roleplay.results.wording import ARMS, TEXTS

QUESTIONS = ("sense", "answers", "voice")  # each is given 0, 1 or 2
FULL = "both full"  # the share of conversations with 2 for sense and for answers
FIGURES = (*QUESTIONS, FULL)
PARTS = ("all", "zh", "en")
WORDS: dict[str, dict[str, Any]] = {
    "en": {
        "figures": {
            "conversations": ("conversations", "Read by those who did not know whose replies they were."),
            "sense": ("sense", "Every sentence means something, and they hang together: 0 to 2."),
            "answers": ("answers", "The replies clearly answer what was said: 0 to 2."),
            "voice": ("voice", "The replies sound like the character: 0 to 2."),
            "both full": ("sense and answers full", "Conversations that were given 2 for both."),
        },
        "parts": {"all": "{name}", "zh": "{name}, Chinese", "en": "{name}, English"},
        "title": "Read blind",
        "readers": "Readers who did not know whose replies they read: {readers}.",
        "kappa": "Their agreement (Cohen's kappa, quadratic weights; 1 is full, 0 is chance): {values}.",
    },
    "zh": {
        "figures": {
            "conversations": ("对话数", "评读者不知回答出自谁手。"),
            "sense": ("通顺", "句句有意义，前后连贯：0 至 2。"),
            "answers": ("切题", "明白地回应了所说的话：0 至 2。"),
            "voice": ("口吻", "像此角色的口吻：0 至 2。"),
            "both full": ("通顺切题皆满分", "两项都得 2 分的对话。"),
        },
        "parts": {"all": "{name}", "zh": "{name}（中文）", "en": "{name}（英文）"},
        "title": "盲读",
        "readers": "不知回答出自谁手的评读者：{readers} 位。",
        "kappa": "彼此一致的程度（二次加权 Cohen's kappa，1 为完全一致，0 为偶然）：{values}。",
    },
}


def numbers(reading: Mapping[str, Any]) -> list[Any]:
    """Everything in a reading that has to be a number; raises `ValueError` or `LookupError` for another form."""
    _only(reading, ("readers", "kappa", "arms"))
    _only(reading["kappa"], QUESTIONS)
    found = [reading["readers"], *reading["kappa"].values()]
    _only(reading["arms"], ARMS["en"])
    for parts in reading["arms"].values():
        _only(parts, PARTS)
        for part in parts.values():
            _only(part, ("conversations", *FIGURES))
            found.append(part["conversations"])
            found += [part[name][key] for name in FIGURES for key in ("value", "low", "high")]
    return found


def _only(given: Mapping[str, Any], known: Any) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{unknown[0]!r:.40} is unknown")


def table(reading: Mapping[str, Any], language: str = "en") -> list[list[str]]:
    """Head and rows as in `board.table`: a figure, every arm's value with its interval, and what the figure means."""
    words, arms = WORDS[language], reading["arms"]
    rows = [["", *(ARMS[language][arm] for arm in arms), ""]]
    for figure in ("conversations", *FIGURES):
        name, meaning = words["figures"][figure]
        for part in PARTS:
            if any(part in parts for parts in arms.values()):
                cells = [_cell(figure, parts.get(part, {}).get(figure), language) for parts in arms.values()]
                rows.append([words["parts"][part].format(name=name), *cells, meaning if part == PARTS[0] else ""])
    return rows


def _cell(figure: str, entry: Any, language: str) -> str:
    if entry is None:
        return "–"
    if figure == "conversations":
        return f"{entry:,}"
    form = "{:.0%}" if figure == FULL else "{:.2f}"
    return TEXTS[language]["figure"].format(**{key: form.format(entry[key]) for key in ("value", "low", "high")})


def sentences(reading: Mapping[str, Any], language: str = "en") -> list[str]:
    """How many read, and how far they agree."""
    words = WORDS[language]
    told = [words["readers"].format(readers=reading["readers"])]
    if kappa := reading["kappa"]:
        values = [f"{words['figures'][name][0]} {kappa[name]:.2f}" for name in QUESTIONS if name in kappa]
        told.append(words["kappa"].format(values=TEXTS[language]["comma"].join(values)))
    return told
