"""Text files made from Jinja2 templates, which lie beside the modules that fill them. It knows no content."""

from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape


def template(module: str, name: str, filters: Mapping[str, Callable[..., str]]) -> Template:
    """The template `name` beside a module, given as its `__file__`; what goes into a ".html.jinja" is escaped.

    Rendering raises `jinja2.UndefinedError` for a value that was not given.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(module).parent),
        autoescape=select_autoescape(enabled_extensions=("html.jinja",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,  # a line that holds only a tag leaves no line behind
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(filters)
    return environment.get_template(name)
