"""A conversation as a file: saved to be shared, and restored from one with its settings."""

from collections.abc import Collection
from typing import Any

from page.chat.choices import Choices
from page.chat.exchanges import Exchange
from page.chat.saved import to_json
from page.chat.shared import from_file, to_file
from page.serving.rate_limit import Rate
from page.sides_panel import SidesHandlers
from page.state import Visitor
from page.toasts import refusal, tell
from page.words import WORDS
from roleplay.engine.protocol import CANDIDATES
from roleplay.errors import DataError


class ShareHandlers:
    """What its events do, as `handlers.Handlers` does for the rest of the page."""

    def __init__(self, sides: SidesHandlers, rate: Rate, running: Collection[str]) -> None:
        """`running` are the sessions that are being answered."""
        self.sides, self.rate, self.running = sides, rate, running

    def share(self, record: list[Exchange], choices: Choices) -> dict[str, Any]:
        """The file to save, from which `load_chat` restores the conversation."""
        return {"file": ["conversation.roleplay.json", to_file(record, choices, self.sides.hashes())]}

    def load_chat(self, chat: str | None, visitor: Visitor) -> dict[str, Any]:
        """The conversation of a file with its settings, and a word where weights or words are not what they were.

        Not while an answer is written, which would bring its own conversation back.
        """
        if visitor.session in self.running:
            raise refusal(WORDS[visitor.language]["share_busy"])
        if sentence := self.rate.sentence(self.rate.take(visitor.address), visitor.language):
            raise refusal(sentence)
        try:
            found = from_file(chat or "", self.sides.hashes(), visitor.language)
        except DataError as error:
            raise refusal(str(error)) from error
        adapter = found.adapter or next(iter(self.sides.engine.adapters()), "")
        numbers = dict(found.numbers)
        if CANDIDATES in self.sides.lacks:  # nobody could set them back
            numbers[CANDIDATES] = 1
        tell(" ".join([WORDS[visitor.language]["share_loaded"], *found.notes]))
        return {
            **self.sides.restored(found.kept, adapter, visitor.language),
            **numbers,
            "adapter": adapter or None,
            "seed": found.seed,
            "saved": to_json(found.kept),
        }
