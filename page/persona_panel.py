"""The accordion of the persona: who speaks, and character cards in and out."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import gradio as gr

from page.chat import exchanges
from page.chat.choices import Choices
from page.chat.exchanges import Exchange
from page.chat.saved import kept_now, to_json
from page.look import I18N, as_said, heading
from page.serving.rate_limit import Rate
from page.serving.start import About
from page.state import Visitor
from page.toasts import refusal, tell
from page.words import WORDS
from roleplay.errors import DataError
from roleplay.text import card_files, cards, png
from roleplay.text.personas import Persona, read_persona
from roleplay.weights import layout

CARD_KINDS = ("png", "json")


def introduction(persona: Persona) -> dict[str, Any]:
    """What changes on the page when someone else speaks: title, system prompt, greeting and openers."""
    openers = [{"text": opener} for opener in persona.openers]
    return {
        "speaker": persona,
        "title": heading(persona.name),
        "persona": persona.system_prompt,
        "left": gr.update(placeholder=as_said(persona.greeting), examples=openers),
    }


def draw_persona(persona: Persona, cards_in: bool) -> dict[str, Any]:
    """The accordion, closed; with `cards_in` a card that is chosen in it, or dropped on the page, is taken."""
    drawn: dict[str, Any] = {"speaker": gr.State(persona), "card": gr.JSON(visible="hidden")}
    # What is in a closed accordion is not on the page, so the button that a dropped file presses stands outside.
    drawn["take"] = gr.Button(visible="hidden", elem_id="take") if cards_in else None
    with gr.Accordion(I18N("persona"), open=False):
        drawn["persona"] = gr.Textbox(persona.system_prompt, label=I18N("persona_prompt"), lines=4, max_lines=10)
        with gr.Row():
            drawn["reset"] = gr.Button(I18N("reset"), size="sm")
            drawn["choose"] = gr.Button(I18N("card_load"), size="sm", visible=cards_in)
        with gr.Row():
            drawn["saves"] = {kind: gr.Button(I18N(f"card_{kind}"), size="sm") for kind in CARD_KINDS}
    return drawn


class PersonaHandlers:
    """What its events do, as `handlers.Handlers` does for the rest of the page."""

    def __init__(self, about: Mapping[str, About], rate: Rate) -> None:
        self.about, self.rate = about, rate

    def load_card(self, card: Any, record: list[Exchange], choices: Choices, visitor: Visitor) -> dict[str, Any]:
        """Who speaks from now on, out of a file's name and its bytes in base64, None where it is too large."""
        words = WORDS[visitor.language]
        if sentence := self.rate.sentence(self.rate.take(visitor.address), visitor.language):
            raise refusal(sentence)
        name, text = f"{card[0]:.80}", card[1]
        if text is None:
            raise refusal(words["card_too_large"].format(name=name))
        try:
            persona, notes = read_persona(card_files.read_value(base64.b64decode(text), name), name)
        except DataError as error:
            raise refusal(str(error)) from error
        if sentence := exchanges.refusal(visitor.language, persona.name, persona.system_prompt):
            raise refusal(sentence)
        tell(" ".join([words["card_loaded"].format(name=persona.name), *(f"{note}." for note in notes)]))
        choices = replace(choices, persona=persona.system_prompt, speaker=persona)
        return {**introduction(persona), "saved": to_json(kept_now(record, choices))}

    def save_card(self, kind: str, speaker: Persona, persona: str, adapter: str | None) -> dict[str, Any]:
        """The file to save: the speaker with the system prompt as it stands, in the adapter's picture or as JSON."""
        card = cards.make_card(asdict(replace(speaker, system_prompt=persona.strip())))
        stem = re.sub(r"[^\w-]+", "_", speaker.name).strip("_") or "character"
        name = f"{stem}.{kind}"
        if kind == "json":
            return {"file": [name, json.dumps(card, ensure_ascii=False, indent=2) + "\n"]}
        whole = card_files.write_png(card, self._picture(adapter))
        return {"file": [name, f"data:image/png;base64,{base64.b64encode(whole).decode()}"]}

    def _picture(self, adapter: str | None) -> bytes:
        """That of the adapter, a plain one where it has none or one that cannot be read."""
        about = self.about.get(adapter or "")
        try:
            data = (about.folder / layout.PICTURE).read_bytes() if about else b""
            return png.write_texts(data, {}, layout.PICTURE)
        except (OSError, DataError):
            return png.plain_picture()
