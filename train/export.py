"""Merge an adapter into its base model, for programs that know no adapters: vLLM, Ollama, transformers.

    python -m train.export adapters/zhenhuan-alone-gemma3-270m
    python -m train.export adapters/mine --base-model google/gemma-2b-it --out exports/mine
    python -m train.export adapters/mine --strength 0.7    # as the page's slider has it

It writes exports/NAME/: the merged model as bfloat16 safetensors with tokenizer, chat template and stop tokens, an
Ollama `Modelfile`, the vLLM start command `vllm.sh`, and of the embedded base model `model.gguf`. Ollama reads that, or
safetensors with the `tokenizer.model` that other base models bring along. What was written is loaded again and compared
with the attached adapter before the folder gets its name. `generation_config.json` has the page's sampling but its
frequency penalty, which only a request can carry.
"""

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from roleplay.disk import written_whole
from roleplay.engine.protocol import MAX_STRENGTH, Sampling, Speaker
from roleplay.environment import ROOT, Environment
from roleplay.errors import RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.prompts import TEMPLATES, PromptEncoder
from roleplay.weights import base_models, embedded, inspection, probe
from roleplay.weights.adapters import Adapter
from roleplay.weights.layout import NOTICE
from train.publishing import gguf as gguf_file
from train.publishing import ollama

MAX_KL = 0.02  # nat: rounding to bfloat16 moves the 270M model by about a hundredth of that
PIECES = "tokenizer.model"


@dataclass(frozen=True)
class ExportFlags:
    adapter: str = flag("", "the adapter's folder", place="may be first")
    base_model: str = flag("", "the base model it was trained on; chosen by the device where none is given")
    strength: float = flag(1.0, f"what the adapter's update is multiplied by, above 0 to {MAX_STRENGTH}")
    out: str = flag("", "folder to write; exports/NAME, with a strength NAME-at-STRENGTH, where none is given")


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(ExportFlags, __doc__, arguments)
    if not settings.adapter:
        raise RoleplayError("no adapter to export: give its folder first, such as adapters/zhenhuan-alone-gemma3-270m")
    strength = Speaker(settings.adapter, settings.strength).strength
    if not strength:
        raise RoleplayError("a strength of 0 is the base model: choose one above it")
    environment = Environment()
    adapter = inspection.inspect(Path(settings.adapter))
    base = base_models.load(settings.base_model or environment.base_model, environment.cache, dtype="float32")
    out = Path(settings.out) if settings.out else ROOT / "exports" / exported_name(adapter, strength)
    export(adapter, base, out, strength)


def exported_name(adapter: Adapter, strength: float) -> str:
    """What a merged model is called: as its adapter is, with the strength where it is not 1."""
    return adapter.name if strength == 1 else f"{adapter.name}-at-{strength:g}"


