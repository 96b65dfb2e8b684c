"""How far an adapter moves its model: it is asked a few things with and without it. What runs the model is unknown."""

import math

import torch

from roleplay.errors import AdapterError
from roleplay.text.prompts import PromptEncoder

PROBES = (  # what an adapter is asked to see how far it moves the model
    *("你是谁？", "今天天气如何？", "可否作一句诗？", "你最怕什么？"),
    *("Who are you?", "What is two plus two?", "Tell me about your day.", "What do you think of the emperor?"),
)


def probe_prompts(encoder: PromptEncoder, persona: str) -> list[list[int]]:
    """What is asked to `probe` an adapter, as token ids."""
    return [encoder.prompt(persona, (), user) for user in PROBES]


def kl_to_base(adapted: torch.Tensor, base: torch.Tensor) -> float:
    """How far an adapter moves the model: mean KL(adapter || base) in nat over the prompts' next token.

    Both are logits (prompts, vocabulary). Raises `AdapterError` when they are not finite.
    """
    ours, theirs = (torch.log_softmax(logits.cpu().double(), -1) for logits in (adapted, base))
    kl = float((ours.exp() * (ours - theirs)).sum(-1).mean())
    if not math.isfinite(kl):
        raise AdapterError("with this adapter the model's scores are not finite: it is damaged, choose another")
    return kl
