"""Preference rows from blind votes: prompt, chosen and rejected, as DPO reads them.

    python -m dataset.preferences --votes votes --out preferences.jsonl

writes one row for every decisive vote on two answers to the very same prompt, unless one is empty or the preferred one
was cut, and says what `train.prefer` leaves out of them.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roleplay.disk import write_text
from roleplay.engine.protocol import ADAPTER, BASE
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from roleplay.results.intervals import wilson
from roleplay.results.tally import count
from roleplay.results.votes import Box, Vote
from roleplay.text.pairs import Pair, Thumb, parse_pair

ALIKE, AGAIN = "both replies are the same", "the same preference again"
OPPOSED = "others prefer the other reply to the same prompt, as many or more"


@dataclass(frozen=True)
class PreferenceFlags:
    votes: str = flag("votes", "folder of the vote files")
    out: str = flag("preferences.jsonl", "file to write, one JSON row a line")


def preferences(votes: Iterable[Vote]) -> list[dict[str, Any]]:
    """Rows (prompt, chosen, rejected) of decisive votes whose two sides were asked the very same prompt.

    Without those that cannot be learnt from: one side said nothing, or the preferred one was cut, which would teach to
    end there.
    """
    rows = []
    for vote in votes:
        whole = all(text.strip() for text in vote.texts.values()) and vote.stops.get(vote.winner, "end") == "end"
        if vote.winner and whole and vote.prompt_sha256[ADAPTER] == vote.prompt_sha256[BASE]:
            loser = BASE if vote.winner == ADAPTER else ADAPTER
            asked = vote.questions[ADAPTER]
            prompt = [{"role": "system", "content": asked["persona"]}] if asked["persona"] else []
            for user, reply in asked["turns"]:
                prompt += [{"role": "user", "content": user}, {"role": "assistant", "content": reply}]
            prompt.append({"role": "user", "content": asked["user"]})
            chosen, rejected = vote.texts[vote.winner], vote.texts[loser]
            rows.append(
                {
                    "prompt": prompt,
                    "chosen": [{"role": "assistant", "content": chosen}],
                    "rejected": [{"role": "assistant", "content": rejected}],
                }
            )
    return rows


def vote_pairs(votes: Iterable[Vote]) -> list[Pair]:
    """The same as pairs."""
    return [parse_pair(row, f"votes row {number}") for number, row in enumerate(preferences(votes), 1)]


def vote_thumbs(votes: Iterable[Vote]) -> list[Thumb]:
    """Replies by themselves, from the votes that make no pair.

    A tie likes both, "both bad" neither; where both sides were asked differently, one is liked and one is not. A reply
    that was cut is not liked, which would teach to end there.
    """
    thumbs = []
    for number, vote in enumerate(votes, 1):
        for side, text in vote.texts.items() if not preferences([vote]) else ():
            liked, asked = vote.choice == "tie" or vote.winner == side, vote.questions[side]
            if text.strip() and (not liked or vote.stops.get(side, "end") == "end"):
                turns = tuple((user, reply) for user, reply in asked["turns"])
                where = f"vote {number}, {side}"
                thumbs.append(Thumb(asked["persona"], turns, asked["user"], text.strip(), liked, where))
    return thumbs


def kinds(votes: Sequence[Vote]) -> dict[str, int]:
    """How many votes there are of which kind, and how many of them make a pair."""
    tally = count(votes)
    sides = {"for the adapter": tally.adapter, "for the other side": tally.base}
    return {**sides, "ties": tally.ties, "both bad": tally.bad, "pairs": len(preferences(votes))}


def review(pairs: Sequence[Pair]) -> tuple[list[Pair], dict[str, list[Pair]]]:
    """The pairs that say something, each preference once, and those left out, by the reason why.

    Where the same two replies to a prompt were preferred both ways, the more frequent way counts, and neither where
    they are as many.
    """
    sides, kept, left_out = Counter(map(_preference, pairs)), dict[tuple[str, ...], Pair](), dict[str, list[Pair]]()
    for pair in pairs:
        asked, chosen, rejected = key = _preference(pair)
        if chosen == rejected:
            left_out.setdefault(ALIKE, []).append(pair)
        elif sides[asked, rejected, chosen] >= sides[key]:
            left_out.setdefault(OPPOSED, []).append(pair)
        elif key in kept:
            left_out.setdefault(AGAIN, []).append(pair)
        else:
            kept[key] = pair
    return list(kept.values()), left_out


def _preference(pair: Pair) -> tuple[str, str, str]:
    return repr((pair.persona, pair.turns, pair.user)), pair.chosen, pair.rejected


def sentences(left_out: Mapping[str, Sequence[Pair]], pairs: int) -> list[str]:
    """What `review` left out of so many pairs, a sentence for each reason."""
    return [f"{len(out):,} of {pairs:,} pairs left out: {why}" for why, out in left_out.items()]


def one_sided(pairs: Sequence[Pair], votes: Sequence[Vote] = ()) -> list[str]:
    """A sentence for each way in which the preferences may follow something other than the words."""
    found, tally = list[str](), count(votes)
    if not tally.sides_even:
        found.append(
            f"the left pane won {tally.left} votes and the right one {tally.right}: votes may follow the place"
        )
    longer = sum(len(pair.chosen) > len(pair.rejected) for pair in pairs)
    uneven = sum(len(pair.chosen) != len(pair.rejected) for pair in pairs)
    low, high = wilson(longer, uneven)
    if low > 0.5 or high < 0.5:
        which, number = ("longer", longer) if low > 0.5 else ("shorter", uneven - longer)
        found.append(f"the {which} reply is chosen in {number} of {uneven} pairs: it may be length that is learnt")
    if 0 in (tally.adapter, tally.base) and wilson(tally.decisive, tally.decisive)[0] > 0.5:
        found.append(f"all {tally.decisive} decisive votes are for the same side: they tell no more than which it is")
    return found


def main() -> None:
    settings = parse(PreferenceFlags, __doc__)
    votes = Box(Path(settings.votes)).votes()
    rows, (kept, left_out) = preferences(votes), review(vote_pairs(votes))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(Path(settings.out), text)
    print(
        f"{len(rows)} preference rows in {settings.out}",
        *sentences(left_out, len(rows)),
        *one_sided(kept, votes),
        sep="\n",
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
