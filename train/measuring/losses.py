"""How likely texts are to a base model, with and without adapters: many at once, in packs. It knows no arm."""

from collections.abc import Callable, Sequence

from peft import PeftModel

from roleplay.text.prompts import Example
from roleplay.weights import base_models
from roleplay.weights.adapters import Adapter
from train.learning import packing
from train.learning.attention import ATTENTION
from train.learning.loss import ChunkedLoss, label_losses, use_chunked_loss

PACK = 16  # texts computed at once

Done = Callable[[int], object]  # is told how many items were done


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
        self._known: dict[tuple[str, tuple[int, ...]], float] = {}

    def nats(self, adapter: str, examples: Sequence[Example], done: Done) -> list[float]:
        """Negative log-likelihood of all labels of every example; `adapter` is "" for the base model."""
        todo = [example for example in examples if (adapter, tuple(example.input_ids)) not in self._known]
        done(len(examples) - len(todo))
        if adapter:
            self._peft.set_adapter(self._names[adapter])
            self._compute(adapter, todo, done)
        else:
            with self._peft.disable_adapter():
                self._compute(adapter, todo, done)
        return [self._known[adapter, tuple(example.input_ids)] for example in examples]

    def _compute(self, adapter: str, examples: Sequence[Example], done: Done) -> None:
        for first in range(0, len(examples), PACK):
            part = examples[first : first + PACK]
            batch = {
                key: value.to(self._model.device) if key not in ("use_cache", "pack") else value
                for key, value in packing.collate(part).items()
            }
            losses = label_losses(self._model, self._loss, batch).double()
            for example, own in zip(part, losses.split([label_count(example) for example in part]), strict=True):
                self._known[adapter, tuple(example.input_ids)] = float(own.sum())
            done(len(part))


def label_count(example: Example) -> int:
    return sum(label != packing.IGNORED for label in example.labels)
