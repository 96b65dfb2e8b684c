"""LoRA adapter folders on this machine: listed, found by name, read. Nothing here knows a hub, and nothing attaches."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from roleplay.errors import AdapterError
from roleplay.text.known import Known
from roleplay.text.meaning import Features, Meaning
from roleplay.text.prompts import PromptEncoder, Turn
from roleplay.text.retrieval import Retriever, encoder_for
from roleplay.text.rows import file_sha256
from roleplay.weights.layout import CONFIG, NAME, WEIGHTS

PROJECTIONS = {  # what an adapter may change, and the block of a layer that it stands in
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), "self_attn"),
    **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), "mlp"),
}


def lora_key(layer: int, projection: str, side: str) -> str:
    """Under which peft keeps a matrix, `side` A or B."""
    return f"base_model.model.model.layers.{layer}.{PROJECTIONS[projection]}.{projection}.lora_{side}.weight"


class LookedUp(NamedTuple):
    """The training turns of which an adapter reads the nearest before it answers, () for none."""

    turns: tuple[Known, ...] = ()
    meaning: Meaning | None = None  # what tells which are near; None: their words do

    @property
    def shown(self) -> int:
        """How many of them may be shown."""
        return sum(not one.hidden for one in self.turns)


NOTHING = LookedUp()


@dataclass(frozen=True)
class Adapter:
    """An inspected adapter folder."""

    name: str
    folder: Path
    rank: int
    scaling: float  # what the product of both matrices is multiplied by
    base_model: str  # as its trainer named it
    base_fingerprint: str  # `base_models.fingerprint` of that model, "" if it was not recorded
    template: str  # a key of `prompts.TEMPLATES`
    persona: str  # the system prompt it was trained with
    training: dict[str, Any]  # training.json, {} if there is none
    revision: str = ""  # of the repository that it was fetched from, "" for a folder of this machine
    looked_up: LookedUp = NOTHING

    @cached_property
    def retriever(self) -> Retriever | None:
        """Over what it looks up, by words; None for an adapter that looks nothing up."""
        return Retriever(self.looked_up.turns) if self.looked_up.turns else None

    @property
    def identity(self) -> dict[str, str]:
        """Its name and the SHA-256 of its weights, as the record of an adapter that goes on from it has them."""
        return {"name": self.name, "sha256": file_sha256(self.folder / WEIGHTS)}

    def without(self, turns: Collection[Turn]) -> "Adapter":
        """The same adapter that cannot look up these."""
        known, meaning = self.looked_up
        kept = [number for number, one in enumerate(known) if one.turn not in turns]
        meaning = meaning and replace(meaning, text_of=meaning.text_of[kept], kind_of=meaning.kind_of[kept])
        return replace(self, looked_up=LookedUp(tuple(known[number] for number in kept), meaning))

    def encoder(
        self, tokenizer: PreTrainedTokenizerBase, reader: Callable[[Meaning], Features] | None = None
    ) -> PromptEncoder:
        """What makes its prompts: in its template, and with what it looks up.

        Rows are looked up by what they mean where there is a `reader`, which gives a message's features, else by their
        words.
        """
        plain, retriever, meaning = PromptEncoder(tokenizer, self.template), self.retriever, self.looked_up.meaning
        if retriever and meaning and reader:
            retriever = retriever.by(meaning.nearness(plain, reader(meaning)))
        return encoder_for(tokenizer, self.template, retriever)


def local_adapters(root: Path) -> list[str]:
    """Names of the adapter folders right under `root`, sorted; they are not inspected yet."""
    return sorted(path.parent.name for path in root.glob(f"*/{CONFIG}") if NAME.fullmatch(path.parent.name))


def newest_first(root: Path) -> list[str]:
    """The same names, the one first whose configuration was written last, as a training does when it ends.

    Of those written at once, as a download may, the last by alphabet is first; a clone writes it last.
    """
    return sorted(local_adapters(root)[::-1], key=lambda name: -(root / name / CONFIG).stat().st_mtime)


def find(root: Path, name: str) -> Path:
    """The folder of a local adapter; raises `AdapterError` for a name that is not listed, and so for any path."""
    names = local_adapters(root)
    if name not in names:
        raise AdapterError(f"no adapter {name!r:.80} in {root}: choose one of {', '.join(names) or 'none there yet'}")
    return root / name


def read_weights(adapter: Adapter) -> dict[str, torch.Tensor]:
    """The adapter's matrices by peft's key, on the CPU: A (rank, in features), B (out features, rank)."""
    return load_file(adapter.folder / WEIGHTS)
