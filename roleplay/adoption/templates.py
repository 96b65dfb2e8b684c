"""Which of our templates a foreign chat template renders as. It is compared with known ones, and never run.

Two templates are the same if they parse to the same tree, whatever their line ends, quotes and spaces between tags. Of
other people's only the hash of the tree is kept; those known here were rendered beside ours, and gave the same text.
"""

import hashlib
from typing import Any

import jinja2
from jinja2 import Environment

from roleplay.adoption.origin import TOKENIZER, Origin
from roleplay.errors import AdapterError
from roleplay.text.prompts import TEMPLATES
from roleplay.weights.layout import MAX_BYTES, TEMPLATE

KNOWN = {  # SHA-256 of a template's tree: whose it is, and the name of ours
    "e70a101184b1cc21422304a9b136e9b983240c0b30c761e77d2493efe540ba8c": ("Gemma's own", "gemma"),
    "d9d7a979a1f8da2948aedae45c77d00bb6add0998173fa9e3eeb8b84d9394a62": ("Gemma 3's own", "gemma"),
    "30f52b17b4fd4f7fdeff359bbcbf5ce9128feb04ad602103465598f2cdcee415": ("LLaMA-Factory's for Gemma", "gemma"),
}
_PARSER = Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers reads templates


def recognise(jinja: str) -> tuple[str, str]:
    """The name of our template that renders as this one, and whose it is; two empty texts for one that is not known."""
    if len(jinja) > MAX_BYTES[TEMPLATE]:
        return "", ""
    tree = _tree(jinja)
    if whose := KNOWN.get(hashlib.sha256(tree.encode()).hexdigest()):
        return whose[1], whose[0]
    return next(((name, "this project's own") for name, text in TEMPLATES.items() if _tree(text) == tree), ("", ""))


def _tree(jinja: str) -> str:
    """What a template parses to; parsing runs nothing."""
    text = jinja.replace("\r\n", "\n").rstrip("\n")
    try:
        return repr(_PARSER.parse(text))
    except (jinja2.TemplateError, RecursionError):
        return text


def template_of(origin: Origin, given: str) -> tuple[str, str]:
    """The template that an adapter was trained with and why it is taken for that one: as `given`, else by its files.

    Raises `AdapterError` where nothing tells.
    """
    if given:
        return given, "as --template says"
    jinja, file = _stored(origin)
    name, whose = recognise(jinja)
    if name:
        return name, f"the one in {file} is {whose}"
    told = f"the chat template in {file} is not known and is never run" if jinja else "no chat template is beside it"
    raise AdapterError(
        f"{origin.name}: {told}, so say how it was trained: --template gemma where the system text opened the first "
        "user turn (or there was none), as Gemma's own template, TRL, LLaMA-Factory and Unsloth have it, or "
        "--template tutorial where it had a turn of its own"
    )


def _stored(origin: Origin) -> tuple[str, str]:
    """The chat template beside an adapter and the file that it is in, "" where there is none."""
    if path := origin.file(TEMPLATE):
        return path.read_text(encoding="utf-8", errors="replace"), TEMPLATE
    stored: Any = origin.json(TOKENIZER).get("chat_template")
    if isinstance(stored, list):  # several by name
        named = [entry for entry in stored if isinstance(entry, dict) and entry.get("name") == "default"]
        stored = named[0].get("template") if named else None
    return (stored, TOKENIZER) if isinstance(stored, str) else ("", "")
