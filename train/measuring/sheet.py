"""What stands on a reading sheet: replies of every arm and written ones, shuffled. It knows no HTML, and no marks.

At least a quarter of the conversations is written: a reader who does not give those nearly full marks, or a rubric
under which they do not get them, is wrong.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from roleplay.errors import DataError
from roleplay.results.board import BASE_WITH_PERSONA, TUNED, WRITTEN
from roleplay.text.languages import language
from roleplay.text.prompts import Turn
from roleplay.text.rows import Row, load_json
from train.measuring.generated import shown_text
from train.measuring.replies import Ask, Done, Writer
from train.measuring.subject import Subject

SEED = 0  # of the order, and of the lot that draws the written conversations
ANSWERED_TO_WRITTEN = 3
LANGUAGES = ("zh", "en")


@dataclass(frozen=True)
class Prompt:
    """What a visitor says, message after message, and in which of `LANGUAGES`."""

    turns: tuple[str, ...]
    language: str


@dataclass(frozen=True)
class Talk:
    """One conversation; a reader sees `id` and `turns`, and of an empty reply that it is empty."""

    turns: tuple[Turn, ...]
    language: str
    arm: str
    adapter: str = ""  # whose replies they are, where the arm is an adapter
    id: str = ""


def load_prompts(path: Path) -> list[Prompt]:
    """The prompts of a sheet.json, [{"turns": [user's messages], "language": "zh" or "en"}]; raises `DataError`."""
    prompts = []
    for number, value in enumerate(load_json(path), 1):
        turns = value.get("turns") if isinstance(value, dict) else None
        if not isinstance(turns, list) or not turns or not all(isinstance(t, str) and t.strip() for t in turns):
            raise DataError(f"{path} prompt {number}: turns is {turns!r:.80}; give it a list of the user's messages")
        if value.get("language") not in LANGUAGES:
            raise DataError(f"{path} prompt {number}: language is {value.get('language')!r:.80}; give it zh or en")
        prompts.append(Prompt(tuple(turns), value["language"]))
    return prompts


def answer(subjects: Sequence[Subject], prompts: Sequence[Prompt], writer: Writer, done: Done) -> list[Talk]:
    """Every prompt answered by the base model with the first subject's persona, and by each subject's adapter.

    Every arm goes on from its own replies, at the page's default sampling and with the same dice.
    """
    arms = [(subjects[0], BASE_WITH_PERSONA), *((subject, TUNED) for subject in subjects)]
    longest = max(len(prompt.turns) for prompt in prompts)
    asks = [
        replace(subject.ask(arm, (), prompt.turns[0], number * longest), later=prompt.turns[1:])
        for subject, arm in arms
        for number, prompt in enumerate(prompts)
    ]
    writer.write(asks, done)
    spoken = [(subject, arm, prompt) for subject, arm in arms for prompt in prompts]
    return [
        Talk(_turns(ask, writer), prompt.language, arm, subject.weights(arm))
        for ask, (subject, arm, prompt) in zip(asks, spoken, strict=True)
    ]


def _turns(ask: Ask, writer: Writer) -> tuple[Turn, ...]:
    """A whole conversation from replies that the writer knows already."""
    return tuple((user, shown_text(reply)) for user, reply in writer.conversation(ask))


def fitting(prompts: Sequence[Prompt], arms: int, written: int) -> list[Prompt]:
    """As many prompts, evenly chosen, as leave one written conversation in four; raises `DataError` where none does."""
    count = min(len(prompts), ANSWERED_TO_WRITTEN * written // arms)
    if not count:
        raise DataError(f"{written} independent held-out rows are too few for a sheet: give more rows with --data")
    return [prompts[number * len(prompts) // count] for number in range(count)]


def pick_written(rows: Sequence[Row], answered: Sequence[Talk]) -> list[Talk]:
    """A third as many written conversations as were answered, drawn from `rows`, in the languages of the answered.

    Where a language has too few rows the other one fills in.
    """
    lot, wanted = random.Random(SEED), Counter(talk.language for talk in answered)
    talks = [Talk(row.turns, "en" if language(row.text) == "en" else "zh", WRITTEN) for row in rows]
    lot.shuffle(talks)
    chosen = list[Talk]()
    for spoken, count in wanted.items():
        chosen += [talk for talk in talks if talk.language == spoken][: -(-count // ANSWERED_TO_WRITTEN)]
    least = -(-len(answered) // ANSWERED_TO_WRITTEN)
    return chosen + [talk for talk in talks if talk not in chosen][: max(0, least - len(chosen))]


def shuffle(talks: Sequence[Talk]) -> list[Talk]:
    """The conversations in the order of the sheet, each with an id that no other sheet has."""
    shuffled = list(talks)
    random.Random(SEED).shuffle(shuffled)
    text = json.dumps([talk.turns for talk in shuffled])
    ids = [hashlib.sha256(f"{number} {text}".encode()).hexdigest()[:8] for number in range(len(shuffled))]
    return [replace(talk, id=own) for talk, own in zip(shuffled, ids, strict=True)]
