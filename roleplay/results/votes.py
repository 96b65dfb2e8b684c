"""Blind votes, kept append-only on disk. Nothing here knows the page or a model, and nothing is counted."""

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock
from huggingface_hub import CommitScheduler, HfApi, snapshot_download

from roleplay.disk import sync_names
from roleplay.engine.protocol import ADAPTER, BASE, Question, Request, Speaker
from roleplay.errors import DataError, HubError, RoleplayError
from roleplay.weights import hub

CHOICES = ("left", "right", "tie", "bad")
# What the base side reads beside the conversation; with examples it has the persona as well.
PERSONA, NOTHING, EXAMPLES = "persona", "nothing", "examples"
LAST_PUSH = 8.0  # seconds: a Space that is stopped has little more
SHA256_SHOWN = 12  # characters of a hash that a person is shown
REMEMBERED = 100_000  # exchanges that were voted on last, at about 0.1 KB each


@dataclass(frozen=True)
class Vote:
    """One vote with everything needed to audit it; `order` is what stood left and right."""

    choice: str  # one of `CHOICES`
    order: Sequence[str]
    questions: Mapping[str, Mapping[str, Any]]  # by side: persona, turns, user
    prompt_sha256: Mapping[str, str]  # by side
    texts: Mapping[str, str]  # by side
    sampling: Mapping[str, float]  # the seed and both lengths among them
    adapter: str
    provenance: Mapping[str, str]  # hashes of base and adapter, template
    time: str
    examples: int = 0  # how many of the base side's first turns were training rows that retrieval found
    exchange: str = ""  # what was voted on, by a name of its own; "" where that was not recorded
    stops: Mapping[str, str] = field(default_factory=dict)  # by side: one of `protocol.ENDS`
    strength: float = 1.0  # of the adapter
    # Who spoke on the base side: adapter, strength and provenance; {} is the base model.
    other: Mapping[str, Any] = field(default_factory=dict)

    @property
    def speakers(self) -> tuple[Speaker, Speaker]:
        """Who spoke on the adapter's side and on the base side."""
        return Speaker(self.adapter, self.strength), Speaker(
            self.other.get("adapter", ""), self.other.get("strength", 1)
        )

    @property
    def weights_sha256(self) -> tuple[str, str]:
        """Of the adapters on both sides in the same order, "" for the base model or where it was not recorded."""
        made = self.provenance, self.other.get("provenance", {})
        return made[0].get("adapter_sha256", ""), made[1].get("adapter_sha256", "")

    @property
    def given(self) -> str:
        """What the base side read beside the conversation; where neither side was told a persona, it lacked none."""
        if self.examples:
            return EXAMPLES
        own, other = (self.questions.get(side, {}).get("persona") for side in (ADAPTER, BASE))
        return NOTHING if own and not other else PERSONA

    @property
    def winner(self) -> str:
        """The side that was preferred, "" for none."""
        return {"left": self.order[0], "right": self.order[1]}.get(self.choice, "")


