"""Rehearsal: at every update the model also keeps to what it would have said untuned, and forgets less.

On a few texts without a persona, its next-token distribution is held to the base model's: the loss is the cross-entropy
from the one to the other, which is least where they agree. The base model's side is computed once, before training, and
kept as one vector a token: cross-entropy with a linear head is log Z(h) - h · E[w], where E[w] is the mean of the
vocabulary's weights under the base model's distribution; capped logits need another, see `ChunkedLoss.remembered`.
Source: Li and Hoiem, "Learning without Forgetting", 2016.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from roleplay.text.prompts import IGNORED, Example, PromptEncoder
from roleplay.text.rows import Row
from train.learning.packing import collate

TEXTS, TOKENS = 600, 48  # at most, and the longest of each
PER_UPDATE = 2  # texts beside the rows of an update


@dataclass(frozen=True)
class Rehearsed:
    """A text and what the base model expects after each of its tokens but the last, (tokens - 1, hidden)."""

    example: Example
    wanted: torch.Tensor  # as `ChunkedLoss.remembered` has it


def prepare(
    model: PeftModel, encoder: PromptEncoder, rows: Sequence[Row], share_prefix: bool = True
) -> list[Rehearsed]:
    """At most `TEXTS` turns of `rows`, evenly chosen, as plain text; `model` has learnt nothing yet."""
    chosen = rows[:: -(-len(rows) // TEXTS)]
    bos = encoder.tokenizer.bos_token_id
    texts = [[bos, *encoder.encode("\n".join(row.turns[0]))[:TOKENS]] for row in chosen]
    examples = [Example(ids, [IGNORED, *ids[1:]], "rehearsal") for ids in texts]
    criterion: Any = model.get_base_model().loss_function
    model.eval()
    found = []
    for first in range(0, len(examples), 16):
        part = examples[first : first + 16]
        with torch.no_grad():
            hidden = _hidden(model, _batch(model, part, share_prefix))
        wanted = criterion.remembered(hidden).split([len(e.input_ids) - 1 for e in part])
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
    return criterion.per_remembered(hidden, torch.cat([text.wanted for text in texts])).mean()


def _batch(model: PeftModel, examples: Sequence[Example], share_prefix: bool) -> dict[str, Any]:
    batch = collate(examples, share_prefix)
    return {key: value.to(model.device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def _hidden(model: PeftModel, batch: dict[str, Any]) -> torch.Tensor:
    """Final hidden states (labels, hidden) of a packed batch, which the model hands to its loss."""
    return model(**{key: value for key, value in batch.items() if key != "labels"}).logits.squeeze(0)
