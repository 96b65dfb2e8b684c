"""What can be looked up of training rows: each turn, the matter that it is of, and the one that it goes on from."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from roleplay.text.prompts import Turn
from roleplay.text.rows import Row
from roleplay.text.told import asks_about_oneself

# Begins the scene of a fallback: messages of one kind on any topic, and replies that suit them all. What is meant finds
# it, words never.
FALLBACK = "fallback: "
_RUN = re.compile(r"[\u3400-\u9fff]+|[^\W_\u3400-\u9fff]+")  # of Chinese characters, or a word


def parts(text: str) -> list[str]:
    """What messages are compared by: Chinese characters and pairs of them; words, and four letters in a row of them."""
    found: list[str] = []
    for run in _RUN.findall(text.lower()):
        if run[0] >= "\u3400":
            found += [*run, *map("".join, pairwise(run))]
        else:
            whole = f"^{run}$"
            found += [run, *(whole[i : i + 4] for i in range(len(whole) - 3))]
    return found


class Known(NamedTuple):
    """A turn that may be shown, the matter that it is of, and the matter that it goes on from, "" for none.

    One that goes on from itself is never shown: it says what its visitor told, which holds for its own conversation
    alone. It tells that a message like it asks for what was told.
    """

    turn: Turn
    matter: str
    after: str = ""

    @property
    def hidden(self) -> bool:
        return bool(self.after) and self.after == self.matter

    @property
    def fallback(self) -> bool:
        return self.matter.startswith(FALLBACK)


def known(rows: Sequence[Row]) -> list[Known]:
    """What can be looked up of training rows, each once, by reply; a matter is a scene.

    A row of several turns goes on from the matter that its last reply but one belongs to. One that goes on from a reply
    of no other row is hidden where it says what its visitor told, else left out, unless all rows are such. A row that
    is there again, for its weight, counts once.
    """
    rows = list(dict.fromkeys(rows))
    single = [row for row in rows if len(row.turns) == 1]
    if not single:
        return _by_reply([Known(row.turns[-1], row.scene) for row in rows])
    matters: dict[str, str] = {}  # by reply
    for number, row in enumerate(single):
        matters.setdefault(row.turns[0][1], row.scene or f"row {number}")
    found = [Known(row.turns[0], row.scene or matters[row.turns[0][1]]) for row in single]
    for number, row in enumerate(rows):
        if len(row.turns) > 1:
            talk = f"talk {number}"
            if after := matters.get(row.turns[-2][1]):
                found.append(Known(row.turns[-1], talk if row.scene in ("", after) else row.scene, after))
            elif _says_what_was_told(row.turns):
                found.append(Known(row.turns[-1], talk, talk))
    return _by_reply(found)


def _says_what_was_told(turns: Sequence[Turn]) -> bool:
    """Whether the last message asks for something that the visitor said earlier, and the reply takes that up."""
    *earlier, (asked, reply) = turns
    if not asks_about_oneself(asked):
        return False
    told = {part for user, _ in earlier for part in parts(user) if len(part) > 1}
    return not told.isdisjoint(set(parts(reply)) - set(parts(asked)))


def _by_reply(found: Sequence[Known]) -> list[Known]:
    """Each once, and those that have a reply together: a file of them says it once."""
    together: dict[Known, dict[Known, None]] = {}
    for one in found:
        together.setdefault(one._replace(turn=("", one.turn[1])), {})[one] = None
    return [one for alike in together.values() for one in alike]


def every_turn(rows: Sequence[Row]) -> list[Known]:
    """All that is learnt of training rows, each once, wherever it stands."""
    return list(dict.fromkeys(Known(turn, row.scene) for row in rows for turn in row.learnt))
