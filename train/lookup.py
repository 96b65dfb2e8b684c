"""Write anew what an adapter looks up before it answers, and what that means to its base model.

    python -m train.lookup --adapter adapters/zhenhuan-gemma3-270m \\
        --data dataset/zhenhuan/intents.json dataset/zhenhuan/conversations.json

The adapter's weights stay as they are: a reply that was added to the rows, or mended in them, can be said a quarter of
an hour later, or after six minutes with --keep-nearness. It must have learnt to look up (train.lora --retrieval). Rows
that its training held out are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from roleplay.environment import Environment
from roleplay.errors import AdapterError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.known import known
from roleplay.weights import base_models, inspection
from roleplay.weights.examples import check_examples
from roleplay.weights.training_rows import rows_of
from train.learning.meaning import look_up
from train.publishing.folders import write_looked_up


@dataclass(frozen=True)
class LookupFlags:
    adapter: str = flag("adapters/zhenhuan-gemma3-270m", "folder of an adapter that looks up")
    data: list[str] = flag([], "files of rows; by default those that it was trained on")
    base_model: str = flag("", "what it was trained on: embedded, a Hugging Face id, modelscope:OWNER/NAME, a folder")
    seed: int = flag(0, "draws what nearness is learned from")
    keep_nearness: bool = flag(
        False, "read the rows by the nearness that the adapter has, in less than half of the time"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parse(LookupFlags, __doc__, arguments)
    # Unless that is kept, what it looks up now may be of any form.
    adapter = inspection.inspect(Path(flags.adapter), looks_up=flags.keep_nearness)
    settings = adapter.training.get("settings")
    if not isinstance(settings, dict) or not settings.get("retrieval"):
        raise AdapterError(f"{adapter.name} has not learnt to look up: train it with train.lora --retrieval")
    if flags.keep_nearness and not adapter.looked_up.meaning:
        raise AdapterError(f"{adapter.name} has learnt no nearness yet: leave out --keep-nearness")
    rows, _, files = rows_of(adapter, flags.data)
    check_examples(known(rows))
    environment = Environment()
    base = base_models.load(flags.base_model or environment.base_model, environment.cache)
    if warning := inspection.check_base(adapter, base.model, base_models.fingerprint(base.model), base.hub_id):
        print(f"warning      {warning}")
    looked_up = look_up(base, rows, flags.seed, adapter.looked_up.meaning)
    write_looked_up(adapter, looked_up, files)
    nearness = "what they mean" if looked_up.meaning else "their words: no two matters have two wordings"
    print(f"{adapter.folder}: {looked_up.shown:,} rows to look up, told apart by {nearness}")


if __name__ == "__main__":
    with one_line_errors():
        main()
