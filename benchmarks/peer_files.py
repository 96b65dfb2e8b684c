"""What `benchmarks.peers` gives to llama.cpp: GGUF files of the embedded base model, with an adapter and without.

Each is made of the weights that the engine has, at BF16, and quantised from there by llama.cpp itself.
"""

import ctypes
from pathlib import Path

import gguf
from peft import PeftModel

from benchmarks import llama_cpp
from roleplay.disk import written_whole
from roleplay.environment import Environment
from roleplay.text.prompts import PromptEncoder
from roleplay.weights import base_models, embedded
from roleplay.weights.adapters import Adapter, read_weights
from train.publishing import gguf as gguf_file

BASE, MERGED, LORA = "base", "merged", "lora"


def name(weights: str, kind: str) -> str:
    """The file with a side's weights, of a kind of `llama_cpp.FILE_TYPES`."""
    return f"{weights}-{kind}.gguf"


def prepare(folder: Path, adapter: Adapter, library: ctypes.CDLL, threads: int) -> None:
    """Write the files of all kinds, and the adapter's own, unless the folder is there."""
    if folder.is_dir():
        return
    base = base_models.load(embedded.NAME, Environment().cache, dtype="float32")
    layers = base.model.config.num_hidden_layers
    encoder = PromptEncoder(base.tokenizer, adapter.template)
    merged = PeftModel.from_pretrained(base.model, str(adapter.folder)).merge_and_unload()
    with written_whole(folder) as part:
        sources = {weights: part / name(weights, "source") for weights in (BASE, MERGED)}
        embedded.assemble(sources[BASE])
        gguf_file.write(merged, adapter, encoder, sources[MERGED])
        for weights, source in sources.items():
            for kind in llama_cpp.FILE_TYPES:  # the first keeps what it is given, and the others are made of it
                llama_cpp.quantise(library, source, part / name(weights, kind), kind, threads)
                source = part / name(weights, next(iter(llama_cpp.FILE_TYPES)))
            sources[weights].unlink()
        write_lora(adapter, layers, part / f"{LORA}.gguf")


def write_lora(adapter: Adapter, layers: int, path: Path) -> None:
    """The adapter's matrices as llama.cpp attaches them, in float32, as its own converter writes them."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, layers)
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.scaling * adapter.rank)
    for key, matrix in read_weights(adapter).items():
        module, _, which = key.removeprefix("base_model.model.").removesuffix(".weight").partition(".lora_")
        own = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        writer.add_tensor(f"{own}.lora_{which.lower()}", matrix.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
