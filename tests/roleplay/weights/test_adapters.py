"""Adapters from strangers: a good one is taken, and every broken or hostile one is refused with its own sentence."""

import gzip
import json
import math
import os
import pickle
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3ForCausalLM

from roleplay.environment import ROOT
from roleplay.errors import AdapterError, DataError
from roleplay.text.known import FALLBACK, Known
from roleplay.text.meaning import SUMMARIES, Kinds, Meaning, Projection, Rarity, Tokens, unit
from roleplay.text.prompts import TEMPLATES
from roleplay.text.retrieval import MARK, RetrievingEncoder
from roleplay.weights import adapters, base_models, embedded, examples, inspection, layout, meanings, probe
from tests import tiny

FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture(scope="module")
def base() -> Gemma3ForCausalLM:
    return tiny.gemma()


def test_a_sound_adapter_is_taken(folder: Path, base: Gemma3ForCausalLM) -> None:
    adapter = inspection.inspect(folder)
    assert (adapter.name, adapter.rank, adapter.scaling, adapter.template) == ("tiny", tiny.RANK, 2.0, "gemma")
    assert (adapter.base_model, adapter.persona) == (tiny.BASE_NAME, "你是甄嬛。")
    inspection.check_base(adapter, base, base_models.fingerprint(base))
    assert {tuple(w.shape) for w in adapters.read_weights(adapter).values()} == {(4, 16), (16, 4), (4, 32)}


def test_the_rows_that_an_adapter_looks_up_come_with_it(folder: Path) -> None:
    assert inspection.inspect(folder).retriever is None
    greeting, who, why = ("你好", "请坐。"), ("Who is it?", "It is\nI."), ("why?", "Because.")
    turns = (Known(greeting, "0"), Known(who, "1"), Known(why, f"{FALLBACK}-3", "1"))
    examples.write_examples(folder, turns)
    adapter = inspection.inspect(folder)
    assert adapter.looked_up == adapters.LookedUp(turns)
    assert isinstance(adapter.encoder(tiny.tokenizer()), RetrievingEncoder)
    assert adapter.retriever and adapter.retriever.examples("who") == [who]
    assert adapter.without({who}).looked_up.turns == (turns[0], turns[2])
    assert adapter.without({greeting, who, why}).retriever is None
    for long in ([("a" * 2001, "b")], [("a", f"{n}" + "b" * 1900) for n in range(4800)]):
        with pytest.raises(DataError, match="leave out --retrieval"):
            examples.check_examples([Known(turn, "0") for turn in long])
    examples.check_examples(turns)
    write_rows(folder, '[["a", ["b"]], ["c", ["d"]]]')  # without matters
    assert len({one.matter for one in inspection.inspect(folder).looked_up.turns}) == 2


def write_rows(folder: Path, text: str) -> None:
    (folder / layout.EXAMPLES).write_bytes(gzip.compress(text.encode()))


Q_A = adapters.lora_key(0, "q_proj", "A")


def with_meaning(folder: Path) -> Meaning:
    """It tells texts apart by the number of their tokens, of which rows have two, four and six."""
    turns = [(("x " * size).strip(), f"{size}!") for size in (1, 3, 5)]
    examples.write_examples(folder, [Known(turn, turn[1]) for turn in turns])
    vectors = unit(np.array([[1.0, 0.1], [0.5, 0.5], [0.1, 1.0]]))
    lora = tiny.learnt(tiny.gemma())
    meaning = Meaning(
        1, lora, Rarity({1: 1.0, 2: 0.5}), tiny.straight(), vectors, np.arange(3), tiny.no_kinds(), np.full(3, -1)
    )
    meanings.write_meaning(folder, meaning)
    return meaning


