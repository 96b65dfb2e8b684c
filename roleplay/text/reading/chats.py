"""Conversations as other programs keep them, to pairs of what the user said and the reply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from roleplay.errors import DataError

USER = ("user", "human", "prompter", "instruction", "input", "question", "query", "用户", "人类", "问")
REPLY = (
    *("assistant", "gpt", "model", "bot", "ai", "char", "character", "chatgpt", "output", "response", "answer"),
    *("助手", "角色", "答", "回答"),
)
SYSTEM = ("system", "developer", "系统")
ROLE, CONTENT = ("from", "role"), ("value", "content", "text")


@dataclass
class Talk:
    """A conversation: [user, reply] pairs, the system text, and what has no place in a row."""

    pairs: list[list[str]] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)  # of each pair: 0 where its reply is shown and not learnt, else 1
    system: str = ""
    left_out: list[str] = field(default_factory=list)

    @property
    def history(self) -> dict[str, Any]:
        """The pairs as the history of a row, with their weights where one is 0."""
        return {"history": self.pairs} | ({"history_weights": self.weights} if 0 in self.weights else {})

    def cut_unlearnt(self) -> None:
        """Leave out what follows the last reply to learn; raises `DataError` without a place where there is none."""
        if 1 not in self.weights:
            raise DataError("every reply has the weight 0, so none is to be learnt; remove the row")
        end = len(self.weights) - self.weights[::-1].index(1)
        if self.pairs[end:]:
            self.left_out.append("what follows the last reply to learn (replies of weight 0) is left out")
        del self.pairs[end:], self.weights[end:]


def first_key(record: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The first of `keys` that a record has, or ""."""
    return next((key for key in keys if key in record), "")


def _is_dicts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, dict) for part in value)


def is_sharegpt(value: Any) -> bool:
    """Whether this is a list of messages that say `from`."""
    return _is_dicts(value) and "from" in value[0]


def is_messages(value: Any) -> bool:
    """Whether this is a list of messages that say `role`."""
    return _is_dicts(value) and "role" in value[0]


def is_exchanges(value: Any) -> bool:
    """Whether this is a list of pairs, each a dictionary of both sides or a list of two texts."""
    if isinstance(value, list) and value and all(isinstance(part, list) for part in value):
        return all(len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in value)
    return _is_dicts(value) and any(key in value[0] for key in REPLY) and not set(ROLE) & set(value[0])


def _text(content: Any) -> str:
    """What a message says; raises `DataError` for a picture and for what is no text."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "\n".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise DataError(f"a message holds {content!r:.60}; only texts are taught")
    return content.strip()


def _side(role: Any) -> str:
    name = str(role).strip().lower()
    for side, names in (("user", USER), ("reply", REPLY), ("system", SYSTEM)):
        if name in names:
            return side
    known = "system, user, assistant (human, gpt)"
    raise DataError(f"a message is from {role!r:.40}; known are {known}: rename it, or remove the row")


def _spoken(message: Any) -> list[tuple[str, str]]:
    """(side, text) of a message, or of both sides of a pair."""
    if isinstance(message, list) and len(message) == 2:
        return [("user", _text(message[0])), ("reply", _text(message[1]))]
    if not isinstance(message, dict):
        raise DataError(f"{message!r:.60} where a message belongs")
    if role := first_key(message, ROLE):
        return [(_side(message[role]), _text(message.get(first_key(message, CONTENT))))]
    sides = [(side, first_key(message, names)) for side, names in _SIDES]
    return [(side, _text(message[key])) for side, key in sides if key and message[key] is not None]


def _weight(message: Any) -> int:
    """Whether a reply is learnt (1, where it says nothing) or only shown (0), as OpenAI has it."""
    weight = message.get("weight") if isinstance(message, dict) else None
    if weight not in (None, 0, 1):
        raise DataError(f"a reply has the weight {weight!r:.40}; give it 1, or 0 where it is shown and not learnt")
    return 1 if weight is None else int(weight)


def _unused(message: Any) -> list[str]:
    """What a message says that no row has a place for, for people."""
    if not isinstance(message, dict):
        return []
    role = first_key(message, ROLE)
    used = {role, first_key(message, CONTENT)} if role else {first_key(message, names) for _, names in _SIDES}
    used |= {"weight"}
    return [f"the key {key!r:.40} of a message is not used" for key in message if message[key] and key not in used]


_SIDES = (("system", SYSTEM), ("user", USER), ("reply", REPLY))


def exchanges(messages: Sequence[Any]) -> Talk:
    """A list of messages, or of pairs, as a `Talk`; raises `DataError` without a place where nobody is answered.

    What one side says in several messages is joined, and not learnt where one of them is not. A reply before the first
    message (a greeting) and a last message without a reply are left out, and so is what a message holds beside who
    speaks, what, and its weight.
    """
    talk, spoken = Talk(), list[tuple[str, str, int]]()
    talk.left_out += dict.fromkeys(what for message in messages for what in _unused(message))
    for (side, text), source in ((said, message) for message in messages for said in _spoken(message)):
        weight = _weight(source) if side == "reply" else 1
        if side == "system":
            talk.system = f"{talk.system}\n{text}".strip()
        elif not text:
            raise DataError("a message is empty; fill it, or remove the row")
        elif spoken and spoken[-1][0] == side:
            spoken[-1] = (side, f"{spoken[-1][1]}\n{text}", min(spoken[-1][2], weight))
        else:
            spoken.append((side, text, weight))
    if spoken and spoken[0][0] == "reply":
        talk.left_out.append("a reply before the first message (a greeting) is left out")
        spoken = spoken[1:]
    if spoken and spoken[-1][0] == "user":
        talk.left_out.append("a last message without a reply is left out")
        spoken = spoken[:-1]
    if not spoken:
        raise DataError("nobody is answered in this conversation; remove it")
    talk.pairs = [[user, reply] for (_, user, _), (_, reply, _) in zip(spoken[::2], spoken[1::2], strict=True)]
    talk.weights = [weight for _, _, weight in spoken[1::2]]
    return talk
