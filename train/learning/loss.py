"""Cross-entropy at labelled positions alone, over a part of the vocabulary at a time: no logits are ever kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of a frozen linear head, one value a label; each logit is computed once and never kept.

    `wanted` (labels, hidden) is the weight of each target, or the mean weight of a distribution of targets. The
    gradient of a hidden state is the mean of the vocabulary's weights under its softmax, less what is wanted. So loss
    and gradient are attention over the vocabulary, and are computed in one pass over it as flash attention is (Dao et
    al., 2022): sums so far are rescaled whenever a larger logit comes.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, wanted: torch.Tensor, chunk: int) -> torch.Tensor:
        # Logits stand as (vocabulary, labels): with the long side first, the CPU multiplies up to twice as fast.
        columns, wide = hidden.t(), torch.promote_types(hidden.dtype, torch.float32)
        largest = torch.full((len(hidden),), -torch.inf, dtype=wide, device=hidden.device)
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
        wanted = wanted.to(wide)
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
        return self.per_weight(hidden, self.weight[labels])

    def per_weight(self, hidden: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The same for targets that are given as weights, (labels, hidden), of the head or means of them."""
        return _ChunkedCrossEntropy.apply(hidden, self.weight, wanted, self.chunk)

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


@contextmanager
def logits_again(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, a model that was made ready by `use_chunked_loss` can generate.

    The head's weight counts as one that learns: a frozen one would be copied for every token, see docs/training.md.
    """
    loss, attention = model.loss_function, model.config._attn_implementation
    vocabulary, hidden = loss.weight.shape
    head = nn.Linear(hidden, vocabulary, bias=False, device="meta")
    head.weight = nn.Parameter(loss.weight)
    before, model.lm_head = model.lm_head, head
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.lm_head = before
        model.set_attn_implementation(attention)


@torch.no_grad()
def label_losses(model: nn.Module, loss: ChunkedLoss, batch: dict[str, Any]) -> torch.Tensor:
    """Negative log-likelihood in nat of every label of a packed batch, (labels,), in the batch's order."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    return loss.per_label(model(**inputs).logits.squeeze(0), batch["labels"])
