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
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

from roleplay.text.prompts import IGNORED, Example

ATTENTION = "shared_prefix"  # the name under which transformers finds `shared_prefix_attention`


@dataclass
class Pack:
    """The structure of a packed row: tokens in the prefix, then in each row's own part."""

    prefix: int
    parts: list[int]
    _masks: dict[tuple[int, int], list[torch.Tensor]] = field(default_factory=dict, repr=False)
    _whole: dict[int, torch.Tensor] = field(default_factory=dict, repr=False)  # by window

    def masks(self, heads_per_group: int, window: int, like: torch.Tensor) -> list[torch.Tensor]:
        """Additive masks (heads_per_group * queries, keys) of the prefix and of every part; built once a batch.

        `window` is how many keys a query sees, itself included; 0 for all before it.
        """
        key = heads_per_group, window
        if key not in self._masks:
            hidden = _unseen(torch.arange(self.prefix + max(self.parts, default=0)), window)
            full = torch.zeros(hidden.shape, dtype=like.dtype).masked_fill_(hidden, float("-inf")).to(like.device)
            spans = [(0, self.prefix), *((self.prefix, self.prefix + part) for part in self.parts)]
            self._masks[key] = [full[start:end, :end].repeat(heads_per_group, 1) for start, end in spans]
        return self._masks[key]

    def mask(self, window: int, like: torch.Tensor) -> torch.Tensor:
        """Additive mask of the whole pack, (tokens, tokens), with `window` as in `masks`; built once a batch.

        A row of it is 16 values wide or a multiple: else every layer of a GPU would make, and keep, its own copy.
        """
        if window not in self._whole:
            parts = list(enumerate([self.prefix, *self.parts]))
            part = torch.cat([torch.full((n,), i) for i, n in parts])
            position = torch.cat([torch.arange(n) + self.prefix * (i > 0) for i, n in parts])
            hidden = (part != part[:, None]) & (part > 0) | _unseen(position, window)
            full = torch.zeros(len(part), -(-len(part) // 16) * 16, dtype=like.dtype)
            full[:, : len(part)].masked_fill_(hidden, float("-inf"))
            self._whole[window] = full.to(like.device)[:, : len(part)]
        return self._whole[window]


def _unseen(positions: torch.Tensor, window: int) -> torch.Tensor:
    """Which keys (columns) a query (row) may not see for their positions alone: later ones, and those `window` back."""
    hidden = positions > positions[:, None]
    return hidden | (positions <= positions[:, None] - window) if window else hidden


def shared_prefix_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    pack: Pack,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention inside every part of a pack: query (1, heads, tokens, dim), key and value (1, groups, tokens, dim).

    Returns (1, tokens, heads, dim). A GPU, which waits for the next kernel rather than for products, masks one product
    over the whole pack; a CPU computes part after part, none of them between tokens that may not see each other.
    """
    attend = _attend_at_once if query.is_cuda else _attend_by_part
    return attend(query, key, value, scaling, pack, sliding_window or 0), None


def _attend_at_once(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, pack: Pack, window: int
) -> torch.Tensor:
    key, value = (t.repeat_interleave(query.shape[1] // key.shape[1], 1) for t in (key, value))
    mask = pack.mask(window, query)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling).transpose(1, 2)


def _attend_by_part(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, pack: Pack, window: int
) -> torch.Tensor:
    groups, per_group = key.shape[1], query.shape[1] // key.shape[1]
    lengths = [pack.prefix, *pack.parts]
    masks = pack.masks(per_group, window, query)
    keys, values = key.split(lengths, 2), value.split(lengths, 2)
    outputs = []
    for part, (mask, q) in enumerate(zip(masks, query.split(lengths, 2), strict=True)):
        k, v = keys[part], values[part]
        if part > 0:
            k, v = torch.cat((keys[0], k), 2), torch.cat((values[0], v), 2)
        # The heads of a group share keys and values, so their queries are rows of one product.
        folded = q.reshape(1, groups, per_group * q.shape[2], q.shape[3])
        attended = F.scaled_dot_product_attention(folded, k, v, attn_mask=mask, scale=scaling)
        outputs.append(attended.reshape(q.shape).transpose(1, 2))
    return torch.cat(outputs, 1)


AttentionInterface.register(ATTENTION, shared_prefix_attention)


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


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of a frozen linear head, one value a label; each logit is computed once and never kept.

    The gradient of a hidden state is the mean of the vocabulary's weights under its softmax, less the weight of its
    target. So loss and gradient are attention over the vocabulary, and are computed in one pass over it as flash
    attention is (Dao et al., 2022): sums so far are rescaled whenever a larger logit comes.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, chunk: int
    ) -> torch.Tensor:
        # Logits stand as (vocabulary, labels): with the long side first, the CPU multiplies up to twice as fast.
        columns, wide = hidden.t(), torch.promote_types(hidden.dtype, torch.float32)
        largest = torch.full((len(targets),), -torch.inf, dtype=wide, device=hidden.device)
        total, mean = torch.zeros_like(largest), torch.zeros(columns.shape, dtype=wide, device=hidden.device)
        for part in weight.split(chunk):
            logits = torch.mm(part, columns).to(wide)
            larger = torch.maximum(largest, logits.amax(0))
            scale = (largest - larger).exp_()
            logits.sub_(larger).exp_()
            total.mul_(scale).add_(logits.sum(0))
            if ctx.needs_input_grad[0]:
                mean.mul_(scale).add_(torch.mm(part.t(), logits.to(weight.dtype)))
            largest = larger
        wanted = weight[targets].to(wide)
        if ctx.needs_input_grad[0]:
            ctx.gradient = ((mean / total).t() - wanted).to(hidden.dtype)
        return total.log_().add_(largest) - (hidden * wanted).sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return ctx.gradient * grads[0][:, None].to(ctx.gradient.dtype), None, None, None


class ChunkedLoss:
    """A causal language model's `loss_function` that is handed hidden states in place of logits.

    `chunk` is how many entries of the vocabulary have their logits in memory at once.
    """

    def __init__(self, weight: torch.Tensor, chunk: int = 8192) -> None:
        self.weight, self.chunk = weight, chunk

    def per_label(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood in nat of every label, (labels,), from hidden states (labels, hidden)."""
        return _ChunkedCrossEntropy.apply(hidden, self.weight, labels, self.chunk)

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, num_items_in_batch: Any = None, **kwargs: Any
    ) -> torch.Tensor:
        """Sum over labels, divided by `num_items_in_batch` (the labels of the whole update), else by their number."""
        total = self.per_label(logits.squeeze(0), labels).sum()
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def use_chunked_loss(model: PreTrainedModel) -> None:
    """Make a Gemma model return the chunked loss; it can no longer return logits afterwards.

    Its `forward` hands the hidden states at `logits_to_keep` through the head to the loss, so the head becomes the
    identity and the loss brings the head's weight.
    """
    weight = model.get_output_embeddings().weight.detach()
    model.lm_head = nn.Identity()
    model.loss_function = ChunkedLoss(weight)
    model.loss_type = "chunked"  # else Trainer takes the first label of a batch for one that nothing predicts


@torch.no_grad()
def label_losses(model: nn.Module, loss: ChunkedLoss, batch: dict[str, Any]) -> torch.Tensor:
    """Negative log-likelihood in nat of every label of a packed batch, (labels,), in the batch's order."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    return loss.per_label(model(**inputs).logits.squeeze(0), batch["labels"])
