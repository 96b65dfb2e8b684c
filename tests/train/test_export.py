"""Export: what was merged answers as the attached adapter does, and other programs find how to speak to it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from roleplay.errors import RoleplayError
from roleplay.text.prompts import TEMPLATES, PromptEncoder
from roleplay.weights import inspection
from roleplay.weights.base_models import BaseModel
from tests import tiny
from tests.disk import largest_file
from train import export
from train.publishing import ollama


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.adapter(tmp_path_factory.mktemp("source") / "tiny")


def base() -> BaseModel:
    return BaseModel(
        tiny.gemma(), tiny.tokenizer(), tiny.BASE_NAME, "made here", ("cpu", ""), ("float32", ""), ("", "")
    )


@pytest.fixture(scope="module")
def exported(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "tiny"
    export.export(inspection.inspect(source), base(), folder)
    return folder


def test_files(exported: Path) -> None:
    names = {path.name for path in exported.iterdir()}
    assert names >= {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "Modelfile",
        "vllm.sh",
        "chat_template.jinja",
    }
    assert [path.name for path in exported.parent.iterdir()] == ["tiny"]


def test_a_full_disk_is_one_line_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    with largest_file(20_000), pytest.raises(RoleplayError, match=r"cannot write .*tiny \(.*\): free some disk$"):
        export.export(inspection.inspect(source), base(), tmp_path / "tiny")
    assert not list(tmp_path.iterdir())


def test_merged_logits_are_the_attached_adapters(exported: Path, source: Path) -> None:
    ids = torch.arange(40).unsqueeze(0)
    attached = PeftModel.from_pretrained(tiny.gemma(), str(source)).eval()
    merged = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected, got, untuned = (model(input_ids=ids).logits for model in (attached, merged, tiny.gemma()))
    moved = (expected - untuned).abs().mean()
    assert (expected - got).abs().mean() < 0.02 * moved  # what is left is bfloat16's rounding


def test_a_strength_multiplies_the_update(exported: Path, source: Path, tmp_path: Path) -> None:
    export.export(inspection.inspect(source), base(), tmp_path / "half", 0.5)
    whole, half = (load_file(folder / "model.safetensors") for folder in (exported, tmp_path / "half"))
    untuned = tiny.gemma().state_dict()
    moved = [(half[k] - untuned[k], whole[k] - untuned[k]) for k in half if "q_proj" in k or "down_proj" in k]
    assert len(moved) == 2 * tiny.LAYERS
    for less, more in moved:
        assert (less - more / 2).abs().mean() < 0.02 * more.abs().mean()  # what is left is bfloat16's rounding
    assert (tmp_path / "half" / "Modelfile").read_text(encoding="utf-8").startswith("# tiny-at-0.5\nFROM .\n")
    assert "--served-model-name tiny-at-0.5 " in (tmp_path / "half" / "vllm.sh").read_text(encoding="utf-8")
    for strength, sentence in (("0", "is the base model"), ("2", "choose a number from 0 to 1.5")):
        with pytest.raises(RoleplayError, match=sentence):
            export.main([str(source), "--strength", strength])


def test_dtype_and_stop_tokens(exported: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(exported, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids(["<end_of_turn>", "<eos>"])
    assert tokenizer.chat_template == TEMPLATES["gemma"]


def test_served_template_renders_what_the_encoder_does(exported: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exported)
    talk = [("system", "你是甄嬛。"), ("user", "hi"), ("assistant", "ho"), ("user", "who?")]
    messages = [{"role": role, "content": text} for role, text in talk]
    text = ImmutableSandboxedEnvironment().from_string(tokenizer.chat_template)
    rendered = text.render(messages=messages, add_generation_prompt=True, bos_token="<bos>")
    ids = tokenizer(rendered, add_special_tokens=False).input_ids
    assert ids == PromptEncoder(tokenizer).prompt("你是甄嬛。", (("hi", "ho"),), "who?")


def test_modelfile(exported: Path) -> None:
    lines = (exported / "Modelfile").read_text(encoding="utf-8")
    for part in (
        "FROM .\n",
        'SYSTEM """你是甄嬛。"""',
        'PARAMETER stop "<end_of_turn>"',
        "PARAMETER repeat_penalty 1.0",
        "PARAMETER frequency_penalty 0.3",
    ):
        assert part in lines


def parsed(text: str) -> list[tuple[str, str]]:
    """A Modelfile as Ollama's own parser splits it: a value that opens with three quotes ends where a line does."""
    found, lines = list[tuple[str, str]](), iter(text.splitlines())
    for line in lines:
        if line.startswith("#"):
            continue
        name, value = line.split(" ", 1)
        if value.startswith('"' * 3):
            while not (len(value) >= 6 and value.rstrip().endswith('"' * 3)):
                value += "\n" + next(lines)
            value = value.rstrip()[3:-3]
        found.append((name, value))
    return found


