"""Whether greedy answers are those of stock transformers: they may part only where rounding decides."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from peft import PeftModel

from roleplay.engine.protocol import BASE
from roleplay.engine.stream import TextStream
from roleplay.errors import RoleplayError
from roleplay.text.prompts import PromptEncoder

TIES = {"float32": 0.01, "bfloat16": 0.5}  # logits that are no further apart may change places by rounding


def text_of(encoder: PromptEncoder, ids: Sequence[int]) -> str:
    """The tokens as the engine makes them text."""
    stream = TextStream(encoder)
    for token in ids:
        stream.add(token)
    stream.close()
    return stream.text


def greedy(model: PeftModel, prompt: Sequence[int], tokens: int, side: str) -> tuple[list[int], list[float]]:
    """Stock's tokens for a side, and how far in logits the next best was behind each."""
    ids = torch.tensor([prompt], device=model.device)
    with model.disable_adapter() if side == BASE else nullcontext():
        found = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=None, pad_token_id=0,
            max_new_tokens=tokens, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    best = [step[0].float().topk(2).values.tolist() for step in found.logits]
    return found.sequences[0, len(prompt) :].tolist(), [first - second for first, second in best]


def parting(encoder: PromptEncoder, ids: Sequence[int], text: str) -> slice | None:
    """The tokens, of one character mostly, at which `text` ceases to be theirs; None where it is theirs to the end."""
    stream, whole = TextStream(encoder), 0
    for end, token in enumerate(ids, 1):
        before = stream.text
        stream.add(token)
        if not text.startswith(stream.text):
            return slice(whole, end)
        whole = end if stream.text != before else whole
    return None if text == text_of(encoder, ids) else slice(whole if whole < len(ids) else -1, None)


Said = Mapping[str, Mapping[str, Sequence[str]]]  # the texts of every side's arms


def compare(model: PeftModel, encoder: PromptEncoder, prompt: Sequence[int], tokens: int, said: Said) -> dict[str, str]:
    """How each arm's answers of so many tokens compare with stock's.

    Raises `RoleplayError` for one that parts from it where one token is clearly the likeliest.
    """
    tie, told = TIES[str(model.dtype).removeprefix("torch.")], dict[str, str]()
    for side, arms in said.items():
        ids, behind = greedy(model, prompt, tokens, side)
        for arm, texts in arms.items():
            told[f"{arm}, {side}"] = "same"
            for text in texts:
                if part := parting(encoder, ids, text):
                    gap = min(behind[part])
                    told[f"{arm}, {side}"] = f"parts where two tokens are {gap:.2g} apart in logits"
                    if gap > tie:
                        raise RoleplayError(
                            f"{arm} answers {text[:60]!r} on the {side} side, where transformers says "
                            f"{text_of(encoder, ids)[:60]!r} and nothing comes near: its times are worth nothing"
                        )
    return told
