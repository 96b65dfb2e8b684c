"""Which of our templates a foreign chat template renders as. It is compared with known ones, and never run.

The ones in known/ render a prompt with the same text as ours; a test renders both. Two templates are the same if they
parse to the same tree, whatever their line ends, quotes and spaces between tags.
"""

from pathlib import Path
from typing import Any

import jinja2
from jinja2 import Environment

from roleplay.adoption.origin import TOKENIZER, Origin
from roleplay.errors import AdapterError
from roleplay.text.prompts import TEMPLATES
from roleplay.weights.layout import MAX_BYTES, TEMPLATE

KNOWN = {  # a file in known/: whose template it is, and the name of ours
    "gemma": ("Gemma's own", "gemma"),
    "gemma3": ("Gemma 3's own", "gemma"),
    "llamafactory": ("LLaMA-Factory's for Gemma", "gemma"),
}
_PARSER = Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers reads templates


def known_text(name: str) -> str:
    """The text of a template in known/."""
    return (Path(__file__).parent / "known" / f"{name}.jinja").read_text(encoding="utf-8")


def recognise(jinja: str) -> tuple[str, str]:
    """The name of our template that renders as this one, and whose it is; two empty texts for one that is not known."""
    if len(jinja) > MAX_BYTES[TEMPLATE]:
        return "", ""
    known = [(text, name, "this project's own") for name, text in TEMPLATES.items()]
    known += [(known_text(file), name, whose) for file, (whose, name) in KNOWN.items()]
    tree = _tree(jinja)
    return next(((name, whose) for text, name, whose in known if _tree(text) == tree), ("", ""))


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
