"""The errors a user may meet: each is one line that says what failed, with which value, and what to do."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class RoleplayError(Exception):
    """Anything a user can mend; the library raises it, only the edge turns it into a message."""


class DataError(RoleplayError):
    """A data file or one of its rows is not usable; the message carries file, row number and key."""


class ModelError(RoleplayError):
    """A base model cannot be found, loaded or used."""


class AdapterError(RoleplayError):
    """An adapter folder is missing, damaged, or made for something else."""


class HubError(RoleplayError):
    """A hub refused or could not be reached."""


def first_line(error: BaseException) -> str:
    """What a library's error says, in one line of at most 160 characters; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """The edge of every script: a `RoleplayError` ends the program with its one line and status 2."""
    try:
        yield
    except RoleplayError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
