"""What the text says of one speech's speaker, in a form that the turns of a conversation can be weighed with."""

from dataclasses import dataclass


@dataclass
class Hint:
    """Evidence on one speaker; weights are natural log-odds."""

    name: str = ""  # whom narration names
    weight: float = 0.0  # how much for `name`
    gender: str = ""  # m or f where a pronoun or noun tells it
    cue: str = ""  # the words of the narration that say so
    same: float = 0.0  # how much for the speaker before
    others: float = 0.0  # how much against the narrator, where a pronoun excludes "I"
    addressed: tuple[str, ...] = ()  # who is spoken to by name
    mentioned: tuple[str, ...] = ()  # who is spoken of
    present: tuple[str, ...] = ()  # whom the narration before names
    fresh: float = 0.0  # how much narration parts it from the speech before: 0 none, 1 a paragraph, 2 a scene
    new_turn: bool = True  # whether it opens a paragraph
    self_named: str = ""  # "my name is X"
    listener: str = ""  # m or f: sir, madam
