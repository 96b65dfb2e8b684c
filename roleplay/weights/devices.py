"""What a device computes a model with: each choice has its reason, and what a device cannot do is refused."""

import importlib.util

import torch
from transformers import PreTrainedConfig

from roleplay.errors import ModelError
from roleplay.weights.architectures import plain_attention

INT8 = "int8"

Reasoned = tuple[str, str]  # (choice, why)


def choose_device() -> Reasoned:
    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name()
    return "cpu", f"no CUDA GPU; {torch.get_num_threads()} threads"


def check_accelerator(hardware: str) -> None:
    """Raises `ModelError` where a Space has a GPU, by the name of its `hardware`, and PyTorch cannot use it."""
    if hardware.lower().startswith(("none", "cpu")) or torch.cuda.is_available():
        return
    raise ModelError(
        f"this Space has {hardware}, and PyTorch {torch.__version__} finds no CUDA GPU, often because the driver is "
        "older than its CUDA, or because it was pushed for a CPU: restart it, push it again with --hardware, or take "
        "cpu-basic for the embedded model"
    )


def choose_dtype(device: str) -> Reasoned:
    """bfloat16 where the device multiplies it in hardware, else float32."""
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "the GPU has it"
        return "float32", "the GPU has no bfloat16, and float16 overflows in a Gemma"
    able = torch.cpu.get_capabilities()
    if any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")):
        return "bfloat16", "the CPU has bfloat16 instructions"
    return "float32", "the CPU has no bfloat16 instructions and would be several times slower with it"


def check_int8(device: str) -> None:
    """Raises `ModelError` where the engine cannot multiply in 8 bits."""
    if device != "cpu" or "fbgemm" not in torch.backends.quantized.supported_engines:
        where = "this CPU" if device == "cpu" else device
        raise ModelError(
            f"DTYPE=int8 is for x86 CPUs with AVX2, and PyTorch has no such product for {where}: leave it out"
        )


def choose_attention(device: str, config: PreTrainedConfig) -> Reasoned:
    if device == "cuda" and importlib.util.find_spec("flash_attn"):
        return "flash_attention_2", "flash-attn is installed"
    missing = (
        "flash-attn is not installed (requirements-gpu.txt)" if device == "cuda" else "flash-attn needs a CUDA GPU"
    )
    name, why = plain_attention(config)
    return name, f"{missing}, {why}"
