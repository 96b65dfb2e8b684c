"""Where a base model comes from and how it is loaded; every choice is returned with its reason.

A source is `embedded`, a Hugging Face id, `modelscope:OWNER/NAME`, or a folder. Only Gemma text models are loaded, of
one that also sees its text half alone, and no code that comes with a model is ever run.
"""

import gc
import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import modelscope
import psutil
import torch
from huggingface_hub import errors as hub_errors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import logging as transformers_logging

from roleplay import heap
from roleplay.disk import read_json
from roleplay.environment import Environment
from roleplay.errors import ModelError, first_line
from roleplay.weights import embedded
from roleplay.weights.architectures import MULTIMODAL, architecture_of, check_kind
from roleplay.weights.devices import INT8, Reasoned, check_int8, choose_attention, choose_device, choose_dtype
from roleplay.weights.hub import REPO, UNREACHABLE, known_reason

PREFERRED = "google/gemma-2b-it"  # what a GPU runs when nothing is set
MODELSCOPE = "modelscope:"
FILES = ["*.json", "*.safetensors", "*.model"]  # nothing that could hold code is fetched

# peft 0.21 asks every model that it adapts by the older name; whoever trains can do nothing about it.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


@dataclass
class BaseModel:
    """A loaded base model with its tokenizer and the reasons behind every choice."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str  # as a user would name it again
    origin: str  # where the weights came from, and why these
    device: Reasoned
    dtype: Reasoned
    attention: Reasoned
    text_half: bool = False  # of a model that also sees: whose weights have other names outside of this project
    int8: str = ""  # why the engine multiplies in 8 bits; `model` has its weights as they are, in `dtype`

    @property
    def hub_id(self) -> str:
        """What the hubs, an adapter's card and its configuration call the model; for a folder, its own name."""
        if os.path.isdir(self.name):
            return Path(self.name).resolve().name
        return embedded.HUB_ID if self.name == embedded.NAME else self.name.removeprefix(MODELSCOPE)

    def identity(self) -> dict[str, Any]:
        """Which model it is, for training.json: name on the hubs, fingerprint, number of parameters, dtype."""
        told = {"parameters": self.model.num_parameters(), "dtype": self.dtype[0]}
        half = {"text_half": True} if self.text_half else {}
        return {"name": self.hub_id, "fingerprint": fingerprint(self.model), **told, **half}

    def describe(self) -> list[str]:
        count = sum(p.numel() for p in self.model.parameters())
        return [
            f"base model   {self.name}: {self.origin}",
            f"device       {self.device[0]}: {self.device[1]}",
            f"dtype        {self.dtype[0]}: {self.dtype[1]}",
            *([f"weights      {INT8}: {self.int8}"] if self.int8 else []),
            f"attention    {self.attention[0]}: {self.attention[1]}",
            f"parameters   {count / 1e6:,.0f} million loaded{', of the text half alone' * self.text_half}",
        ]


def choose_source(setting: str) -> Reasoned:
    """The base model to load: `setting` if any, else Gemma-2B on a GPU that may have it, else the embedded one."""
    if setting:
        return setting, "as set"
    if not torch.cuda.is_available():
        return embedded.NAME, "no CUDA GPU, so the small model that comes with the packages"
    try:
        huggingface_hub.HfApi().auth_check(PREFERRED)
    except hub_errors.GatedRepoError:
        return embedded.NAME, f"{PREFERRED} is gated and no permitted HF_TOKEN is set"
    except (hub_errors.HTTPError, *UNREACHABLE) as error:
        return embedded.NAME, f"{PREFERRED} cannot be reached ({type(error).__name__})"
    return PREFERRED, "a CUDA GPU and access to it"


