"""Where everything stands on the page. Nothing happens here: `events` finds every control by its name in `Controls`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import gradio as gr

from page.adapters_panel import draw_panel
from page.chat.choices import NUMBERS
from page.chat.exchanges import PRESETS
from page.look import I18N, as_said, heading
from page.persona_panel import draw_persona
from page.plain_chatbot import PlainChatbot, pane
from page.serving.start import Started
from page.sides_panel import SidesHandlers, draw_sides
from roleplay.engine.protocol import ADAPTER, BASE, CANDIDATES, SCORE, Sampling
from roleplay.text.personas import Persona

# By field of `Sampling`: lowest, highest and step of its slider. Its label has the same name in `words`.
SLIDERS = {
    "temperature": (0, 2, 0.05),
    "top_p": (0.05, 1, 0.05),
    "top_k": (0, 200, 1),
    "repetition_penalty": (1, 2, 0.05),
    "frequency_penalty": (0, 2, 0.05),
    "candidates": (1, 16, 1),
    "max_new_tokens": (1, 1024, 1),
    "base_max_new_tokens": (0, 1024, 1),
}


@dataclass(frozen=True)
class Controls:
    """Everything that an event touches, reads or changes, by the names that handlers use."""

    record: gr.State  # the conversation, a list of exchanges
    saved: gr.Textbox  # its copy for the browser tab, as JSON
    asked: gr.State  # the message that is answered next
    problem: gr.Markdown
    title: gr.HTML
    adapter: gr.Dropdown
    compare: gr.Checkbox
    blind: gr.Checkbox
    left: PlainChatbot
    right: PlainChatbot
    asked_why: gr.JSON  # which answer is looked into, by its pane and its exchange
    ask_why: gr.Button  # which page.js presses
    why: gr.JSON  # what is shown under it
    ballot: gr.Row
    votes: dict[str, gr.Button]
    message: gr.Textbox
    shift: gr.Markdown | None  # how far the adapter moves the model
    hub: gr.Dropdown | None  # adapters that may join, with the buttons that find and load them
    find: gr.Button | None
    load: gr.Button | None
    adopt: gr.Markdown | None  # how one that another trainer made is taken in
    strength: gr.Slider
    other: gr.Dropdown  # who speaks in the right pane
    other_strength: gr.Slider
    speaker: gr.State  # the persona that came last, by an adapter or a card
    persona: gr.Textbox
    given: gr.Radio
    reset: gr.Button
    card: gr.JSON  # a file's name and bytes, with the buttons that choose and take it
    choose: gr.Button
    take: gr.Button | None
    saves: dict[str, gr.Button]
    presets: dict[str, gr.Button]
    numbers: dict[str, gr.Slider]
    seed: gr.Textbox
    exports: dict[str, gr.Button]
    share: gr.Button
    chat: gr.JSON  # a saved conversation, with the buttons that choose and take it
    choose_chat: gr.Button
    take_chat: gr.Button
    file: gr.JSON
    scores: gr.Tab
    board: gr.HTML

    def by_name(self) -> dict[str, Any]:
        """All that handlers read and change: each slider has the name of its number."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | self.numbers


def draw(sides: SidesHandlers, started: Started) -> Controls:
    """The page for the engine's adapters, the first of which speaks."""
    names = sides.engine.adapters()
    both, first = bool(names), names[0] if names else ""
    persona = sides.persona_of(first)
    drawn: dict[str, Any] = {
        "record": gr.State([]),
        "asked": gr.State(""),
        "saved": gr.Textbox(visible="hidden", elem_id="saved"),
        "problem": gr.Markdown(visible=False, elem_id="health"),
        "asked_why": gr.JSON(visible="hidden"),
        # page.js offers "Why" where there is something to press.
        "ask_why": gr.Button(visible=False if SCORE in sides.lacks else "hidden", elem_id="ask-why"),
        "why": gr.JSON(visible="hidden"),
        "chat": gr.JSON(visible="hidden"),
        "take_chat": gr.Button(visible="hidden", elem_id="take-chat"),
        **_head(names, persona),
    }
    with gr.Tabs(elem_id="tabs"):
        with gr.Tab(I18N("chat")):
            with gr.Row(elem_id="panes"):
                drawn |= _panes(persona, both)
                drawn |= draw_sides(sides, first)
            with gr.Column(elem_id="composer"):
                drawn |= _composer()
            with gr.Row(elem_id="desk"):
                drawn |= draw_panel(both, started)
                drawn |= {
                    **draw_persona(persona, started.cards),
                    **_sampling(started.base_tokens, sides.lacks.get(CANDIDATES, "")),
                    **_keep(),
                }
        with gr.Tab(I18N("scoreboard"), visible=both) as scores:
            board = gr.HTML(elem_id="board")
    return Controls(**drawn, scores=scores, board=board)


