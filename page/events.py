"""What happens when a control is touched: one line an event, with what is touched, what is called and what changes.

What an event reads, the handler's parameters say, so it is not repeated here: each has the name of a control, or of
several that `state` puts together.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

import gradio as gr

from page.adapters_panel import PanelHandlers
from page.handlers import Handlers
from page.layout import Controls, place_panes
from page.state import CHOSEN, arguments, reads, visitor

PANES = ("left", "left_state", "right")
IDLE = ("ballot", "saved", "compare", "blind", "message")  # what changes when nothing is being answered any more
# Events that do not wait for an answer in progress.
FREE: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "hidden"}
# A download is a disk's and a connection's work: one at a time, and the others wait in the queue.
ALONE: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "hub", "api_visibility": "private"}
STORE = "roleplay-conversation"  # in the tab's own storage: a BrowserState would be shared by all tabs of a browser
# A Space is shown in a frame, where a browser may forbid storage: then nothing is kept.
WRITE = f"(text) => {{ try {{ sessionStorage.setItem('{STORE}', text); }} catch {{}} }}"
READ = f"() => {{ try {{ return sessionStorage.getItem('{STORE}'); }} catch {{ return null; }} }}"
NO_OPENER = "…"  # never shown: without any, a ChatInterface would not hear the openers of another adapter's persona


def wiring(controls: Mapping[str, Any]) -> Callable[..., Any]:
    """The function that makes an event: values go in and updates come out by the names of the controls."""

    def on(touched: Any, handler: Callable[..., Any], changes: Iterable[str], options: Any = FREE, **fixed: str) -> Any:
        """One event; what is `fixed` it says by itself, no control does."""

        def call(request: gr.Request, **values: Any) -> dict[Any, Any]:
            updates = handler(**arguments(handler, values | fixed, request))
            return {controls[name]: update for name, update in updates.items()}

        call.__name__ = handler.__name__
        read = {name: controls[name] for name in reads(handler) if name not in fixed}
        return gr.on(touched, call, inputs_kwargs=read, outputs=[controls[name] for name in changes], **options)

    return on


def connect(demo: gr.Blocks, c: Controls, h: Handlers, panel: PanelHandlers, at_once: int) -> None:
    """Every event of the page; `at_once` answers may run at the same time."""
    chat = begin_chat(c, h, at_once)
    on = wiring({**c.by_name(), "left_state": chat.chatbot_state})

    on([demo.load, c.message.submit], h.show_problem, ["problem"])
    on(demo.load, h.restore, [*PANES, "record", "compare", "persona", "given"], {**FREE, "js": READ})
    c.saved.change(None, c.saved, None, js=WRITE)
    on(c.message.stop, h.mark_stopped, ["record", *PANES, *IDLE])
    on(c.left.undo, h.undo_last, ["record", "right", *IDLE])
    on([c.left.clear, c.right.clear], h.clear_all, ["record", *PANES, *IDLE])

    on(c.compare.change, h.show_base, ["right", "blind"])
    on(c.blind.change, h.hide_names, ["record", *PANES, "compare", "ballot"])
    for vote, button in c.votes.items():
        on(button.click, h.cast_vote, ["record", *PANES, "ballot"], vote=vote)

    on(c.adapter.change, h.offer_given, ["given"])
    on([c.adapter.change, c.reset.click], h.introduce, ["title", "persona", "left"])
    on([c.scores.select, c.adapter.change], h.show_scoreboard, ["board"])
    if c.shift:
        on([demo.load, c.adapter.change], panel.show_shift, ["shift"])
    if c.find and c.load:
        on(c.find.click, panel.find_on_hub, ["hub"], ALONE)
        on(c.load.click, panel.load_from_hub, ["adapter"], ALONE)

    for preset, button in c.presets.items():
        on(button.click, h.set_numbers, h.set_numbers(preset), preset=preset)
    for kind, button in c.exports.items():
        made = on(button.click, h.export, ["file"], kind=kind)
        made.then(None, c.file, None, js="(file) => window.saveFile(...file)")


def begin_chat(c: Controls, h: Handlers, at_once: int) -> gr.ChatInterface:
    """Sending, stopping, retrying, undoing and editing as Gradio bundles them; it hands values over by position."""
    controls, openers = c.by_name(), h.persona_of(h.first).openers
    read, changed = ("record", *CHOSEN), ("right", "record", *IDLE)

    def answer(message: str, history: list[Any], request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        named = {"message": message, "history": history, **dict(zip(read, values, strict=True))}
        with closing(h.answer(**arguments(h.answer, named, request))) as stream:  # type: ignore[type-var]
            for updates in stream:
                yield updates["left"], *(updates.get(name, gr.skip()) for name in changed)

    def check_message(message: str, request: gr.Request) -> dict[str, Any]:
        refusal = h.check_message(message, visitor(request))
        return gr.validate(not refusal, refusal)

    with c.ask:
        chat = gr.ChatInterface(
            answer,
            chatbot=c.left,
            textbox=c.message,
            additional_inputs=[controls[name] for name in read],
            additional_outputs=[controls[name] for name in changed],
            examples=[[opener] for opener in openers or (NO_OPENER,)],
            cache_examples=False,
            editable=True,
            flagging_mode="never",
            concurrency_limit=at_once,
            validator=check_message,
            api_visibility="private",
        )
    c.left.examples = [{"text": opener} for opener in openers]
    place_panes(c)
    return chat
