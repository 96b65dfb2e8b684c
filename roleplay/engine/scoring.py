"""How likely both sides find a finished text, token by token: one forward pass over it, and nothing is generated.

Every side reads the text after its own prompt, with its own weights. Nothing here knows the page.
"""

from collections.abc import Collection, Mapping, Sequence

import torch

from roleplay.engine.batch import NOT_FINITE, RunningRow
from roleplay.engine.cache import CachePool
from roleplay.engine.decoder import Decoder, Segment
from roleplay.engine.pieces import LIKELIEST, Seen, answer_ids, joined, name_of
from roleplay.engine.protocol import Answer, Piece
from roleplay.engine.sampling import Drawing, next_tokens
from roleplay.errors import RoleplayError

CHUNK = 32  # tokens whose logits are held at a time, at two megabytes each


def score(
    decoder: Decoder, pool: CachePool, rows: Mapping[str, RunningRow], answer: Answer, context: int
) -> list[Piece]:
    """The pieces of `answer` as each side of `rows` sees them, which are asked and not answered yet.

    Raises `RoleplayError` for an answer that does not fit the context of so many tokens after a side's prompt.
    """
    encoder = next(iter(rows.values())).encoder
    ids = answer_ids(encoder, answer)
    if any(len(row.prompt) + len(ids) > context for row in rows.values()):
        raise RoleplayError(f"the answer takes {len(ids)} tokens, more than fit beside the conversation")
    hidden = _hidden(decoder, pool, rows.values(), ids)
    seen = {side: _seen(decoder, row, ids, part) for (side, row), part in zip(rows.items(), hidden, strict=True)}
    return joined(encoder, ids, seen)


def _hidden(decoder: Decoder, pool: CachePool, rows: Collection[RunningRow], ids: Sequence[int]) -> list[torch.Tensor]:
    """What stands before each of the tokens, (tokens, hidden), for every row; what is kept of a prompt is not computed
    again, and what is computed is not kept: the answer's own cache is there already."""
    segments = []
    for row in rows:
        cache = pool.take(row.voice.key, row.prompt, row.cuts) or decoder.new_cache()
        segments.append(Segment([*row.prompt, *ids][cache.length : -1], cache, row.voice.lora, len(ids)))
    return list(decoder.forward(segments).split(len(ids)))


@torch.inference_mode()
def _seen(decoder: Decoder, row: RunningRow, ids: Sequence[int], hidden: torch.Tensor) -> list[Seen]:
    seen = list[Seen]()
    row.start(decoder.device)
    stops = list(row.encoder.stop_ids)  # any of them ends an answer
    for start in range(0, len(ids), CHUNK):
        logits = decoder.head(hidden[start : start + CHUNK])
        logprobs = logits.log_softmax(-1)
        values, likely = logprobs.topk(LIKELIEST)
        numbers = range(start, start + len(logits))
        # These overwrite the logits.
        choices = next_tokens(logits, [Drawing(row.asked, ids[:number], row.sampling) for number in numbers])
        for own, shares, top, number, choice in zip(
            logprobs, values.exp().tolist(), likely.tolist(), numbers, choices, strict=True
        ):
            if choice is None:
                raise RoleplayError(NOT_FINITE)
            token = ids[number]
            logprob = float(own[stops if token in stops else [token]].logsumexp(0))
            names = [name_of(row.encoder, other) for other in top]
            named = list(zip(names, shares, strict=True))
            seen.append(Seen(logprob, named, stops[0] if choice in stops else choice))
    return seen
