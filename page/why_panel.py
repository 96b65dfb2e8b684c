"""What "Why" under an answer does: the answer is scored by both sides, and shown token by token."""

from collections.abc import Mapping
from typing import Any

from page.chat import shown
from page.chat.exchanges import Exchange, speakers
from page.chat.why import explainable, request_about
from page.serving.rate_limit import Rate
from page.serving.start import About
from page.state import Visitor
from page.toasts import refusal
from page.why_view import taught_html, why_html
from page.words import WORDS
from roleplay.engine.protocol import ADAPTER, BASE, Engine
from roleplay.errors import RoleplayError


class WhyHandlers:
    """What its events do, as `handlers.Handlers` does for the rest of the page."""

    def __init__(self, engine: Engine, about: Mapping[str, About], rate: Rate) -> None:
        self.engine, self.about, self.rate = engine, about, rate

    def explain(self, asked_why: Any, record: list[Exchange], blind: bool, visitor: Visitor) -> dict[str, Any]:
        """The view of an answer, named by its pane (0 or 1) and the number of its exchange."""
        words, (pane, number) = WORDS[visitor.language], map(int, asked_why)
        if not 0 <= number < len(record) or pane not in (0, 1):
            raise refusal(words["why_gone"])
        exchange = record[number]
        side = shown.side_of(exchange, pane, blind, (ADAPTER, BASE))
        if not explainable(exchange, side):
            raise refusal(words["why_gone"])
        if sentence := self.rate.sentence(self.rate.take(visitor.address), visitor.language):
            raise refusal(sentence)
        try:
            pieces = self.engine.score(request_about(record[:number], exchange, side), exchange.answers[side])
        except RoleplayError as error:
            raise refusal(str(error)) from error
        asked = speakers(exchange)
        html = why_html(pieces, shown.names_of(visitor.language, asked), visitor.language)
        about = self.about.get(asked.speaker(side).adapter)
        if about and about.retriever:
            html += taught_html(exchange.answers[side].text, about.retriever, visitor.language)
        return {"why": [pane, number, html]}
