"""Who is computed when: requests join the running batch at its next step and leave when they end.

That is iteration-level scheduling (Yu et al.: Orca, OSDI 2022), first come, first served. There is no thread of its
own: whoever waits for an answer and finds nobody computing computes the next step for all.
"""

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from roleplay.engine.batch import RunningBatch, RunningRow
from roleplay.engine.cache import CachePool
from roleplay.engine.decoder import Decoder
from roleplay.engine.fixed import FixedSteps

AT_ONCE = 32  # rows, where nothing is measured
OF_A_VISITOR = 2  # answers of one visitor that run at the same time
PATIENCE = 0.1  # seconds after which one who waits is asked whether to go on


@dataclass(eq=False)
class _Ticket:
    """Rows that are waited for together; the owner may append to them."""

    rows: list[RunningRow]
    visitor: str
    joined: int = 0  # of the rows, in their order
    seen: int = -1  # the step after which the owner looked last


class Scheduler:
    """One running batch for everyone, of at most `at_once` rows."""

    def __init__(self, decoder: Decoder, pool: CachePool, at_once: int = AT_ONCE) -> None:
        self.at_once = at_once
        self._batch = RunningBatch(decoder, pool)
        self._tickets: list[_Ticket] = []  # first come, first
        self._steps = 0
        self._computing = False  # a step is on: only whoever computes it touches the batch
        self._called = 0  # who wait to be `alone`: they come before the next step
        self._turn = threading.Condition()  # held to read or change what stands above, never during a step

    @property
    def busy(self) -> bool:
        """Whether anybody waits for an answer."""
        return bool(self._tickets)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Between two steps: the decoder and the kept caches are the caller's, after the running step at the latest."""
        with self._turn:
            self._called += 1
            try:
                self._turn.wait_for(lambda: not self._computing)
            finally:
                self._called -= 1
            self._computing = True
        try:
            yield
        finally:
            self._next_turn()

    def take_steps(self, fixed: FixedSteps | None) -> None:
        """Have steps that read no prompt computed by `fixed`."""
        with self.alone():
            self._batch.fixed = fixed

    def forget(self) -> None:
        """Drop the kept caches."""
        with self.alone():
            self._batch.pool.clear()

    def run(self, rows: list[RunningRow], visitor: str = "") -> Generator[int, None, None]:
        """Have `rows` computed until all of them have ended, those appended meanwhile too.

        Yields after every step, and now and then during a long one: the place in line, 0 once a row has joined.
        Closing it ends the rows within a step. A `visitor` that is named has two such calls running at most.
        """
        ticket = _Ticket(rows, visitor)
        with self._turn:
            self._tickets.append(ticket)
        try:
            told = False
            while not told:
                if not all(row.stop for row in rows) and self._may_compute(ticket):
                    self._compute()
                    ticket.seen = self._steps
                whole, count = all(row.stop for row in rows), len(rows)  # before the caller looks, and may append
                yield self._place(ticket)
                told = whole and count == len(rows)
        finally:
            self._end(ticket)

    @property
    def _taken(self) -> bool:
        """Whether the next turn is somebody's. Who has just computed is back before those who wait have woken up."""
        return self._computing or self._called > 0

    def _may_compute(self, ticket: _Ticket) -> bool:
        """Wait for news of a step; where none is on, and none was missed, it is this thread's turn to compute one."""
        with self._turn:
            if self._taken and ticket.seen == self._steps:
                self._turn.wait_for(lambda: ticket.seen != self._steps or not self._taken, PATIENCE)
            news, ticket.seen = ticket.seen not in (-1, self._steps), self._steps
            if news or self._taken:
                return False
            self._computing = True
            return True

    def _compute(self) -> None:
        try:
            self._admit()
            self._batch.step()
        finally:
            self._next_turn()

    def _next_turn(self) -> None:
        with self._turn:
            self._computing = False
            self._steps += 1
            self._let_go()
            self._turn.notify_all()

    def _admit(self) -> None:
        with self._turn:
            for ticket in self._tickets:
                others = [own for own in self._tickets if own.visitor == ticket.visitor and own is not ticket]
                if not ticket.joined and ticket.visitor and sum(o.joined > 0 for o in others) >= OF_A_VISITOR:
                    continue
                for row in ticket.rows[ticket.joined :]:
                    if not row.forked:
                        if self._batch.rows and self._batch.size + len(row.forks) >= self.at_once:
                            return
                        self._batch.join(row)
                    ticket.joined += 1

    def _place(self, ticket: _Ticket) -> int:
        with self._turn:
            before = self._tickets[: self._tickets.index(ticket)]
            return 0 if ticket.joined else 1 + sum(not other.joined for other in before)

    def _end(self, ticket: _Ticket) -> None:
        with self._turn:
            self._tickets.remove(ticket)
            for row in ticket.rows:
                row.given_up = True
            if not self._computing:
                self._let_go()

    def _let_go(self) -> None:
        """The rows that nobody waits for leave; what was computed of them is kept."""
        for row in [row for row in self._batch.rows if row.given_up]:
            self._batch.leave(row)