def test_where_nothing_is_near_the_likeliest_fallback_is_shown(folder: Path) -> None:
    meaning = with_meaning(folder)
    known = [*inspection.inspect(folder).looked_up.turns]
    known += [Known((said, f"{said}!"), f"{FALLBACK}{said}") for said in ("glad", "sad")]
    examples.write_examples(folder, known)
    vectors = np.vstack([meaning.vectors, np.eye(2)])
    kinds = Kinds(np.array([[5.0, 0.0], [0.0, -5.0]]), np.array([0.5, -0.25]))
    written = replace(meaning, vectors=vectors, text_of=np.arange(5), kinds=kinds, kind_of=np.array([-1, -1, -1, 0, 1]))
    meanings.write_meaning(folder, written)
    adapter = inspection.inspect(folder)
    read = adapter.looked_up.meaning
    assert read and read.kind_of.tolist() == [-1, -1, -1, 0, 1]
    assert read.kinds.weights == pytest.approx(kinds.weights, rel=0.01) and (read.kinds.bias == kinds.bias).all()
    for features, reply in (([1.0, 0.0], "1!"), ([-1.0, -0.1], "sad!"), ([-0.1, -1.0], "sad!"), ([-0.1, 0.0], "glad!")):
        encoder = adapter.encoder(tiny.tokenizer(), lambda _, found=features: lambda texts: np.array([found]))
        assert isinstance(encoder, RetrievingEncoder) and encoder.shown("x")[-1][1] == reply
    short = adapter.without({known[-1].turn}).looked_up.meaning
    assert short and short.kind_of.tolist() == [-1, -1, -1, 0]
    meanings.write_meaning(folder, meaning)
    with pytest.raises(AdapterError, match="is not of the 5 rows that stand beside it"):
        inspection.inspect(folder)


def test_what_rows_mean_comes_with_them_in_eight_bits(folder: Path) -> None:
    written = with_meaning(folder)
    adapter = inspection.inspect(folder)
    read = adapter.looked_up.meaning
    assert read and read.depth == 1 and read.rarity == written.rarity and (read.text_of == written.text_of).all()
    assert np.abs(read.vectors - written.vectors).max() < 1 / meanings.LEVELS
    asked = list[int]()

    def features(texts: Sequence[Tokens]) -> np.ndarray:
        asked.extend(len(text.ids) for text in texts)
        return np.array([[0.1, 1.0]])  # as the last row's

    encoder = adapter.encoder(tiny.tokenizer(), lambda _: features)
    assert isinstance(encoder, RetrievingEncoder) and encoder.shown("y") == [(f"{MARK}x x x x x", "5!")]
    assert [reply for _, (_, reply) in encoder.retriever.ranked("y", 9)] == ["5!", "3!", "1!"]
    assert len(asked) == 1  # what was asked for is remembered
    assert encoder.shown("  ") == [] and len(asked) == 1
    assert adapter.encoder(tiny.tokenizer()).shown("y") == []  # without states its words tell
    fewer = adapter.without({("x", "1!")}).encoder(tiny.tokenizer(), lambda _: features)
    assert isinstance(fewer, RetrievingEncoder)
    assert [reply for _, (_, reply) in fewer.retriever.ranked("y", 9)] == ["5!", "3!"]


def test_what_tells_the_meaning_comes_back_nearly_as_it_was(folder: Path) -> None:
    written, lot = with_meaning(folder), np.random.default_rng(0)
    center, deviation, linear = (lot.uniform(0.5, 2, size).astype(np.float32) for size in (5, 5, (2, 5)))
    projection = Projection(center, deviation, linear * [[1], [-30]])
    meanings.write_meaning(folder, replace(written, projection=projection, kinds=tiny.no_kinds(5)))
    read = inspection.inspect(folder).looked_up.meaning
    features = lot.normal(size=(9, 5))
    assert read and read.projection.vectors(features) == pytest.approx(projection.vectors(features), abs=0.02)
    for own, back in zip(projection, read.projection, strict=True):
        assert back == pytest.approx(own, rel=0.05, abs=0.05)
    assert [*read.lora] == [*written.lora]
    for key, own in written.lora.items():
        assert np.abs(read.lora[key] - own).max() < np.abs(own).max() / meanings.LEVELS


