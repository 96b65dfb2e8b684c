"""Do votes make an adapter better? Two simulated crowds vote blind, `train.prefer` learns, the crowds compare blind.

    python -m benchmarks.crowd --json runs/crowd.json

One crowd has a written taste: it prefers the reply that takes up more of the question's words and ends sooner, and one
time in ten it votes for the other. The second flips coins. Both vote through the page's own functions on the same blind
answers to messages that the adapter was trained on: its own, and its own at another strength. From each crowd's votes
`train.prefer` makes an adapter, which meets the first one, blind again, on held-out messages.

Prints, with 95 % intervals, how often each crowd prefers the adapter that learnt from it, and writes every figure as
JSON. Exits with status 1 unless the crowd with a taste prefers what learnt from it, the gate finds nothing fallen
there, and what learnt from coins is undecided. Adapters and votes lie in a temporary folder and go with it.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.report import write
from page.chat.choices import NUMBERS, Choices
from page.chat.exchanges import PRESETS, Exchange
from page.handlers import Handlers
from page.serving.rate_limit import Rate
from page.serving.start import About, Started
from page.state import Visitor
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER
from roleplay.environment import LOCAL, Environment
from roleplay.errors import DataError, RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.results.tally import Tally, count
from roleplay.results.votes import Box
from roleplay.text import limits
from roleplay.text.copies import units
from roleplay.text.personas import parse_persona
from roleplay.text.rows import Row
from roleplay.weights import base_models, inspection
from roleplay.weights.adapters import Adapter
from roleplay.weights.training_rows import rows_of
from train import prefer
from train.learning.settings import PreferFlags
from train.measuring.gate import BETTER, MARGIN, MUST_NOT_FALL, RIGHT, UNDECIDED, WORSE

TASTE, COINS = "taste", "coins"
LONG = 100  # characters of a reply that weigh as much as all words of the question
# Hot enough that two answers differ; what goes on for longer has lost to the taste anyway.
NATURAL = {name: getattr(PRESETS["natural"], name) for name in NUMBERS} | {"max_new_tokens": 96}


@dataclass(frozen=True)
class Flags:
    json: str = flag("runs/crowd.json", "file that the figures are written to")
    adapter: str = flag(PreferFlags().adapter, "folder of the adapter that is voted on")
    base_model: str = flag("", "as train.prefer takes it")
    dtype: str = flag("", "of the base weights while it learns", ("", "float32", "bfloat16"))
    data: list[str] = flag([], "the adapter's rows, where they are no longer where it was trained")
    votes: int = flag(300, "votes of each crowd; fewer teach less", within=(1, inf))
    comparisons: int = flag(240, "votes that compare; fewer make wider intervals", within=(1, inf))
    mistakes: float = flag(0.1, "share of votes that go against the taste", within=(0, 0.5))
    strength: float = flag(
        0.7, "of the adapter in the other pane while votes are cast; at 0.5 it rambles and loses", within=(0, 1.5)
    )
    visitors: int = flag(8, "who are answered at once; more is quicker and takes more memory", within=(1, 64))
    learning_rate: float = flag(2e-4, "of train.prefer", within=(0, inf))
    epochs: float = flag(2, "of train.prefer", within=(0.01, inf))
    seed: int = flag(0, "of the messages, the dice, the mistakes, the coins and the training", within=(0, inf))


def taste(user: str, reply: str) -> float:
    """The share of the question's words that a reply takes up, less its length; nothing said comes last."""
    asked, said = set(units(user)), set(units(reply))
    return len(asked & said) / max(1, len(asked)) - len(reply) / LONG if reply else -inf


@dataclass(frozen=True)
class Crowd:
    """Who votes: by `judge`, which some of them mistake, or by a coin where there is none."""

    name: str
    judge: Callable[[str, str], float] | None
    mistakes: float
    seed: int

    def vote(self, user: str, left: str, right: str) -> str:
        """What is voted of two texts; the same two the other way round would get the opposite."""
        texts = sorted((left, right))
        lot = random.Random(f"{self.seed} {user} {texts}")
        ranks = [self.judge(user, text) for text in texts] if self.judge else [lot.random() for _ in texts]
        if left == right or ranks[0] == ranks[1]:
            return "tie"
        better = texts[ranks.index(max(ranks))]
        if self.judge and lot.random() < self.mistakes:
            better = texts[1 - texts.index(better)]
        return "left" if better == left else "right"


def crowds(flags: Flags) -> list[Crowd]:
    return [Crowd(TASTE, taste, flags.mistakes, flags.seed), Crowd(COINS, None, 0.0, flags.seed)]


def draw_messages(rows: Sequence[Row], wanted: int, seed: int) -> list[str]:
    """So many different first messages of visitors, or all that there are; raises `DataError` where there is none."""
    different = list(dict.fromkeys(row.turns[0][0] for row in rows if len(row.turns[0][0]) <= limits.MESSAGE))
    if not different:
        raise DataError("the adapter's rows hold no message that a visitor could send: name others with --data")
    return random.Random(seed).sample(different, min(wanted, len(different)))


