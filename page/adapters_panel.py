"""The accordion of adapters: how far the one that speaks moves the model, and those on the Hub that may join it."""

import shlex
from typing import Any

import gradio as gr

from page.look import I18N, as_said
from page.persona_panel import introduction
from page.serving.rate_limit import Rate
from page.serving.start import Started
from page.sides_panel import SidesHandlers
from page.state import Visitor
from page.toasts import refusal, tell
from page.words import WORDS
from roleplay.engine.guests import Guests
from roleplay.errors import RoleplayError
from roleplay.weights.inspection import may_be_adopted
from roleplay.weights.probe import PROBES


def draw_panel(both: bool, started: Started) -> dict[str, Any]:
    """The accordion, closed, where there are adapters; guests may join them.

    Where there are none it is open, and says why none was trained and which command makes one, if that is known.
    """
    drawn: dict[str, Any] = dict.fromkeys(("shift", "hub", "find", "load", "adopt"))
    trained = started.trained
    if not both and started.command:
        with gr.Accordion(I18N("adapter_menu"), open=True, elem_id="adapters"):
            if trained.problem:
                gr.Markdown(I18N("train_failed"))
                gr.Markdown(as_said(trained.problem), elem_id="problem")
            gr.Markdown(I18N("adapter_missing"))
            gr.Markdown(f"```sh\n{started.command}\n```", elem_id="make")
    if not both:
        return drawn
    with gr.Accordion(I18N("adapter_menu"), open=bool(trained.kept), elem_id="adapters"):
        drawn["shift"] = gr.Markdown(elem_id="moves")
        if trained.kept:
            gr.Markdown(I18N(f"kept_{trained.kept}"), elem_id="kept")
        if trained.problem:
            gr.Markdown(as_said(trained.problem), elem_id="problem")
        if started.guests:
            options: dict[str, Any] = {"label": I18N("hub"), "info": I18N("hub_info"), "elem_id": "hub"}
            drawn["hub"] = gr.Dropdown([], value=None, allow_custom_value=True, **options)
            with gr.Row():
                drawn |= {name: gr.Button(I18N(f"hub_{name}"), size="sm") for name in ("find", "load")}
            drawn["adopt"] = gr.Markdown(visible=False, elem_id="adopt")
    return drawn


class PanelHandlers:
    """What its events do, as `handlers.Handlers` does for the rest of the page."""

    def __init__(self, sides: SidesHandlers, guests: Guests | None, rate: Rate, adopts_for: str = "") -> None:
        """`adopts_for` is as `Started` has it."""
        self.sides, self.guests, self.rate, self.adopts_for = sides, guests, rate, adopts_for

    def show_shift(self, adapter: str, visitor: Visitor) -> dict[str, Any]:
        """How far the adapter moves the model, where that is known."""
        kl, words = self.sides.engine.kl_to_base(adapter), WORDS[visitor.language]
        text = "" if kl is None else words["moves"].format(name=as_said(adapter), kl=kl, prompts=len(PROBES))
        return {"shift": gr.update(value=text, visible=bool(text))}

    def find_on_hub(self, visitor: Visitor) -> dict[str, Any]:
        """Every adapter on the Hub that says it is for this base model, the first one taken.

        Those of other trainers stand behind this project's own, where they may be adopted.
        """
        assert self.guests  # the button is there for no one else
        self._count(visitor)
        try:
            names = self.guests.listed()
            others = self.guests.foreign(names) if self.adopts_for else []
        except RoleplayError as error:
            raise refusal(str(error)) from error
        words = WORDS[visitor.language]
        choices = [(name, name) for name in names] + [(words["hub_foreign"].format(name=name), name) for name in others]
        if not choices:
            tell(words["hub_none"])
        return {"hub": gr.update(choices=choices, value=choices[0][1] if choices else None)}

    def load_from_hub(self, hub: str | None, visitor: Visitor) -> dict[str, Any]:
        """The menu of adapters with the one that was named, which has joined and speaks now, and its persona.

        Of another trainer's it shows the command that takes it in, and whoever speaks goes on.
        """
        assert self.guests
        self._count(visitor)
        name = (hub or "").strip()
        try:
            self.guests.invite(name)
        except RoleplayError as error:
            if not (self.adopts_for and may_be_adopted(error)):
                raise refusal(str(error)) from error
            short, base = name.partition("/")[2], shlex.quote(self.adopts_for)
            command = f"python -m train.adopt {name} --name {short} --base-model {base}"
            told = WORDS[visitor.language]["adopt"].format(name=as_said(name))
            return {"adopt": gr.update(value=f"{told}\n\n```sh\n{command}\n```", visible=True)}
        menu = gr.update(choices=self.sides.engine.adapters(), value=name, visible=True)
        return {"adapter": menu, "adopt": gr.update(visible=False), **introduction(self.sides.persona_of(name))}

    def _count(self, visitor: Visitor) -> None:
        if sentence := self.rate.sentence(self.rate.take(visitor.address), visitor.language):
            raise refusal(sentence)
