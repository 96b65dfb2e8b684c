"""How likely texts are to a base model, with and without adapters: many at once, in packs. It knows no arm."""

from collections.abc import Sequence
from contextlib import nullcontext

from peft import PeftModel
from transformers import PreTrainedModel

from roleplay.text.prompts import Example
from roleplay.weights import base_models
from roleplay.weights.adapters import Adapter
from train.learning import packing
from train.learning.attention import ATTENTION
from train.learning.loss import ChunkedLoss, label_losses, use_chunked_loss
from train.measuring.replies import Done

PACK = 16  # texts computed at once


class Losses:
    """Losses of a base model with and without adapters; the model can no longer return logits afterwards."""

    def __init__(self, base: base_models.BaseModel, loaded: Sequence[Adapter]) -> None:
        use_chunked_loss(base.model)
        base.model.set_attn_implementation(ATTENTION)
        self._loss: ChunkedLoss = base.model.loss_function
        self._model = base.model  # peft puts its layers into it
        self._names = {adapter.name: f"adapter{number}" for number, adapter in enumerate(loaded)}  # no dots for peft
        first, *others = loaded
        self._peft = PeftModel.from_pretrained(base.model, str(first.folder), adapter_name=self._names[first.name])
        for adapter in others:
            self._peft.load_adapter(str(adapter.folder), adapter_name=self._names[adapter.name])
        self._model.eval()
        self._known: dict[tuple[str, tuple[int, ...], tuple[int, ...]], float] = {}

    def nats(self, adapter: str, examples: Sequence[Example], done: Done, pack: int = 0) -> list[float]:
        """Negative log-likelihood in nat, summed over all labels, of every example; `adapter` is "" for the base model.

        `pack` examples, by default 16, are computed at once, and what they all begin with only once.
        """
        keys = [(adapter, tuple(example.input_ids), tuple(example.labels)) for example in examples]
        if all(key in self._known for key in keys):
            done(len(keys))
            return [self._known[key] for key in keys]
        # All of them where one is unknown, so that the packs, and with them the rounding, are always the same.
        todo = dict(zip(keys, examples, strict=True))
        done(len(examples) - len(todo))
        if adapter:
            self._peft.set_adapter(self._names[adapter])
        with nullcontext() if adapter else self._peft.disable_adapter():
            known = example_nats(self._model, self._loss, list(todo.values()), done, pack or PACK)
        self._known.update(zip(todo, known, strict=True))
        return [self._known[key] for key in keys]


def example_nats(
    model: PreTrainedModel, loss: ChunkedLoss, examples: Sequence[Example], done: Done, pack: int = PACK
) -> list[float]:
    """As `Losses.nats`, of a model with `ATTENTION` that `use_chunked_loss` has prepared."""
    nats = []
    for first in range(0, len(examples), pack):
        part = examples[first : first + pack]
        batch = {
            key: value.to(model.device) if key not in ("use_cache", "pack") else value
            for key, value in packing.collate(part).items()
        }
        losses = label_losses(model, loss, batch).double()
        nats += [float(own.sum()) for own in losses.split([label_count(example) for example in part])]
        done(len(part))
    return nats


def label_count(example: Example) -> int:
    return sum(label != packing.IGNORED for label in example.labels)