def _head(names: Sequence[str], persona: Persona) -> dict[str, Any]:
    both = bool(names)
    with gr.Row(elem_id="head"):
        title = gr.HTML(heading(persona.name), elem_id="title")
        gr.Markdown(I18N("tagline"), elem_id="tagline")
        return {
            "title": title,
            "adapter": gr.Dropdown(names, label=I18N("adapter_menu"), visible=len(names) > 1, elem_id="adapter"),
            "compare": gr.Checkbox(both, label=I18N("compare"), visible=both, elem_id="compare"),
            "blind": gr.Checkbox(False, label=I18N("blind"), visible=both, elem_id="blind"),
        }


def _panes(persona: Persona, both: bool) -> dict[str, Any]:
    label, waits = I18N(ADAPTER if both else "base_only"), I18N("base_waits")
    openers = [{"text": opener} for opener in persona.openers]
    return {
        "left": pane(label=label, placeholder=as_said(persona.greeting), examples=openers, elem_id="left"),
        "right": pane(label=I18N(BASE), placeholder=waits, visible=both, elem_id="right"),
    }


def _composer() -> dict[str, Any]:
    with gr.Row(visible=False, elem_id="ballot") as ballot:
        gr.Markdown(I18N("vote_note"), elem_id="vote-note")
        votes = {vote: gr.Button(I18N(vote), size="sm") for vote in ("left", "tie", "bad", "right")}
    with gr.Column(elem_id="ask"):
        message = gr.Textbox(
            label=I18N("message"),
            show_label=False,
            placeholder=I18N("ask"),
            max_lines=6,
            submit_btn=True,
            autofocus=True,
        )
    return {"ballot": ballot, "votes": votes, "message": message}


def _sampling(base_tokens: int, no_candidates: str) -> dict[str, Any]:
    """`no_candidates` is why nothing can be chosen among several answers, "" where it can."""
    first = replace(Sampling(), base_max_new_tokens=base_tokens)
    with gr.Accordion(I18N("sampling"), open=False):
        with gr.Row():
            weighs = not no_candidates
            presets = {
                name: gr.Button(I18N(name), size="sm", visible=weighs or preset.candidates == 1)
                for name, preset in PRESETS.items()
            }
        if no_candidates:
            gr.Markdown(as_said(no_candidates), elem_classes="lacks")
        return {
            "presets": presets,
            "numbers": {name: _slider(name, getattr(first, name), name != "candidates" or weighs) for name in NUMBERS},
            # A gr.Number that is empty becomes 0 as soon as the accordion opens (Gradio 6.31).
            "seed": gr.Textbox(label=I18N("seed"), placeholder=I18N("new_seed"), max_length=10),
        }


def _slider(name: str, value: float, visible: bool) -> gr.Slider:
    low, high, step = SLIDERS[name]
    info = I18N("blind_lengths") if name == "base_max_new_tokens" else None
    return gr.Slider(low, high, value, step=step, label=I18N(name), info=info, visible=visible)


def _keep() -> dict[str, Any]:
    with gr.Accordion(I18N("keep"), open=False):
        gr.Markdown(I18N("keep_note"))
        with gr.Row():
            exports = {kind: gr.Button(I18N(kind), size="sm") for kind in ("markdown", "rows")}
        with gr.Row():
            buttons = {name: gr.Button(I18N(name), size="sm", elem_id=name) for name in ("share", "choose_chat")}
        return {"exports": exports, **buttons, "file": gr.JSON(visible="hidden")}
