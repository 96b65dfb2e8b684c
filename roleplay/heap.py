"""The heap of glibc: have it give back what is free, which it would keep in holes. Elsewhere nothing."""

import ctypes
import sys

CACHES = 4 << 20  # bytes of a large block where caches come and go: the embedded model's smallest is larger
ACTIVATIONS = 2 << 20  # and in training; smaller blocks cost more time than the memory is worth
_M_MMAP_THRESHOLD = -3  # of malloc.h


def _call(name: str, *numbers: int) -> None:
    """Call a function of the C library, where it has it: macOS and Windows do not, nor does Alpine Linux."""
    if sys.platform == "linux" and (function := getattr(ctypes.CDLL(None), name, None)):
        function(*numbers)


def return_blocks(size: int) -> None:
    """From now on, a block of `size` bytes or more goes back to the system when it is freed.

    glibc would raise its threshold to the size of what was freed last, and keep blocks of all lengths on the heap,
    where they leave holes among shorter-lived ones: half a gigabyte of caches came to hold three times as much.
    """
    _call("mallopt", _M_MMAP_THRESHOLD, size)


def trim() -> None:
    """Give all free memory back now.

    Tensors of one length fit badly into the holes that those of another left, in a pack of rows as in an answer.
    """
    _call("malloc_trim", 0)