PERSONAS = [
    "",
    "plain",
    'She says "no"',
    'She says "no"\nand "yes"',
    '"Who?" is a question',
    'a """ b',
    'x"""""\ny',
    '""',
]


@pytest.mark.parametrize("persona", PERSONAS)
def test_a_persona_with_quotes_is_one_value(source: Path, persona: str) -> None:
    adapter = replace(inspection.inspect(source), persona=persona)
    values = parsed(ollama.modelfile(adapter, "."))
    kept = [value for name, value in values if name == "SYSTEM"]
    assert kept == [re.sub('"{3,}', '""', persona)]
    assert ("TEMPLATE", ollama.GO_TEMPLATES["gemma"]) in values and values[0] == ("FROM", ".")
    assert {name for name, _ in values} == {"FROM", "TEMPLATE", "SYSTEM", "PARAMETER"}


def test_ollama_finds_the_same_in_a_repository_and_in_a_modelfile(source: Path) -> None:
    adapter = inspection.inspect(source)
    files, values = ollama.repository_files(adapter), parsed(ollama.modelfile(adapter, "."))
    assert ("TEMPLATE", files["template"]) in values and ("SYSTEM", files["system"]) in values
    params = json.loads(files["params"])
    told = [tuple(value.split(" ", 1)) for name, value in values if name == "PARAMETER"]
    assert told == [(k, f'"{v[0]}"' if k == "stop" else str(v)) for k, v in params.items()]


def test_the_bases_own_tokenizer_file_and_the_terms_go_along(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = base()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer.model").write_bytes(b"pieces")
    whole.tokenizer.name_or_path = str(tmp_path / "base")
    export.export(inspection.inspect(source), whole, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == b"pieces"
    assert "warning" not in capsys.readouterr().out
    export.export(inspection.inspect(source), base(), tmp_path / "without")
    assert "warning      the base model has no tokenizer.model, without which Ollama misr" in capsys.readouterr().out
    assert "Gemma Terms of Use" in (tmp_path / "out" / "NOTICE").read_text(encoding="utf-8")


def test_vllm_command(exported: Path) -> None:
    command = (exported / "vllm.sh").read_text(encoding="utf-8")
    assert "--served-model-name tiny --chat-template chat_template.jinja --generation-config ." in command


def test_every_template_has_one_for_ollama() -> None:
    assert ollama.GO_TEMPLATES.keys() == TEMPLATES.keys()


def test_a_folder_in_the_way_is_kept(exported: Path, source: Path) -> None:
    with pytest.raises(RoleplayError, match="exists: remove it first"):
        export.export(inspection.inspect(source), base(), exported)


def test_a_merge_that_answers_differently_is_not_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MAX_KL", 0.0)
    with pytest.raises(RoleplayError, match="answers differently from the adapter"):
        export.export(inspection.inspect(source), base(), tmp_path / "out")
    assert not list(tmp_path.iterdir())
