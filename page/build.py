"""The whole page: what stands on it, what its events do, and how it is launched."""

from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio import queueing, routes, state_holder
from starlette.middleware import Middleware

from page import events, layout
from page.adapters_panel import PanelHandlers
from page.handlers import Handlers
from page.look import look
from page.serving.logins import Logins
from page.serving.middleware import Doors, Faults, log_fault
from page.serving.rate_limit import Rate
from page.serving.start import Started
from page.unfetched import BoundedQueue
from roleplay.results.votes import Box

QUEUE_SIZE = 16  # requests that wait at most; the next one is turned away with a sentence

for part in (queueing, routes):  # Gradio prints tracebacks, which hold what a stranger has sent
    part.traceback = SimpleNamespace(print_exc=log_fault)  # type: ignore[attr-defined]
# Of every session it would keep the last value of each control, of any size, for links that this page does not make.
state_holder.SessionState._update_value_in_config = lambda *_: None  # type: ignore[method-assign]
queueing.Queue = BoundedQueue  # type: ignore[misc]
queueing.print = lambda said: log_fault()  # type: ignore[attr-defined]  # its only use is on what a validator refuses


def build(started: Started, box: Box, per_minute: int = 0) -> gr.Blocks:
    """The page for what has been started, with its votes in `box`; a client may send `per_minute` messages."""
    rate = Rate(per_minute)
    handlers = Handlers(started, box, rate)
    panel = PanelHandlers(handlers.sides, started.guests, rate, started.adopts_for)
    with gr.Blocks(
        title=handlers.sides.persona_of(handlers.first).name, fill_height=True, fill_width=True, analytics_enabled=False
    ) as demo:
        controls = layout.draw(handlers.sides, started)
        events.connect(demo, controls, handlers, panel, started.at_once)
    demo.space_id = None  # at a Space's own address, Gradio asks huggingface.co and Google's fonts for a bar with it
    demo.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1, api_open=False)
    return demo


def launch_options() -> dict[str, Any]:
    """The look and the closed doors, as `launch` takes them: no uploads, files or monitoring, no calls by name."""
    return {
        **look(),
        "head": events.HOLD,
        "app_kwargs": {"middleware": [Middleware(Doors), Middleware(Logins), Middleware(Faults)]},
        "enable_monitoring": False,
        "ssr_mode": False,  # Spaces would put a Node server before this one
        "state_session_capacity": 256,  # page loads that the server remembers, at about 0.4 MB each
    }
