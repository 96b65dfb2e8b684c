"""Preference rows from blind votes: prompt, chosen and rejected, as DPO reads them.

    python -m dataset.preferences --votes votes --out preferences.jsonl

writes one row for every decisive vote on two answers to the very same prompt.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roleplay.disk import write_text
from roleplay.engine.protocol import ADAPTER, BASE
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from roleplay.results.votes import Box, Vote


@dataclass(frozen=True)
class PreferenceFlags:
    votes: str = flag("votes", "folder of the vote files")
    out: str = flag("preferences.jsonl", "file to write, one JSON row a line")


def preferences(votes: Iterable[Vote]) -> list[dict[str, Any]]:
    """Rows (prompt, chosen, rejected) of decisive votes whose two sides were asked the very same prompt."""
    rows = []
    for vote in votes:
        if vote.winner and vote.prompt_sha256[ADAPTER] == vote.prompt_sha256[BASE]:
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


def main() -> None:
    settings = parse(PreferenceFlags, __doc__)
    rows = preferences(Box(Path(settings.votes)).votes())
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(Path(settings.out), text)
    print(f"{len(rows)} preference rows in {settings.out}")


if __name__ == "__main__":
    with one_line_errors():
        main()
