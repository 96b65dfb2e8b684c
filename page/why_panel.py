"""What "Why" under an answer does: the answer is scored by both sides, and shown token by token."""

from html import escape
from typing import Any

from page.chat import shown
from page.chat.exchanges import Exchange, speakers
from page.chat.why import explainable, request_about
from page.serving.rate_limit import Rate
from page.sides_panel import SidesHandlers
from page.state import Visitor
from page.toasts import refusal
from page.why_view import looked_up_html, taught_html, why_html
from page.words import WORDS
from roleplay.errors import RoleplayError


class WhyHandlers:
    """What its events do, as `handlers.Handlers` does for the rest of the page."""

    def __init__(self, sides: SidesHandlers, rate: Rate) -> None:
        self.sides, self.rate = sides, rate

    def explain(self, asked_why: Any, record: list[Exchange], blind: bool, visitor: Visitor) -> dict[str, Any]:
        """The view of an answer, named by its pane (0 or 1) and the number of its exchange."""
        words, (pane, number) = WORDS[visitor.language], map(int, asked_why)
        if not 0 <= number < len(record) or pane not in (0, 1):
            raise refusal(words["why_gone"])
        exchange = record[number]
        side = shown.side_of(exchange, pane, blind, self.sides.order)
        if not explainable(exchange, side):
            raise refusal(words["why_gone"])
        if sentence := self.rate.sentence(self.rate.take(visitor.address), visitor.language):
            raise refusal(sentence)
        request, answer = request_about(record[:number], exchange, side), exchange.answers[side]
        try:
            pieces = self.sides.engine.score(request, answer)
        except RoleplayError as error:
            raise refusal(str(error)) from error
        asked = speakers(exchange)
        html = why_html(pieces, shown.names_of(visitor.language, asked), visitor.language)
        now = self.sides.weights_sha256(exchange)
        if any(sha256 != now.get(one) for one, sha256 in exchange.weights_sha256.items()):
            html = f"<p>{escape(words['why_other'])}</p>{html}"
        about = self.sides.about.get(asked.speaker(side).adapter)
        html += looked_up_html(answer, visitor.language)
        if about and about.retriever:
            looks_up = "examples_sha256" in about.provenance
            html += taught_html(answer.text, about.retriever, looks_up, visitor.language)
        return {"why": [pane, number, html]}
