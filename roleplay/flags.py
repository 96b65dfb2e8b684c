"""Command-line flags from one typed dataclass: every default is written once, beside a sentence on its effect."""

import argparse
import dataclasses
import math
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from roleplay.errors import DEBUG

Settings = TypeVar("Settings")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line: all the flags, which argparse would print first, are a screen of their own."""
        self.exit(2, f"error: {message}; see --help\n")


def flag(
    default: Any,
    help: str,
    choices: Sequence[Any] = (),
    place: str = "",
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Any:
    """A dataclass field with its default and the sentence that `--help` shows; lists take several values.

    A field whose `place` is "first" is always given, by its place and without a name; one that "may be first" also has
    its name. A number that is not `within` its bounds is refused on the command line.
    """
    metadata = {"help": help, "choices": tuple(choices), "place": place, "bounds": within}
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
    hints, arguments = typing.get_type_hints(settings), list(sys.argv[1:] if argv is None else argv)
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
        if field.metadata["place"] == "first":
            parser.add_argument(field.name, type=kind, help=field.metadata["help"], **options)
        elif kind is bool:
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=help)
        else:
            if field.metadata["place"] == "may be first" and arguments and not arguments[0].startswith("-"):
                arguments.insert(0, name)
            choices = field.metadata["choices"] or None
            parser.add_argument(name, type=kind, default=default, help=help, choices=choices, **options)
    parser.add_argument(DEBUG, action="store_true", help="show the traceback above the one line of an error")
    given = vars(parser.parse_args(arguments))
    del given[DEBUG.strip("-")]
    return settings(**given)
