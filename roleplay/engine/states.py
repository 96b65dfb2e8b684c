"""Hidden states in the middle of the model, by which texts are compared."""

from collections.abc import Sequence

import torch

from roleplay.engine.decoder import Decoder, EagerStep, Segment
from roleplay.text.meaning import Floats


@torch.inference_mode()
def mean_states(decoder: Decoder, texts: Sequence[Sequence[int]], depth: int) -> Floats:
    """Of every text the mean hidden state after `depth` layers, (texts, hidden); its first token does not count."""
    step = EagerStep([Segment(ids, decoder.new_cache()) for ids in texts], decoder)
    *parts, _ = decoder.through(step, depth).float().split(step.counts)
    means: Floats = torch.stack([part[1:].mean(0) for part in parts]).cpu().numpy()
    return means
