"""Preference optimisation: the chosen reply of a pair becomes likelier, the rejected one less so, against a reference.

DPO (Rafailov et al., "Direct Preference Optimization", 2023) is logistic regression on how much more the model has
gained on the chosen reply than on the rejected one. IPO (Azar et al., "A General Theoretical Paradigm to Understand
Learning from Human Preferences", 2024, equation 17) draws that difference to 1 / (2 beta), so that pairs which all
agree do not drive it without end; it is taken per token, as its authors do. KTO (Ethayarajh et al., "KTO: Model
Alignment as Prospect Theoretic Optimization", 2024) takes replies one by one, liked or not, and weighs each against how
far the model has moved at all: `z`, its mean gain on the replies of other prompts. The reference is the model as it was
before: its log-likelihoods are computed once and kept as two numbers a pair.

Both replies of a pair are parts of one pack, behind what all parts share.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel

from roleplay.errors import DataError
from roleplay.text.pairs import Pair, Thumb
from roleplay.text.prompts import IGNORED, Example, PromptEncoder
from train.learning.loss import ChunkedLoss
from train.learning.packing import collate, common_prefix

LOSSES = ("dpo", "ipo", "kto")
BESIDE = ("labels", "lengths", "reference", "liked", "others")  # what stands in a pack and is not read by the model
CHOSEN, REJECTED = 0, 1  # columns of whatever a pair has two of


@dataclass(frozen=True)
class EncodedPair:
    """Two replies to one prompt as token ids, labelled on the reply alone, and the reference's log-likelihood of each
    in nat."""

    chosen: Example
    rejected: Example
    reference: tuple[float, float] = (0.0, 0.0)

    @property
    def sides(self) -> tuple[Example, Example]:
        return self.chosen, self.rejected


@dataclass(frozen=True)
class EncodedThumb(EncodedPair):
    """A reply, `chosen` whether it was `liked` or not, and in place of a rejected one a reply to another prompt."""

    liked: bool = True


def encode_thumbs(encoder: PromptEncoder, thumbs: Sequence[Thumb], persona: str, limit: int) -> list[EncodedThumb]:
    """Thumbs as token ids, each beside the reply to the nearest prompt before it that is another.

    As `encode_pair`; raises `DataError` also where all are on one prompt.
    """
    found = []
    for number, thumb in enumerate(thumbs):
        before = (thumbs[number - back] for back in range(1, len(thumbs)))
        other = next((one.reply for one in before if (one.turns, one.user) != (thumb.turns, thumb.user)), None)
        if other is None:
            raise DataError(f"{thumb.where}: --loss kto takes replies to two prompts or more; collect more votes")
        pair = Pair(thumb.persona, thumb.turns, thumb.user, thumb.reply, other, thumb.where)
        both = encode_pair(encoder, pair, persona, limit)
        found.append(EncodedThumb(both.chosen, both.rejected, liked=thumb.liked))
    return found


def encode_pair(encoder: PromptEncoder, pair: Pair, persona: str, limit: int) -> EncodedPair:
    """A pair as token ids; oldest turns are left out of both sides until both fit `limit` tokens.

    Its own persona stands before `persona`. Raises `DataError` where the last message alone is too long.
    """
    size, heard = 0, encoder.heard(pair.user, pair.turns)  # as the chat asks it
    for oldest in range(len(heard) + 1):
        chosen, rejected = (
            encoder.example(pair.persona or persona, [*heard[oldest:], (pair.user, reply)], "last", where=pair.where)
            for reply in (pair.chosen, pair.rejected)
        )
        size = max(len(chosen.input_ids), len(rejected.input_ids))
        if size <= limit:
            return EncodedPair(chosen, rejected)
    raise DataError(f"{pair.where}: {size} tokens with the persona, {limit} fit: remove the pair or raise --max-length")


@dataclass(frozen=True)
class Objective:
    """What is minimised: `loss` is one of `LOSSES`; `sft_weight` is the weight of the chosen replies' plain loss."""

    loss: str = "dpo"
    beta: float = 0.1
    sft_weight: float = 0.0

    def per_pair(self, gains: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The loss of every pair, (pairs,).

        `gains` (pairs, 2) are log-likelihoods in nat less those of the reference, `lengths` (pairs, 2) tokens.
        """
        if self.loss == "ipo":
            per_token = gains / lengths
            return (per_token[:, CHOSEN] - per_token[:, REJECTED] - 1 / (2 * self.beta)).square()
        if self.loss == "kto":  # of both replies by themselves, as where the model has not moved at all
            return self.per_thumb(gains, torch.tensor([True, False]), torch.zeros(())).mean(1)
        return -F.logsigmoid(self.margins(gains))

    def per_thumb(self, gains: torch.Tensor, liked: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """KTO's loss of every reply, in the shape of `gains`."""
        return 1 - torch.sigmoid(self.beta * torch.where(liked, 1.0, -1.0) * (gains - z))

    def margins(self, gains: torch.Tensor) -> torch.Tensor:
        """The reward margin of every pair, (pairs,): beta times what the chosen reply gained more."""
        return self.beta * (gains[:, CHOSEN] - gains[:, REJECTED])


def collate_pairs(
    pairs: Sequence[EncodedPair], share_prefix: bool = True, columns: Sequence[int] = (CHOSEN, REJECTED)
) -> dict[str, Any]:
    """As `collate`, of the sides of all pairs one after the other, with `lengths` and `reference`, (pairs, columns)."""
    batch = collate([pair.sides[column] for pair in pairs for column in columns], share_prefix)
    return batch | {"lengths": lengths(pairs)[:, columns], "reference": references(pairs)[:, columns]}


def collate_thumbs(thumbs: Sequence[EncodedThumb], share_prefix: bool = True) -> dict[str, Any]:
    """As `collate_pairs`, of the replies alone, with `liked` (thumbs, 1) and the other prompts' replies in `others`."""
    others = collate_pairs(thumbs, share_prefix, (REJECTED,))
    liked = torch.tensor([[thumb.liked] for thumb in thumbs])
    return collate_pairs(thumbs, share_prefix, (CHOSEN,)) | {"liked": liked, "others": others}


def lengths(pairs: Sequence[EncodedPair]) -> torch.Tensor:
    """Tokens of both replies of every pair, (pairs, 2)."""
    return torch.tensor([[sum(label != IGNORED for label in side.labels) for side in pair.sides] for pair in pairs])


def references(pairs: Sequence[EncodedPair]) -> torch.Tensor:
    """The reference's log-likelihoods, (pairs, 2)."""
    return torch.tensor([pair.reference for pair in pairs])


def log_likelihoods(model: Any, criterion: ChunkedLoss, batch: dict[str, Any]) -> torch.Tensor:
    """The log-likelihood in nat of every reply of a pack, in the shape of its `lengths`."""
    inputs = {key: value for key, value in batch.items() if key not in BESIDE}
    nats = criterion.per_label(model(**inputs).logits.squeeze(0), batch["labels"])  # (labels,)
    replies = nats.split(batch["lengths"].flatten().tolist())
    return -torch.stack([reply.sum() for reply in replies]).view_as(batch["lengths"])


@torch.no_grad()
def score(model: PeftModel, pairs: Sequence[EncodedPair], rows: int, share_prefix: bool = True) -> torch.Tensor:
    """`log_likelihoods` of any number of pairs, (pairs, 2) on the CPU, `rows` of them computed at once."""
    criterion: Any = model.get_base_model().loss_function
    was_training = model.training
    model.eval()
    found = []
    for first in range(0, len(pairs), rows):
        batch = collate_pairs(pairs[first : first + rows], share_prefix)
        there = {key: value.to(model.device) if torch.is_tensor(value) else value for key, value in batch.items()}
        found.append(log_likelihoods(model, criterion, there).cpu())
    model.train(was_training)
    return torch.cat(found)


def with_reference(pairs: Sequence[EncodedPair], likelihoods: torch.Tensor) -> list[EncodedPair]:
    """The pairs with what `score` found as their reference."""
    return [
        replace(pair, reference=(float(chosen), float(rejected)))
        for pair, (chosen, rejected) in zip(pairs, likelihoods, strict=True)
    ]


def as_rows(pairs: Sequence[EncodedPair]) -> list[Example]:
    """Every pair as one row that takes as many tokens as it does in a pack, for an estimate of memory."""
    prefix = common_prefix([side for pair in pairs for side in pair.sides])
    return [
        Example(chosen.input_ids + rejected.input_ids[prefix:], chosen.labels + rejected.labels[prefix:], chosen.where)
        for chosen, rejected in (pair.sides for pair in pairs)
    ]
