"""A GGUF file of the embedded base model with an adapter merged in, written with PyPI's `gguf`.

Metadata, tokenizer and every tensor that the adapter leaves alone are copied from the file that the embedded model came
from; the adapted projections are written anew in bfloat16. It knows no other base model.
"""

import tempfile
from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel

from roleplay.text.prompts import TEMPLATES, PromptEncoder
from roleplay.weights import embedded
from roleplay.weights.adapters import PROJECTIONS, Adapter

NAME = "model.gguf"  # in an exported folder
OWN = ("general.architecture", "general.name", "general.file_type", "tokenizer.chat_template")  # not copied


def write(model: PreTrainedModel, adapter: Adapter, encoder: PromptEncoder, path: Path) -> None:
    """Write `model`, the embedded base with `adapter` merged in, to `path`."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder) / "base.gguf"
        embedded.assemble(source)
        reader = gguf.GGUFReader(source)
        architecture = reader.fields["general.architecture"].contents()
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, model.config.num_hidden_layers)
        changed = {
            str(names.get_name(name, try_suffixes=(".weight",))): weight
            for name, weight in model.state_dict().items()
            if name.split(".")[-2] in PROJECTIONS
        }
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_name(adapter.name)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
        writer.add_chat_template(TEMPLATES[adapter.template])
        writer.add_eot_token_id(encoder.stop_ids[0])
        for field in reader.fields.values():
            if field.name not in OWN and not field.name.startswith("GGUF."):
                inner = field.types[1] if len(field.types) > 1 else None
                writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
        for name, tensor in tensors.items():
            if name in changed:
                data = gguf.quantize(changed[name].to(torch.float32).cpu().numpy(), gguf.GGMLQuantizationType.BF16)
                writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.BF16)
            else:
                writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def read(path: Path) -> PreTrainedModel:
    """The file's model in float32, through transformers' own GGUF reader."""
    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
