"""A conversation as a file that restores it: its words, who spoke at which strength, every setting, and hashes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from page.chat.choices import NUMBERS, Choices
from page.chat.exchanges import MAX_SEED, Exchange, speakers
from page.chat.saved import MAX_NAME, MISPLACED, Kept, from_value, kept_now
from page.words import WORDS
from roleplay.engine.protocol import Sampling
from roleplay.errors import DataError

Hashes = Mapping[str, Mapping[str, str]]  # by adapter, its provenance
# Of a provenance, what has to be the same; older files say nothing of the last two.
CHECKED = ("adapter_sha256", "base_fingerprint", "examples_sha256", "meaning_sha256")


@dataclass(frozen=True)
class Shared:
    """What a file restores: the conversation with its settings, which adapter spoke, and what to say of it."""

    kept: Kept
    adapter: str
    numbers: Mapping[str, float]
    seed: str
    notes: Sequence[str]


def to_file(record: Sequence[Exchange], choices: Choices, hashes: Hashes) -> str:
    """The whole conversation with the settings as they are and the hashes of every adapter in it."""
    names = {name for e in record for name in (e.adapter, e.other.adapter)} | {choices.adapter, choices.other}
    kept = asdict(kept_now(record, choices))
    value = {
        "kept": kept,
        "adapter": choices.adapter,
        "numbers": dict(choices.numbers),
        "seed": choices.seed or "",
        "hashes": {name: {key: hashes.get(name, {}).get(key, "") for key in CHECKED} for name in sorted(names - {""})},
        "words_sha256": words_sha256(kept["record"]),
    }
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def from_file(text: str, hashes: Hashes, language: str) -> Shared:
    """The inverse of `to_file`; its notes say where words or weights are not what they were. Raises `DataError`."""
    words = WORDS[language]
    try:
        value = json.loads(text)
        kept, said = from_value(value["kept"]), value["kept"]["record"]
        numbers = {name: value["numbers"][name] for name in NUMBERS}
        Sampling(**numbers)
        told = [
            (str(name)[:MAX_NAME], {key: str(own[key]) for key in CHECKED if key in own})
            for name, own in value["hashes"].items()
        ]
        adapter, seed = str(value["adapter"]), str(value["seed"])[:MAX_SEED]
        same_words = value["words_sha256"] == words_sha256(said)
    except MISPLACED as error:
        raise DataError(words["share_unreadable"]) from error
    notes = [] if same_words else [words["share_changed"]]
    if left_out := len(said) - len(kept.record):
        notes.append(words["share_cut"].format(count=left_out))
    # An answer may be older than the weights that its adapter had when the file was saved.
    told += [
        (speakers(e).speaker(side).adapter, {"adapter_sha256": sha256})
        for e in kept.record
        for side, sha256 in e.weights_sha256.items()
    ]
    for name, own in told:
        if name not in hashes:
            notes.append(words["share_missing"].format(name=name))
        elif any(sha256 != hashes[name].get(key, "") for key, sha256 in own.items()):
            notes.append(words["share_other"].format(name=name))
    return Shared(kept, adapter if adapter in hashes else "", numbers, seed, list(dict.fromkeys(notes)))


def words_sha256(record: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 over what was said, by whom, in exchanges as they stand in a file."""
    said = [[e["user"], {side: answer["text"] for side, answer in sorted(e["answers"].items())}] for e in record]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
