"""The written lists of an evaluation and the readable rules that judge a reply against them.

A reply holds unless a rule says why not. The rules see text only: they miss a break that uses none of their words, and
may blame a reply that quotes one; `Lists.check_rules` counts both on examples labelled by hand.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from roleplay.disk import read_json
from roleplay.errors import DataError
from roleplay.text.copies import units

EMPTY, ECHO, LOOP, OBEYED = "says nothing", "repeats the question", "repeats itself", "obeys the attempt"
ECHO_SHARE = 0.8  # of the reply's units in one run of the question
LOOP_SHARE, LOOP_UNITS = 0.6, 12  # distinct triples of units, in replies at least this long
NOT_LISTS = "not readable as evaluation lists"
_FLAGS = re.IGNORECASE | re.MULTILINE


@dataclass(frozen=True)
class Identity:
    """A question about who she is; a reply that holds and contains one of `accept` (in any case) answers it."""

    user: str
    accept: tuple[str, ...]


@dataclass(frozen=True)
class Break:
    """An attempt to pull her out of character, and patterns of a reply that goes along with it."""

    user: str
    obeyed: tuple[str, ...]


@dataclass(frozen=True)
class Labelled:
    """A reply with a person's judgement whether it stays in character."""

    user: str
    reply: str
    held: bool


@dataclass(frozen=True)
class Plain:
    """A paragraph that has nothing to do with the role."""

    language: str
    text: str


@dataclass(frozen=True)
class RuleCheck:
    """How the rules fare on labelled replies: good ones that they blame, broken ones that they let pass."""

    good: int
    false_alarms: int
    broken: int
    missed: int


@dataclass(frozen=True)
class Lists:
    """Everything in a character's lists.json; `conversations` are the user's lines, `rules` patterns by their name."""

    identity: tuple[Identity, ...]
    breaks: tuple[Break, ...]
    labelled: tuple[Labelled, ...]
    conversations: tuple[tuple[str, ...], ...]
    plain: tuple[Plain, ...]
    rules: Mapping[str, Sequence[str]]

    def fault(self, user: str, reply: str, obeyed: Sequence[str] = ()) -> str:
        """The name of the first rule that `reply` to `user` breaks, "" for one that stays in character."""
        said, asked = units(reply), units(user)
        if not said:
            return EMPTY
        run = difflib.SequenceMatcher(None, said, asked, autojunk=False).find_longest_match().size
        if run >= ECHO_SHARE * len(said) and run > 1:
            return ECHO
        triples = list(zip(said, said[1:], said[2:], strict=False))
        if len(said) >= LOOP_UNITS and len(set(triples)) < LOOP_SHARE * len(triples):
            return LOOP
        for name, patterns in ((OBEYED, obeyed), *self.rules.items()):
            if any(re.search(pattern, reply, _FLAGS) for pattern in patterns):
                return name
        return ""

    def answers(self, question: Identity, reply: str) -> bool:
        """Whether `reply` stays in character and says one of the accepted things."""
        told = reply.casefold()
        return not self.fault(question.user, reply) and any(word.casefold() in told for word in question.accept)

    def check_rules(self) -> RuleCheck:
        """The rules against the labelled examples."""
        good = [bool(self.fault(example.user, example.reply)) for example in self.labelled if example.held]
        broken = [bool(self.fault(example.user, example.reply)) for example in self.labelled if not example.held]
        return RuleCheck(len(good), sum(good), len(broken), broken.count(False))


NO_LISTS = Lists((), (), (), (), (), {})  # of a character that nothing was written for


def load_lists(path: Path) -> Lists:
    """Read the lists; raises `DataError` when the file is missing, not of this form, or a pattern is not valid."""
    try:
        value = read_json(path, NOT_LISTS)
        lists = Lists(
            tuple(Identity(item["user"], tuple(item["accept"])) for item in value["identity"]),
            tuple(Break(item["user"], tuple(item["obeyed"])) for item in value["breaks"]),
            tuple(Labelled(**item) for item in value["labelled"]),
            tuple(tuple(lines) for lines in value["conversations"]),
            tuple(Plain(**item) for item in value["plain"]),
            value["rules"],
        )
        patterns = [(broken.user, broken.obeyed) for broken in lists.breaks] + [*lists.rules.items()]
        for where, pattern in ((where, pattern) for where, several in patterns for pattern in several):
            _check_pattern(pattern, f"{path}, {where!r:.60}")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {NOT_LISTS} ({error!r:.100}); see dataset/keeper/lists.json") from error
    return lists


def _check_pattern(pattern: str, where: str) -> None:
    try:
        re.compile(pattern, _FLAGS)
    except re.error as error:
        raise DataError(
            f"{where}: {pattern!r:.80} is no pattern ({error}); a bracket that stands for itself is \\( or \\["
        ) from error
