"""How the page looks and in which language it speaks: no font, script or style from elsewhere."""

import json
from typing import Any

import gradio as gr

from page.words import WORDS, language
from roleplay.settings import ROOT

I18N = gr.I18n(**WORDS)


def language_of(request: gr.Request) -> str:
    """ "zh" or "en", by what the browser prefers."""
    return language(request.headers.get("accept-language"))


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
