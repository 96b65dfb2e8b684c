"""From logits to the next token, with dice that both sides of a comparison share. It knows no model and no text.

The draw is the Gumbel-max trick: the argmax of log-probability plus Gumbel noise is a sample of the distribution. The
noise is a function of (seed, position, token) alone, so two sides with the same seed part only where their
distributions do, and neither the batch nor the device's generator has a part in it.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch

from roleplay.engine.protocol import Sampling

_MASK = 2**64 - 1
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_TOP_P_CANDIDATES = 1024  # sorting these first spares sorting the vocabulary, unless top-p reaches beyond them
_BLOCK = 256  # neighbouring tokens of which only the best is looked at, unless it is among the best of all


class Drawing(NamedTuple):
    """What decides on a row's next token, beside its logits."""

    prompt: torch.Tensor  # its distinct ids, on the device of the logits
    reply: Sequence[int]
    sampling: Sampling


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


def gumbel(seeds: torch.Tensor, positions: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Gumbel noise of the given token ids at positions of replies, float64; all int64, of shapes that broadcast."""
    state = _mix((seeds + 1) * _signed(_GOLDEN)) + (positions + 1) * _signed(_GOLDEN)
    bits = _mix(_mix(state) + (tokens + 1) * _signed(_GOLDEN))
    uniform = (((bits >> 11) & (_MASK >> 11)).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform))


@torch.inference_mode()
def next_tokens(logits: torch.Tensor, drawings: Sequence[Drawing]) -> list[int | None]:
    """The token that follows each reply, or None where the logits are not finite.

    `logits` (rows, vocabulary) in float32 are overwritten. The order is that of vLLM: repetition penalty, frequency
    penalty, temperature, top-k, top-p. Rows with the same settings are drawn at once, and none depends on another.
    """
    _penalise(logits, drawings)
    alike, found = defaultdict[object, list[int]](list), list[int | None]([None]) * len(drawings)
    for number, (_, _, own) in enumerate(drawings):
        # Without top-k the whole vocabulary may have to be sorted, and for the other rows it need not be.
        alike[own.temperature, own.top_p, own.top_k or -number].append(number)
    for numbers in alike.values():
        part = logits if len(numbers) == len(logits) else logits[numbers]
        tokens = _draw(part, [drawings[number] for number in numbers])
        for number, token in zip(numbers, tokens, strict=True):
            found[number] = token if token >= 0 else None
    return found


def _penalise(logits: torch.Tensor, drawings: Sequence[Drawing]) -> None:
    """Take off, in place, what tokens lose that were there before."""
    said, lost = list[int](), list[float]()
    for number, (prompt, reply, sampling) in enumerate(drawings):
        if sampling.repetition_penalty != 1.0:
            own, seen = logits[number], torch.cat([prompt, prompt.new_tensor(reply)])
            old = own[seen]
            own[seen] = torch.where(old < 0, old * sampling.repetition_penalty, old / sampling.repetition_penalty)
        if sampling.frequency_penalty:
            said += [number * logits.shape[1] + token for token in reply]
            lost += [-sampling.frequency_penalty] * len(reply)
    if said:
        places = torch.tensor(said, device=logits.device)
        logits.view(-1).index_add_(0, places, torch.tensor(lost, device=logits.device))


def _draw(logits: torch.Tensor, drawings: Sequence[Drawing]) -> list[int]:
    """A token of each row, -1 where the logits are not finite; all have the settings of the first."""
    sampling = drawings[0].sampling
    if sampling.temperature == 0.0:
        scores, tokens = logits.max(-1, keepdim=True)
    else:
        scores, tokens = _candidates(logits, sampling)
    if scores.is_mps:  # an Apple GPU has no float64
        scores, tokens = scores.cpu(), tokens.cpu()
    dice = torch.tensor([(own.sampling.seed, len(own.reply)) for own in drawings], device=tokens.device)
    noisy = scores.double() + gumbel(dice[:, :1], dice[:, 1:], tokens)
    drawn = tokens.gather(-1, noisy.argmax(-1, keepdim=True))[:, 0]
    finite = scores.amax(-1).isfinite()  # NaN wins every comparison
    return drawn.where(finite, -1).tolist()


def _candidates(logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and ids (rows, candidates) of the tokens that may be drawn: the best `top_k`, and of these the fewest that
    reach `top_p`; the scores of others are minus infinity."""
    vocabulary = logits.shape[1]
    top_k, top_p = min(sampling.top_k, vocabulary), sampling.top_p
    if top_p == 1.0:
        values, tokens = _best(logits, top_k or vocabulary)
        return values / sampling.temperature, tokens
    for count in [top_k] if top_k else [min(_TOP_P_CANDIDATES, vocabulary), vocabulary]:
        values, tokens = _best(logits, count)
        scores = values / sampling.temperature
        of_all = scores if top_k else logits / sampling.temperature
        shares = of_all.softmax(-1) if top_k else of_all.softmax(-1).gather(-1, tokens)
        reached = shares.cumsum(-1)
        if top_k or bool((reached[:, -1] >= top_p).all()):
            break
    scores[:, 1:].masked_fill_(reached[:, :-1] >= top_p, -torch.inf)
    return scores, tokens


def _best(logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest `count` of each row in order, and where they are: in as many of its blocks, those with the highest
    peaks."""
    size = math.gcd(logits.shape[1], _BLOCK)
    blocks = logits.unflatten(1, (-1, size))
    if count >= blocks.shape[1]:
        return logits.topk(count)
    chosen = blocks.amax(-1).topk(count).indices
    values, places = blocks.take_along_dim(chosen[..., None], 1).flatten(1).topk(count)
    return values, chosen.gather(1, places // size) * size + places % size
