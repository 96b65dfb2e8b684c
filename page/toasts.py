"""What a visitor is told beside the page: Gradio shows it as HTML, so that whatever comes in here is escaped first."""

from html import escape

import gradio as gr


def refusal(sentence: str) -> gr.Error:
    """An error to raise, which says this much; it may name what a stranger or the Hub has written."""
    return gr.Error(escape(sentence), print_exception=False)


def tell(sentence: str) -> None:
    """Say something that is no error."""
    gr.Info(escape(sentence))
