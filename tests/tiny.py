"""Small real things for the tests: a Gemma model, a tokenizer, and an adapter folder as train.lora writes it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    TrainingArguments,
)

from roleplay.text import personas
from roleplay.text.known import Known
from roleplay.text.meaning import SUMMARIES, Kinds, Meaning, Projection, Rarity
from roleplay.text.prompts import TEMPLATES
from roleplay.weights import base_models, layout
from roleplay.weights.examples import write_examples
from roleplay.weights.meanings import lora_keys, write_meaning
from train.publishing import card

ZHEN_HUAN = personas.default()
RANK, ALPHA, LAYERS = 4, 8, 2
BASE_NAME = "google/gemma-3-270m"
NEEDS_INT8 = pytest.mark.skipif(
    torch.cuda.is_available() or "fbgemm" not in torch.backends.quantized.supported_engines,
    reason="PyTorch has no int8 product for this machine",
)
BOARD = {
    "arms": {
        "base": {"held-out loss": {"value": 5.63, "low": 5.5, "high": 5.7}},
        "adapter": {"held-out loss": {"value": 4.03, "low": 3.9, "high": 4.1}},
    },
    "differences": {"base": {"held-out loss": {"value": -1.6, "low": -1.8, "high": -1.4}}},
    "rule": "The first three rows of the held-out part.",
    "samples": [{"user": f"问{n}", "base": "<b>a|b</b>\nagain", "adapter": "本宫*知道*了"} for n in range(9)],
}


SHAPE: dict[str, Any] = {
    **dict(hidden_size=16, intermediate_size=32, num_hidden_layers=LAYERS, num_attention_heads=2),
    **dict(vocab_size=264, num_key_value_heads=1, head_dim=8, max_position_embeddings=512),
}
# Of random weights, whose logits are small: caps as far out as the real ones would bend nothing.
CAPS = {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.3}


def gemma(**changes: Any) -> Gemma3ForCausalLM:
    """Two random layers, always the same ones."""
    torch.manual_seed(0)
    return Gemma3ForCausalLM(Gemma3TextConfig(**(SHAPE | changes))).eval()


def of_kind(model_type: str, **changes: Any) -> PreTrainedModel:
    """The same of any architecture."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **(SHAPE | changes))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    return model


def multimodal(**changes: Any) -> Gemma3ForConditionalGeneration:
    """A Gemma 3 that also sees; its text half is that of `gemma`."""
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    tokens = dict(image_token_index=261, boi_token_index=262, eoi_token_index=263, mm_tokens_per_image=4)
    text = gemma(**changes)
    model = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text.config, vision_config=vision, **tokens)).eval()
    model.model.language_model.load_state_dict(text.model.state_dict())
    return model


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and Gemma's control tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(BPE({letter: number for number, letter in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>")


def training() -> dict[str, Any]:
    return {
        "settings": {"rank": RANK, "learning_rate": 0.0004},
        "data": [{"file": "zhenhuan.json", "sha256": "ab" * 32, "rows": 1200, "languages": {"zh": 900, "en": 300}}],
        "held_out": {"rows": 120},
        "base_model": {"name": BASE_NAME, "fingerprint": base_models.fingerprint(gemma()), "parameters": 268_098_176},
        "persona": {"name": "甄嬛 · Zhen Huan", "system_prompt": "你是甄嬛。", "greeting": "", "openers": []},
        "template": "gemma",
        "versions": {"torch": "2"},
        "results": {
            "train_loss": 3.0,
            "held_out_loss": 4.031,
            "base_held_out_loss": 5.634,
            "seconds": 661,
            "updates": 100,
            "log": [],
        },
    }


def adapter(folder: Path) -> Path:
    """Fill `folder` with random LoRA matrices on `gemma()` and every file that goes with them."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=["q_proj", "down_proj"],
        init_lora_weights=False,
    )
    model = get_peft_model(gemma(), config)
    model.peft_config["default"].base_model_name_or_path = BASE_NAME
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / layout.TEMPLATE).write_text(TEMPLATES["gemma"], encoding="utf-8")
    (folder / layout.TRAINING).write_text(json.dumps(training()), encoding="utf-8")
    (folder / layout.BOARD).write_text(json.dumps(BOARD), encoding="utf-8")
    for plot in (layout.CURVE, layout.BOARD_PLOT, layout.PICTURE):
        (folder / plot).write_bytes(b"\x89PNG\r\n")
    card.write_card(folder)
    return folder


def looking_up(folder: Path) -> Path:
    """The same folder, of an adapter that looks up one row by what it means."""
    write_examples(folder, [Known(("a", "b"), "0")])
    projection = straight(SUMMARIES * SHAPE["hidden_size"])
    learning = learnt(gemma())
    kinds, texts = no_kinds(len(projection.center)), np.zeros(1, int)
    meaning = Meaning(1, learning, Rarity({1: 1.0}), projection, np.eye(1, 2), texts, kinds, texts - 1)
    write_meaning(folder, meaning)
    return folder


def no_kinds(features: int = 2) -> Kinds:
    return Kinds(np.empty((0, features)), np.empty(0))


def straight(features: int = 2) -> Projection:
    """It leaves the first two features as they are."""
    return Projection(np.zeros(features), np.ones(features), np.eye(2, features, dtype=np.float32))


def learnt(model: PreTrainedModel, seed: int = 0) -> dict[str, np.ndarray]:
    """Matrices of rank 2 for its first layer, of any values."""
    lot, found = np.random.default_rng(seed), {}
    for key in lora_keys(1):
        module = model.get_submodule(key.removeprefix("base_model.model.").split(".lora_")[0])
        out, into = module.weight.shape
        found[key] = lot.normal(0, 0.1, (2, into) if ".lora_A." in key else (out, 2)).astype(np.float32)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def one_update(folder: Path, rows_a_pack: int, packs: int = 1, **more: Any) -> TrainingArguments:
    """A training of a single update on the CPU, made of `packs` packs."""
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=rows_a_pack,
        per_device_eval_batch_size=rows_a_pack,
        gradient_accumulation_steps=packs,
        logging_steps=1,
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        **more,
    )
