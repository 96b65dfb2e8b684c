"""Training rows to one packed row: the shared prefix once, then every row's own part.

All rows of a character start with the same persona. A pack computes that prefix once; each row's own tokens follow,
with positions that restart after the prefix, and see the prefix and themselves only. Loss and gradients are those of
the rows computed one by one, up to rounding; only dropout differs, for the shared prefix has one mask and not one a
row. Logits are computed at labelled positions alone, for a part of the vocabulary at a time. The shared prefix is
Hydragen's idea (Juravsky et al., 2024), there for inference.

Where an attention kernel takes no such structure (flash-attn), the same collator packs whole rows one after another
and positions that restart tell the rows apart.
"""

from collections.abc import Sequence
from typing import Any

import torch

from roleplay.text.prompts import IGNORED, Example
from train.learning.attention import Pack


def common_prefix(examples: Sequence[Example]) -> int:
    """How many first tokens all rows share, none of them labelled and at least one token left to every row."""
    first = examples[0]
    limit = min(
        min(len(e.input_ids) for e in examples) - 1, next(i for i, y in enumerate(first.labels) if y != IGNORED)
    )
    for position in range(limit):
        if any(e.input_ids[position] != first.input_ids[position] for e in examples):
            return position
    return limit


def collate(examples: Sequence[Example], share_prefix: bool = True) -> dict[str, Any]:
    """One packed batch for a causal language model prepared by `use_chunked_loss`.

    `input_ids` and `position_ids` (1, tokens); `logits_to_keep` (labels,): the positions that predict; `labels`
    (labels,): the tokens they have to predict; with a shared prefix also `pack`.
    """
    prefix = common_prefix(examples) if share_prefix else 0
    ids, positions = list(examples[0].input_ids[:prefix]), list(range(prefix))
    predictors, targets = [], []
    for example in examples:
        start = len(ids) - prefix  # where the row would start if its prefix stood before it
        for position, label in enumerate(example.labels[1:], 1):
            if label != IGNORED:
                predictors.append(start + position - 1 if position > prefix else prefix - 1)
                targets.append(label)
        ids += example.input_ids[prefix:]
        positions += range(prefix, len(example.input_ids))
    batch: dict[str, Any] = {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "logits_to_keep": torch.tensor(predictors),
        "labels": torch.tensor(targets),
        "use_cache": False,  # a cache would let the packed rows see each other
    }
    if share_prefix:
        batch["pack"] = Pack(prefix, [len(e.input_ids) - prefix for e in examples])
    return batch


def label_counts(examples: Sequence[Example]) -> dict[str, int]:
    """How many rows, and how many tokens in them carry a label."""
    return {"rows": len(examples), "labels": sum(y != IGNORED for e in examples for y in e.labels)}
