"""What a visitor has chosen for the next answer, by name. It knows no control and no engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from roleplay.engine.protocol import Sampling
from roleplay.results.votes import EXAMPLES, NOTHING, PERSONA
from roleplay.text.personas import Persona

GIVEN = (PERSONA, NOTHING, EXAMPLES)
NUMBERS = tuple(field.name for field in fields(Sampling) if field.name != "seed")
LENGTHS = ("max_new_tokens", "base_max_new_tokens")  # of these the numbers that say how long an answer may be


@dataclass(frozen=True)
class Choices:
    """As they were made: what is out of range is left for `Sampling` to refuse."""

    compare: bool = True
    blind: bool = False
    speaker: Persona | None = None  # whose name, greeting and openers the page shows
    persona: str = ""  # the system prompt
    given: str = PERSONA  # to the other side, one of `GIVEN`
    adapter: str = ""  # "" where only the base model speaks
    strength: float = 1.0  # of that adapter
    other: str = ""  # the adapter in the other pane; "" is the base model
    other_strength: float = 1.0
    seed: str = ""  # as it was typed; "" draws a fresh one
    numbers: Mapping[str, float] = field(default_factory=dict)  # the fields of `Sampling` that `NUMBERS` names