def fetch(source: str, cache: Path) -> tuple[Path, str]:
    """The local folder of a source and a few words on its origin; raises `ModelError` in one sentence."""
    if source == embedded.NAME:
        return embedded.prepare(cache), f"{embedded.TITLE} from PyPI, dequantised from Q4_K_M"
    if source.startswith(MODELSCOPE):
        model_id = source.removeprefix(MODELSCOPE)
        try:
            return Path(modelscope.snapshot_download(model_id, allow_patterns=FILES)), "ModelScope"
        except Exception as error:  # modelscope raises many kinds, requests' and its own
            raise ModelError(
                f"{model_id} cannot be fetched from ModelScope ({first_line(error)}): "
                "check the name and the network, or set BASE_MODEL=embedded"
            ) from error
    if os.path.isdir(source):  # unlike `Path.is_dir`, it takes a name that is too long for one that is not there
        return Path(source), "local folder"
    if not REPO.fullmatch(source):
        raise ModelError(
            f"no base model {source!r:.120}: give {embedded.NAME}, a Hugging Face id such as {PREFERRED}, "
            "modelscope:OWNER/NAME, or an existing folder"
        )
    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=FILES)), "Hugging Face Hub"
    except hub_errors.GatedRepoError as error:
        raise ModelError(
            f"{source} is gated: accept its terms at https://huggingface.co/{source} and set HF_TOKEN, "
            "or use modelscope:Lucachen/gemma2b or embedded"
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise ModelError(f"{source} is not on the Hugging Face Hub, or needs an HF_TOKEN that may see it") from error
    except (
        hub_errors.HTTPError,
        ValueError,
        *UNREACHABLE,
    ) as error:  # the second is a name that the Hub does not allow
        raise ModelError(
            f"{source} cannot be fetched and is not in the cache ({known_reason(error) or first_line(error)}): "
            "check the network, or set BASE_MODEL=embedded"
        ) from error


def check_folder(folder: Path, dtype: str, device: str, int8: bool = False) -> None:
    """Raises `ModelError` unless `folder` holds a Gemma text model that fits the memory, with `int8` beside a copy."""
    config = read_json(
        folder / "config.json", "its config.json is missing or damaged, so this is no model folder", kind=ModelError
    )
    try:
        check_kind(config.get("model_type") if isinstance(config, dict) else None)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error
    if config.get("quantization_config") is not None:
        raise ModelError(
            f"{folder}: its config.json has a quantization_config, and quantised weights are not computed here: take "
            f"the release that they were made from, as {PREFERRED} for unsloth/gemma-2b-it-bnb-4bit"
        )
    files = list(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} has no *.safetensors weights; other weight files are not loaded")
    told = getattr(torch, str(config.get("dtype") or config.get("torch_dtype")), None)
    stored = torch.finfo(told if isinstance(told, torch.dtype) and told.is_floating_point else torch.float32).bits
    bits = torch.finfo(getattr(torch, dtype)).bits + 8 * int8
    need = sum(file.stat().st_size for file in files) * bits / stored
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    if need > free:
        raise ModelError(
            f"{folder.name} needs {need / 1e9:.1f} GB in {dtype} and {free / 1e9:.1f} GB are free on {device}: "
            "free some memory, or set BASE_MODEL=embedded"
        )


def read_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a model's folder, whose text model is one that is computed; else `ModelError`."""
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # its checks raise kinds of their own
        raise ModelError(f"{folder}: its config.json cannot be used ({first_line(error)})") from error
    architecture_of(config.get_text_config())
    return config


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's folder; raises `ModelError` in one line."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises plain ones
        raise ModelError(f"{folder} has no tokenizer that can be loaded: {first_line(error)}") from error
    return tokenizer


def _load_model(folder: Path, config: PreTrainedConfig, dtype: str, attention: str) -> PreTrainedModel:
    """The text model of a folder, or the text half of one that also sees; raises `ModelError`."""
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "attn_implementation": attention}
    told = transformers_logging.get_verbosity()
    if names := MULTIMODAL.get(config.model_type):
        options["key_mapping"] = names
        transformers_logging.set_verbosity_error()  # else it lists the hundreds of weights that are left out
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config.get_text_config(),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder} cannot be loaded: {first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(told)
    model: PreTrainedModel = loaded[0]
    if missing := sorted(loaded[1]["missing_keys"]):
        raise ModelError(f"{folder} has no weights for {missing[0]}: download it again")
    return model


def load(
    setting: str, cache: Path, dtype: str = "", attention: str = "", tell: Callable[[str], None] = lambda stage: None
) -> BaseModel:
    """Load the base model that `setting` names, with the chosen or given dtype and attention implementation.

    With dtype int8 the model is loaded as it would be without, and the engine rounds what it multiplies. `tell` hears
    which stage begins, "fetch" or "load". Raises `ModelError` when the model cannot be found, fetched, is no Gemma text
    model, or does not fit the memory.
    """
    source, why = choose_source(setting)
    if cores := Environment().cores:
        torch.set_num_threads(cores)
    device = choose_device()
    if int8 := dtype == INT8:
        check_int8(device[0])
    chosen_dtype = choose_dtype(device[0]) if int8 or not dtype else (dtype, "as asked")
    tell("fetch")
    folder, origin = fetch(source, cache)
    tell("load")
    check_folder(folder, chosen_dtype[0], device[0], int8)
    config = read_config(folder)
    tokenizer = read_tokenizer(folder)
    chosen_attention = (attention, "as asked") if attention else choose_attention(device[0], config.get_text_config())
    model = _load_model(folder, config, chosen_dtype[0], chosen_attention[0])
    model.to(device[0])  # type: ignore[arg-type]  # the decorator around it hides its signature
    choices = device, chosen_dtype, chosen_attention
    saved = model.num_parameters() * (model.dtype.itemsize - 1) / 1e9
    why_int8 = f"as asked; a step reads {saved:.2f} GB less than in {chosen_dtype[0]}" if int8 else ""
    return BaseModel(model, tokenizer, source, f"{origin}, {why}", *choices, config.model_type in MULTIMODAL, why_int8)


def release() -> None:
    """Give the memory of a model that nothing refers to any more back to the device, for another process to use."""
    gc.collect()
    heap.trim()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fingerprint(model: PreTrainedModel) -> str:
    """16 hex digits that tell base models apart: SHA-256 over names, shapes and a sample of every weight.

    It does not depend on the dtype in which a bfloat16 checkpoint was loaded.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        sample = weight.detach().flatten()[:: max(1, weight.numel() // 64)].to("cpu", torch.bfloat16)
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]
