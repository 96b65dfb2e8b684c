"""Preference optimisation is exact: loss and every gradient are TRL's, on packs, in any split of an update."""

from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

from roleplay.errors import DataError
from roleplay.text.pairs import Pair
from roleplay.text.prompts import IGNORED, PromptEncoder
from roleplay.weights.adapters import PROJECTIONS
from tests import tiny
from train.learning.attention import ATTENTION
from train.learning.loss import use_chunked_loss
from train.learning.packing import common_prefix
from train.learning.preference import (
    EncodedPair,
    EncodedThumb,
    Objective,
    as_rows,
    collate_pairs,
    encode_pair,
    encode_thumbs,
    score,
    with_reference,
)
from train.learning.preference_trainer import PreferenceTrainer, ThumbTrainer

PERSONA = "You are Zhen Huan, a consort."
PAIRS = [
    Pair("", (), "Who are you?", "I am Zhen Huan.", "A language model.", "pair 1"),
    Pair("", (("Is it cold?", "The plum has not complained."),), "And you?", "Nor have I.", "Yes", "pair 2"),
    Pair("", (), "你从哪里来？", "从雪里来。", "我是模型，没有来处。", "pair 3"),
]
WEIGHTS = 2 * len(PROJECTIONS) * tiny.LAYERS


def adapted() -> Any:
    """A tiny Gemma in float32 with a random adapter, always the same one."""
    model = tiny.gemma()
    torch.manual_seed(1)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=list(PROJECTIONS), init_lora_weights=False)
    return get_peft_model(model, config)


