"""Adapters at other strengths than they were trained at: their update multiplied, so that 0 is the base model.

A strength is a voice of its own, so that rows of one batch may speak at different ones and caches are kept apart.
"""

import copy
import threading
from collections import OrderedDict

from roleplay.engine.batch import Voice
from roleplay.engine.decoder import Lora
from roleplay.engine.protocol import BASE

KEPT = 8  # of the strengths that were asked for last


class Strengths:
    """The voices of adapters at the strengths that were asked for last."""

    def __init__(self) -> None:
        self._voices: OrderedDict[tuple[str, float], Voice] = OrderedDict()  # the last used at the end
        self._lock = threading.Lock()

    def voice(self, trained: Voice, strength: float) -> Voice:
        """`trained` at a strength of 1 is itself; at 0 the base model's voice, which is computed without it."""
        if strength in (0, 1) or trained.lora is None:
            return trained if strength else Voice(BASE)
        with self._lock:
            asked = trained.key, strength
            if asked not in self._voices:
                self._voices[asked] = Voice(f"{trained.key} at {strength}", scaled(trained.lora, strength))
            self._voices.move_to_end(asked)
            while len(self._voices) > KEPT:
                self._voices.popitem(last=False)
            return self._voices[asked]

    def forget(self, trained: Voice) -> None:
        """Let go of an adapter, whose matrices its strengths share."""
        with self._lock:
            for asked in [asked for asked in self._voices if asked[0] == trained.key]:
                del self._voices[asked]


def scaled(lora: Lora, strength: float) -> Lora:
    """The same adapter with its update multiplied; the matrices are shared."""
    other = copy.copy(lora)
    other.strength = lora.strength * strength
    return other