def vote(flags: Flags, speakers: Sequence[Adapter], choices: Choices, asked: Sequence[str], home: Path) -> None:
    """Every message answered blind by the page, and voted on by each crowd into its own box in `home`."""
    environment = Environment()
    engine = LocalEngine(base_models.load(flags.base_model or environment.base_model, environment.cache))
    for adapter in speakers:
        engine.add(adapter)
    persona = parse_persona(speakers[0].training["persona"], str(speakers[0].folder))
    started = Started(engine, {adapter.name: About(adapter.folder) for adapter in speakers}, persona)
    pages = {crowd: Handlers(started, Box(home / crowd.name), Rate(0)) for crowd in crowds(flags)}
    chosen = replace(choices, blind=True, persona=persona.system_prompt, numbers=NATURAL)

    def answer(number: int) -> Exchange:
        visitor = Visitor("en", LOCAL[0], str(number))
        own = replace(chosen, seed=str(flags.seed + number))
        *_, last = next(iter(pages.values())).answer(asked[number], [], own, visitor)
        (exchange,) = last["record"]
        if not exchange.votable:
            raise RoleplayError(f"{asked[number]!r:.80} was not answered: {exchange.answers[ADAPTER].stop}")
        return exchange

    with ThreadPoolExecutor(flags.visitors) as pool:
        for number, exchange in enumerate(pool.map(answer, range(len(asked)))):
            left, right = (exchange.answers[side].text for side in exchange.order)
            for crowd, page in pages.items():
                choice = crowd.vote(exchange.user, left, right)
                page.cast_vote(choice, [exchange], True, Visitor("en", LOCAL[0], str(number)))


def learn(flags: Flags, crowd: str, home: Path) -> tuple[Adapter, dict[str, Any]]:
    """The adapter that `train.prefer` makes from a crowd's votes, whatever its gate says, and the stage's record."""
    settings = PreferFlags(
        name=f"learnt-from-{crowd}",
        adapter=flags.adapter,
        base_model=flags.base_model,
        dtype=flags.dtype,
        votes=str(home / "votes" / crowd),
        learning_rate=flags.learning_rate,
        epochs=flags.epochs,
        seed=flags.seed,
        keep_anyway=True,
    )
    with patch.object(prefer, "ROOT", home):
        made = inspection.inspect(prefer.prefer(settings))
    base_models.release()
    return made, made.training["preferences"][-1]


def verdict(tally: Tally) -> str:
    """What a crowd finds of the new adapter beside the old one."""
    return {ADAPTER: BETTER, "": UNDECIDED}.get(tally.conclusion, WORSE)


def told(tally: Tally) -> str:
    low, high = tally.interval
    share = f"{tally.adapter} of {tally.decisive}, 95 % interval {low:.0%} to {high:.0%}, {tally.ties} ties"
    return f"{verdict(tally)} ({share})"


def run_arm(flags: Flags, first: Adapter, crowd: str, asked: Sequence[str], home: Path) -> dict[str, Any]:
    """Learn from a crowd's votes, and have both crowds compare what came of it with the first adapter."""
    began = time.monotonic()
    made, stage = learn(flags, crowd, home)
    learnt = time.monotonic()
    place = home / f"compared-{crowd}"
    vote(flags, (made, first), Choices(adapter=made.name, other=first.name), asked, place)
    base_models.release()
    tallies = {judge.name: count(Box(place / judge.name).votes()) for judge in crowds(flags)}
    print(f"learnt from {crowd}: {told(tallies[crowd])}")
    print(*(f"  to the crowd of {name}: {told(tally)}" for name, tally in tallies.items() if name != crowd), sep="\n")
    return {
        "votes": stage["votes"],
        "pairs": stage["pairs"],
        "gate": stage["gate"],
        "seconds": {"learning": round(learnt - began), "comparing": round(time.monotonic() - learnt)},
        "compared": {
            name: asdict(tally) | {"interval": tally.interval, "verdict": verdict(tally)}
            for name, tally in tallies.items()
        },
    }


def broken(arms: dict[str, Any]) -> list[str]:
    """A sentence for each part of the promise that does not hold."""
    own = {name: arm["compared"][name]["verdict"] for name, arm in arms.items()}
    gates = {name: {change["name"]: change["verdict"] for change in arm["gate"]} for name, arm in arms.items()}
    found = []
    if own[TASTE] != BETTER:
        found.append(f"the crowd with a taste finds what learnt from it {own[TASTE]}, not {BETTER}")
    fallen = [name for name in MUST_NOT_FALL if gates[TASTE].get(name) == WORSE]
    found += [f"what learnt from a taste got worse in: {name}" for name in fallen]
    if own[COINS] != UNDECIDED:
        found.append(f"the crowd that flips coins finds what learnt from it {own[COINS]}, not {UNDECIDED}")
    found += [
        f"what learnt from coins is called {gates[COINS][name]} by the gate, not {UNDECIDED}: {name}"
        for name in (MARGIN, RIGHT)
        if gates[COINS][name] != UNDECIDED
    ]
    return found


def run(flags: Flags) -> int:
    """The whole loop; returns the exit status."""
    first, began = inspection.inspect(Path(flags.adapter)), time.monotonic()
    trained, held_out, _ = rows_of(first, flags.data)
    taught = draw_messages(trained, flags.votes, flags.seed)
    others = draw_messages(held_out, flags.comparisons, flags.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        panes = Choices(adapter=first.name, other=first.name, other_strength=flags.strength)
        vote(flags, (first,), panes, taught, home / "votes")
        base_models.release()
        seconds = round(time.monotonic() - began)
        print(f"{len(taught)} votes of each crowd in {seconds} s; {len(others)} messages to compare on")
        arms = {crowd.name: run_arm(flags, first, crowd.name, others, home) for crowd in crowds(flags)}
    faults = broken(arms)
    settings = asdict(flags) | {"adapter": first.name, "data": [Path(path).name for path in flags.data]}
    write({"settings": settings, "seconds voting": seconds, "arms": arms, "broken": faults}, flags.json)
    print(*faults or ["the promise holds: votes made it better, coins did not"], sep="\n")
    return 1 if faults else 0


def main() -> int:
    return run(parse(Flags, __doc__))


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
