"""Hidden states in the middle of the model, by which texts are compared."""

from collections.abc import Sequence

import torch

from roleplay.engine.decoder import Decoder, EagerStep, Lora, Segment
from roleplay.text.meaning import Features, Floats, Meaning, Tokens


@torch.inference_mode()
def features(decoder: Decoder, texts: Sequence[Tokens], depth: int, lora: Lora | None = None) -> Floats:
    """The features of texts (texts, features) by their hidden states after `depth` layers, as `roleplay.text.meaning`
    says; those of the first token do not count, and each text has a second one."""
    step = EagerStep([Segment(text.ids, decoder.new_cache(), lora) for text in texts], decoder)
    *parts, _ = decoder.through(step, depth).float().split(step.counts)
    summed_up = []
    for part, text in zip(parts, texts, strict=True):
        weights = torch.tensor(text.weights, device=part.device)
        summed_up.append(torch.cat([weights @ part / weights.sum(), part[1:].amax(0), part[-1]]))
    found: Floats = torch.stack(summed_up).cpu().numpy()
    return found


def reader_of(decoder: Decoder, meaning: Meaning) -> Features:
    """What gives the features of texts as `meaning` compares them."""
    lora = Lora(decoder, {key: torch.from_numpy(values) for key, values in meaning.lora.items()}, 1.0)
    return lambda texts: features(decoder, texts, meaning.depth, lora)
