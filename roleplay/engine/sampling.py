"""From logits to the next token, with dice that both sides of a comparison share. It knows no model and no text.

The draw is the Gumbel-max trick: the argmax of log-probability plus Gumbel noise is a sample of the distribution. The
noise is a function of (seed, position, token) alone, so two sides with the same seed part only where their
distributions do, and neither the batch nor the device's generator has a part in it.
"""

import math
from collections.abc import Sequence

import torch

from roleplay.engine.protocol import Sampling

_MASK = 2**64 - 1
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_TOP_P_CANDIDATES = 1024  # sorting these first spares sorting the vocabulary, unless top-p reaches beyond them


def _signed(value: int) -> int:
    """The 64-bit pattern of `value` as torch's int64 holds it."""
    value &= _MASK
    return value - 2**64 if value >> 63 else value


def _mix(value: torch.Tensor) -> torch.Tensor:
    """The finaliser of splitmix64 over int64 (Steele, Lea, Flood: Fast Splittable PRNGs, OOPSLA 2014; Vigna's form).

    Products wrap around; the right shift of an int64 repeats the sign, hence the masks.
    """
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        value = (value ^ ((value >> shift) & (_MASK >> shift))) * _signed(factor)
    return value ^ ((value >> 31) & (_MASK >> 31))


def gumbel(seed: int, position: int, tokens: torch.Tensor) -> torch.Tensor:
    """Gumbel noise of the given token ids at one position of the reply, float64 in the shape of `tokens`."""
    state = _mix(torch.tensor(_signed((seed + 1) * _GOLDEN), device=tokens.device)) + _signed((position + 1) * _GOLDEN)
    bits = _mix(_mix(state) + (tokens + 1) * _signed(_GOLDEN))
    uniform = (((bits >> 11) & (_MASK >> 11)).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform))


def _candidates(scores: torch.Tensor, top_k: int, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and ids of the tokens that may be drawn: the best `top_k`, and of these the fewest that reach `top_p`."""
    vocabulary = scores.shape[0]
    if top_p >= 1.0:
        kept = scores.topk(top_k or vocabulary, sorted=False)
        return kept.values, kept.indices
    for count in [top_k] if top_k else [_TOP_P_CANDIDATES, vocabulary]:
        values, indices = scores.topk(min(count, vocabulary))
        total = torch.logsumexp(values if top_k else scores, -1)
        reached = torch.exp(values - total).cumsum(-1)
        if top_k or reached[-1] >= top_p:
            break
    keep = 1 + int((reached[:-1] < top_p).sum())
    return values[:keep], indices[:keep]


@torch.inference_mode()
def next_token(logits: torch.Tensor, prompt: torch.Tensor, reply: Sequence[int], sampling: Sampling) -> int | None:
    """The token that follows `reply`, or None when the logits are not finite.

    `logits` (vocabulary,) in float32 is overwritten; `prompt` holds the distinct ids of the prompt, on its device. The
    order is that of vLLM: repetition penalty, frequency penalty, temperature, top-k, top-p.
    """
    said = prompt.new_tensor(reply)
    if not math.isfinite(logits.max().item()):  # NaN wins every comparison of max
        return None
    if sampling.repetition_penalty != 1.0:
        seen = torch.cat([prompt, said])
        old = logits[seen]
        logits[seen] = torch.where(old < 0, old * sampling.repetition_penalty, old / sampling.repetition_penalty)
    if sampling.frequency_penalty and reply:
        tokens, times = said.unique(return_counts=True)
        logits[tokens] -= sampling.frequency_penalty * times
    if sampling.temperature == 0.0:
        return int(logits.argmax())
    scores, tokens = _candidates(logits / sampling.temperature, min(sampling.top_k, len(logits)), sampling.top_p)
    if scores.is_mps:  # an Apple GPU has no float64
        scores, tokens = scores.cpu(), tokens.cpu()
    return int(tokens[(scores.double() + gumbel(sampling.seed, len(reply), tokens)).argmax()])
