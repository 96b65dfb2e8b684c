"""Rehearsal: at every update the model also keeps to what it would have said untuned, and forgets less.

On a few texts without a persona, its next-token distribution is held to the base model's: the loss is the cross-entropy
from the one to the other, which is least where they agree. The base model's side is computed once, before training, and
kept as one vector a token: cross-entropy with a linear head is log Z(h) - h · E[w], where E[w] is the mean of the
vocabulary's weights under the base model's distribution. Source: Li and Hoiem, "Learning without Forgetting", 2016.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from roleplay.text.prompts import IGNORED, Example, PromptEncoder
from roleplay.text.rows import Row
from train.learning.loss import ChunkedLoss
from train.learning.packing import collate

TEXTS, TOKENS = 600, 48  # at most, and the longest of each
PER_UPDATE = 2  # texts beside the rows of an update


@dataclass(frozen=True)
class Rehearsed:
    """A text and the base model's mean weight (tokens - 1, hidden) for every token that follows another."""

    example: Example
    wanted: torch.Tensor


def prepare(
    model: PeftModel, encoder: PromptEncoder, rows: Sequence[Row], share_prefix: bool = True
) -> list[Rehearsed]:
    """At most `TEXTS` turns of `rows`, evenly chosen, as plain text; `model` has learnt nothing yet."""
    chosen = rows[:: -(-len(rows) // TEXTS)]
    bos = encoder.tokenizer.bos_token_id
    texts = [[bos, *encoder.encode("\n".join(row.turns[0]))[:TOKENS]] for row in chosen]
    examples = [Example(ids, [IGNORED, *ids[1:]], "rehearsal") for ids in texts]
    model.eval()
    found = []
    for first in range(0, len(examples), 16):
        part = examples[first : first + 16]
        wanted = _mean_weights(model, _batch(model, part, share_prefix)).split([len(e.input_ids) - 1 for e in part])
        found += [Rehearsed(example, each) for example, each in zip(part, wanted, strict=True)]
    model.train()
    return found


def of_update(texts: Sequence[Rehearsed], update: int) -> list[Rehearsed]:
    """The texts that are rehearsed at an update; each comes round again once all have been."""
    return [texts[(update * PER_UPDATE + i) % len(texts)] for i in range(min(PER_UPDATE, len(texts)))]


def rehearsal_loss(model: PeftModel, texts: Sequence[Rehearsed], share_prefix: bool = True) -> torch.Tensor:
    """Mean cross-entropy in nat from the base model's distributions to the model's, over the tokens of `texts`."""
    criterion: Any = model.get_base_model().loss_function
    hidden = _hidden(model, _batch(model, [text.example for text in texts], share_prefix))
    return criterion.per_weight(hidden, torch.cat([text.wanted for text in texts])).mean()


def _batch(model: PeftModel, examples: Sequence[Example], share_prefix: bool) -> dict[str, Any]:
    batch = collate(examples, share_prefix)
    return {key: value.to(model.device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def _hidden(model: PeftModel, batch: dict[str, Any]) -> torch.Tensor:
    """Final hidden states (labels, hidden) of a packed batch, which the model hands to its loss."""
    return model(**{key: value for key, value in batch.items() if key != "labels"}).logits.squeeze(0)


def _mean_weights(model: PeftModel, batch: dict[str, Any]) -> torch.Tensor:
    """The mean of the vocabulary's weights under the model's distribution, which is the gradient of log Z."""
    criterion: ChunkedLoss = model.get_base_model().loss_function  # type: ignore[assignment]
    with torch.no_grad():
        hidden = _hidden(model, batch)
    hidden.requires_grad_()
    log_z = criterion.per_weight(hidden, torch.zeros_like(hidden))
    return torch.autograd.grad(log_z.sum(), hidden)[0]
