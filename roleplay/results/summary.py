"""A board's verdict in three sentences, and its measures in the groups that people ask after. It knows no page."""

from collections.abc import Mapping
from typing import Any

from roleplay.results.board import BARE_BASE, BASE_WITH_PERSONA, MEASURES, sign
from roleplay.results.wording import MEASURES as NAMES
from roleplay.results.wording import SUMMARY

GROUPS = {
    "answers": ("choice", "facts", "recall"),
    "herself": (
        "held-out loss",
        "identity",
        "in character",
        "first turns",
        "last turns",
        "chrF",
        "distinct-2",
        "copied",
        "copied, 256",
    ),
    "ends": ("stop rate", "stop rate, 256", "openers that stop", "tokens"),
    "forgotten": ("plain Chinese", "plain English"),
}


def rival(board: Mapping[str, Any]) -> str:
    """The arm that the adapter is judged against: the base model with the persona, else without, "" for none."""
    return next((arm for arm in (BASE_WITH_PERSONA, BARE_BASE) if board["differences"].get(arm)), "")


def summary(board: Mapping[str, Any], language: str = "en") -> list[str]:
    """At what the adapter is better and worse, how many items it wins and loses, and what it has forgotten."""
    words, names = SUMMARY[language], NAMES[language]
    arm = rival(board)
    differences = {
        name: entry
        for name, entry in board["differences"].get(arm, {}).items()
        if MEASURES[name].better and name not in GROUPS["forgotten"]
    }
    signs = [sign(name, entry) for name, entry in differences.items()]
    worse = [names[name][0] for name, entry in differences.items() if sign(name, entry) < 0]
    better = {"better": signs.count(1), "measures": len(signs), "worse": words["comma"].join(worse) or words["nothing"]}
    flips = board.get("flips", {}).values()
    won, lost = (sum(flip[key] for flip in flips) for key in ("won", "lost"))
    return [
        words["better"].format(**better) if signs else words["no_rival"],
        words["won"].format(won=won, lost=lost) if won + lost else words["no_flips"],
        _forgotten(board, language),
    ]


def _forgotten(board: Mapping[str, Any], language: str) -> str:
    """How much worse it has become at plain text, the languages that clearly lost by their nat."""
    words = SUMMARY[language]
    plain = board["differences"].get(BARE_BASE, {})
    measured = {name: plain[name] for name in GROUPS["forgotten"] if name in plain}
    if not measured:
        return words["unknown_loss"]
    lost = [(NAMES[language][name][0], entry["value"]) for name, entry in measured.items() if sign(name, entry) < 0]
    told = words["comma"].join(words["loss"].format(name=name, nat=nat) for name, nat in lost)
    return words["forgotten"].format(told=told) if lost else words["kept"]
