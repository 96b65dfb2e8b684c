"""Our engine against what people would pick: llama.cpp, and transformers with peft. The same prompt, all greedy.

    make bench-peers    # installs llama.cpp's library, then runs the next line
    python -m benchmarks.peers --json runs/peers.json
    python -m benchmarks.peers --arms ours q8_0 --tokens 16 --repeats 1 --rows 4    # a first look

Each arm is a process of its own that answers with the adapter, and with adapter and base model; they take turns in both
orders. llama.cpp has the weights of the engine at BF16, Q8_0 and Q4_K_M, the adapter merged or (`-lora`) attached, and
takes both answers as two requests. Beside the times stand resident memory, the share of the speed at which memory can
be read, the nat per token lost on some held-out rows, and how many tokens are those of the first arm.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks import llama_cpp, peer_files
from benchmarks.generation import read_speed
from benchmarks.peer_loop import ADAPTER, BASE
from benchmarks.report import write
from roleplay.environment import ROOT, Environment
from roleplay.errors import RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.prompts import IGNORED, PromptEncoder
from roleplay.text.rows import file_sha256
from roleplay.weights import base_models, embedded, inspection
from roleplay.weights.adapters import Adapter
from roleplay.weights.layout import WEIGHTS
from roleplay.weights.training_rows import rows_of

LLAMA = [f"{kind}{how}" for how in ("", "-lora") for kind in llama_cpp.FILE_TYPES]
TORCH = ["ours", "ours-int8", "peft"]
ASKED = {"one": [ADAPTER], "both": [ADAPTER, BASE]}


@dataclass(frozen=True)
class Flags:
    json: str = flag("runs/peers.json", "file that the figures are written to")
    arms: list[str] = flag([*TORCH, *LLAMA], "whom to measure", (*TORCH, *LLAMA))
    adapter: str = flag("adapters/zhenhuan-gemma3-270m", "the adapter, of the embedded base model")
    dtype: str = flag(
        "bfloat16", "of ours and of peft; ours-int8 rounds the base weights to 8 bits", ("bfloat16", "float32")
    )
    user: str = flag("Do you miss your old home?", "the message that is answered")
    tokens: int = flag(64, "tokens per answer", within=(2, inf))
    repeats: int = flag(5, "times that each arm answers, every other time in reverse order", within=(1, inf))
    rows: int = flag(16, "held-out rows whose loss stands beside the times", within=(1, inf))
    threads: int = flag(2, "threads of each arm", within=(1, inf))
    library: str = flag(".venv-peers/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64", "llama.cpp's folder")


class Process:
    """An arm at its work. `ask` raises `RoleplayError` with the last line of its log where it has ended."""

    def __init__(self, arm: str, command: Sequence[str], task: dict[str, Any]) -> None:
        self.arm, self.log = arm, ROOT / "runs" / "peers" / f"{arm}.log"
        environment = os.environ | {"OMP_NUM_THREADS": str(task["threads"])}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, json.dumps(task)], cwd=ROOT, env=environment, text=True, stderr=log,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        self.memory = 0  # bytes resident after an answer, at most

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        try:
            print(json.dumps(asked), file=self.process.stdin, flush=True)
            told: dict[str, Any] = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError) as error:
            last = (self.log.read_text().splitlines() or ["no output"])[-1]
            raise RoleplayError(f"{self.arm} has ended: {last:.160}; see {self.log}") from error
        own = psutil.Process(self.process.pid)
        resident = sum(process.memory_info().rss for process in (own, *own.children(recursive=True)))
        self.memory = max(self.memory, resident)
        return told

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait(60)


def commands(flags: Flags, adapter: Adapter, prompt: list[int]) -> dict[str, tuple[list[str], dict[str, Any]]]:
    """The program and the task of every arm."""
    common = {"prompt": prompt, "user": flags.user, "tokens": flags.tokens, "threads": flags.threads}
    common |= {"adapter": flags.adapter, "dtype": flags.dtype}
    found: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for arm in flags.arms:
        kind, _, attached = arm.partition("-")
        if arm in TORCH:
            own = {"arm": kind, **({"dtype": attached} if attached else {})}
            found[arm] = [sys.executable, "-m", "benchmarks.peer_torch"], common | own
        else:
            folder = gguf_folder(flags, adapter)
            plain, lora = folder / peer_files.name(peer_files.BASE, kind), str(folder / f"{peer_files.LORA}.gguf")
            own = plain if attached else folder / peer_files.name(peer_files.MERGED, kind)
            sides = {
                ADAPTER: {"model": str(own), "lora": lora * bool(attached)},
                BASE: {"model": str(plain), "lora": ""},
            }
            command = [sys.executable, "-m", "benchmarks.peer_llama"]
            found[arm] = command, common | {"library": flags.library, "sides": sides}
    return found


def gguf_folder(flags: Flags, adapter: Adapter) -> Path:
    """The folder with llama.cpp's files, made where it is missing; raises `RoleplayError` without the library."""
    folder = ROOT / "runs" / "peers" / file_sha256(adapter.folder / WEIGHTS)[:16]
    if not list(Path(flags.library).glob("libllama.v*.so")):
        raise RoleplayError(
            f"no llama.cpp in {flags.library}: make bench-peers installs it, or choose others with --arms"
        )
    peer_files.prepare(folder, adapter, llama_cpp.load(Path(flags.library)), flags.threads)
    return folder


