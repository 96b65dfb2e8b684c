"""The Gemmas that are served and trained: what tells one from another, every fact in one place.

All have seven projections, rotary positions, and root-mean-square norms whose weight is stored as its distance from
one. A new one that differs in nothing else is a new line of `ARCHITECTURES`.
"""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from roleplay.errors import ModelError


@dataclass(frozen=True)
class Architecture:
    """How one Gemma differs from the others; a layer's norms by their names, "" for one that it does not have."""

    before_mlp: str = "pre_feedforward_layernorm"
    after_attention: str = ""  # of what a block returns, before it is added
    after_mlp: str = ""
    heads: tuple[str, ...] = ()  # of queries and of keys
    rotary_by_kind: bool = False  # layers with a window turn their heads at a speed of their own
    soft_caps: bool = False  # of attention scores and of logits, as far as the configuration has them


ARCHITECTURES = {  # by the model_type of a configuration
    "gemma": Architecture(before_mlp="post_attention_layernorm"),
    "gemma2": Architecture(
        after_attention="post_attention_layernorm",
        after_mlp="post_feedforward_layernorm",
        soft_caps=True,
    ),
    "gemma3_text": Architecture(
        after_attention="post_attention_layernorm",
        after_mlp="post_feedforward_layernorm",
        heads=("q_norm", "k_norm"),
        rotary_by_kind=True,
    ),
    "vaultgemma": Architecture(soft_caps=True),
}
# Models of text and pictures, and how the names of their text half's weights, old and new, become a text model's own.
MULTIMODAL = {"gemma3": {r"^(model\.)?language_model\.(model\.)?": "model."}}
REFUSED = {
    **dict.fromkeys(("gemma3n", "gemma3n_text"), "its layers have inputs of their own and share keys and values"),
    **dict.fromkeys(
        ("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text"),
        "its layers have inputs and sizes of their own and share keys and values",
    ),
    **dict.fromkeys(("t5gemma", "t5gemma2"), "it has an encoder beside the decoder"),
    **dict.fromkeys(("paligemma", "shieldgemma2", "embedding_gemma2"), "it does not chat"),
    "recurrent_gemma": "it is recurrent",
    "diffusion_gemma": "it writes by diffusion",
}
_COMPUTED_BY_NONE = ("attention_bias", "use_bidirectional_attention")
_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")


def check_kind(kind: Any) -> None:
    """Raises `ModelError` for a model_type that is neither served nor trained, with the reason where one is known."""
    name = str(kind)
    if name in ARCHITECTURES or name in MULTIMODAL:
        return
    why = f" ({REFUSED[name]})" if name in REFUSED else ""
    known = ", ".join([*ARCHITECTURES, *(f"the text half of {name}" for name in MULTIMODAL)])
    raise ModelError(f"a {kind!r:.80} model is not served{why}; only Gemma text models are: {known}")


def architecture_of(config: PreTrainedConfig) -> Architecture:
    """The architecture of a text model; raises `ModelError` for one, or a variant of one, that is not computed."""
    check_kind(config.model_type)
    found = ARCHITECTURES[config.model_type]
    for name in _COMPUTED_BY_NONE if found.soft_caps else _COMPUTED_BY_NONE + _CAPS:
        if getattr(config, name, None):
            raise ModelError(f"{config.name_or_path} sets {name}, which is not computed here: choose another")
    return found


def attention_cap(config: PreTrainedConfig) -> float:
    """Beyond which attention scores do not grow, 0 for no bound."""
    return getattr(config, _CAPS[0], None) or 0.0


def logit_cap(config: PreTrainedConfig) -> float:
    """The same of logits."""
    return getattr(config, _CAPS[1], None) or 0.0


def plain_attention(config: PreTrainedConfig) -> tuple[str, str]:
    """What transformers calls the attention that this architecture can always be computed with, and why."""
    if architecture_of(config).soft_caps:
        return "eager", "soft-capped scores, which sdpa does not have"
    return "sdpa", "PyTorch's own"
