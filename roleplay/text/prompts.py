"""Persona and turns to token ids, in one place for training, chat and evaluation.

The text of a persona, a row or a user can never become a control token: every piece is encoded on its own, and
a literal such as `<end_of_turn>` inside it is spelled out in ordinary tokens.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from roleplay.errors import DataError, ModelError, RoleplayError

IGNORED = -100  # the label that cross-entropy skips
WORTH_KEEPING = 16  # tokens that all prompts of a persona begin with
TURN, END = "<start_of_turn>", "<end_of_turn>"

# The same two layouts as Jinja, saved beside the weights for other programs (vLLM, Ollama, `apply_chat_template`).
# This project never runs a template: it compares the text and renders with `PromptEncoder`.
_TURNS = (
    "{% for message in turns %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else 'user' }}\n"
    "{% if loop.first %}{{ persona }}{% endif %}{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_SYSTEM_FIRST = (
    "{% set system = messages[0]['content'] | trim if messages[0]['role'] == 'system' else '' %}"
    "{% set turns = messages[1:] if messages[0]['role'] == 'system' else messages %}{{ bos_token }}"
)
TEMPLATES = {
    # Gemma knows no system role: by its own convention the system text opens the first user turn.
    "gemma": _SYSTEM_FIRST + "{% set persona = system + '\n\n' if system else '' %}" + _TURNS,
    # The tutorial trains a system turn that Gemma has never seen before.
    "tutorial": _SYSTEM_FIRST
    + "{% set persona = '' %}{% if system %}<start_of_turn>system\n{{ system }}<end_of_turn>\n{% endif %}"
    + _TURNS,
}

Turn = tuple[str, str]  # (what the user said, what the character replied)


@dataclass(frozen=True)
class Example:
    """One training row: `labels[t]` is `input_ids[t]` where the loss counts, else `IGNORED`."""

    input_ids: list[int]
    labels: list[int]
    where: str = ""  # the row's file and number, for messages


class Fitted(NamedTuple):
    """A prompt that fits its limit."""

    ids: list[int]
    dropped_turns: int  # oldest ones, which were left out for it
    shown_rows: tuple[Turn, ...]  # right before the message, and none of the conversation


def template_name(jinja: str) -> str:
    """The name of the project's own template whose text is `jinja`; raises `RoleplayError` for any other."""
    for name, text in TEMPLATES.items():
        if text == jinja:
            return name
    raise RoleplayError(f"the chat template is none of this project's own ({', '.join(TEMPLATES)}); it is never run")


