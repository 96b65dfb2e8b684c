"""How surprising rows are to a base model with the persona: a reply that it could never guess it can hardly learn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roleplay.text.prompts import PromptEncoder
from roleplay.text.rows import Row
from roleplay.weights.base_models import BaseModel
from train.learning.attention import ATTENTION
from train.learning.loss import use_chunked_loss
from train.measuring.losses import example_nats, label_count

NAMED = 10  # rows that the text shows


@dataclass(frozen=True)
class Surprise:
    """A row and the mean negative log-likelihood of its own reply, the stop token included, in nat per token."""

    where: str
    user: str
    reply: str
    nat_per_token: float


def surprises(
    rows: Sequence[Row], base: BaseModel, template: str, persona: str, done: Callable[[float], object] = float
) -> list[Surprise]:
    """Every row's surprise, in the order of the rows; the model can no longer return logits afterwards.

    `persona` is the system prompt; `done` is told how many rows were computed. The persona is computed once for
    sixteen rows.
    """
    encoder = PromptEncoder(base.tokenizer, template)
    examples = [encoder.example(persona, row.turns, "last", where=row.where) for row in rows]
    base.model.set_attn_implementation(ATTENTION)
    use_chunked_loss(base.model)
    nats = example_nats(base.model, base.model.loss_function, examples, done)
    return [
        Surprise(row.where, *row.turns[-1], nat / label_count(example))
        for row, example, nat in zip(rows, examples, nats, strict=True)
    ]


def as_text(found: Sequence[Surprise]) -> str:
    """The mean over rows, and the rows that surprise most, for a terminal."""
    mean = sum(row.nat_per_token for row in found) / len(found)
    most = sorted(found, key=lambda row: -row.nat_per_token)[:NAMED]
    lines = [f"surprise      {mean:.2f} nat per token of a row's reply on average; the most surprising are"]
    return "\n".join([*lines, *(f"{'':16}{r.nat_per_token:.2f}  {r.where}: {r.user} → {r.reply}"[:166] for r in most)])
