"""LoRA on a base model: attached to learn, and drawn back to a share of what was learnt."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from transformers import PreTrainedModel

INITIALISATIONS: dict[str, Any] = {"kaiming": True, "orthogonal": "orthogonal"}  # in peft's words
SAVED = torch.bfloat16  # what base models run in; half the size of what it learned in


def attach_lora(model: PreTrainedModel, **config: Any) -> PeftModel:
    """A causal language model that learns nothing but LoRA; `config` is peft's."""
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))


def go_on_from(model: PeftModel, weights: dict[str, torch.Tensor]) -> None:
    """Begin with the weights of a finished adapter, by peft's names, in place of the first values."""
    set_peft_model_state_dict(model, weights)


def finish(model: PeftModel, share: float, start: Mapping[str, torch.Tensor] = MappingProxyType({})) -> None:
    """Go back until `share` of what was learnt is left, and round to what is saved.

    The way back leads towards the base weights, or towards those of the adapter that the run went on from, `start`.

    A model trained longer and pulled back keeps more of what it learned, at the same cost to everything else, than one
    trained less. Source: WiSE-FT (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022). Towards the base
    weights B alone is scaled, so that exactly that share stays; towards an adapter A and B are both moved, and it is
    nearly so. The last held-out loss is of the rounded weights.
    """
    for name, weight in model.named_parameters():
        if ".lora_" in name:
            there, kept = weight.data, share if start or ".lora_B." in name else 1.0
            home = start[name.replace(".default.", ".")].to(there) if start else torch.zeros_like(there)
            weight.data.copy_(torch.lerp(home, there, kept).to(SAVED))


def saved_weights(model: PeftModel) -> dict[str, torch.Tensor]:
    """The weights of a finished adapter as they are written, by peft's names."""
    return {name: weight.to(SAVED) for name, weight in model.state_dict().items() if ".lora_" in name}


def told_of(model: PeftModel, rank: int) -> str:
    """How large an adapter is, in words."""
    return f"rank {rank}: {model.get_nb_trainable_parameters()[0] / 1e6:.2f} million parameters trainable"
