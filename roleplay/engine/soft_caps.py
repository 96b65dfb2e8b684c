"""Soft caps, as Gemma 2 has them: scores and logits bend towards a bound that they never reach. It knows no model."""

import torch


def soft_cap(x: torch.Tensor, cap: float) -> torch.Tensor:
    """`x` bent to stay within `cap` of zero; as it is where `cap` is 0."""
    return torch.tanh(x / cap) * cap if cap else x


def capped_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, cap: float
) -> torch.Tensor:
    """Attention with soft-capped scores, over the last two dimensions, (tokens, size); `query` is scaled already.

    `mask` is as `F.scaled_dot_product_attention` takes it, which has no caps: all scores are in memory at once here.
    """
    scores = soft_cap(query @ key.transpose(-1, -2), cap)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    wide = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(-1, dtype=wide).to(query.dtype) @ value
