"""A pane of the comparison: Gradio's chatbot, kept to plain text. It knows no engine and no conversation."""

from typing import Any

import gradio as gr
from gradio import component_meta
from gradio.components.chatbot import ChatbotDataMessages

from page.chat import shown
from page.chat.exchanges import MAX_EXCHANGES, MAX_TEXT

component_meta.create_or_modify_pyi = lambda *_: (
    None
)  # else the class below gets a plain_chatbot.pyi, which mypy would read


class PlainChatbot(gr.Chatbot):
    """A chatbot whose messages are text and nothing else: markup in them is shown, neither rendered nor run."""

    is_template = True  # Gradio then serves the parent's front end

    def postprocess(self, value: Any) -> ChatbotDataMessages:
        data = super().postprocess(value)
        for part in (part for message in data.root for part in message.content):
            part.text = shown.defuse(part.text)  # type: ignore[union-attr]  # there are no files
        return data

    def preprocess(self, payload: ChatbotDataMessages | None) -> Any:
        messages, room = payload.root[: 2 * MAX_EXCHANGES + 2] if payload else [], MAX_TEXT
        for message in messages:  # what a browser hands in is cut to what this page would have shown
            message.content, message.metadata, message.options = message.content[:2], None, None
            for part in message.content:
                part.text = shown.restore(part.text[:room])  # type: ignore[union-attr]  # there are no files
                room -= len(part.text)  # type: ignore[union-attr]
        if payload:
            payload.root = messages
        return super().preprocess(payload)


def pane(**options: Any) -> PlainChatbot:
    """One side of the comparison; `options` are those of `gr.Chatbot`."""
    return PlainChatbot(
        autoscroll=False, render_markdown=False, latex_delimiters=[], allow_tags=False, buttons=["copy"], **options
    )
