"""What watches a training run for the benchmarks: its time, its operations, its memory, and where the time goes."""

import threading
import time
from typing import Any

import psutil
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Operations(TorchDispatchMode):
    """Counts the floating point operations of matrix products, forward and backward, without fused attention."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.count += formula(*(a for a in args if isinstance(a, torch.Tensor)), out_val=out)
        return out


class Watch(TrainerCallback):
    """Per update, the warm-up first: seconds, tokens and passes through the model; the warm-up's operations."""

    def __init__(self, embeddings: nn.Module) -> None:
        self.operations = Operations()
        self.ended, self.tokens, self.passes = list[float](), [0], [0]
        embeddings.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        self.tokens[-1] += inputs[0].numel()
        self.passes[-1] += 1

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:
            self.operations.__enter__()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == 1:
            self.operations.__exit__(None, None, None)
        self.ended.append(time.perf_counter())
        self.tokens.append(0)
        self.passes.append(0)


class PeakMemory(threading.Thread):
    """Most bytes held while the block runs, above those held at its start: resident, or allocated on a GPU."""

    def __init__(self, device: str) -> None:
        super().__init__(daemon=True)
        self.process, self.on_gpu, self.stop = psutil.Process(), device == "cuda", threading.Event()
        self.before = self.peak = 0

    def run(self) -> None:
        while not self.stop.wait(0.005):
            self.peak = max(self.peak, self.process.memory_info().rss)

    def __enter__(self) -> "PeakMemory":
        self.before = self.peak = torch.cuda.memory_allocated() if self.on_gpu else self.process.memory_info().rss
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.on_gpu:
            self.peak = torch.cuda.max_memory_allocated()
        else:
            self.stop.set()
            self.join()

    @property
    def above(self) -> int:
        return self.peak - self.before


class Profile(TrainerCallback):
    """The first timed update under PyTorch's profiler: the share of its time in every kind of operation itself."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.shares = list[tuple[str, float]]()  # the twelve largest, the largest first

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 1:
            self.profiler = torch.profiler.profile()
            self.profiler.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == 2:
            self.profiler.stop()
            key = "self_device_time_total" if self.device == "cuda" else "self_cpu_time_total"
            spent = {event.key: getattr(event, key) for event in self.profiler.key_averages()}
            whole, largest = sum(spent.values()), sorted(spent, key=lambda name: -spent[name])[:12]
            self.shares = [(name, spent[name] / whole) for name in largest]
