"""What the server lets in: the addresses that the page needs and no others, and so many messages a minute."""

from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from page.look import language_of
from page.serving.middleware import Doors, Faults
from page.serving.rate_limit import Rate
from page.words import WORDS


def doors() -> dict[str, Any]:
    """The closed doors, as `launch` takes them: no uploads, no files, no monitoring, no calls by name."""
    return {
        "app_kwargs": {"middleware": [Middleware(Doors), Middleware(Faults)]},
        "enable_monitoring": False,
        "state_session_capacity": 256,  # page loads that the server remembers, at about 0.4 MB each
    }


def too_fast(wait: int, rate: Rate, request: gr.Request) -> str:
    """The sentence for a client that must wait so many seconds, "" for 0."""
    words = WORDS[language_of(request)]
    return words["too_fast"].format(limit=rate.per_minute, seconds=wait) if wait else ""
