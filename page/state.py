"""What the controls say, by name: what an event has to read for a handler, and the arguments that become of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any

import gradio as gr

from page.chat.choices import NUMBERS, Choices
from page.words import language

CHOSEN = (*(field.name for field in fields(Choices) if field.name != "numbers"), *NUMBERS)  # what makes up `Choices`


@dataclass(frozen=True)
class Visitor:
    """Who asks: the browser's language, the address that the limit of messages counts by, and which page it is."""

    language: str
    address: str
    session: str = ""


def visitor(request: gr.Request) -> Visitor:
    """Whoever sent this request."""
    return Visitor(language(request.headers.get("accept-language")), request.client.host, request.session_hash or "")


def choices(values: Mapping[str, Any]) -> Choices:
    """What was chosen, out of the values of the controls in `CHOSEN`."""
    named = {**values, "numbers": {name: values[name] for name in NUMBERS}}
    named |= {name: values[name] or "" for name in ("adapter", "other")}  # a menu without an entry says None
    return Choices(**{field.name: named[field.name] for field in fields(Choices)})


def reads(handler: Callable[..., Any]) -> list[str]:
    """The controls that a handler reads: its parameters say so, `choices` for several, others for none."""
    several = {"choices": CHOSEN, "visitor": (), "event": ()}
    names = [control for name in signature(handler).parameters for control in several.get(name, (name,))]
    return list(dict.fromkeys(names))


def arguments(handler: Callable[..., Any], values: Mapping[str, Any], request: gr.Request) -> dict[str, Any]:
    """The handler's arguments, out of the values of the controls that it reads."""
    made = {"choices": lambda: choices(values), "visitor": lambda: visitor(request)}
    return {name: made[name]() if name in made else values[name] for name in signature(handler).parameters}