class PromptEncoder:
    """Renders for one tokenizer and one template; the result starts with exactly one `<bos>`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str = "gemma") -> None:
        if template not in TEMPLATES:
            raise RoleplayError(f"unknown template {template!r}: choose one of {', '.join(TEMPLATES)}")
        added = tokenizer.get_added_vocab()
        if not {TURN, END} <= set(added) or tokenizer.bos_token_id is None:
            raise ModelError(
                "the tokenizer has no <start_of_turn> / <end_of_turn> / <bos>: it is not a Gemma tokenizer"
            )
        self.tokenizer = tokenizer
        self.template = template
        self._turn, self._end = added[TURN], added[END]
        self.stop_ids: tuple[int, ...] = (self._end, tokenizer.eos_token_id)

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Ids that no text may become: every added token but the runs of newlines and spaces."""
        added = self.tokenizer.get_added_vocab()
        return frozenset(i for token, i in added.items() if token.strip("\n\t ▁"))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` without a control token among them, whatever it contains."""
        text = text.encode("utf-8", "replace").decode()  # a lone surrogate is no text
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        found = self.control_ids.intersection(ids)
        if not found:
            return ids
        literals = [re.escape(token) for token in self.tokenizer.convert_ids_to_tokens(list(found))]
        # Cut every literal after its first character: the halves cannot meet again, for each is encoded alone.
        cuts = sorted({m.start() + 1 for token in literals for m in re.finditer(f"(?={token})", text)})
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        known = {piece: self.encode(piece) for piece in set(pieces)}  # a literal repeated for a megabyte costs once
        return [i for piece in pieces for i in known[piece]]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a reply's ids, control tokens left out."""
        return str(self.tokenizer.decode([i for i in ids if i not in self.control_ids]))

    def _turn_ids(self, role: str, text: list[int]) -> list[int]:
        return [self._turn, *self.encode(role + "\n"), *text, self._end, *self.encode("\n")]

    def prefix(self, persona: str) -> list[int]:
        """What every prompt of a persona starts with, up to the first user's own words."""
        bos, persona = [self.tokenizer.bos_token_id], persona.strip()
        opening = [self._turn, *self.encode("user\n")]
        if not persona:
            return bos + opening
        if self.template == "tutorial":
            return bos + self._turn_ids("system", self.encode(persona)) + opening
        return bos + opening + self.encode(persona) + self.encode("\n\n")

    def cuts(self, persona: str, prompt: Sequence[int]) -> list[int]:
        """Where a prompt may be cut into what was computed before and what is new: after the persona, and where each
        earlier reply ends. The first is 0 where what stands before the user's own words is too short to be kept."""
        opening = len(self.prefix(persona))
        ends = [at for at in range(opening, len(prompt)) if prompt[at] == self._end]
        return [opening if opening >= WORTH_KEEPING else 0, *ends[1::2]]

    def shown(self, user: str, turns: Sequence[Turn] = ()) -> list[Turn]:
        """Turns that stand right before a message in its prompt and are none of the conversation, `turns`."""
        return []

    def heard(self, user: str, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Of the conversation, `turns`, what a message is answered with."""
        return turns

    def before(self, user: str, turns: Sequence[Turn]) -> list[Turn]:
        """All turns that stand before a message in its prompt."""
        return [*self.heard(user, turns), *self.shown(user, turns)]

    def prompt(self, persona: str, turns: Sequence[Turn], user: str) -> list[int]:
        """Ids that ask for the next reply: they end where the model is to speak."""
        return self._render(persona, [*self.before(user, turns), (user, "")], ()).input_ids

    def behind(self, persona: str, shown: Sequence[Turn], example: Example) -> Example:
        """An example of a persona with turns before its conversation that are not learnt."""
        if not shown:
            return example
        opening = len(self.prefix(persona))
        before = self._render(persona, shown, ()).input_ids
        before += [*self.encode("\n"), self._turn, *self.encode("user\n")]
        ids = [*before, *example.input_ids[opening:]]
        return Example(ids, [IGNORED] * len(before) + example.labels[opening:], example.where)

    def example(
        self, persona: str, turns: Sequence[Turn], loss_on: str = "all", limit: int = 0, where: str = ""
    ) -> Example:
        """A row to learn from: labels on every reply (`all`) or the last (`last`), its `<end_of_turn>` included.

        With a `limit` in tokens, oldest turns are left out until the row fits; it is never cut elsewhere. Raises
        `DataError` when the last turn alone is too long.
        """
        for oldest in range(len(turns)):
            kept = turns[oldest:]
            first = 0 if loss_on == "all" else len(kept) - 1
            example = self._render(persona, kept, range(first, len(kept)), where)
            if not limit or len(example.input_ids) <= limit:
                return example
        size = len(example.input_ids)
        raise DataError(f"{where}: {size} tokens with the persona, {limit} fit: shorten the row or raise --max-length")

    def without_loss(self, example: Example, replies: Collection[int]) -> Example:
        """An example without labels on some of its learnt replies, by their number from the last, which is 1."""
        labels, number = list(example.labels), 0
        for at in range(len(labels) - 1, -1, -1) if replies else ():
            number += labels[at] == self._end  # a labelled one ends a reply: no text holds it
            if number in replies:
                labels[at] = IGNORED
        return replace(example, labels=labels)

    def _render(self, persona: str, turns: Sequence[Turn], labelled: Collection[int], where: str = "") -> Example:
        ids = self.prefix(persona)
        labels = [IGNORED] * len(ids)
        for number, (user, reply) in enumerate(turns):
            asked = [*self.encode(user.strip()), self._end, *self.encode("\n"), self._turn, *self.encode("model\n")]
            if number > 0:
                asked = [*self.encode("\n"), self._turn, *self.encode("user\n"), *asked]
            ids += asked
            labels += [IGNORED] * len(asked)
            if reply:
                said = [*self.encode(reply.strip()), self._end]
                ids += said
                labels += said if number in labelled else [IGNORED] * len(said)
        return Example(ids, labels, where)

    def fit(self, persona: str, turns: Sequence[Turn], user: str, limit: int) -> Fitted:
        """The prompt in at most `limit` tokens.

        Whole turns go, the oldest first, then what is shown beside them; persona and `<bos>` stay. Raises
        `RoleplayError` when the last message alone does not fit.
        """
        shown, turns = self.shown(user, turns), self.heard(user, turns)
        for before in [shown, []] if shown else [[]]:
            for dropped in range(len(turns) + 1):
                ids = self._render(persona, [*turns[dropped:], *before, (user, "")], ()).input_ids
                if len(ids) <= limit:
                    return Fitted(ids, dropped, tuple(before))
        raise RoleplayError(f"the message takes {len(ids)} tokens with its persona, {limit} fit: shorten it")
