"""How many rows a running batch may hold on this machine. It knows shapes and the clock, no request."""

import time

import psutil

from roleplay.engine.decoder import Decoder, Segment

COUNTS = (8, 16, 32, 64)
STEP_SECONDS = 0.15  # of a step at most: seven tokens a second are as many as people read
MEMORY_SHARE = 0.25  # of what is free at the start, for the caches of rows that fill their context
TOKEN = 2  # any one: only its time counts


def choose(decoder: Decoder, context: int) -> tuple[int, str]:
    """As many rows as memory holds and a step computes in time, and the reason."""
    cache = decoder.new_cache()
    cache.reserve(context)
    room, row = MEMORY_SHARE * psutil.virtual_memory().available, cache.bytes
    chosen, reason = COUNTS[0], ""
    for count in COUNTS:
        if decoder.device.type == "cpu" and count * row > room and count > chosen:
            return chosen, f"{reason}; the caches of {count} could take {count * row / 1e9:.1f} GB"
        seconds = step_seconds(decoder, count)
        if seconds > STEP_SECONDS and count > chosen:
            return chosen, f"{reason}; one of {count} takes {seconds * 1e3:.0f}"
        chosen, reason = count, f"a step takes {seconds * 1e3:.0f} ms"
    return chosen, reason


def step_seconds(decoder: Decoder, count: int, repeats: int = 2) -> float:
    """The quickest of a few steps of so many rows, each with a short past."""
    segments = [Segment([TOKEN], decoder.new_cache()) for _ in range(count)]
    spent = []
    for _ in range(repeats + 1):  # the first one warms up
        started = time.perf_counter()
        decoder.head(decoder.forward(segments)).sum().item()
        spent.append(time.perf_counter() - started)
    return min(spent[1:])