def export(adapter: Adapter, base: base_models.BaseModel, folder: Path, strength: float = 1.0) -> None:
    """Merge at a strength, write, compare. `base` gets the adapter merged in, so use it for nothing else afterwards.

    Raises `AdapterError` when the adapter was not made for this base, `RoleplayError` when `folder` exists or what was
    written answers differently.
    """
    if warning := inspection.check_base(adapter, base.model, base_models.fingerprint(base.model), base.hub_id):
        print(f"warning      {warning}")
    if adapter.looked_up.turns:
        print("warning      it was trained with the rows that it looks up, which other programs do not")
    gguf = base.name == embedded.NAME
    if folder.exists():
        raise RoleplayError(f"{folder} exists: remove it first, or choose another with --out")
    encoder = PromptEncoder(base.tokenizer, adapter.template)
    model = PeftModel.from_pretrained(base.model, str(adapter.folder)).eval()
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(strength)
    prompts = probe.probe_prompts(encoder, adapter.persona)
    expected = next_token_logits(model, prompts)

    merged, called = model.merge_and_unload(), replace(adapter, name=exported_name(adapter, strength))
    with written_whole(folder) as part:
        write_model(merged, base, encoder, part)
        shutil.copyfile(ROOT / NOTICE, part / NOTICE)
        (part / "Modelfile").write_text(ollama.modelfile(called, gguf_file.NAME if gguf else "."), encoding="utf-8")
        (part / "vllm.sh").write_text(vllm_command(called.name), encoding="utf-8")
        if not gguf and not (part / PIECES).is_file():
            print(
                f"warning      the base model has no {PIECES}, without which Ollama misreads Gemma's tokens: put the "
                f"original model's into {folder} before `ollama create`"
            )
        if gguf:
            gguf_file.write(merged, called, encoder, part / gguf_file.NAME)
        written = AutoModelForCausalLM.from_pretrained(part, dtype=torch.float32)
        check("model.safetensors", written, prompts, expected, encoder)
        if gguf:
            check(gguf_file.NAME, gguf_file.read(part / gguf_file.NAME), prompts, expected, encoder)
    print(f"wrote {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


@torch.inference_mode()
def next_token_logits(model: PreTrainedModel | PeftModel, prompts: Sequence[list[int]]) -> torch.Tensor:
    """What follows each prompt: logits (prompts, vocabulary) in float32, on the CPU."""
    inputs = (torch.tensor([ids], device=model.device) for ids in prompts)
    return torch.stack([model(input_ids=ids, logits_to_keep=1).logits[0, -1].float().cpu() for ids in inputs])


def write_model(model: PreTrainedModel, base: base_models.BaseModel, encoder: PromptEncoder, folder: Path) -> None:
    """Weights, configuration, tokenizer with the project's template, and stop tokens that other programs read."""
    sampling = Sampling()
    model.generation_config = GenerationConfig(
        bos_token_id=base.tokenizer.bos_token_id,
        eos_token_id=list(encoder.stop_ids),
        pad_token_id=base.tokenizer.pad_token_id,
        do_sample=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        repetition_penalty=sampling.repetition_penalty,  # `generate` knows no frequency penalty
    )
    model.bfloat16().save_pretrained(folder, save_original_format=False)  # under a text model's own names
    base.tokenizer.chat_template = TEMPLATES[encoder.template]
    base.tokenizer.save_pretrained(folder)
    pieces = Path(base.tokenizer.name_or_path) / PIECES  # transformers leaves it out; Ollama reads Gemma's tokens there
    if pieces.is_file():
        shutil.copyfile(pieces, folder / PIECES)


def check(
    name: str,
    written: PreTrainedModel,
    prompts: Sequence[list[int]],
    expected: torch.Tensor,
    encoder: PromptEncoder,
) -> None:
    """Compare what was written with the attached adapter, and generate from it; `RoleplayError` past `MAX_KL`."""
    logits = next_token_logits(written.eval(), prompts)
    kl, same = probe.kl_to_base(expected, logits), int((logits.argmax(-1) == expected.argmax(-1)).sum())
    if kl > MAX_KL:
        raise RoleplayError(f"{name} answers differently from the adapter (mean KL {kl:.3f} nat): nothing was written")
    ids = torch.tensor(prompts[:1])
    greedy = GenerationConfig(do_sample=False, max_new_tokens=24, eos_token_id=list(encoder.stop_ids), pad_token_id=0)
    reply = written.generate(ids, generation_config=greedy)  # type: ignore[operator]  # a mixin hides its type
    said = encoder.decode(reply[0, ids.shape[1] :].tolist())
    print(f"{name}: mean KL {kl:.5f} nat, {same} of {len(prompts)} likeliest tokens the same; it says {said!r}")


def vllm_command(name: str) -> str:
    """A shell script; sampling defaults and stop tokens come from generation_config.json beside it."""
    options = "--chat-template chat_template.jinja --generation-config . --dtype bfloat16 --max-model-len 2048"
    return (
        "#!/bin/sh\n# Serves the merged model with the template and the stop tokens that it was trained with.\n"
        f'cd "$(dirname "$0")" && exec vllm serve . --served-model-name {shlex.quote(name)} {options} "$@"\n'
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
