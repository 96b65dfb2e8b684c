"""Who speaks in each pane: what a pane's label opens, and what is written on the label."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from page.chat.choices import GIVEN, NOTHING, PERSONA, Choices
from page.chat.exchanges import Exchange, speakers
from page.chat.saved import Kept
from page.chat.shown import names_of, pane_messages
from page.look import I18N, as_said
from page.persona_panel import introduction
from page.serving.start import About
from page.state import Visitor
from roleplay.engine.protocol import ADAPTER, BASE, MAX_STRENGTH, SCORE, STRENGTH, Engine, Speaker
from roleplay.text.personas import Persona

STEP = 0.05  # of a strength


class SidesHandlers:
    """What its events do, as `handlers.Handlers` does for the rest of the page."""

    def __init__(self, engine: Engine, about: Mapping[str, About], fallback: Persona) -> None:
        self.engine, self.about, self.fallback = engine, about, fallback
        self.lacks = engine.lacks()
        self.order = (ADAPTER, BASE) if engine.adapters() else (BASE, ADAPTER)  # what the left and the right pane show

    def persona_of(self, adapter: str | None) -> Persona:
        """Whom this adapter was trained to be, as far as that is known."""
        about = self.about.get(adapter or "")
        return about.persona if about and about.persona else self.fallback

    def other_persona(self, choices: Choices) -> str:
        """What the other side is told where it is told a persona: its own, where another character speaks there."""
        own, others = (self.persona_of(name).system_prompt for name in (choices.adapter, choices.other))
        return others if choices.other and others != own else choices.persona

    def other_options(self, adapter: str | None, other: str) -> dict[str, Any]:
        """Whom the right pane may show beside this adapter; the base model where `other` is not among them."""
        names = [name for name in self.engine.adapters() if name != adapter]
        offers: list[tuple[Any, str]] = [(I18N(BASE), "")]
        if adapter and STRENGTH not in self.lacks:
            offers.append((I18N("same"), adapter))
        offers += [(name, name) for name in names]
        return {"choices": offers, "value": other if other in [value for _, value in offers] else ""}

    def given_options(self, adapter: str | None, given: str) -> dict[str, Any]:
        """What the other side may be given; the persona where `given` is not among it. `adapter` is whose rows it would
        read: its own, or those of the one that the base model stands beside."""
        about = self.about.get(adapter or "")
        offers = GIVEN if about and about.retriever else (PERSONA, NOTHING)
        choices = [(I18N(f"given_{offer}"), offer) for offer in offers]
        return {"choices": choices, "value": given if given in offers else PERSONA}

    def offer(self, adapter: str | None, other: str) -> dict[str, Any]:
        """Whom the right pane may show beside another adapter."""
        return {"other": gr.update(**self.other_options(adapter, other))}

    def settings(self, kept: Kept, adapter: str) -> dict[str, Any]:
        """What a kept conversation says of both sides."""
        if kept.adapter not in ("", adapter):  # its strength and who stood beside it went with it
            kept = replace(kept, strength=1.0, other=Speaker())
        if STRENGTH in self.lacks:  # nobody could set it back
            kept = replace(kept, strength=1.0, other=Speaker(kept.other.adapter))
        others = self.other_options(adapter, kept.other.adapter)
        return {
            "compare": kept.compare,
            "persona": kept.persona,
            "strength": kept.strength,
            "other": gr.update(**others),
            "other_strength": kept.other.strength,
            "given": gr.update(**self.given_options(others["value"] or adapter, kept.given)),
        }

    def panes(self, record: Sequence[Exchange], blind: bool, language: str) -> dict[str, Any]:
        """What both panes show."""
        left, right = (pane_messages(record, pane, blind, self.order, language) for pane in (0, 1))
        return {"left": left, "right": right}

    def restored(self, kept: Kept, adapter: str, language: str) -> dict[str, Any]:
        """The page as a kept conversation left it: what was said, who speaks, and what it says of both sides."""
        said = introduction(kept.speaker or self.persona_of(adapter))
        panes = self.panes(kept.record, False, language)
        left = said["left"] | {"value": panes["left"]}
        return {**said, **panes, **self.settings(kept, adapter), "left": left, "record": kept.record}

    def hashes(self) -> dict[str, Mapping[str, str]]:
        """What is recorded of every adapter: hashes and template."""
        return {name: known.provenance for name, known in self.about.items()}

    def weights_sha256(self, exchange: Exchange) -> dict[str, str]:
        """Of the adapters that speak in an exchange, by side, as far as they are recorded."""
        names = {side: speakers(exchange).speaker(side).adapter for side in exchange.personas}
        made = {side: self.about[name].provenance for side, name in names.items() if name in self.about}
        return {side: told["adapter_sha256"] for side, told in made.items() if "adapter_sha256" in told}

    def show_speakers(self, choices: Choices, visitor: Visitor) -> dict[str, Any]:
        """Both labels as who speaks changes, the strength of whoever has one, and what the other may be given."""
        labels = self.labels(choices, visitor.language)
        return {
            "left": gr.update(label=labels[0]),
            "right": gr.update(label=labels[1]),
            "other_strength": gr.update(visible=bool(choices.other) and STRENGTH not in self.lacks),
            "compare": gr.update(label=I18N("compare_other" if choices.other else "compare")),
            "given": gr.update(**self.given_options(choices.other or choices.adapter, choices.given)),
        }

    def labels(self, choices: Choices, language: str) -> tuple[Any, Any]:
        """What is written on the left and the right pane."""
        if choices.blind:
            return I18N("answer_a"), I18N("answer_b")
        if not choices.adapter:
            return I18N("base_only"), I18N(ADAPTER)
        names = names_of(language, speakers(choices))
        return names[ADAPTER], names[BASE]


def draw_sides(handlers: SidesHandlers, adapter: str) -> dict[str, Any]:
    """A column for each pane, hidden until its label is pressed, with what an engine lacks told in a sentence.

    Where there is no adapter nothing can be chosen, and the labels open nothing.
    """
    lacks, both = handlers.lacks, bool(adapter)
    drawn: dict[str, Any] = {}
    with gr.Column(elem_id="left-choice", elem_classes="choice", visible=both):
        drawn["strength"] = _strength(STRENGTH not in lacks)
        for lack in (STRENGTH, SCORE):
            if lack in lacks:
                gr.Markdown(as_said(lacks[lack]), elem_classes="lacks")
    with gr.Column(elem_id="right-choice", elem_classes="choice", visible=both):
        drawn["other"] = gr.Dropdown(**handlers.other_options(adapter, ""), label=I18N("other"), elem_id="other")
        drawn["other_strength"] = _strength(False)
        drawn["given"] = gr.Radio(**handlers.given_options(adapter, PERSONA), label=I18N("given"), elem_id="given")
    return drawn


def _strength(visible: bool) -> gr.Slider:
    options: dict[str, Any] = {"label": I18N("strength"), "info": I18N("strength_info"), "step": STEP}
    return gr.Slider(0, MAX_STRENGTH, 1, visible=visible, **options)