def prompt_sha256(question: Question) -> str:
    """SHA-256 over persona, turns and message as JSON."""
    return hashlib.sha256(json.dumps(asdict(question), ensure_ascii=False, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Ballot:
    """What is voted on: the request, what each side said, what stood left and right, and what made the adapter."""

    request: Request
    texts: Mapping[str, str]  # by side
    order: Sequence[str]
    provenance: Mapping[str, str]
    examples: int = 0
    exchange: str = ""
    stops: Mapping[str, str] = field(default_factory=dict)  # by side
    other: Mapping[str, str] = field(default_factory=dict)  # the provenance of an adapter on the base side


def cast(choice: str, ballot: Ballot) -> Vote:
    """A vote that is dated now (UTC) and carries its prompts' hashes."""
    request, other = ballot.request, ballot.request.other
    return Vote(
        choice,
        list(ballot.order),
        {side: asdict(question) for side, question in request.questions.items()},
        {side: prompt_sha256(question) for side, question in request.questions.items()},
        dict(ballot.texts),
        asdict(request.sampling),
        request.adapter,
        dict(ballot.provenance),
        datetime.now(UTC).isoformat(timespec="seconds"),
        ballot.examples,
        ballot.exchange,
        dict(ballot.stops),
        request.strength,
        asdict(other) | {"provenance": dict(ballot.other)} if other.adapter else {},
    )


class Box:
    """A folder of JSON Lines files, of which this one writes `name`; several processes may share it.

    In its subfolder `hub` lie copies of what other machines have sent: counted, never written to and never sent.
    """

    def __init__(self, folder: Path, name: str = "votes.jsonl") -> None:
        self.folder, self.path, self.others = folder, folder / name, folder / "hub"
        self._uploads: CommitScheduler | None = None
        self._voted: OrderedDict[str, None] = OrderedDict()  # exchanges, the newest last
        self._lock = threading.Lock()

    @classmethod
    def on_hub(cls, folder: Path, repo: str, public: bool = False) -> "Box":
        """A box whose own file is also pushed to the dataset repository `repo` every five minutes.

        A Space forgets its disk, so earlier votes are fetched first, and this process writes and sends one file under
        a name that nobody else has. Raises `HubError` when the repository cannot be used, or is public and may not be.
        """
        box = cls(folder, f"votes-{uuid4().hex}.jsonl")
        try:
            hub.check_name(repo)
            with hub.sentences(repo):
                HfApi().create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
                private = HfApi().repo_info(repo, repo_type="dataset").private
                if private or public:
                    box._begin_uploads(repo)
        except HubError as error:
            raise HubError(
                f"VOTES_REPO {repo!r:.120} cannot be used ({error}): check HF_TOKEN, the name and the network"
            ) from error
        if not private and not public:
            raise HubError(
                f"VOTES_REPO {repo!r} is public, and votes hold conversations: make it private, or set VOTES_PUBLIC=1"
            )
        return box

    def _begin_uploads(self, repo: str) -> None:
        snapshot_download(repo, repo_type="dataset", local_dir=self.others, allow_patterns="*.jsonl")
        for path in self.others.glob("*.jsonl"):
            path.chmod(0o444)
        self._uploads = CommitScheduler(
            repo_id=repo, repo_type="dataset", folder_path=self.folder, private=True, allow_patterns=self.path.name
        )

    def add(self, vote: Vote) -> bool:
        """Append one vote; when this returns it is on the disk. False for an exchange that has been voted on before.

        Raises `DataError` when it cannot be written, and the exchange may then be voted on again.
        """
        line = json.dumps(asdict(vote), ensure_ascii=False).encode() + b"\n"
        try:
            with self._lock, self._uploads.lock if self._uploads else nullcontext():
                if vote.exchange in self._voted:
                    return False
                self._append(line)
                if vote.exchange:
                    self._voted[vote.exchange] = None
                    while len(self._voted) > REMEMBERED:
                        self._voted.popitem(last=False)
                return True
        except OSError as error:
            raise DataError(f"{self.path}: the vote cannot be written ({error.strerror}); free some space") from error

    def close(self) -> None:
        """Send what waits for the next push to the hub, if votes go to one; gives up after a few seconds."""
        if self._uploads:
            wait([self._uploads.trigger()], LAST_PUSH)

    def _append(self, line: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"), self.path.open("a+b") as file:
            file.seek(0)
            file.truncate(_whole_bytes(file.read()))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        sync_names(self.folder)

    def votes(self) -> list[Vote]:
        """All votes of the folder; raises `DataError` for a whole line that is none."""
        return [vote for path in self._files() for vote in read_votes(path)]

    def readable(self) -> tuple[list[Vote], list[str]]:
        """All votes that can be read, and a sentence for whatever cannot."""
        votes, faults = list[Vote](), list[str]()
        try:
            for path in self._files():
                read, amiss = _parse(path)
                votes, faults = votes + read, faults + amiss
        except OSError as error:
            faults.append(f"{self.folder}: cannot be read ({error.strerror}); mend its permissions")
        return votes, faults

    def _files(self) -> list[Path]:
        """This machine's files, and the others' that are no earlier copies of them."""
        own = sorted(self.folder.glob("*.jsonl"))
        whole = {path.name: path.read_bytes() for path in own}
        theirs = sorted(self.others.glob("*.jsonl"))
        return own + [path for path in theirs if not whole.get(path.name, b"").startswith(path.read_bytes())]


def _whole_bytes(data: bytes) -> int:
    """Length up to the last newline: what follows was never acknowledged."""
    return data.rfind(b"\n") + 1


def read_votes(path: Path) -> list[Vote]:
    """The votes of one file, without a torn last line; raises `DataError` with the number of a line that is none."""
    votes, faults = _parse(path)
    if faults:
        raise DataError(faults[0])
    return votes


def _parse(path: Path) -> tuple[list[Vote], list[str]]:
    """The votes of one file, without a torn last line, and a sentence for each whole line that is none."""
    data, votes, faults = path.read_bytes(), [], []
    for number, line in enumerate(data[: _whole_bytes(data)].split(b"\n")[:-1], 1):
        try:
            votes.append(_vote(json.loads(line)))
        except (ValueError, TypeError, AttributeError, RecursionError, RoleplayError):
            faults.append(f"{path} line {number}: not a vote; move the line to another file")
    return votes, faults


def _vote(value: Any) -> Vote:
    vote = Vote(**value)
    if vote.choice not in CHOICES or sorted(vote.order) != sorted((ADAPTER, BASE)):
        raise ValueError("choice or order is unknown")
    if not all(isinstance(told, str) for told in (*(one.adapter for one in vote.speakers), *vote.weights_sha256)):
        raise ValueError("who spoke is no name or no hash")
    vote.given  # noqa: B018 - raises for questions that are none
    return vote
