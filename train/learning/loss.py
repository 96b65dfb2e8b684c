"""Cross-entropy at labelled positions alone, over a part of the vocabulary at a time: no logits are ever kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from roleplay.engine.soft_caps import soft_cap
from roleplay.weights.architectures import logit_cap, plain_attention

LOGITS_AT_ONCE = 1 << 24  # of a GPU, which few labels keep waiting for the next part of the vocabulary
TOKENS_AT_ONCE = 16  # whose capped logits over the whole vocabulary are in memory in `_cross_entropy`


def _capped(logits: torch.Tensor, cap: float) -> tuple[torch.Tensor, torch.Tensor | float]:
    """Soft-capped logits, as `soft_cap` has them, and their slope."""
    if not cap:
        return logits, 1.0
    bent = logits.div(cap).tanh_()
    return bent * cap, 1.0 - bent.square()


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of a frozen linear head, one value a label; each logit is computed once and never kept.

    `wanted` (labels, hidden) is the weight of each target, or without a cap the mean weight of a distribution. The
    gradient of a hidden state is the mean of the vocabulary's weights under its softmax, less what is wanted. So loss
    and gradient are attention over the vocabulary, and are computed in one pass over it as flash attention is (Dao et
    al., 2022): sums so far are rescaled whenever a larger logit comes.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, wanted: torch.Tensor, chunk: int, cap: float
    ) -> torch.Tensor:
        # Logits stand as (vocabulary, labels): with the long side first, the CPU multiplies up to twice as fast.
        columns, wide = hidden.t(), torch.promote_types(hidden.dtype, torch.float32)
        largest = torch.full((len(hidden),), -torch.inf, dtype=wide, device=hidden.device)
        total, mean = torch.zeros_like(largest), torch.zeros(columns.shape, dtype=wide, device=hidden.device)
        for part in weight.split(chunk):
            logits, slope = _capped(torch.mm(part, columns).to(wide), cap)
            larger = torch.maximum(largest, logits.amax(0))
            scale = (largest - larger).exp_()
            logits.sub_(larger).exp_()
            total.mul_(scale).add_(logits.sum(0))
            if ctx.needs_input_grad[0]:
                mean.mul_(scale).add_(torch.mm(part.t(), (logits * slope if cap else logits).to(weight.dtype)))
            largest = larger
        wanted = wanted.to(wide)
        target, slope = _capped((hidden * wanted).sum(1, keepdim=True), cap)
        if ctx.needs_input_grad[0]:
            ctx.gradient = ((mean / total).t() - wanted * slope).to(hidden.dtype)
        return total.log_().add_(largest) - target.squeeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return ctx.gradient * grads[0][:, None].to(ctx.gradient.dtype), None, None, None, None


def _cross_entropy(hidden: torch.Tensor, others: torch.Tensor, weight: torch.Tensor, cap: float) -> torch.Tensor:
    """From the distributions of `others` to those of `hidden`, both (tokens, hidden), in nat, one value a token."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    own, wanted = (soft_cap((x @ weight.t()).to(wide), cap) for x in (hidden, others))
    return -(wanted.softmax(-1) * own.log_softmax(-1)).sum(-1)


class ChunkedLoss:
    """A causal language model's `loss_function` that is handed hidden states in place of logits.

    `chunk` is how many entries of the vocabulary have their logits in memory at once, on a GPU more for few labels;
    `cap` bounds logits softly.
    """

    def __init__(self, weight: torch.Tensor, chunk: int = 8192, cap: float = 0.0) -> None:
        self.weight, self.chunk, self.cap = weight, chunk, cap

    def per_label(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood in nat of every label, (labels,), from hidden states (labels, hidden)."""
        return self._per_weight(hidden, self.weight[labels])

    def _per_weight(self, hidden: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        at_once = LOGITS_AT_ONCE if hidden.device.type != "cpu" else 0
        chunk = max(self.chunk, at_once // max(1, len(hidden)))
        return _ChunkedCrossEntropy.apply(hidden, self.weight, wanted, chunk, self.cap)

    def remembered(self, hidden: torch.Tensor) -> torch.Tensor:
        """One vector a token, (tokens, hidden), that `per_remembered` knows the distribution after `hidden` by.

        It is the mean of the vocabulary's weights under the distribution, which is the gradient of log Z. A mean of
        capped logits is no product with it, so with a cap it is `hidden` itself.
        """
        if self.cap:
            return hidden.detach()
        hidden = hidden.detach().requires_grad_()
        log_z = self._per_weight(hidden, torch.zeros_like(hidden))
        return torch.autograd.grad(log_z.sum(), hidden)[0]

    def per_remembered(self, hidden: torch.Tensor, remembered: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nat from each remembered distribution to the one after `hidden`, (tokens,)."""
        if not self.cap:
            return self._per_weight(hidden, remembered)
        parts = zip(hidden.split(TOKENS_AT_ONCE), remembered.split(TOKENS_AT_ONCE), strict=True)
        return torch.cat(
            [checkpoint(_cross_entropy, *part, self.weight, self.cap, use_reentrant=False) for part in parts]
        )

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, num_items_in_batch: Any = None, **kwargs: Any
    ) -> torch.Tensor:
        """Sum over labels, divided by `num_items_in_batch` (the labels of the whole update), else by their number."""
        total = self.per_label(logits.squeeze(0), labels).sum()
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def use_chunked_loss(model: PreTrainedModel) -> None:
    """Make a Gemma model return the chunked loss; it can no longer return logits afterwards.

    Its `forward` hands the hidden states at `logits_to_keep` through the head to the loss, so the head becomes the
    identity and the loss brings the head's weight, and its cap.
    """
    weight = model.get_output_embeddings().weight.detach()
    model.lm_head = nn.Identity()
    model.loss_function = ChunkedLoss(weight, cap=logit_cap(model.config))
    model.config.final_logit_softcapping = None  # else it would bend the hidden states
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
    model.config.final_logit_softcapping = loss.cap or None
    model.set_attn_implementation(plain_attention(model.config)[0])
    try:
        yield
    finally:
        model.lm_head, model.config.final_logit_softcapping = before, None
        model.set_attn_implementation(attention)


@torch.no_grad()
def label_losses(model: nn.Module, loss: ChunkedLoss, batch: dict[str, Any]) -> torch.Tensor:
    """Negative log-likelihood in nat of every label of a packed batch, (labels,), in the batch's order."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    return loss.per_label(model(**inputs).logits.squeeze(0), batch["labels"])
