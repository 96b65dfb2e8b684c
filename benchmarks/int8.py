"""What base weights of 8 bits change in what an adapter says: the engine beside itself with bfloat16.

    python -m benchmarks.int8 --json runs/int8.json
    python -m benchmarks.int8 --choice-rows 5 --sections identity    # a first look

Sections of `train.evaluate` on the same items with the same dice, the likelihoods from the decoder's own scores; each
figure has its 95 % interval. Exits with status 1 where the held-out loss is more than 0.02 nat worse, or another figure
outside of the interval that it has without. How quick both are: `benchmarks.step` and `benchmarks.peers`.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.peer_torch import decoder_nats
from benchmarks.report import write
from roleplay.engine.decoder import Decoder, Lora
from roleplay.environment import Environment
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from roleplay.results.board import BASE_WITH_PERSONA, TUNED
from roleplay.results.intervals import Estimate
from roleplay.text.prompts import IGNORED, Example
from roleplay.weights import adapters, base_models, devices, inspection
from roleplay.weights.adapters import Adapter
from train.evaluate import EvaluationFlags, judge, plan, prepare
from train.measuring.figures import Board
from train.measuring.losses import Losses
from train.measuring.progress import Progress
from train.measuring.replies import Done, Writer
from train.measuring.sections import SECTIONS
from train.measuring.subject import Bench

LOSS, MARGIN = "held-out loss", 0.02  # nat


@dataclass(frozen=True)
class Flags:
    json: str = flag("runs/int8.json", "file that the figures are written to")
    adapter: str = flag("adapters/zhenhuan-gemma3-270m", "the adapter, of the embedded base model")
    sections: list[str] = flag(["loss", "choice", "replies", "identity", "recall"], "what to measure", tuple(SECTIONS))
    choice_rows: int = flag(40, "held-out rows with ten replies to choose from", within=(1, inf))


class DecoderLosses(Losses):
    """Likelihoods as the engine computes them, without training's forward pass."""

    def __init__(self, decoder: Decoder, adapter: Adapter) -> None:
        self._decoder, self._lora = decoder, Lora(decoder, adapters.read_weights(adapter), adapter.scaling)

    def nats(self, adapter: str, examples: Sequence[Example], done: Done, pack: int = 0) -> list[float]:
        lora, found = self._lora if adapter else None, []
        for example in examples:
            places = [place for place, label in enumerate(example.labels) if label != IGNORED]
            found.append(sum(decoder_nats(self._decoder, lora, example.input_ids, places)))
            done(1)
        return found


def measure(base: base_models.BaseModel, adapter: Adapter, flags: Flags) -> dict[str, Estimate]:
    """The adapter's figures with the engine that `base` asks for."""
    settings = EvaluationFlags(adapter=[flags.adapter], choice_rows=flags.choice_rows)
    writer = Writer(base, [adapter], base_models.fingerprint(base.model))
    subject, _ = prepare(adapter, writer.encoders[adapter.name], settings)
    subject = replace(subject, arms=(BASE_WITH_PERSONA, TUNED))
    losses = DecoderLosses(Decoder(base.model, bool(base.int8)), adapter)
    board = Board()
    with tqdm(unit="item") as bar:
        progress = Progress(describe=bar.set_description)
        prompts = subject.prompts(settings.prompts)
        bench = Bench(subject, prompts, judge(adapter, settings)[1], writer, losses, progress, flags.choice_rows)
        for name in plan(bench, flags.sections):
            progress.begin(f"{devices.INT8 if base.int8 else base.dtype[0]}, {name}", {})
            SECTIONS[name].enter(bench, board)
    return board.arms[TUNED]


def is_apart(name: str, own: Estimate, value: float) -> bool:
    """Whether a figure in 8 bits has left the one without them."""
    return value > own.value + MARGIN if name == LOSS else not own.low <= value <= own.high


def main() -> None:
    flags = parse(Flags, __doc__)
    with one_line_errors(), torch.inference_mode():
        environment, adapter = Environment(), inspection.inspect(Path(flags.adapter))
        base = base_models.load(environment.base_model, environment.cache, devices.INT8)
        plain, rounded = (measure(one, adapter, flags) for one in (replace(base, int8=""), base))
    print(f"{'':24} {base.dtype[0]:>28} {devices.INT8:>28}")
    for name, own in plain.items():
        figures = (f"{one.value:10.3f} ({one.low:.3f} to {one.high:.3f})" for one in (own, rounded[name]))
        print(f"{name:24} " + " ".join(f"{figure:>28}" for figure in figures))
    apart = [name for name, own in plain.items() if is_apart(name, own, rounded[name].value)]
    arms = {base.dtype[0]: plain, devices.INT8: rounded}
    report = {arm: {name: asdict(one) for name, one in own.items()} for arm, own in arms.items()}
    write({"settings": asdict(flags), **report, "apart": apart}, flags.json)
    sys.exit(1 if apart else 0)


if __name__ == "__main__":
    main()
