"""A considered answer: of several replies, drawn beside one another, the one that ranks first.

The rank is how likely a reply is, in nat a token, and `GAIN` times how much of that it owes to the question: the
likelihood with the question less the one without it (the mutual information of Li et al., A Diversity-Promoting
Objective Function for Neural Conversation Models, 2016). One that says an earlier reply again, word for word, ranks
behind all others that say something. With one candidate nothing is weighed.
"""

from dataclasses import replace
from functools import cached_property

from roleplay.engine.batch import Asked, RunningRow, Voice
from roleplay.engine.likelihood import ScoredRow
from roleplay.engine.protocol import ENDS, Answer, Question, Sampling
from roleplay.text.prompts import PromptEncoder

GAIN = 0.7
SEEDS = 2**32


def seed_of(sampling: Sampling, candidate: int) -> int:
    """The seed that a candidate is drawn with."""
    return (sampling.seed + candidate) % SEEDS


class Weighing:
    """One side's answer as it comes: `rows` are its candidates, `best` is the one to show once that is known.

    The candidates have the seed of `sampling` and those after it, so both sides of a comparison have the same dice.
    """

    def __init__(self, encoder: PromptEncoder, question: Question, room: int, voice: Voice, sampling: Sampling) -> None:
        asked = Asked(encoder, question, room, voice)
        own = [replace(sampling, seed=seed_of(sampling, number)) for number in range(sampling.candidates)]
        self.rows = [RunningRow(asked, one) for one in own]
        first, *others = self.rows
        first.forks = others
        for row in self.rows:
            row.weighed = bool(others)
        for row in others:
            row.forked, row.kept = True, False
        self.best = None if others else first
        self._question, self._room = question, room
        self._said = {reply.strip() for _, reply in question.turns}
        self._scored: dict[RunningRow, ScoredRow] = {}

    @cached_property
    def _without(self) -> Asked:
        """What was asked, less the question itself; what is looked up for it stays."""
        asked, question = self.rows[0].asked, self._question
        before = tuple(asked.encoder.before(question.user, question.turns))
        return Asked(asked.encoder, replace(question, turns=before, user=""), self._room, asked.voice)

    def follow(self) -> list[RunningRow]:
        """What has to be computed next, now that some rows have ended; `best` is known once there is no more."""
        new: list[RunningRow] = []
        for row in self.rows:
            if self.best is None and row.stop in ENDS and row not in self._scored:
                twin = next((other for other in self._scored if other.drawn == row.drawn), None)
                self._scored[row] = self._scored[twin] if twin else ScoredRow(self._without, row.sampling, row.drawn)
                new += [] if twin else [self._scored[row]]
        if all(row.stop for row in (*self.rows, *self._scored.values())):
            self.best = self.best or self.ranked[0]
        return new

    @property
    def ranked(self) -> list[RunningRow]:
        """The candidates as they rank once all have ended, the best first."""
        return sorted(self.rows, key=self._rank, reverse=True)

    @property
    def share(self) -> float:
        """How much of the longest answer that it may be is there."""
        return sum(len(row.reply) / row.sampling.max_new_tokens for row in self.rows) / len(self.rows)

    def _rank(self, row: RunningRow) -> tuple[bool, bool, bool, float]:
        """One that was not scored comes last, before it an empty one, and before that what was said word for word."""
        scored = self._scored.get(row)
        if not scored or scored.stop not in ENDS:
            return False, False, False, 0.0
        likelihood, without = (sum(nats) / len(nats) for nats in (row.nats, scored.nats))
        new = row.stream.text.strip() not in self._said
        return True, bool(row.reply), new, likelihood + GAIN * (likelihood - without)

    def answer(self, place: int = 0) -> Answer:
        """What is to be shown of it just now: nothing while several are weighed."""
        row = self.best or self.rows[0]
        first, seconds = row.seconds_to_first_token, row.seconds
        _, dropped, shown = row.asked.fitted
        if len(self.rows) > 1:
            if not self.best:
                return Answer(dropped_turns=dropped, shown_rows=shown, weighing=len(self.rows), place=place)
            first = seconds = max(own.seconds for own in (*self.rows, *self._scored.values()))
        said, chosen = row.stream.text, self.rows.index(row)
        return Answer(said, len(row.reply), first, seconds, row.stop, dropped, shown, 0, place, chosen)