@pytest.mark.parametrize(
    ("tensors", "depth", "message"),
    [
        ({"": np.zeros(0)}, "1", "holds no meaning of rows"),
        ({"vectors": np.zeros((2, 2), np.int8)}, "1", "is not of the 3 rows"),
        ({"vectors": np.zeros((3, 3), np.int8)}, "1", "another form"),
        ({"vectors": np.zeros((3, 0), np.int8)}, "1", "another form"),
        ({"vectors": np.zeros((3, 2), np.float32)}, "1", "another form"),
        ({"vectors": np.array(1, np.int8)}, "1", "another form"),
        ({"center": np.zeros(2, np.float64)}, "1", "another form"),
        ({"bias": np.zeros(1, np.float32)}, "1", "another form"),
        (
            {"kinds": np.zeros((1, 2), np.int8), **{key: np.zeros(1, np.float32) for key in ("kinds scale", "bias")}},
            *("1", "is not of the 3 rows"),
        ),
        ({"center": np.zeros(3, np.float32)}, "1", "another form"),
        ({"linear": np.zeros((1 << 40, 0), np.int8)}, "1", "another form"),
        ({Q_A: np.zeros((3, 16), np.int8), f"{Q_A} scale": np.ones(3, np.float32)}, "1", "another form"),
        ({Q_A: np.zeros((2, 16), np.float32)}, "1", "another form"),
        ({Q_A: np.zeros(2, np.int8)}, "1", "another form"),
        ({f"{Q_A} scale": np.ones(3, np.float32)}, "1", "another form"),
        ({f"{Q_A} scale": np.full(2, 2, np.float32)}, "1", "too large"),
        ({"linear scale": np.ones(1, np.float32)}, "1", "another form"),
        ({"tokens": np.array([7, 8, 9], np.int32)}, "1", "another form"),
        ({"tokens": np.array([7, 8], np.int64)}, "1", "another form"),
        ({"center": np.array([1, np.nan], np.float32)}, "1", "numbers that are none"),
        ({"deviation": np.zeros(2, np.float32)}, "1", "too small"),
        ({"rarity": np.array([1, -1], np.float32)}, "1", "too small"),
        ({"rarity": np.array([1, 3e38], np.float32)}, "1", "too large"),
        ({"linear scale": np.array([1, 3e38], np.float32)}, "1", "too large"),
        ({"linear": np.zeros(2, np.int8)}, "1", "another form"),
        ({}, "0", "another form"),
        ({}, "2", "holds no meaning of rows"),
        ({}, "9" * 5000, "another form"),
    ],
)
def test_a_meaning_that_is_none_is_refused(
    folder: Path, tensors: dict[str, np.ndarray], depth: str, message: str
) -> None:
    with_meaning(folder)
    whole = safetensors.numpy.load_file(folder / layout.MEANING)
    kept = {} if "" in tensors else whole | tensors
    safetensors.numpy.save_file(kept, folder / layout.MEANING, {"depth": depth})
    with pytest.raises(AdapterError, match=message):
        inspection.inspect(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}', "holds a dict where a list of replies belongs"),
        ('[["a", ["b"]], ["a", [1]]]', r"line 2 is \['a', \[1\]\]; give it a reply and a list of messages"),
        ('[["a", "b"]]', "line 1 is"),
        ('[["a", []]]', "line 1 is"),
        ('["a"]', "line 1 is"),
        ('[["a", ["b"], "c"]]', "line 1 is"),
        ('[["a", ["b"], 1, 2, 3]]', "line 1 is"),
        ('[["a", ["b"], true]]', "line 1 is"),
        ('[["a", ["b"], 0], ["c", ["why?"], 1, 7]]', "'why\\?' goes on from matter 7, which no row is of"),
        ('[[" ", ["b"]]]', "line 1 is"),
        (json.dumps([["a", ["b" * 2001]]]), "line 1 is .* of 1 to 2,000 characters"),
        ("[[", "examples.json.gz: not JSON"),
    ],
)
def test_rows_of_a_stranger_that_are_none_are_refused(folder: Path, text: str, message: str) -> None:
    write_rows(folder, text)
    with pytest.raises(AdapterError, match=message):
        inspection.inspect(folder)


WHOLE = gzip.compress(b'[["a", ["b"]]]', mtime=0)
TORN = b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 50


@pytest.mark.parametrize("data", [b'[["a", ["b"]]]', WHOLE[:-9], b"", WHOLE[:2] + b"x" * 40, TORN], ids=range(5))
def test_rows_of_a_stranger_that_are_not_compressed_are_refused(folder: Path, data: bytes) -> None:
    (folder / layout.EXAMPLES).write_bytes(data)
    with pytest.raises(AdapterError, match="examples.json.gz: not JSON in UTF-8 under gzip"):
        inspection.inspect(folder)