def held_out(adapter: Adapter, encoder: PromptEncoder, count: int) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids of some held-out rows and the places of those that the loss is on, as `train.evaluate` has them."""
    _, rows, _ = rows_of(adapter)
    for number in range(min(count, len(rows))):
        row = rows[number * len(rows) // min(count, len(rows))]
        example = encoder.without_loss(encoder.example(adapter.persona, row.turns, where=row.where), row.unlearnt)
        yield example.input_ids, [place for place, label in enumerate(example.labels) if label != IGNORED]


def time_arms(arms: dict[str, Process], repeats: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """What every arm answered, one side and both, run after run, in both orders."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {arm: {asked: [] for asked in ASKED} for arm in arms}
    order = [(arm, asked) for arm in arms for asked in ASKED]
    for number in range(repeats + 1):
        for arm, asked in order[:: -1 if number % 2 else 1]:
            answered = arms[arm].ask({"sides": ASKED[asked]})
            if number:  # the first round warms up
                found[arm][asked].append(answered)
    return found


def summarise(runs: Sequence[dict[str, Any]], tokens: int, reading: float) -> dict[str, float]:
    """Medians; `reading` are the seconds that memory takes for the weights, once for every request of a token."""
    token = statistics.median((run["seconds"] - run["first"]) / (tokens - 1) for run in runs)
    return {
        "first_token_ms": round(1e3 * statistics.median(run["first"] for run in runs), 1),
        "token_ms": round(1e3 * token, 2),
        "seconds": round(statistics.median(run["seconds"] for run in runs), 3),
        "memory_read_share": round(reading / token, 3),
    }


def same(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many first tokens are the same."""
    return next((n for n, (a, b) in enumerate(zip(ids, others, strict=True)) if a != b), len(ids))


def measure(arms: dict[str, Process], rows: Sequence[Any], flags: Flags) -> dict[str, Any]:
    losses = {arm: process.ask({"rows": rows}) for arm, process in arms.items()}
    found, read = time_arms(arms, flags.repeats), read_speed(torch.device("cpu")) * 1e9
    reference = next(iter(found))  # ours, where it is measured
    report: dict[str, Any] = {"memory_read_gb_per_second": round(read / 1e9, 1), "arms": {}}
    for arm, runs in found.items():
        nats = [nat for row in losses[arm]["nats"] for nat in row]
        reading = losses[arm]["weights"] / read
        requests = {"one": 1, "both": 1 if arm.startswith("ours") else 2}
        report["arms"][arm] = {
            "held_out_loss": round(sum(nats) / len(nats), 4),
            "memory_gb": round(arms[arm].memory / 1e9, 2),
            **{asked: summarise(runs[asked], flags.tokens, reading * requests[asked]) for asked in ASKED},
            f"first_tokens_as_{reference}": {
                side: same(runs["both"][0]["ids"][side], found[reference]["both"][0]["ids"][side])
                for side in ASKED["both"]
            },
        }
    return report


def table(report: dict[str, Any]) -> Iterator[str]:
    """The figures for people, a line for each arm."""
    yield f"{'':12} {'one: first ms':>14} {'ms a token':>11} {'read':>5} {'both: first':>12} {'ms a token':>11} " + (
        f"{'both stand s':>13} {'GB':>5} {'loss':>7}"
    )
    for arm, own in report["arms"].items():
        one, both = own["one"], own["both"]
        yield (
            f"{arm:12} {one['first_token_ms']:14.0f} {one['token_ms']:11.1f} {one['memory_read_share']:5.0%} "
            f"{both['first_token_ms']:12.0f} {both['token_ms']:11.1f} {both['seconds']:13.2f} {own['memory_gb']:5.2f} "
            f"{own['held_out_loss']:7.3f}"
        )


def main() -> None:
    flags = parse(Flags, __doc__)
    (ROOT / "runs" / "peers").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(flags.threads)
    adapter = inspection.inspect(Path(flags.adapter))
    tokenizer = base_models.read_tokenizer(embedded.prepare(Environment().cache))
    encoder = adapter.encoder(tokenizer)
    prompt, rows = encoder.prompt(adapter.persona, (), flags.user), list(held_out(adapter, encoder, flags.rows))
    with ExitStack() as stack:
        arms = {}
        for arm, (command, task) in commands(flags, adapter, prompt).items():
            arms[arm] = Process(arm, command, task)
            stack.callback(arms[arm].close)
        told = {"prompt_tokens": len(prompt), "held_out_labels": sum(len(places) for _, places in rows)}
        report = {"settings": asdict(flags), **told, **measure(arms, rows, flags)}
    write(report, flags.json)
    print(
        *table(report), "left out     vLLM, which has its own: python -m benchmarks.concurrency --vllm PYTHON", sep="\n"
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
