"""Collect saved chats of the page, character cards, and rows in any common form into one set to learn from.

    python -m dataset.convert sharegpt.jsonl rows.json          # any form of docs/rows.md; the last file is written
    python -m dataset.convert chats/*.json --out rows.json
    python -m dataset.convert chats/*.json --out rows.json --review     # keep, drop or edit every exchange first
    python -m dataset.convert rows.json chats/*.json --out rows.json    # adds to a set that is there
    python -m dataset.convert mara.png rows.json                        # a card's examples; the last file is written

A chat that the page saves ("Keep", "Save as training rows") is one row with all its exchanges. A row that stands in
the set already is dropped with a note, and so is a chat that another one goes on from. In a review the exchanges that
are dropped leave their conversation, and the others stay.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roleplay.disk import check_writable, write_json, write_text
from roleplay.errors import DataError, RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.cards import is_card, rows_of_card
from roleplay.text.prompts import Turn
from roleplay.text.reading.files import LINES
from roleplay.text.reading.forms import FORMS
from roleplay.text.rows import Row, parse_row, read_row_file

KEEP, DROP, EDIT = "k", "d", "e"
ASKED = "[k]eep, [d]rop, [e]dit? "


@dataclass(frozen=True)
class ConvertFlags:
    files: list[str] = flag([], "saved chats, character cards, and rows in any form of docs/rows.md", place="first")
    out: str = flag(
        "", "the JSON or JSON Lines file to write, else the last file; one that exists has to be among the files"
    )
    format: str = flag("", "the form of the rows, where it is recognised wrongly", choices=("", *FORMS))
    review: bool = flag(False, "ask about every exchange in the terminal before it is written")


@dataclass(frozen=True)
class Found:
    """A row as it is written, and where it comes from."""

    value: dict[str, Any]
    where: str

    @property
    def parsed(self) -> Row:
        return parse_row(self.value, self.where)

    @property
    def turns(self) -> tuple[Turn, ...]:
        return self.parsed.turns


def collect(files: Sequence[str], form: str = "") -> list[Found]:
    """The rows of all files, how each was read being printed; raises `DataError` for a row that is not usable."""
    found = []
    for file in files:
        if is_card(file):
            rows = rows_of_card(file)
            print(f"{file}: {len(rows)} rows of its example dialogue; its persona is taken by --persona {file}")
            found += [Found(value, f"{file} dialogue {number}") for number, value in enumerate(rows, 1)]
            continue
        if Path(file).suffix.lower() == ".md":
            raise DataError(f"{file}: a chat is learnt from JSON: save it on the page as training rows")
        read = read_row_file(file, form, file)
        if read.broken:
            raise DataError(read.broken[0])
        print(*(f"{file}: {note}" for note in read.notes), sep="\n")
        found += [Found(value, row.where) for value, row in zip(read.values, read.rows, strict=True)]
    return found


def drop_repeated(found: Sequence[Found]) -> tuple[list[Found], list[str]]:
    """The rows without those that repeat an earlier one or begin another, and a note on each that was dropped."""
    first: dict[tuple, Found] = {}
    longer: dict[tuple[Turn, ...], Found] = {}  # beginnings, by the conversation that goes on from them
    for row in found:
        learns_all = not row.parsed.history_weights  # what one row only shows another may teach
        for length in range(1, len(row.turns)) if learns_all else ():
            longer.setdefault(row.turns[:length], row)
    kept, notes = [], []
    for row in found:
        taught = (row.turns, row.parsed.history_weights)
        if taught in first:
            notes.append(f"{row.where}: the same as {first[taught].where}; dropped")
        elif row.turns in longer and "scene" not in row.value:
            notes.append(f"{row.where}: {longer[row.turns].where} goes on from it; dropped")
        else:
            kept.append(row)
        first.setdefault(taught, row)
    return kept, notes


def review(found: Iterable[Found], ask: Callable[[str], str] = input) -> list[Found]:
    """What is left of the rows after a person was asked about every exchange; `ask` shows a text and returns a line.

    Raises `RoleplayError` where the answers end before the rows do.
    """
    try:
        return [kept for row in found if (kept := _reviewed(row, ask))]
    except (EOFError, KeyboardInterrupt) as error:
        raise RoleplayError("the review was ended before its last exchange: nothing was written") from error


def _reviewed(row: Found, ask: Callable[[str], str]) -> Found | None:
    """A row with the exchanges that are kept, None where there is none."""
    print(f"\n{row.where}")
    kept, unlearnt = [], row.parsed.unlearnt
    for number, (user, reply) in enumerate(row.turns, 1):
        print(f"\n  {user}\n  →  {reply}")
        answer = ""
        while answer not in (KEEP, DROP, EDIT):
            answer = ask(ASKED).strip().lower()[:1] or KEEP
        if answer == EDIT:
            reply = ask("the reply as it should be (empty leaves it): ").strip() or reply
        if answer != DROP:
            kept.append((number, user, reply, int(len(row.turns) + 1 - number not in unlearnt)))
    while kept and not kept[-1][-1]:  # nothing after it is learnt
        kept.pop()
    if not kept:
        return None
    *history, (number, user, reply, _) = kept
    value = dict(row.value) | {"output": reply}
    if number < len(row.turns):  # another exchange is the last now: what only went with the old one goes too
        value = {key: own for key, own in value.items() if key != "context"} | {"instruction": user, "input": ""}
    value["history"] = [[said, replied] for _, said, replied, _ in history]
    if "history_weights" in value:
        value["history_weights"] = [weight for *_, weight in history]
    return Found(value, row.where)


def convert(settings: ConvertFlags) -> list[dict[str, Any]]:
    """Collect, review and write the rows; raises `RoleplayError` for anything a user can mend."""
    files = settings.files if settings.out else settings.files[:-1]
    if not files:
        raise RoleplayError("from where to where? Give files and --out rows.json")
    out = Path(settings.out or settings.files[-1])
    if out.exists() and out.resolve() not in [Path(file).resolve() for file in files]:
        raise RoleplayError(f"{out} exists: choose another --out, or give it among the files to add to it")
    check_writable(out.parent)
    found, notes = drop_repeated(collect(files, settings.format))
    print(*notes, sep="\n", end="\n" if notes else "")
    found = review(found) if settings.review else found
    if not found:
        raise DataError("no exchange is left: nothing was written")
    rows = [row.value for row in found]
    if out.suffix.lower() in LINES:
        write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        write_json(out, rows)
    exchanges = sum(len(row.turns) for row in found)
    print(f"{out}: {len(rows):,} rows with {exchanges:,} exchanges from {len(files):,} files")
    return rows


if __name__ == "__main__":
    with one_line_errors():
        convert(parse(ConvertFlags, __doc__))
