"""The accordion of adapters: how far the one that speaks moves the model, and those on the Hub that may join it."""

from typing import Any

import gradio as gr

from page.look import I18N, language_of
from page.server import too_fast
from page.serving.rate_limit import Rate
from page.words import WORDS
from roleplay.adapters import PROBES
from roleplay.answers import Engine
from roleplay.errors import RoleplayError
from roleplay.guests import Guests

# A download is a disk's and a connection's work: one at a time, and the others wait in the queue.
ALONE: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "hub", "api_visibility": "private"}


def adapters_accordion(
    demo: gr.Blocks, engine: Engine, guests: Guests | None, rate: Rate, menu: gr.Dropdown, free: dict[str, Any]
) -> None:
    """Draw it and wire it to `menu`, the dropdown of adapters; `free` are the options of events that never wait."""

    def told(name: str, request: gr.Request) -> Any:
        kl, words = engine.moves(name), WORDS[language_of(request)]
        text = "" if kl is None else words["moves"].format(name=name, kl=kl, prompts=len(PROBES))
        return gr.Markdown(text, visible=bool(text))

    def found(request: gr.Request) -> Any:
        assert guests  # the button is there for no one else
        refuse(request)
        try:
            names = guests.listed()
        except RoleplayError as error:
            raise gr.Error(str(error), print_exception=False) from error
        if not names:
            gr.Info(WORDS[language_of(request)]["hub_none"])
        return gr.Dropdown(names, value=names[0] if names else None)

    def loaded(repo: str | None, request: gr.Request) -> Any:
        assert guests
        refuse(request)
        try:
            guests.invite((repo or "").strip())
        except RoleplayError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return gr.Dropdown(engine.adapters(), value=(repo or "").strip(), visible=True)

    def refuse(request: gr.Request) -> None:
        if sentence := too_fast(rate.take(request.client.host), rate, request):
            raise gr.Error(sentence, print_exception=False)

    with gr.Accordion(I18N("adapter_menu"), open=False, elem_id="adapters"):
        moves = gr.Markdown(elem_id="moves")
        gr.on([demo.load, menu.change], told, menu, moves, **free)
        if guests:
            hub = gr.Dropdown(
                [], value=None, label=I18N("hub"), info=I18N("hub_info"), allow_custom_value=True, elem_id="hub"
            )
            with gr.Row():
                gr.Button(I18N("hub_find"), size="sm").click(found, None, hub, **ALONE)
                gr.Button(I18N("hub_load"), size="sm").click(loaded, hub, menu, **ALONE)