def test_rows_that_would_fill_the_memory_are_refused(folder: Path) -> None:
    write_rows(folder, " " * (1 << 24))
    assert (folder / layout.EXAMPLES).stat().st_size < 1 << 15
    with pytest.raises(AdapterError, match=r"holds more than 8\.4 MB of rows"):
        inspection.inspect(folder)


def test_rows_that_nobody_could_search_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MOST_TURNS", 2)
    write_rows(folder, '[["a", ["b", "c"]]]')
    inspection.inspect(folder)
    write_rows(folder, '[["a", ["b", "c", "d"]]]')
    with pytest.raises(AdapterError, match="has 3 messages, of which 2 can be searched"):
        inspection.inspect(folder)


def test_a_meaning_of_another_model_is_refused(folder: Path, base: Gemma3ForCausalLM) -> None:
    meaning = with_meaning(folder)
    with pytest.raises(AdapterError, match="is of 2 features after 1 layers"):
        inspection.check_base(inspection.inspect(folder), base, base_models.fingerprint(base))
    size = SUMMARIES * base.config.hidden_size
    fitting = Projection(np.zeros(size), np.ones(size), np.ones((2, size)))
    wider = tiny.learnt(tiny.gemma(intermediate_size=2 * base.config.intermediate_size))
    meanings.write_meaning(folder, replace(meaning, projection=fitting, lora=wider, kinds=tiny.no_kinds(size)))
    with pytest.raises(AdapterError, match="meaning.safetensors: .*gate_proj.* has shape .* the loaded model needs"):
        inspection.check_base(inspection.inspect(folder), base, base_models.fingerprint(base))


def test_rank_stabilised_scaling(folder: Path) -> None:
    edit(folder, "adapter_config.json", use_rslora=True)
    assert inspection.inspect(folder).scaling == 8 / math.sqrt(tiny.RANK)


def test_names_are_listed_and_no_path_is_one(folder: Path) -> None:
    root = folder.parent
    assert adapters.local_adapters(root) == ["tiny"]
    assert adapters.find(root, "tiny") == folder
    for name in ("../adapters/tiny", str(folder), "", ".", "tiny/"):
        with pytest.raises(AdapterError, match="choose one of tiny"):
            adapters.find(root, name)


def edit(folder: Path, file: str, **changes: Any) -> None:
    value = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps(value | changes), encoding="utf-8")


def config(**changes: Any) -> Callable[[Path], Any]:
    return lambda folder: edit(folder, "adapter_config.json", **changes)


def training(**changes: Any) -> Callable[[Path], Any]:
    return lambda folder: edit(folder, "training.json", **changes)


def text(file: str, content: str | bytes) -> Callable[[Path], Any]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / file).write_bytes(data)


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / layout.WEIGHTS)
        change(tensors)
        save_file(tensors, folder / layout.WEIGHTS)

    return spoil


def without(file: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).unlink()


def truncated(folder: Path) -> None:
    data = (folder / layout.WEIGHTS).read_bytes()
    (folder / layout.WEIGHTS).write_bytes(data[:-100])


def oversized(folder: Path) -> None:
    os.truncate(folder / layout.WEIGHTS, 2 << 30)  # sparse: takes no room


def linked_out(folder: Path) -> None:
    outside = folder.parent / "elsewhere.safetensors"
    (folder / layout.WEIGHTS).rename(outside)
    (folder / layout.WEIGHTS).symlink_to(outside)


