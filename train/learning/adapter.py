"""LoRA on a base model: attached to learn, and drawn back to a share of what was learnt."""

from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

INITIALISATIONS: dict[str, Any] = {"kaiming": True, "orthogonal": "orthogonal"}  # in peft's words


def attach_lora(model: PreTrainedModel, **config: Any) -> PeftModel:
    """A causal language model that learns nothing but LoRA; `config` is peft's."""
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))


def keep_share(model: PeftModel, share: float) -> None:
    """Go back towards the base weights until `share` of the update is left, by way of the B matrices.

    A model trained longer and pulled back keeps more of what it learned, at the same cost to everything else, than one
    trained less. Source: WiSE-FT (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).
    """
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            weight.data.mul_(share)
