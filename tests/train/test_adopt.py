"""Adoption: what others train becomes a folder of ours with the same products, or is refused with the reason."""

import json
import math
import pickle
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from roleplay.adoption import bases, origin, templates
from roleplay.adoption.configuration import read_configuration
from roleplay.environment import ROOT
from roleplay.errors import AdapterError, RoleplayError
from roleplay.text.prompts import TEMPLATES, PromptEncoder
from roleplay.weights import inspection, layout
from roleplay.weights.base_models import BaseModel
from tests import tiny
from tests.hub_server import Hub
from train import adopt

CASES = ROOT.parent / "shared" / "cases"


def base() -> BaseModel:
    return BaseModel(
        tiny.gemma(), tiny.tokenizer(), tiny.BASE_NAME, "made here", ("cpu", ""), ("float32", ""), ("", "")
    )


def foreign(folder: Path, **config: Any) -> Path:
    """What peft itself writes for a LoRA on the tiny model, with random matrices."""
    options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False} | config
    model = get_peft_model(tiny.gemma(), LoraConfig(task_type="CAUSAL_LM", **options))
    model.peft_config["default"].base_model_name_or_path = tiny.BASE_NAME
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def take(folder: Path, out: Path, template: str = "gemma") -> Path:
    """Adopt a folder as the command does after it has loaded the base model."""
    found = origin.find(str(folder), out.parent)
    config = read_configuration(found.json(layout.CONFIG), layout.CONFIG)
    adopt.adopt(found, config, base(), out, adopt.AdoptFlags(str(folder), out.name, template))
    return out


def deltas(folder: Path) -> dict[str, torch.Tensor]:
    """What plain peft adds to every weight of the model, in float64."""
    added = {}
    for name, module in PeftModel.from_pretrained(tiny.gemma(), str(folder)).named_modules():
        if isinstance(module, LoraLayer):
            a, b = (side["default"].weight.double() for side in (module.lora_A, module.lora_B))
            added[name] = b @ a * module.scaling["default"]
    return added


def logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return PeftModel.from_pretrained(tiny.gemma(), str(folder)).eval()(input_ids=torch.arange(40)[None]).logits


def rekeyed(change: Callable[[str], str]) -> Callable[[Path], Any]:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / layout.WEIGHTS)
        save_file({change(key): weight for key, weight in tensors.items()}, folder / layout.WEIGHTS)

    return spoil


def configured(**changes: Any) -> Callable[[Path], Any]:
    def spoil(folder: Path) -> None:
        value = json.loads((folder / layout.CONFIG).read_text(encoding="utf-8")) | changes
        (folder / layout.CONFIG).write_text(json.dumps(value), encoding="utf-8")

    return spoil


def added(**weights: torch.Tensor) -> Callable[[Path], Any]:
    def spoil(folder: Path) -> None:
        named = {f"base_model.model.model.{key.replace('__', '.')}": weight for key, weight in weights.items()}
        save_file(load_file(folder / layout.WEIGHTS) | named, folder / layout.WEIGHTS)

    return spoil