def move_on(model: Any) -> None:
    """Away from where it started, so that the reference is another model."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".default." in name and "lora_" in name:
                weight += 0.1 * torch.randn_like(weight)


def encoded() -> list[EncodedPair]:
    encoder = PromptEncoder(tiny.tokenizer())
    return [encode_pair(encoder, pair, PERSONA, 500) for pair in PAIRS]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def trained(folder: Any, objective: Objective, pack: int, parts: int = 1) -> PreferenceTrainer:
    """Our trainer, with the reference of where it started and the weights of somewhere else."""
    model = adapted()
    model.get_base_model().set_attn_implementation(ATTENTION)
    use_chunked_loss(model.get_base_model())
    trainer = PreferenceTrainer(model, tiny.one_update(folder, pack, parts, max_grad_norm=0.0), True, objective)
    pairs = with_reference(encoded(), score(model, encoded(), 2))
    trainer.train_dataset = trainer.eval_dataset = pairs
    move_on(model)
    return trainer


def trl_loss(folder: Any, objective: Objective) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients as TRL's `DPOTrainer` has them, on the same token ids."""
    kinds = ["sigmoid" if objective.loss == "dpo" else objective.loss, "sft"]
    config = DPOConfig(
        output_dir=str(folder),
        loss_type=kinds,
        loss_weights=[1.0, objective.sft_weight],
        beta=objective.beta,
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    tokenizer = tiny.tokenizer()
    words = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    model = adapted()
    trainer = DPOTrainer(model, args=config, train_dataset=words, processing_class=tokenizer)
    rows = []
    for pair in encoded():
        asked = sum(label == IGNORED for label in pair.chosen.labels)
        ids = {"chosen_ids": pair.chosen.input_ids[asked:], "rejected_ids": pair.rejected.input_ids[asked:]}
        rows.append({"prompt_ids": pair.chosen.input_ids[:asked], **ids})
    move_on(model)
    model.train()
    loss = trainer.compute_loss(model, DataCollatorForPreference(pad_token_id=0)(rows))
    loss.backward()
    return loss.item(), gradients(model)


def thumbs() -> list[EncodedThumb]:
    encoder, given = PromptEncoder(tiny.tokenizer()), [pair.thumbs for pair in PAIRS]
    return encode_thumbs(encoder, [given[0][0], given[1][1], given[2][0]], PERSONA, 500)


def trained_on_thumbs(folder: Any, objective: Objective, pack: int, parts: int = 1) -> ThumbTrainer:
    model = adapted()
    model.get_base_model().set_attn_implementation(ATTENTION)
    use_chunked_loss(model.get_base_model())
    trainer = ThumbTrainer(model, tiny.one_update(folder, pack, parts, max_grad_norm=0.0), True, objective)
    trainer.train_dataset = with_reference(thumbs(), score(model, thumbs(), 2))  # type: ignore[assignment]
    move_on(model)
    return trainer


def test_kto_and_every_gradient_are_those_of_trl(tmp_path):
    """On replies that are liked and one that is not, where the model has gained on the others, so that z counts."""
    config = KTOConfig(
        output_dir=str(tmp_path / "trl"),
        beta=0.5,
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    words = Dataset.from_list([{"prompt": "a", "completion": "b", "label": n == 0} for n in range(2)])
    model = adapted()
    theirs = KTOTrainer(model, args=config, train_dataset=words, processing_class=tiny.tokenizer())
    rows = []
    for thumb in thumbs():
        asked = sum(label == IGNORED for label in thumb.chosen.labels)
        said, other = (side.input_ids[asked:] for side in thumb.sides)
        ids = {"prompt_ids": thumb.chosen.input_ids[:asked], "completion_ids": said, "KL_completion_ids": other}
        rows.append({**ids, "label": thumb.liked})
    batch = DataCollatorForUnpairedPreference(pad_token_id=0)(rows)
    move_on(model)
    model.train()
    expected_loss = theirs.compute_loss(model, batch)
    expected_loss.backward()
    expected = gradients(model)

    ours = trained_on_thumbs(tmp_path / "ours", Objective("kto", 0.5), pack=3)
    inputs = ours._collate(ours.train_dataset)
    counts = ours._get_num_items_in_batch([inputs], torch.device("cpu"))
    assert counts[2] > 0, "z is cut off at zero and shows nothing"
    loss = ours.compute_loss(ours.lora.train(), inputs, num_items_in_batch=counts)
    loss.backward()
    found = gradients(ours.lora)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert len(found) == WEIGHTS and set(found) <= set(expected)
    for name, gradient in found.items():
        assert expected[name].abs().max() > 0
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6, msg=name)


def test_an_update_of_kto_is_the_same_in_one_pack_and_in_several(tmp_path):
    losses = []
    for pack, parts in ((3, 1), (2, 2)):
        trainer = trained_on_thumbs(tmp_path / str(pack), Objective("kto", 0.5, 0.3), pack, parts)
        trainer.train()
        losses.append(next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("objective", [Objective(), Objective("dpo", 0.5, 0.3), Objective("ipo", 0.2)], ids=str)
def test_loss_and_every_gradient_are_those_of_trl(objective, tmp_path):
    expected_loss, expected = trl_loss(tmp_path / "trl", objective)
    trainer = trained(tmp_path / "ours", objective, pack=3)
    batch = trainer._collate(trainer.train_dataset)
    counts = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    loss = trainer.compute_loss(trainer.lora.train(), batch, num_items_in_batch=counts)
    loss.backward()
    found = gradients(trainer.lora)
    assert loss.item() == pytest.approx(expected_loss, rel=1e-5)
    assert len(found) == WEIGHTS and set(found) <= set(expected)
    for name, gradient in found.items():
        assert expected[name].abs().max() > 0
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("objective", [Objective("dpo", 0.5, 0.3), Objective("ipo", 0.2)], ids=str)
def test_an_update_is_the_same_in_one_pack_and_in_several(objective, tmp_path):
    """Two packs, of two pairs and of one, and the held-out figures of what they are."""
    one, several = (trained(tmp_path / str(pack), objective, pack, -(-3 // pack)) for pack in (3, 2))
    figures = [trainer.evaluate() for trainer in (one, several)]
    assert figures[0] == pytest.approx(figures[1], rel=1e-4) and figures[0].keys() == {
        "eval_loss",
        "eval_margin",
        "eval_reward_gap",
        "eval_accuracy",
    }
    losses = []
    for trainer in (one, several):
        trainer.train()
        losses.append(next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_start_has_gained_nothing(tmp_path):
    trainer = trained(tmp_path, Objective(), 2)
    pairs = with_reference(encoded(), score(trainer.lora, encoded(), 2))
    trainer.eval_dataset = pairs
    found = trainer.evaluate()
    chosen, rejected = trainer.held_out_scores.mean(0).tolist()
    assert found == pytest.approx(
        {"eval_loss": 0.693147, "eval_margin": chosen - rejected, "eval_reward_gap": 0.0, "eval_accuracy": 0.0},
        abs=1e-5,
    )


def test_both_sides_lose_the_same_oldest_turns():
    encoder = PromptEncoder(tiny.tokenizer())
    whole = encode_pair(encoder, PAIRS[1], PERSONA, 500)
    cut = encode_pair(encoder, PAIRS[1], PERSONA, len(whole.rejected.input_ids))  # the chosen side is longer
    asked = [sum(label == IGNORED for label in side.labels) for side in cut.sides]
    assert asked[0] == asked[1] < sum(label == IGNORED for label in whole.chosen.labels)
    with pytest.raises(DataError, match=r"pair 2: \d+ tokens with the persona, 9 fit"):
        encode_pair(encoder, PAIRS[1], PERSONA, 9)


def test_an_estimate_of_memory_counts_the_shared_prefix_of_a_pair_once():
    pairs = encoded()
    rows, prefix = as_rows(pairs), common_prefix([side for pair in pairs for side in pair.sides])
    assert common_prefix(rows) == prefix
    packed = prefix + sum(len(row.input_ids) - prefix for row in rows)
    assert packed == collate_pairs(pairs)["input_ids"].shape[1]
