"""Command-line flags from one typed dataclass: every default is written once, beside a sentence on its effect."""

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

Settings = TypeVar("Settings")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line: all the flags, which argparse would print first, are a screen of their own."""
        self.exit(2, f"error: {message}; see --help\n")


def flag(
    default: Any,
    help: str,
    choices: Sequence[Any] = (),
    positional: bool = False,
    least: float = -math.inf,
    most: float = math.inf,
) -> Any:
    """A dataclass field with its default and the sentence that `--help` shows; lists take several values.

    A `positional` field is given by its place, without a name, and always: its default is for other callers only.
    A number below `least` or above `most` is refused on the command line.
    """
    metadata = {"help": help, "choices": tuple(choices), "positional": positional, "bounds": (least, most)}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _within(kind: Callable[[str], float], least: float, most: float) -> Callable[[str], float]:
    """`kind`, int or float, for argparse: it also refuses what is out of bounds."""

    def number(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:  # so that NaN is refused as well
            wanted = f"{least} to {most}" if most < math.inf else f"{least} or more"
            raise argparse.ArgumentTypeError(f"{text} is out of range: give {wanted}")
        return value

    number.__name__ = getattr(kind, "__name__", "number")  # argparse says "invalid int value"
    return number


def parse(settings: type[Settings], description: str | None, argv: Sequence[str] | None = None) -> Settings:
    """Fill the dataclass from `argv` (the program's own by default); `description` is the script's docstring.

    A field `held_out` is `--held-out`; a bool has a `--no-` form as well; a list takes several values.
    """
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        kind, options = hints[field.name], dict[str, Any]()
        if isinstance(kind, types.UnionType):  # "float | None": the flag takes the first
            kind = typing.get_args(kind)[0]
        if typing.get_origin(kind) is list:
            kind, options["nargs"] = typing.get_args(kind)[0], "+"
        if kind in (int, float):
            kind = _within(kind, *field.metadata["bounds"])
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        help = f"{field.metadata['help']} (default: {default if default not in ('', None, []) else 'none'})"
        name = "--" + field.name.replace("_", "-")
        if field.metadata["positional"]:
            parser.add_argument(field.name, type=kind, help=field.metadata["help"], **options)
        elif kind is bool:
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=help)
        else:
            choices = field.metadata["choices"] or None
            parser.add_argument(name, type=kind, default=default, help=help, choices=choices, **options)
    return settings(**vars(parser.parse_args(argv)))
