"""How the page looks and in which language it speaks: no font, script or style from elsewhere."""

import json
import string
from html import escape
from typing import Any

import gradio as gr

from page.words import WORDS
from roleplay.environment import ROOT

I18N = gr.I18n(**WORDS)
_ENTITIES = {ord(sign): f"&#{ord(sign)};" for sign in string.punctuation}


def heading(name: str) -> str:
    """Who speaks, as HTML: a seal with the first character, and the name."""
    return f'<h1><span class="seal" aria-hidden="true">{escape(name[:1])}</span>{escape(name)}</h1>'


def as_said(text: str) -> str:
    """`text` as Markdown that shows it as it is: a persona may be a stranger's, and must load nothing."""
    return text.translate(_ENTITIES)


def look() -> dict[str, Any]:
    """The page's appearance, as `launch` takes it."""
    script = (ROOT / "assets" / "page.js").read_text(encoding="utf-8")
    return {
        "theme": gr.themes.Base(font=["system-ui", "Noto Sans CJK SC", "PingFang SC", "sans-serif"]),
        "css_paths": ROOT / "assets" / "page.css",
        "js": f"() => ({script})({json.dumps(WORDS)})",
        "i18n": I18N,
        "footer_links": [],
    }
