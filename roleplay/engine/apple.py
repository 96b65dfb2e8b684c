"""Whether an Apple GPU may generate: only where the decoder gives the CPU's logits there, with the model at hand."""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from roleplay.engine.decoder import Decoder, Segment
from roleplay.errors import AdapterError, first_line
from roleplay.weights.base_models import BaseModel
from roleplay.weights.probe import kl_to_base

MAX_KL = 1e-3  # nat: two devices round differently, in bfloat16 by about a tenth of that
CHUNKS = (range(3, 40), range(40, 41), range(41, 48))  # a prompt, a token, and a few of a next turn, as token ids


def to_gpu(model: PreTrainedModel) -> None:
    model.to("mps")  # type: ignore[arg-type]  # the decorator around it hides its signature


def settle(base: BaseModel, move: Callable[[PreTrainedModel], None] = to_gpu) -> None:
    """Leave the model on the GPU that `move` puts it on if it computes the same there, else on the CPU; say why.

    Training stays on the CPU: its gradients are not checked there.
    """
    expected = _logits(base.model)
    try:
        move(base.model)
        kl = kl_to_base(_logits(base.model), expected)
    except AdapterError:
        refused = "its logits are not finite"
    except (RuntimeError, TypeError) as error:  # an operation or a dtype that it lacks
        refused = first_line(error)
    else:
        if kl <= MAX_KL:
            base.device = "mps", f"the Apple GPU gives the CPU's logits (KL {kl:.1g} nat)"
            return
        refused = f"it gives other logits (KL {kl:.1g} nat)"
    base.model.to("cpu")  # type: ignore[arg-type]
    base.device = "cpu", f"not the Apple GPU: {refused}"


def _logits(model: PreTrainedModel) -> torch.Tensor:
    """The decoder's logits at the end of every chunk, (chunks, vocabulary), on the CPU."""
    decoder = Decoder(model)
    cache = decoder.new_cache()
    return torch.cat([decoder.head(decoder.forward([Segment(chunk, cache)])).cpu() for chunk in CHUNKS])
