"""How far an evaluation is, and at which arm: its work is weighed, for a written reply is no scored text.

It measures nothing, and knows no bar: whoever shows it hands in what to call.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from train.measuring.replies import BATCH, Ask, Done

# Milliseconds on one core in bfloat16, with the embedded model; only their ratios matter.
STEP, ROW = 26.0, 4.0  # a step of a running batch: reading the weights, and every reply in it
READ, LABEL = 0.9, 1.2  # a token that is read, and what one whose likelihood is taken costs more
LONGEST = 2.0  # how much longer the longest reply of a batch is than an average one that ends by itself


@dataclass(frozen=True)
class Work:
    """What one arm has to write or to score: replies or texts, and milliseconds for all of them."""

    items: int = 0
    cost: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.items + other.items, self.cost + other.cost)


def writing(asks: Sequence[Ask], asked: float, tokens: float) -> Work:
    """Replies of about `tokens` each to about `asked` tokens.

    The steps that it takes are those of the longest conversation, or of all of them in turn.
    """
    replies = sum(1 + len(ask.later) for ask in asks)
    longest = max((_longest(ask, tokens) for ask in asks), default=0.0)
    steps = max(longest, replies * tokens / BATCH)
    return Work(replies, STEP * steps + replies * (READ * asked + ROW * tokens))


def _longest(ask: Ask, tokens: float) -> float:
    return min(LONGEST * tokens, ask.sampling.max_new_tokens) + len(ask.later) * tokens


def scoring(texts: int, tokens: float, labels: float) -> Work:
    """Texts of about `tokens` each, its part of what its pack begins with among them, of which `labels` are scored."""
    return Work(texts, texts * (READ * tokens + LABEL * labels))


class Progress:
    """Tells `update` of work done, in milliseconds, and `describe` of the section and the arm that is at it."""

    def __init__(self, update: Done = float, describe: Callable[[str], object] = str) -> None:
        self._update, self._describe = update, describe
        self._title, self._plan, self._scale = "", dict[str, Work](), 1.0

    def begin(self, title: str, plan: Mapping[str, Work]) -> None:
        """A section begins; `plan` has the work of every arm."""
        self._title, self._plan = title, dict(plan)

    def at(self, arm: str) -> None:
        """An arm begins; what no plan tells of counts by the item."""
        self._describe(f"{self._title}, {arm}")
        work = self._plan.get(arm, Work(1, 1.0))
        self._scale = work.cost / work.items

    def done(self, items: float) -> None:
        """So many replies or texts more, or parts of one."""
        self._update(items * self._scale)
