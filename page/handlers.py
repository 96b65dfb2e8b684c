"""What every event does. A handler is given values by name, and returns what changes by the name of the control.

The names are those of `layout.Controls`. `choices` and `visitor` are what `state` puts together. Nothing
here knows where a control stands or what touches it.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from threading import Event
from typing import Any

import gradio as gr

from page.chat import exchanges, shown
from page.chat.choices import LENGTHS, NUMBERS, PERSONA, Choices
from page.chat.exchanges import MAX_EXCHANGES, MAX_MESSAGE, OPEN, OVERTAKEN, Asking, Exchange
from page.chat.saved import Kept, as_markdown, as_rows, from_json, kept_now, to_json
from page.look import I18N, as_said
from page.persona_panel import PersonaHandlers, introduction
from page.scoreboard_tab import scoreboard_html
from page.serving.rate_limit import Places, Rate, network
from page.serving.start import Started
from page.share_panel import ShareHandlers
from page.sides_panel import SidesHandlers
from page.state import Visitor
from page.toasts import refusal, tell
from page.votes_view import lesson_html, votes_html
from page.why_panel import WhyHandlers
from page.words import WORDS
from roleplay.engine.protocol import ADAPTER
from roleplay.environment import LOCAL
from roleplay.errors import DataError, RoleplayError
from roleplay.results.ranking import Player
from roleplay.results.votes import Box
from roleplay.text.personas import Persona
from roleplay.text.retrieval import Retriever

MAX_FAULTS = 5  # lines in the log for files of votes that cannot be read
Record = list[Exchange]
Updates = dict[str, Any]


def _may_go_on(now: Exchange) -> bool:
    """Whether the next message may be sent: the character has answered, and it is no secret which answer is hers."""
    return now.verdict != OPEN and ADAPTER in now.answers and bool(now.answers[ADAPTER].stop)


class Handlers:
    """The handlers of one page: they ask its engine, vote into its box and keep nothing but who is being answered."""

    def __init__(self, started: Started, box: Box, rate: Rate) -> None:
        self.engine, self.about = started.engine, started.about
        self.box, self.rate, self.loads = box, rate, Rate(rate.per_minute)
        self.places = Places(started.at_once)
        self.running: dict[str, Event] = {}  # by session that is being answered: set to end that answer
        self.sides = SidesHandlers(self.engine, self.about, started.persona)
        self.cards, self.shared = PersonaHandlers(self.about, rate), ShareHandlers(self.sides, rate, self.running)
        self.why = WhyHandlers(self.sides, rate)
        self.names = self.engine.adapters()
        self.first = self.names[0] if self.names else ""

    # The conversation

    def check_message(self, message: str, visitor: Visitor) -> str:
        """Why a message cannot be sent, "" if it can: told at the composer before anything is."""
        refusal = exchanges.refusal(visitor.language, message)
        return refusal or self.rate.sentence(self.rate.wait(visitor.address), visitor.language)

    def send(self, message: str, record: Record, choices: Choices, visitor: Visitor) -> Updates:
        """The message under both panes, and an empty composer; what is still written of the last answer ends there."""
        if running := self.running.get(visitor.session):
            running.set()
        return self._ask(message, exchanges.close(record, OVERTAKEN), choices, visitor, value="")

    def ask_opener(self, event: gr.EventData, choices: Choices, visitor: Visitor) -> Updates:
        """The opener that was chosen, as the first message."""
        return {"record": []} | self._ask(str(event.value["text"]), [], choices, visitor)

    def ask_again(self, record: Record, choices: Choices, visitor: Visitor) -> Updates:
        """The last message once more, without the answers to it."""
        message, record = self._last_message(record), record[:-1]
        return {"record": record} | self._ask(message, record, choices, visitor)

    def ask_edited(self, event: gr.EventData, record: Record, choices: Choices, visitor: Visitor) -> Updates:
        """An earlier message in other words, and nothing of what came after it."""
        before = shown.pane_messages(record, 0, choices.blind, self.sides.order, visitor.language)[: event.index]
        record = record[: len(shown.users(before))]
        return {"record": record} | self._ask(str(event.value), record, choices, visitor)

    def _last_message(self, record: Record) -> str:
        return record[-1].user if record else ""

    def _ask(self, message: str, record: Record, choices: Choices, visitor: Visitor, **composer: Any) -> Updates:
        """The page while `message` waits for its answer, which `answer` finds in "asked"."""
        # The switches rest meanwhile: an answer that is shown blind must not end up under a label.
        rest = gr.update(interactive=False)
        return {
            "asked": message[: 2 * MAX_MESSAGE],
            **self.sides.panes([*record, Exchange(exchanges.cut(message))], choices.blind, visitor.language),
            "message": gr.update(interactive=False, placeholder="", submit_btn=False, stop_btn=True, **composer),
            "ballot": gr.update(visible=False),
            "compare": rest,
            "blind": rest,
        }

    def answer(self, asked: str, record: Record, choices: Choices, visitor: Visitor) -> Iterator[Updates]:
        """Both sides' answers as they grow, until they are whole or the next message is sent."""
        language, retriever = visitor.language, self._retriever(choices.other or choices.adapter)
        record = exchanges.close(record, OVERTAKEN)[: MAX_EXCHANGES + 1]
        refused = self.rate.sentence(self.rate.take(visitor.address), language)
        other = self.sides.other_persona(choices)
        try:
            new = exchanges.begin(asked, choices, retriever, other)
        except RoleplayError as error:  # the seed is no number: the answer says so, and the page goes on
            new, refused = exchanges.begin(asked, replace(choices, seed=""), retriever, other), refused or str(error)
        known = self.about.get(new.adapter)
        new = replace(new, revision=known.revision if known else "", weights_sha256=self.sides.weights_sha256(new))
        ended = self.running[visitor.session] = Event()
        client = "" if visitor.address in LOCAL else network(visitor.address)
        if client and not self.places.take(client, ended):
            refused = refused or WORDS[language]["too_many_answers"].format(limit=self.places.each)
        free = False
        try:
            asking = Asking(self.engine, client)
            with closing(exchanges.grow(asking, record, new, language, refused)) as growing:  # type: ignore[type-var]
                for now in growing:
                    if ended.is_set():
                        return
                    whole = [*record, now]
                    updates = {"record": whole, **self.sides.panes(whole, choices.blind, language)}
                    if not free and (free := _may_go_on(now)):
                        updates["message"] = gr.update(interactive=True, placeholder=I18N("ask"), submit_btn=True)
                    yield updates
            yield updates | self._idle(whole, choices)
        finally:
            ended.set()
            if self.running.get(visitor.session) is ended:
                del self.running[visitor.session]

    def mark_stopped(self, left: list[Any], record: Record, choices: Choices, visitor: Visitor) -> Updates:
        """Every answer that was cut off, marked so."""
        record = exchanges.close(exchanges.align(shown.users(left), record))
        return {
            "record": record,
            **self.sides.panes(record, choices.blind, visitor.language),
            **self._idle(record, choices),
        }

    def undo_last(self, record: Record, choices: Choices, visitor: Visitor) -> Updates:
        """The conversation without its last exchange, whose message is back in the composer."""
        message, record = self._last_message(record), record[:-1]
        updates = {"record": record, **self.sides.panes(record, choices.blind, visitor.language)}
        return {**updates, **self._idle(record, choices), "message": message}

    def clear_all(self, choices: Choices) -> Updates:
        """An empty conversation with the same settings."""
        return {"record": [], "left": [], "right": [], **self._idle([], choices)}

    def restore(self, saved: str | None, visitor: Visitor) -> Updates:
        """What this tab kept, else the openers alone: what was touched meanwhile stays."""
        if not saved:
            return {"left": introduction(self.sides.persona_of(self.first))["left"]}
        seconds = self.loads.take(visitor.address)
        if seconds:
            tell(WORDS[visitor.language]["too_many_loads"].format(seconds=seconds))
        kept = self._kept(None if seconds else saved)
        return self.sides.restored(kept, self.first, visitor.language)

    def _kept(self, text: str | None) -> Kept:
        own = self.sides.persona_of(self.first).system_prompt
        start = Kept([], bool(self.names), own, PERSONA)
        try:
            kept = from_json(text) if text else start
        except DataError as error:
            tell(str(error))
            return start
        # Another adapter's persona went with that adapter, the menu is back at the first; a card's has stayed.
        others = {about.persona for about in self.about.values() if about.persona}
        speaker = None if kept.speaker in others else kept.speaker
        prompts = {persona.system_prompt for persona in others}
        return replace(kept, speaker=speaker, persona=own if kept.persona in prompts else kept.persona)

    def _retriever(self, adapter: str) -> Retriever | None:
        return self.about[adapter].retriever if adapter in self.about else None

    def _idle(self, record: Record, choices: Choices) -> Updates:
        """Ballot, the tab's copy, both switches and composer as they are while nothing is being answered."""
        free = gr.update(interactive=True)
        return {
            "ballot": gr.update(visible=bool(record) and record[-1].votable),
            "saved": to_json(kept_now(record, choices)),
            "compare": free,
            "blind": free,
            "message": gr.update(interactive=True, placeholder=I18N("ask"), submit_btn=True, stop_btn=False),
        }

    # The comparison

    def show_problem(self) -> Updates:
        """The line that says why nothing can be answered, where that is so."""
        problem = self.engine.problem()
        return {"problem": gr.update(value=as_said(problem), visible=bool(problem))}

    def show_base(self, compare: bool, blind: bool) -> Updates:
        """The right pane, or not; a single pane is never blind."""
        return {"right": gr.update(visible=compare), "blind": blind and compare}

    def hide_names(self, record: Record, choices: Choices, visitor: Visitor) -> Updates:
        """Both panes under "A" and "B", or under their names with every blind exchange opened."""
        blind, compare = choices.blind, choices.compare or choices.blind
        record = record if blind else exchanges.unveil(record)
        panes = self.sides.panes(record, blind, visitor.language)
        left, right = self.sides.labels(choices, visitor.language)
        return {
            "record": record,
            "left": gr.update(value=panes["left"], label=left),
            "right": gr.update(value=panes["right"], label=right, visible=compare),
            "compare": compare,
            "ballot": gr.update(visible=False),
        }

    def cast_vote(self, vote: str, record: Record, blind: bool, visitor: Visitor) -> Updates:
        """The last exchange with its verdict, which is written down."""
        record, cast = exchanges.judge(record, vote, self.sides.hashes())
        try:
            if cast and not self.box.add(cast):  # another request was quicker, and says what the verdict is
                return {"ballot": gr.update(visible=False)}
        except DataError as error:
            print(f"votes        {error}")
            raise refusal(WORDS[visitor.language]["vote_lost"]) from error
        panes = self.sides.panes(record, blind, visitor.language)
        return {"record": record, **panes, "ballot": gr.update(visible=False)}

    def show_scoreboard(self, adapter: str, visitor: Visitor) -> Updates:
        """The adapter's figures, and the votes on it; on this machine also what can be learnt from all votes."""
        read, faults = self.box.readable()
        own = Player(adapter, sha256=self.about[adapter].provenance.get("adapter_sha256", ""))
        votes = votes_html(read, own, visitor.language)
        if faults:
            print(*(f"votes        {fault}" for fault in faults[:MAX_FAULTS]), sep="\n")
            votes += f"<p>{WORDS[visitor.language]['votes_skipped'].format(count=len(faults))}</p>"
        if visitor.address in LOCAL and read:
            votes += lesson_html(read, adapter, self.box.folder.name, visitor.language)
        return {"board": scoreboard_html(adapter, self.about[adapter].folder, votes, visitor.language)}

    # The desk

    def introduce(self, adapter: str | None) -> Updates:
        """The adapter's persona, in the place of any other."""
        return introduction(self.sides.persona_of(adapter))

    def set_numbers(self, preset: str) -> Updates:
        """The sliders at a preset; the lengths are no matter of taste and stay."""
        return {name: getattr(exchanges.PRESETS[preset], name) for name in NUMBERS if name not in LENGTHS}

    def export(self, kind: str, record: Record, speaker: Persona, visitor: Visitor) -> Updates:
        """The file to save, by name and text."""
        if kind == "rows":
            return {"file": ["conversation.json", as_rows(record)]}
        return {"file": ["conversation.md", as_markdown(record, speaker.name, visitor.language)]}
