"""The errors a user may meet: each is one line that says what failed, with which value, and what to do."""

import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from roleplay.console import close_output, loaded

DEBUG = "--debug"  # every command takes it, see `flags.parse`


class RoleplayError(Exception):
    """Anything a user can mend; the library raises it, only the edge turns it into a message."""

    status = 2  # of the command that it ends


class DataError(RoleplayError):
    """A data file or one of its rows is not usable; the message carries file, row number and key."""


class ModelError(RoleplayError):
    """A base model cannot be found, loaded or used."""


class AdapterError(RoleplayError):
    """An adapter folder is missing, damaged, or made for something else."""


class HubError(RoleplayError):
    """A hub refused or could not be reached."""


class StaleRunError(RoleplayError):
    """An unfinished training cannot go on: what it learns, or how, is no longer what it was."""

    status = 3  # tells it apart for a process that started the command


def first_line(error: BaseException) -> str:
    """What a library's error says, in one line of at most 160 characters; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """The edge of every script: a `RoleplayError`, or a disk or console that fails, ends it with one line and a status.

    With `DEBUG` the traceback stands above that line. Where nobody reads its output any more, as behind `head`, it ends
    without a word and with status 141, as a program that the signal SIGPIPE ends.
    """
    loaded()
    try:
        try:
            yield
        except RoleplayError as error:
            _tell(f"error: {error}")
            sys.exit(error.status)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not (closed := [stream for stream in (sys.stdout, sys.stderr) if _unread(stream)]):
            raise  # a connection of the program's own
        for stream in closed:
            close_output(stream)
        sys.exit(141)
    except OSError as error:
        _tell(f"error: {first_line(error)}; see to the disk, and that files can be read and written")
        close_output(sys.stdout)
        sys.exit(2)


def _tell(line: str) -> None:
    if DEBUG in sys.argv:
        traceback.print_exc()
    print(line, file=sys.stderr)


def _unread(stream: TextIO) -> bool:
    if not hasattr(select, "poll"):  # Windows says of such a pipe that its argument is not valid
        return False
    poll = select.poll()
    poll.register(stream)
    closed = select.POLLERR | select.POLLHUP  # as Linux and as macOS say that a pipe's other end is closed
    return any(flags & closed for _, flags in poll.poll(0))
