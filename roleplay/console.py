"""The console: what it cannot encode is escaped, and Ctrl-C ends in one line. `roleplay` begins with it."""

import contextlib
import io
import os
import signal
import sys
from types import FrameType, TracebackType
from typing import TextIO


def escape_what_cannot_be_encoded() -> None:
    """A redirect on Windows has a narrow encoding: a sign outside of it is written as its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def end_on_interrupt() -> None:
    """Ctrl-C ends the program with one line and status 130, and at once while a command loads its modules.

    Then there is nothing to clean up, and a library may swallow an exception in the middle of its import.
    """
    sys.excepthook = _told
    if os.path.basename(sys.argv[0]) in ("-m", "app.py"):  # python says -m until the command's own module runs
        signal.signal(signal.SIGINT, _stop)


def loaded() -> None:
    """From here on Ctrl-C is an exception, so that what was begun is cleaned up."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")
    os._exit(130)


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
        sys.exit(130)  # in this hook it sets the status
    sys.__excepthook__(kind, error, trace)


def close_output(stream: TextIO) -> None:
    """Drop what a stream could not take, so that the flush at the end of the program does not fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
