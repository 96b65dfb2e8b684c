"""Every text of the interface by language and key: en.json and zh.json, which hold the same keys and placeholders.

What `roleplay` says of votes and figures, it keeps in its own `wording`.
"""

import json
from pathlib import Path

WORDS: dict[str, dict[str, str]] = {
    name: json.loads(Path(__file__).with_name(f"{name}.json").read_text(encoding="utf-8")) for name in ("en", "zh")
}


def language(accept_language: str | None) -> str:
    """ "zh" when the first language of an Accept-Language header is Chinese, else "en"."""
    return "zh" if (accept_language or "").strip().lower().startswith("zh") else "en"