def halved(folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    tensors = {key: weight.to(dtype) for key, weight in load_file(folder / layout.WEIGHTS).items()}
    save_file(tensors, folder / layout.WEIGHTS)


def only(*keys: str) -> Callable[[Path], Any]:
    def spoil(folder: Path) -> None:
        value = json.loads((folder / layout.CONFIG).read_text(encoding="utf-8"))
        (folder / layout.CONFIG).write_text("\ufeff" + json.dumps({key: value[key] for key in keys}), encoding="utf-8")

    return spoil


def littered(folder: Path) -> None:
    for name in ("optimizer.pt", "training_args.bin", "trainer_log.jsonl", "._adapter_model.safetensors", "x.py"):
        (folder / name).write_bytes(pickle.dumps(name))


def kept(folder: Path) -> None:
    pass


OLD = ("peft_type", "base_model_name_or_path", "r", "lora_alpha", "target_modules", "bias", "inference_mode")
FULL = [f"model.layers.{n}.{name}" for n in (0, 1) for name in ("self_attn.k_proj", "mlp.up_proj")]
TAKEN: dict[str, tuple[dict[str, Any], Callable[[Path], Any]]] = {
    "plain": ({}, kept),
    "with all its litter": ({}, littered),
    "all-linear": ({"target_modules": "all-linear"}, kept),
    "an expression": ({"target_modules": r".*\.(q_proj|v_proj)"}, kept),
    "whole names": ({"target_modules": FULL}, kept),
    "one layer": ({"layers_to_transform": [1]}, kept),
    "one layer by its pattern": ({"layers_to_transform": 0, "layers_pattern": "layers"}, kept),
    "a module left out": ({"exclude_modules": ["layers.0.self_attn.q_proj"]}, kept),
    "rank-stabilised": ({"use_rslora": True}, kept),
    "ranks that differ": ({"rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 3}}, kept),
    "alphas that differ": ({"alpha_pattern": {r"layers\.0\..*": 3}}, kept),
    "ranks and alphas in step": ({"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 4}}, kept),
    "rank-stabilised ranks": ({"use_rslora": True, "rank_pattern": {"q_proj": 7}}, kept),
    "another start": ({}, configured(init_lora_weights="orthogonal")),
    "an old peft, with a mark": ({}, only(*OLD)),
    "keys that newer ones write": ({}, configured(a_new_key=None, another={}, _from_model_config=True, task_type=None)),
    "Unsloth's": ({}, configured(auto_mapping={"base_model_class": "X", "parent_library": "y", "unsloth_fixed": True})),
    "an adapter's name in the keys": ({}, rekeyed(lambda key: key.replace(".weight", ".default.weight"))),
    "a multimodal wrapper": ({}, rekeyed(lambda key: key.replace("model.layers", "model.language_model.layers"))),
    "an older one": ({}, rekeyed(lambda key: key.replace("model.layers", "language_model.model.layers"))),
    "wrapped by FSDP": ({}, rekeyed(lambda key: key.replace(".self_attn", "._fsdp_wrapped_module.self_attn"))),
    "peft in peft": ({}, rekeyed(lambda key: f"base_model.model.{key}")),
    "without peft's prefix": ({}, rekeyed(lambda key: key.removeprefix("base_model.model."))),
    "half the bits": ({"rank_pattern": {"q_proj": 2}}, halved),
}


@pytest.mark.parametrize(("config", "spoil"), TAKEN.values(), ids=TAKEN)
def test_an_adopted_adapter_has_the_products_that_peft_computes(
    tmp_path: Path, config: dict[str, Any], spoil: Callable[[Path], Any]
) -> None:
    theirs = foreign(tmp_path / "theirs", **config)
    if spoil is halved:
        spoil(theirs)
    wanted, said = deltas(theirs), logits(theirs)
    if spoil is not halved:
        spoil(theirs)
    ours = take(theirs, tmp_path / "adapters" / "mara")
    got, adapter = deltas(ours), inspection.inspect(ours)
    folded = any("multiplied" in change for change in adapter.training["adopted"]["changes"])
    for name, delta in got.items():
        expected = wanted.get(name, torch.zeros_like(delta))
        rounding = 2**-24 if folded else 2**-50  # of a float32 matrix, or none but this test's own
        assert (delta - expected).abs().max() <= 8 * rounding * expected.abs().max(), name
    assert wanted.keys() <= got.keys()
    assert torch.allclose(logits(ours), said, atol=1e-5)
    assert (said - logits_of_base()).abs().max() > 0.01  # so that the comparison means something
    assert {path.name for path in ours.iterdir()} == {*layout.NEEDED, layout.NOTICE}
    assert adapter.training["adopted"]["files"].keys() == {layout.WEIGHTS, layout.CONFIG}


def logits_of_base() -> torch.Tensor:
    with torch.inference_mode():
        return tiny.gemma()(input_ids=torch.arange(40)[None]).logits


def test_matrices_are_kept_bit_for_bit_where_nothing_differs(tmp_path: Path) -> None:
    theirs = foreign(tmp_path / "theirs", use_rslora=True)
    halved(theirs, torch.float16)
    ours = load_file(take(theirs, tmp_path / "mara") / layout.WEIGHTS)
    for key, weight in load_file(theirs / layout.WEIGHTS).items():
        assert ours[key].dtype == torch.float16 and torch.equal(ours[key], weight)
    assert inspection.inspect(tmp_path / "mara").scaling == 8 / math.sqrt(4)


def test_card_and_record_say_where_it_is_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = foreign(tmp_path / "theirs", rank_pattern={"q_proj": 2})
    ours = take(theirs, tmp_path / "mara")
    record, card = inspection.inspect(ours).training, (ours / layout.CARD).read_text(encoding="utf-8")
    hashes = record["adopted"]["files"]
    assert record["adopted"]["from"] == "theirs" and record["settings"]["rank"] == 4 and record["data"] == []
    for part in ("## Adopted", "Not trained by this project", "`theirs`", *hashes.values(), "padded with zeros"):
        assert part in card
    assert "## Training" not in card and "held-out loss" not in card and str(tmp_path) not in card
    assert "moves the model by" in capsys.readouterr().out


def big(folder: Path) -> None:
    with (folder / layout.WEIGHTS).open("r+b") as file:
        file.truncate(2 << 30)  # sparse: takes no room


def renamed(old: str, new: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / old).rename(folder / new)


def nested(folder: Path) -> None:
    (folder / "checkpoint-1000").mkdir()
    for name in (layout.WEIGHTS, layout.CONFIG):
        (folder / name).rename(folder / "checkpoint-1000" / name)
    shutil.copytree(folder / "checkpoint-1000", folder / "checkpoint-900")


REFUSED: dict[str, tuple[dict[str, Any], Callable[[Path], Any], str]] = {
    "DoRA": ({"use_dora": True}, kept, "use_dora is True: DoRA also rescales"),
    "DoRA by its keys": ({"use_dora": True}, configured(use_dora=False), "lora_magnitude_vector.*DoRA"),
    "biases": ({"lora_bias": True}, kept, "lora_bias is True: its matrices have biases"),
    "biases of the base": ({"bias": "all"}, kept, "bias is 'all': biases"),
    "a saved head": ({"modules_to_save": ["lm_head"]}, kept, "modules_to_save is .*lm_head.*saved beside"),
    "trained tokens": ({"trainable_token_indices": [1, 2]}, kept, "embeddings of single tokens"),
    "saved embeddings": ({}, added(embed_tokens__weight=torch.ones(4, 16)), "save_embedding_layers"),
    "adapted embeddings": ({"target_modules": ["embed_tokens", "q_proj"]}, kept, "lora_embedding.*embeddings"),
    "pictures": ({}, added(vision_tower__q_proj__lora_A__weight=torch.ones(4, 16)), "sees or hears"),
    "repeated layers": ({}, configured(layer_replication=[[0, 2]]), "layer_replication.*repeated"),
    "PiSSA": ({}, configured(init_lora_weights="pissa"), "changed the base model's own weights"),
    "LoftQ": ({}, configured(init_lora_weights="loftq"), "changed the base model's own weights"),
    "another method": ({}, configured(peft_type="IA3"), "peft_type is 'IA3': only plain LoRA"),
    "another task": ({}, configured(task_type="SEQ_CLS"), "trained for another task"),
    "a newer key that means something": ({}, configured(use_something=True), "use_something is True: only plain"),
    "a rank that is a float": ({}, configured(r=4.0), "r is 4.0: a rank is a whole number"),
    "a rank too high": ({}, configured(rank_pattern={"q_proj": 9999}), "a rank is a whole number from 1 to 256"),
    "ranks that are not the weights'": ({}, configured(r=8), "has rank 4, adapter_config.json says 8"),
    "a slow expression": ({}, configured(alpha_pattern={"(a+)+$": 1}), "no expression, or too involved"),
    "modules that were not meant": ({}, configured(target_modules=["q_proj"]), "not among the target_modules"),
    "modules that are missing": ({}, configured(target_modules=["q_proj", "down_proj", "v_proj"]), "v_proj is missing"),
    "two adapters": ({}, rekeyed(lambda k: k.replace("B.w", "B.one.w")), "several adapters"),
    "a half": ({}, rekeyed(lambda k: k.replace("1.mlp.down_proj.lora_A", "3.mlp.down_proj.lora_A")), "is missing"),
    "a layer too many": ({}, rekeyed(lambda k: k.replace("layers.1", "layers.7")), "is not in the base model"),
    "zeros": ({"init_lora_weights": True}, kept, "changes nothing"),
    "next to nothing": ({}, configured(lora_alpha=0.001), "which is nothing: give what was trained"),
    "too many patterns": ({}, configured(alpha_pattern=dict.fromkeys(map(str, range(500)), 1)), "at most 400 names"),
    "too much": ({}, big, "the limit is 1,074 MB"),
    "a whole model": ({}, renamed(layout.WEIGHTS, "config.json"), "a whole model"),
    "a pickle": ({}, renamed(layout.WEIGHTS, "adapter_model.bin"), "may hold code.*convert"),
    "mlx-lm": ({}, renamed(layout.WEIGHTS, "adapters.safetensors"), "mlx-lm"),
    "mlx-lm's configuration": ({}, configured(fine_tune_type="lora"), "mlx-lm"),
    "a run of checkpoints": ({}, nested, "give its folder checkpoint-1000 .of a repository, download it first.$"),
    "another base model": ({}, configured(base_model_name_or_path="/data/gemma-2b-it"), "a copy of gemma-2b-it"),
    "no base model": ({}, configured(base_model_name_or_path=None), "say with --base-model which"),
}


@pytest.mark.parametrize(("config", "spoil", "sentence"), REFUSED.values(), ids=REFUSED)
@pytest.mark.timeout(20)
def test_what_is_no_plain_lora_is_refused_by_name(
    tmp_path: Path, config: dict[str, Any], spoil: Callable[[Path], Any], sentence: str
) -> None:
    theirs = foreign(tmp_path / "theirs", **config)
    spoil(theirs)
    with pytest.raises(AdapterError) as caught:
        take(theirs, tmp_path / "adapters" / "mara")
    message = str(caught.value)
    assert re.search(sentence, message) and "\n" not in message and ".part" not in message
    assert not list((tmp_path / "adapters").glob("*")) and not list((tmp_path / "adapters").glob(".*"))


NAMES = {
    ("google/gemma-2b-it", "google/gemma-2b-it", False): "names",
    ("unsloth/gemma-2b-it-bnb-4bit", "google/gemma-2b-it", False): "names",
    ("/root/models--google--gemma-3-270m/snapshots/ab12", "google/gemma-3-270m", False): "names gemma-3-270m",
    ("LLM-Research/gemma-3-270m-pt", "google/gemma-3-270m", False): "names",
    ("/root/gemma2b", "google/gemma-2b-it", True): "as --base-model says; its configuration names 'gemma2b'",
    ("/root/gemma2b", "google/gemma-2b-it", False): None,
    ("google/gemma-2b", "google/gemma-2b-it", True): None,
    ("google/gemma-2-2b-it", "google/gemma-2b-it", True): None,
    ("", "google/gemma-2b-it", True): "as --base-model says",
}


@pytest.mark.parametrize(("told", "name", "given"), NAMES)
def test_a_base_model_is_known_by_its_release_or_as_it_is_given(told: str, name: str, given: bool) -> None:
    expected = NAMES[told, name, given]
    if expected is None:
        with pytest.raises(AdapterError, match="--base-model"):
            bases.matched(told, name, given)
    else:
        said = bases.matched(told, name, given)
        assert expected in said and "/root" not in said


def test_a_recorded_fingerprint_decides(tmp_path: Path) -> None:
    theirs = foreign(tmp_path / "theirs")
    for print_, good in ((tiny.training()["base_model"]["fingerprint"], True), ("0" * 16, False)):
        known = {"base_model": {"name": "me/own", "fingerprint": print_}, "persona": tiny.training()["persona"]}
        (theirs / layout.TRAINING).write_text(json.dumps(known), encoding="utf-8")
        if good:
            assert inspection.inspect(take(theirs, tmp_path / "mara")).persona == "你是甄嬛。"
        else:
            with pytest.raises(AdapterError, match=r"was trained on 'me/own' .fingerprint '0000"):
                take(theirs, tmp_path / "other")


TALK = [("user", "hi"), ("assistant", "ho"), ("user", "who?")]


def test_a_template_is_recognised_however_it_is_written_and_no_other(tmp_path: Path) -> None:
    gemma = TEMPLATES["gemma"]
    for text in (gemma.replace("'", '"'), gemma.replace("\n'", "\\n'"), gemma.replace("\n", "\r\n"), gemma + "\n"):
        assert templates.recognise(text) == ("gemma", "this project's own")
    assert [templates.recognise(text)[0] for text in TEMPLATES.values()] == list(TEMPLATES)
    for text in (gemma.replace("model", "bot"), "{{ ''.__class__.__mro__ }}", "{% for", "", "{{ " + "(" * 9999):
        assert templates.recognise(text) == ("", "")
    with pytest.raises(AdapterError, match="no chat template is beside it.*--template gemma .*--template tutorial"):
        take(foreign(tmp_path / "theirs"), tmp_path / "mara", "")
    for stored in (gemma, [{"name": "tool_use", "template": "x"}, {"name": "default", "template": gemma}]):
        (tmp_path / "theirs" / origin.TOKENIZER).write_text(json.dumps({"chat_template": stored}), encoding="utf-8")
        assert templates.template_of(origin.Origin("theirs", tmp_path / "theirs"), "")[0] == "gemma"


OTHERS = files("trl") / "chat_templates"  # which has Gemma's own word for word


@pytest.mark.parametrize(
    ("text", "whose", "systems"),
    [
        ((OTHERS / "gemma.jinja").read_text(encoding="utf-8"), "Gemma's own", ("",)),  # which refuses a system turn
        ((OTHERS / "gemma3.jinja").read_text(encoding="utf-8"), "Gemma 3's own", ("", "你是甄嬛。")),
    ],
    ids=["gemma", "gemma3"],
)
def test_a_known_template_renders_what_ours_does(text: str, whose: str, systems: tuple[str, ...]) -> None:
    assert templates.recognise(text) == ("gemma", whose)
    render = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(text).render
    for system in systems:
        talk = [("system", system)] * bool(system) + TALK
        messages = [{"role": role, "content": said} for role, said in talk]
        rendered = render(messages=messages, add_generation_prompt=True, bos_token="<bos>")
        ids = tiny.tokenizer()(rendered, add_special_tokens=False).input_ids
        assert ids == PromptEncoder(tiny.tokenizer(), "gemma").prompt(system, (("hi", "ho"),), "who?")


def test_the_command_takes_one_in_from_a_hub(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "gemma-3-270m"
    tiny.gemma().save_pretrained(model)
    tiny.tokenizer().save_pretrained(model)
    theirs = foreign(tmp_path / "theirs")
    littered(theirs)
    (theirs / layout.TEMPLATE).write_text(TEMPLATES["gemma"], encoding="utf-8")
    repo = server.add("models/you/lora", tiny.contents(theirs))
    monkeypatch.setattr(adopt, "ROOT", tmp_path)
    adopt.main(["you/lora", "--name", "mara", "--base-model", str(model)])
    said = inspection.inspect(tmp_path / "adapters" / "mara").training["adopted"]
    assert said["from"] == f"you/lora@{repo.commits[-1][:12]}"
    assert "the one in chat_template.jinja is this project's own" in capsys.readouterr().out
    fetched = {line.rpartition("/")[2] for line in server.log if "/resolve/" in line and line.startswith("GET")}
    assert fetched <= set(origin.READ) and layout.WEIGHTS in fetched
    with pytest.raises(RoleplayError, match="exists: choose another --name"):
        adopt.main(["you/lora", "--name", "mara"])
    for wrong, sentence in (("nowhere", "no folder 'nowhere'"), ("../x/y", "names no repository")):
        with pytest.raises(RoleplayError, match=sentence):
            adopt.main([wrong, "--name", "other"])


FOUND = {  # how each of the shared cases ends: what is refused, by a part of the sentence
    "a10_dora": "DoRA",
    "a11_lora_bias": "its matrices have biases",
    "a12_modules_to_save": "saved beside the LoRA",
    "a13_trainable_tokens": "embeddings of single tokens",
    "a15_embed_added": "save_embedding_layers",
    "a25_bin_weights": "convert",
    "a26_local_base_path": "trained on '/data/models/gemma-2b-it'",
    "a27_mlx_lm": "mlx-lm",
    "a34_r_float": "a rank is a whole number",
    "a35_loftq": "changed the base model's own weights",
}

NOT_HERE = pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")


@NOT_HERE
@pytest.mark.parametrize(
    "case", ["a01_trainer_checkpoint", "a02_bare_peft", "a03_trl_folder", "a04_llamafactory_folder"]
)
def test_where_nothing_tells_the_template_it_is_asked_for(case: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="so say how it was trained: --template gemma .* or --template tutorial"):
        take(CASES / case / "adapter", tmp_path / "mara", "")
    assert not (tmp_path / "mara").exists()


@NOT_HERE
@pytest.mark.parametrize("case", sorted(path.name for path in CASES.glob("a*")))
def test_what_people_bring_is_taken_in_or_refused_by_name(case: str, tmp_path: Path) -> None:
    folder = next(path for path in (CASES / case).iterdir() if path.is_dir())
    with pytest.raises(AdapterError, match=FOUND[case]) if case in FOUND else nullcontext():
        take(folder, tmp_path / "mara")
