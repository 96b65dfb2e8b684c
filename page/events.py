"""What happens when a control is touched: one line an event, with what is touched, what is called and what changes.

What an event reads, the handler's parameters say, so it is not repeated here: each has the name of a control, or of
several that `state` puts together.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from inspect import isgeneratorfunction
from typing import Any

import gradio as gr

from page.adapters_panel import PanelHandlers
from page.chat.choices import NUMBERS
from page.handlers import Handlers
from page.layout import Controls
from page.state import arguments, reads, visitor

PANES = ("left", "right")
SPEAKER = ("speaker", "title", "persona")  # who speaks; the greeting and the openers are in the left pane
IDLE = ("ballot", "saved", "compare", "blind", "message")  # what changes when nothing is being answered any more
SIDES = ("compare", "strength", "other", "other_strength", "given")  # who speaks beside whom, and how
ASKED = ("message", "asked", "record", *PANES, "ballot", "compare", "blind")  # what changes when a message is sent
# Events that do not wait for an answer in progress.
FREE: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "hidden"}
# A download is a disk's and a connection's work: one at a time, and the others wait in the queue.
ALONE: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "hub", "api_visibility": "private"}
STORE = "roleplay-conversation"  # in the tab's own storage: a BrowserState would be shared by all tabs of a browser
# A Space is shown in a frame, where a browser may forbid storage: then these fail, Gradio goes on, and nothing is kept.
WRITE = f"(text) => {{ sessionStorage.setItem('{STORE}', text); }}"
READ = f"() => sessionStorage.getItem('{STORE}')"
# What a visitor did before the tab's conversation is back would be lost: nothing can be touched until then. This runs
# before anything is drawn.
HOLD = f"<script>try {{ document.body.inert = Boolean(sessionStorage.getItem('{STORE}')); }} catch {{}}</script>"
RELEASE = "() => { document.body.inert = false; }"


def wiring(controls: Mapping[str, Any]) -> Callable[..., Any]:
    """The function that makes an event: values go in and updates come out by the names of the controls."""

    def on(touched: Any, handler: Callable[..., Any], changes: Iterable[str], options: Any = FREE, **fixed: str) -> Any:
        """One event; what is `fixed` it says by itself, no control does."""

        def named(updates: Mapping[str, Any]) -> dict[Any, Any]:
            return {controls[name]: update for name, update in updates.items()}

        # Gradio hands in what happened, such as which message was edited, where the browser says so.
        def call(request: gr.Request, event: gr.EventData = None, **values: Any) -> dict[Any, Any]:  # type: ignore
            return named(handler(**arguments(handler, values | fixed | {"event": event}, request)))

        def stream(request: gr.Request, **values: Any) -> Iterator[dict[Any, Any]]:
            with closing(handler(**arguments(handler, values | fixed, request))) as updates:
                yield from map(named, updates)

        run = stream if isgeneratorfunction(handler) else call
        run.__name__ = handler.__name__
        read = {name: controls[name] for name in reads(handler) if name not in fixed}
        listen = partial(gr.on, touched) if isinstance(touched, list) else touched
        return listen(run, inputs_kwargs=read, outputs=[controls[name] for name in changes], **options)

    return on


def connect(demo: gr.Blocks, c: Controls, h: Handlers, panel: PanelHandlers, at_once: int) -> None:
    """Every event of the page; `at_once` answers may run at the same time."""
    on = wiring(c.by_name())
    converse(c, h, on, at_once)

    on([demo.load, c.message.submit], h.show_problem, ["problem"], {**FREE, "queue": False})
    restored = on(demo.load, h.restore, [*PANES, *SPEAKER, "record", *SIDES], {**FREE, "js": READ})
    for ended in (restored.success, restored.failure):
        ended(None, None, None, js=RELEASE)
    c.saved.change(None, c.saved, None, js=WRITE)
    on(c.message.stop, h.mark_stopped, ["record", *PANES, *IDLE])
    on(c.left.undo, h.undo_last, ["record", *PANES, *IDLE])
    on([c.left.clear, c.right.clear], h.clear_all, ["record", *PANES, *IDLE])

    on(c.compare.change, h.show_base, ["right", "blind"])
    on(c.blind.change, h.hide_names, ["record", *PANES, "compare", "ballot"])
    for vote, button in c.votes.items():
        on(button.click, h.cast_vote, ["record", *PANES, "ballot"], vote=vote)

    looked = {
        "js": "(asked, ...rest) => [window.askedWhy(), ...rest]",
        "concurrency_limit": at_once,
        "concurrency_id": "why",
        "trigger_mode": "multiple",  # page.js asks for the next as soon as one is shown
    }
    scored = on(c.ask_why.click, h.why.explain, ["why"], FREE | looked)
    scored.success(None, c.why, None, js="(why) => window.showWhy(...why)")
    scored.failure(None, None, None, js="() => window.showWhy()")

    on(c.adapter.change, h.sides.offer, ["other"])
    spoken = [c.adapter.change, c.strength.change, c.other.change, c.other_strength.change]
    on(spoken, h.sides.show_speakers, [*PANES, "other_strength", "compare", "given"])
    on([c.adapter.input, c.reset.click], h.introduce, [*SPEAKER, "left"])
    on([c.scores.select, c.adapter.change], h.show_scoreboard, ["board"])
    if c.shift:
        on([demo.load, c.adapter.change], panel.show_shift, ["shift"])
    if c.find and c.load:
        on(c.find.click, panel.find_on_hub, ["hub"], ALONE)
        on(c.load.click, panel.load_from_hub, ["adapter", "adopt", *SPEAKER, "left"], ALONE)

    for preset, button in c.presets.items():
        on(button.click, h.set_numbers, h.set_numbers(preset), preset=preset)
    c.choose.click(None, js="() => window.chooseCard()")
    if c.take:
        taken = FREE | {"js": "(card, ...rest) => [window.takeCard(), ...rest]"}
        on(c.take.click, h.cards.load_card, [*SPEAKER, "left", "saved"], taken)
    c.choose_chat.click(None, js="() => window.chooseChat()")
    changed = [*PANES, *SPEAKER, "record", "saved", *SIDES, "adapter", *NUMBERS, "seed"]
    brought = FREE | {"js": "(chat, ...rest) => [window.takeChat(), ...rest]"}
    on(c.take_chat.click, h.shared.load_chat, changed, brought)
    made = [on(button.click, h.export, ["file"], kind=kind) for kind, button in c.exports.items()]
    made.append(on(c.share.click, h.shared.share, ["file"]))
    made += [on(button.click, h.cards.save_card, ["file"], kind=kind) for kind, button in c.saves.items()]
    for event in made:
        event.then(None, c.file, None, js="(file) => window.saveFile(...file)")


def converse(c: Controls, h: Handlers, on: Callable[..., Any], at_once: int) -> None:
    """A message that is sent, chosen, tried again or edited is shown at once, then waits for its answer."""

    def check_message(request: gr.Request, message: str, **others: Any) -> list[dict[str, Any]]:
        refusal = h.check_message(message, visitor(request))
        return [gr.validate(not refusal, refusal), *(gr.validate(True, "") for _ in others)]  # one for every input

    asked = [
        on(c.message.submit, h.send, ASKED, {**FREE, "validator": check_message}),
        on(c.left.example_select, h.ask_opener, ASKED),
        on(c.left.retry, h.ask_again, ASKED),
        on(c.left.edit, h.ask_edited, ASKED),
    ]
    # In the browser the last answer may not have ended when the next one begins, hence "multiple".
    one_queue = {"concurrency_limit": at_once, "concurrency_id": "answer", "trigger_mode": "multiple"}
    answer = {**one_queue, "api_visibility": "private", "show_progress": "minimal"}
    answered = [on(event.success, h.answer, ["record", *PANES, *IDLE], answer) for event in asked]
    for event in answered:  # such as one for which the queue has no place: the message stays, and the page goes on
        on(event.failure, h.mark_stopped, ["record", *PANES, *IDLE])
    c.message.stop(None, None, None, cancels=answered, api_visibility="private")