def link_to_secret(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/passwd")


def pipe(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    os.mkfifo(folder / "chat_template.jinja")  # opening it would wait for ever


def unix_socket(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{here}/notes.txt")
    os.close(here)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def marked(folder: Path) -> None:
    (folder / layout.CONFIG).write_bytes(b"\xef\xbb\xbf" + (folder / layout.CONFIG).read_bytes())


PLAIN: dict[str, Callable[[Path], Any]] = {
    "no task named": config(task_type=None),
    "loaded by a model's own config": config(_from_model_config=True),
    "whole names, as for all-linear": config(
        target_modules=[f"model.layers.{n}.{name}" for n in (0, 1) for name in ("self_attn.q_proj", "mlp.down_proj")]
    ),
    "an orthogonal start": config(init_lora_weights="orthogonal"),
    "a mark before the text": marked,
}


@pytest.mark.parametrize("change", PLAIN.values(), ids=PLAIN)
def test_plain_lora_is_taken_however_peft_writes_it(folder: Path, change: Callable[[Path], Any]) -> None:
    change(folder)
    assert inspection.inspect(folder).scaling == 2.0


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    # files
    "no weights": (without(layout.WEIGHTS), "has no adapter_model.safetensors"),
    "no config": (without("adapter_config.json"), "has no adapter_config.json"),
    "no template": (without("chat_template.jinja"), "has no chat_template.jinja"),
    "pickle beside": (text("adapter_model.bin", pickle.dumps(Bomb())), ".bin files are not accepted"),
    "pickle as weights": (text(layout.WEIGHTS, pickle.dumps(Bomb())), "no whole safetensors file"),
    "optimiser state": (text("optimizer.pt", pickle.dumps(Bomb())), ".pt files are not accepted"),
    "code": (text("modeling_gemma.py", "import os"), ".py files are not accepted"),
    "code in capitals": (text("MODELING.PY", "import os"), ".PY files are not accepted"),
    "name with a line break": (text("a\nb.txt", ""), "a file is named 'a\\nb.txt'"),
    "second weights": (text("model.safetensors", b""), "has one weight file"),
    "mlx-lm": (text("adapters.safetensors", b""), "it is of mlx-lm"),
    "oversized": (oversized, "2,147 MB, the limit is 1,074 MB"),
    "large config": (text("adapter_config.json", " " * (2 << 20)), "the limit is 1 MB"),
    "weights linked out": (linked_out, "a link that leaves its folder"),
    "card linked to a secret": (link_to_secret, "README.md: a link that leaves its folder"),
    "pipe": (pipe, "chat_template.jinja: neither a file nor a folder"),
    "socket": (unix_socket, "notes.txt: neither a file nor a folder"),
    "empty weights": (text(layout.WEIGHTS, b""), "no whole safetensors file"),
    "truncated weights": (truncated, "no whole safetensors file"),
    "header too long": (text(layout.WEIGHTS, b"\xff" * 64), "no whole safetensors file"),
    # adapter_config.json
    "config not JSON": (text("adapter_config.json", "{'r': 8}"), "not JSON in UTF-8"),
    "config not UTF-8": (text("adapter_config.json", b"\xff\xfe{}"), "not JSON in UTF-8"),
    "config a list": (text("adapter_config.json", "[]"), "holds a list"),
    "config nested deep": (text("adapter_config.json", "[" * 200_000), "not JSON in UTF-8"),
    "config without rank": (text("adapter_config.json", '{"peft_type": "LORA"}'), "has no r;"),
    "other method": (config(peft_type="IA3"), "peft_type is 'IA3'"),
    "other task": (config(task_type="SEQ_CLS"), "task_type is 'SEQ_CLS'"),
    "auto_mapping": (config(auto_mapping={"base_model_class": "X", "parent_library": "evil"}), "auto_mapping is"),
    "modules_to_save": (config(modules_to_save=["lm_head"]), "modules_to_save is"),
    "unknown key": (config(trust_remote_code=True), "unknown key 'trust_remote_code'"),
    "megatron": (config(megatron_config={}, megatron_core="evil"), "megatron_config is"),
    "megatron core": (config(megatron_core="evil"), "megatron_core is 'evil'"),
    "base altered": (config(init_lora_weights="pissa"), "init_lora_weights is 'pissa'"),
    "layers repeated": (config(layer_replication=[[0, 2], [0, 2]]), "layer_replication is"),
    "rank pattern": (config(rank_pattern={"q_proj": 9999}), "rank_pattern is"),
    "trained tokens": (config(trainable_token_indices=[2]), "trainable_token_indices is"),
    "dora": (config(use_dora=True), "use_dora is True"),
    "bias": (config(bias="all"), "bias is 'all'"),
    "rank zero": (config(r=0), "r is 0"),
    "rank too high": (config(r=100_000), "r is 100000"),
    "rank no number": (config(r="8"), "r is '8'"),
    "rank a bool": (config(r=True), "r is True"),
    "rank not that of the weights": (config(r=8), "which is not of rank 8"),
    "alpha not finite": (config(lora_alpha=math.inf), "lora_alpha is inf"),
    "alpha not a number": (config(lora_alpha=math.nan), "lora_alpha is nan"),
    "every module": (config(target_modules="all-linear"), "target_modules is 'all-linear'"),
    "slow expression": (config(target_modules="(a+)+$"), "target_modules is '(a+)+$'"),
    "no modules": (config(target_modules=[]), "target_modules is []"),
    "head": (config(target_modules=["lm_head"]), "target module 'lm_head'"),
    "fewer modules than weights": (config(target_modules=["q_proj"]), "is not among the target_modules"),
    "more modules than weights": (config(target_modules=["q_proj", "down_proj", "v_proj"]), "is missing"),
    # tensors
    "matrix gone": (weights(lambda t: t.pop(FIRST)), "q_proj.lora_A.weight is missing"),
    "no matrices": (weights(lambda t: t.clear()), "is missing"),
    "foreign matrix": (weights(lambda t: t.update(embed=torch.ones(2, 2))), "'embed' is no LoRA matrix"),
    "saved embeddings": (
        weights(lambda t: t.update({"base_model.model.model.embed_tokens.weight": torch.ones(2, 2)})),
        "embeddings were saved too (save_embedding_layers)",
    ),
    "multimodal": (
        weights(lambda t: t.update({FIRST.replace("model.layers", "model.language_model.layers"): t[FIRST] + 1})),
        "trained on the multimodal Gemma 3; see whether train.adopt",
    ),
    "path as name": (weights(lambda t: t.update({"../../x": torch.ones(1)})), "'../../x' is no LoRA matrix"),
    "wrong block": (
        weights(lambda t: t.update({FIRST.replace("self_attn", "mlp"): t[FIRST] + 1})),
        "mlp.q_proj.lora_A.weight' is no LoRA matrix",
    ),
    "not finite": (weights(lambda t: t[FIRST].fill_(math.nan)), "values that are not finite"),
    "infinite": (weights(lambda t: t[FIRST][0].fill_(math.inf)), "values that are not finite"),
    "all zero": (weights(lambda t: [w.zero_() for w in t.values()]), "all products of its matrices are zero"),
    "B zero": (weights(lambda t: [w.zero_() for k, w in t.items() if "lora_B" in k]), "all products of its matrices"),
    "integers": (weights(lambda t: t.update({k: w.int() for k, w in t.items()})), "is I32; only F32"),
    "doubles": (weights(lambda t: t.update({k: w.double() for k, w in t.items()})), "is F64; only F32"),
    "one dimension": (weights(lambda t: t.update({FIRST: t[FIRST].flatten()})), "has shape [64]"),
    # template and training.json
    "stranger's template": (text("chat_template.jinja", "{{ ''.__class__.__mro__ }}"), "none of this project's own"),
    "template nearly ours": (text("chat_template.jinja", TEMPLATES["gemma"] + " "), "none of this project's own"),
    "template not UTF-8": (text("chat_template.jinja", b"\xff"), "chat_template.jinja:"),
    "two templates": (training(template="tutorial"), "template 'tutorial' is not the one"),
    "training not JSON": (text("training.json", "{"), "training.json: not JSON"),
    "persona no object": (training(persona="T"), "base_model and persona must be objects"),
    "persona too long": (training(persona={"system_prompt": "x" * 2001}), "a text of at most 2,000"),
    "base name no text": (training(base_model={"name": ["x"]}), "a text of at most 2,000"),
}


@pytest.mark.parametrize(("spoil", "sentence"), REFUSED.values(), ids=REFUSED)
@pytest.mark.timeout(20)
def test_refused(folder: Path, spoil: Callable[[Path], Any], sentence: str) -> None:
    spoil(folder)
    with pytest.raises(AdapterError) as caught:
        inspection.inspect(folder)
    message = str(caught.value)
    assert sentence in message
    assert "\n" not in message and len(message) < 500 + len(str(folder))


@pytest.mark.parametrize("name", ["missing", "..", "-rf"])
def test_folders_that_are_no_adapters(folder: Path, name: str) -> None:
    if name == "-rf":
        folder = folder.rename(folder.parent / name)
    with pytest.raises(AdapterError, match="no such adapter folder|not an adapter name"):
        inspection.inspect(folder if name == "-rf" else folder / name)


WRONG_BASES: dict[str, tuple[dict[str, Any], bool, str]] = {
    "other base": ({}, False, "was trained on google/gemma-3-270m \\(fingerprint"),
    "fewer layers": ({"num_hidden_layers": 1}, True, "layers.1.mlp.down_proj, which the loaded model does not have"),
    "more layers": ({"num_hidden_layers": 3}, True, "has 2 layers, the loaded model has 3"),
    "wider": ({"hidden_size": 32}, True, "the loaded model needs 32 features"),
}


@pytest.mark.parametrize(("changes", "same_print", "sentence"), WRONG_BASES.values(), ids=WRONG_BASES)
def test_a_base_it_was_not_made_for(folder: Path, changes: dict[str, Any], same_print: bool, sentence: str) -> None:
    adapter = inspection.inspect(folder)
    with pytest.raises(AdapterError, match=sentence):
        inspection.check_base(adapter, tiny.gemma(**changes), adapter.base_fingerprint if same_print else "0" * 16)


def test_the_embedded_models_adapter_fits_the_model_it_was_made_of(folder: Path, base: Gemma3ForCausalLM) -> None:
    edit(folder, "training.json", base_model={"name": embedded.HUB_ID, "fingerprint": embedded.FINGERPRINT})
    adapter = inspection.inspect(folder)
    warning = inspection.check_base(adapter, base, "0" * 16, name=embedded.HUB_ID)
    assert "dequantised from Q4_K_M" in warning
    assert inspection.check_base(adapter, base, embedded.FINGERPRINT, name=embedded.HUB_ID) == ""
    with pytest.raises(AdapterError, match="fingerprint"):
        inspection.check_base(adapter, base, "0" * 16, name="google/gemma-2b-it")
    with pytest.raises(AdapterError, match="has 2 layers"):
        inspection.check_base(adapter, tiny.gemma(num_hidden_layers=3), "0" * 16, name=embedded.HUB_ID)


def test_without_a_fingerprint_the_name_decides(folder: Path, base: Gemma3ForCausalLM) -> None:
    edit(folder, "training.json", base_model={"name": "tiny"})
    adapter = inspection.inspect(folder)
    inspection.check_base(adapter, base, base_models.fingerprint(base), name="tiny")
    for name in ("", "other"):
        with pytest.raises(AdapterError, match="records no fingerprint"):
            inspection.check_base(adapter, base, base_models.fingerprint(base), name=name)


def test_probe_is_the_kl_divergence() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    expected = float((p * (p / q).log()).sum())
    adapted, base = torch.stack([p, q]).log() + 5, torch.stack([q, q]).log()  # logits are known up to a constant
    assert probe.kl_to_base(adapted, base) == pytest.approx(expected / 2, abs=1e-6)


def test_probe_refuses_scores_that_are_not_finite() -> None:
    with pytest.raises(AdapterError, match="not finite"):
        probe.kl_to_base(torch.tensor([[math.nan, 0.0]]), torch.zeros(1, 2))


def test_the_default_adapter_is_the_embedded_models() -> None:
    folder = ROOT / "adapters" / "zhenhuan-gemma3-270m"
    assert inspection.inspect(folder).base_fingerprint == embedded.FINGERPRINT


def test_of_adapters_written_at_once_the_last_by_alphabet_is_first(tmp_path: Path) -> None:
    for name, seconds in (("a", 0), ("wukong", 3), ("zhenhuan", 3), ("mine", 600)):
        (tmp_path / name).mkdir()
        (tmp_path / name / layout.CONFIG).touch()
        os.utime(tmp_path / name / layout.CONFIG, (6000 + seconds, 6000 + seconds))
    assert adapters.newest_first(tmp_path) == ["mine", "zhenhuan", "wukong", "a"]
