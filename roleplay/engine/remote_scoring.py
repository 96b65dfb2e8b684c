"""How likely a server's models find a finished text: what is asked of vLLM for it, and how its answer is read."""

import math
from collections.abc import Sequence
from typing import Any

from roleplay.engine.pieces import LIKELIEST, Seen, name_of
from roleplay.errors import ModelError
from roleplay.text.prompts import PromptEncoder


def body(model: str, ids: Sequence[int]) -> dict[str, Any]:
    """A request that generates one token, since a server generates no less, and tells how likely `ids` were."""
    return {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": LIKELIEST}


def read(encoder: PromptEncoder, value: dict[str, Any], ids: Sequence[int]) -> list[Seen]:
    """What the server says of `ids`, the last tokens of the prompt; raises `ModelError` where it says nothing.

    It keeps its dice to itself, so what it would have chosen is the likeliest token.
    """
    try:
        told = value["choices"][0]["prompt_logprobs"][-len(ids) :]
        return [_seen(encoder, token, entries) for token, entries in zip(ids, told, strict=True)]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelError("the server gives no token probabilities (prompt_logprobs): ask one that does") from error


def _seen(encoder: PromptEncoder, token: int, entries: dict[str, Any]) -> Seen:
    logprobs = {int(name): float(entry["logprob"]) for name, entry in entries.items()}
    best = sorted(logprobs, key=lambda name: -logprobs[name])[:LIKELIEST]
    return Seen(logprobs[token], [(name_of(encoder, one), math.exp(logprobs[one])) for one in best], best[0])
