"""Time the engine against stock transformers on the same model, dtype and machine.

    python -m benchmarks.generation --json runs/generation.json
    python -m benchmarks.generation --json runs/generation-2b.json --shape gemma-2b

Arms: stock `generate` with the adapter attached by peft, two such calls one after the other (adapter, then base), the
engine with one side and with both. They alternate in both orders; a token's time is the median over all of them.
Prints every figure and writes them, with the ratios, as one JSON object; ends with an error instead where an arm's
greedy answers are not those of stock transformers.
"""

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Gemma2Config, GemmaConfig
from transformers.generation.streamers import BaseStreamer

from benchmarks import agreement
from benchmarks.gauges import PeakMemory
from benchmarks.report import write
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE, Question, Request, Sampling
from roleplay.environment import ROOT, Environment
from roleplay.errors import one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.prompts import TEMPLATES, PromptEncoder, Turn
from roleplay.weights import adapters, base_models, inspection, layout

USER = "What do you miss most about your old home?"
DEFAULT_ADAPTER = ROOT / "adapters" / "zhenhuan-alone-gemma3-270m"
EMBEDDED = "embedded"
SHAPES = {  # of random weights
    "gemma-2b": GemmaConfig(
        vocab_size=256000, hidden_size=2048, intermediate_size=16384, num_hidden_layers=18, num_attention_heads=8,
        num_key_value_heads=1,
    ),
    "gemma-2-2b": Gemma2Config(),
    "tiny": GemmaConfig(  # of no use but to see that a benchmark works
        vocab_size=262144, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Timed:
    """Seconds to the first token and for each later one, and what was said on every side."""

    first: float
    later: list[float]
    said: dict[str, str]


@dataclass(frozen=True)
class Flags:
    json: str = flag("runs/generation.json", "file that the figures are written to")
    shape: str = flag(EMBEDDED, "the embedded model, or random weights in the shape of a larger", (EMBEDDED, *SHAPES))
    dtype: str = flag("", "float32 or bfloat16; without it, what suits the machine")
    tokens: int = flag(24, "tokens per answer; more makes steadier figures and a longer run", within=(2, inf))
    repeats: int = flag(4, "times that each arm runs, every other time in reverse order", within=(1, inf))
    turns: int = flag(8, "turn at which the first token is timed with the kept cache and without", within=(1, inf))


def load(flags: Flags) -> base_models.BaseModel:
    """The model to time; one of random weights borrows the embedded model's tokenizer."""
    base = base_models.load(EMBEDDED, Environment().cache, flags.dtype)
    if flags.shape in SHAPES:
        torch.set_default_dtype(base.model.dtype)
        with torch.device(base.device[0]):
            model: Any = AutoModelForCausalLM.from_config(SHAPES[flags.shape])
        base.model = model.eval()
        torch.set_default_dtype(torch.float32)
        base.name, base.origin = flags.shape, "random weights in its shape"
    return base


def random_adapter(base: base_models.BaseModel, folder: Path) -> adapters.Adapter:
    """A rank 8 adapter on all seven projections in a folder such as train.lora writes."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    training = {"base_model": {"name": base.name, "fingerprint": base_models.fingerprint(base.model)}}
    attached: Any = get_peft_model(base.model, config)
    attached.save_pretrained(str(folder), save_embedding_layers=False)
    base.model = attached.unload()
    (folder / layout.TEMPLATE).write_text(TEMPLATES["gemma"], encoding="utf-8")
    (folder / layout.TRAINING).write_text(json.dumps(training), encoding="utf-8")
    return inspection.inspect(folder)


class Clock(BaseStreamer):
    """Notes when `generate` hands over the prompt and each new token."""

    def __init__(self) -> None:
        self.started, self.at, self.ids = time.perf_counter(), list[float](), list[torch.Tensor]()

    def put(self, value: torch.Tensor) -> None:
        self.at.append(time.perf_counter())
        self.ids.append(value)

    def end(self) -> None:
        pass

    def timed(self, encoder: PromptEncoder, side: str) -> Timed:
        _, *tokens = self.at  # the first is the prompt
        text = agreement.text_of(encoder, [int(value) for value in self.ids[1:]])
        return Timed(tokens[0] - self.started, [b - a for a, b in itertools.pairwise(tokens)], {side: text})


def stock(model: PeftModel, encoder: PromptEncoder, tokens: int, side: str = ADAPTER) -> Timed:
    prompt = encoder.prompt("", (), USER)
    clock, ids = Clock(), torch.tensor([prompt], device=model.device)
    model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), streamer=clock, do_sample=False, eos_token_id=None,
        pad_token_id=0, max_new_tokens=tokens,
    )  # fmt: skip
    return clock.timed(encoder, side)


def two_calls(model: PeftModel, encoder: PromptEncoder, tokens: int) -> Timed:
    one = stock(model, encoder, tokens)
    with model.disable_adapter():
        other = stock(model, encoder, tokens, BASE)
    later = [a + b for a, b in zip(one.later, other.later, strict=True)]
    return Timed(one.first + other.first, later, one.said | other.said)


def ours(engine: LocalEngine, sides: tuple[str, ...], tokens: int, turns: tuple[Turn, ...] = ()) -> Timed:
    """Of the side that is asked first; updates that carry several tokens count as equal shares."""
    question = Question("", turns, USER)
    sampling = Sampling(temperature=0.0, repetition_penalty=1.0, frequency_penalty=0.0, max_new_tokens=tokens)
    answers = list(engine.answer(Request(dict.fromkeys(sides, question), sampling)))
    states = [answer[sides[0]] for answer in answers]
    spans = [(b.seconds - a.seconds, b.tokens - a.tokens) for a, b in itertools.pairwise(states)]
    later = [seconds / count for seconds, count in spans if count for _ in range(count)]
    said = {side: answer.text for side, answer in answers[-1].items()}
    return Timed(states[-1].seconds_to_first_token, later[-(tokens - 1) :], said)


def say(engine: LocalEngine, turns: tuple[Turn, ...], tokens: int) -> tuple[Turn, ...]:
    """The conversation with one turn more, as the adapter answers it; the same each time."""
    sampling = Sampling(temperature=0.7, max_new_tokens=2 * tokens, seed=len(turns))
    *_, final = engine.answer(Request({ADAPTER: Question("", turns, USER)}, sampling))
    return (*turns, (USER, final[ADAPTER].text.strip() or "…"))


def late_turn(engine: LocalEngine, flags: Flags) -> dict[str, float]:
    """The first token of a later turn, with the cache that the turn before left and without."""
    before: tuple[Turn, ...] = ()
    while len(before) < flags.turns - 2:
        before = say(engine, before, flags.tokens)
    kept, whole = [], []
    for _ in range(flags.repeats):
        engine.forget()
        turns = say(engine, before, flags.tokens)
        kept.append(ours(engine, (ADAPTER,), 1, turns).first)
        engine.forget()
        whole.append(ours(engine, (ADAPTER,), 1, turns).first)
    return {"turn": flags.turns, "first_token_kept_ms": median_ms(kept), "first_token_whole_ms": median_ms(whole)}


def median_ms(seconds: list[float]) -> float:
    return round(1e3 * statistics.median(seconds), 2)


def timed(work: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds of some calls after one to warm up."""

    def spans() -> Iterator[float]:
        for _ in range(repeats + 1):
            started = time.perf_counter()
            work()
            yield time.perf_counter() - started

    return median_ms(list(spans())[1:])


def read_speed(device: torch.device) -> float:
    """GB/s at which a sum runs through 1 GiB, which no cache holds."""
    block = torch.ones(1 << 28, device=device)
    return block.nbytes / timed(lambda: block.sum().item(), 5) / 1e6


def time_arms(
    engine: LocalEngine, model: PeftModel, encoder: PromptEncoder, flags: Flags
) -> tuple[dict[str, list[Timed]], dict[str, float]]:
    """Every arm's times, run after run, in both orders, and the most memory that it takes, in MB above the weights."""
    arms: dict[str, Callable[[], Timed]] = {
        "stock_one": lambda: stock(model, encoder, flags.tokens),
        "two_calls": lambda: two_calls(model, encoder, flags.tokens),
        "one": lambda: ours(engine, (ADAPTER,), flags.tokens),
        "both": lambda: ours(engine, (ADAPTER, BASE), flags.tokens),
    }
    measured, memory = {name: list[Timed]() for name in arms}, dict[str, float]()
    for name, run in arms.items():  # to warm up, while watching costs no time
        engine.forget()
        with PeakMemory(model.device.type) as peak:
            run()
        memory[name] = round(peak.above / 1e6, 1)
    for number in range(flags.repeats):
        for name in list(arms)[:: 1 if number % 2 else -1]:
            engine.forget()
            measured[name].append(arms[name]())
    return measured, memory


def summarise(measured: dict[str, list[Timed]], weights: int, read: float) -> dict[str, dict[str, float]]:
    """Medians in milliseconds, and the share of what memory allows; `weights` in bytes, `read` in GB a second."""
    figures: dict[str, dict[str, float]] = {}
    for name, runs in measured.items():
        token = median_ms([gap for run in runs for gap in run.later])
        share = weights / (token / 1e3) / 1e9 / read * (2 if name == "two_calls" else 1)
        figures[name] = {
            "time_to_first_token_ms": median_ms([run.first for run in runs]),
            "time_per_token_ms": token,
            "memory_read_share": round(share, 3),
        }
    return figures


def run(flags: Flags, base: base_models.BaseModel, adapter: adapters.Adapter) -> dict[str, Any]:
    engine = LocalEngine(base, [adapter])
    engine.choose_steps()
    encoder = engine.encoders[adapter.template]
    encoder.stop_ids = ()  # every arm says the same number of tokens
    prompt = encoder.prompt("", (), USER)
    weights = sum(p.numel() * p.element_size() for p in base.model.parameters())
    model = PeftModel.from_pretrained(base.model, str(adapter.folder)).eval()

    read = read_speed(model.device)
    ids = torch.tensor([prompt], device=model.device)
    keep = torch.tensor([len(prompt) - 1], device=model.device)  # an index keeps the head's input contiguous
    with torch.inference_mode(), model.disable_adapter():
        plain = timed(lambda: model(input_ids=ids, logits_to_keep=keep, use_cache=False), flags.repeats)

    measured, memory = time_arms(engine, model, encoder, flags)
    said = {
        side: {arm: [run.said[side] for run in runs] for arm, runs in measured.items() if side in runs[0].said}
        for side in (ADAPTER, BASE)
    }
    answers = agreement.compare(model, encoder, prompt, flags.tokens, said)
    figures = summarise(measured, weights, read)
    late = late_turn(engine, flags)

    def ratio(a: str, b: str, figure: str) -> float:
        return round(figures[a][figure] / figures[b][figure], 2)

    first, each = "time_to_first_token_ms", "time_per_token_ms"
    return {
        "settings": asdict(flags),
        "machine": {"device": base.device, "dtype": base.dtype, "threads": torch.get_num_threads()},
        "versions": {"torch": torch.__version__},
        "engine": engine.describe(),
        "adapter": adapter.name,
        "prompt_tokens": len(prompt),
        "weights_gb": round(weights / 1e9, 3),
        "memory_read_gb_per_second": round(read, 1),
        "plain_forward_ms": plain,
        "answers": answers,
        "arms": figures,
        "peak_memory_mb": memory,
        "late_turn": late,
        "ratios": {
            "both/stock_one": ratio("both", "stock_one", each),
            "two_calls/both": ratio("two_calls", "both", each),
            "one/stock tokens_per_second": ratio("stock_one", "one", each),
            "stock/one time_to_first_token": ratio("stock_one", "one", first),
            "one time_to_first_token/plain_forward": round(figures["one"][first] / plain, 2),
            "late turn time_to_first_token whole/kept": round(
                late["first_token_whole_ms"] / late["first_token_kept_ms"], 2
            ),
        },
    }


def main() -> None:
    flags = parse(Flags, __doc__)
    with tempfile.TemporaryDirectory() as folder:
        base = load(flags)
        if flags.shape == EMBEDDED and DEFAULT_ADAPTER.is_dir():
            adapter = inspection.inspect(DEFAULT_ADAPTER)
        else:
            adapter = random_adapter(base, Path(folder) / "random")
        report = run(flags, base, adapter)
    write(report, flags.json)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    with one_line_errors():
        main()
