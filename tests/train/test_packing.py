"""Packing is exact: loss, every gradient and twenty updates are those of the rows computed one by one."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from roleplay.text.prompts import IGNORED, TEMPLATES, Example, PromptEncoder
from roleplay.weights.architectures import plain_attention
from tests import tiny
from train.learning import packing
from train.learning.attention import ATTENTION, Heads, Pack, Scores, _attend_at_once, _attend_by_part
from train.learning.fused import fuse
from train.learning.loss import label_losses, logits_again, use_chunked_loss
from train.learning.trainer import CharacterTrainer

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WINDOW = 16  # shorter than the rows, so that the sliding window cuts inside them

ROWS = [
    [("Who are you?", "I am Zhen Huan.")],
    [("Is it cold?", "The plum has not complained yet."), ("And you?", "Nor have I.")],
    [("?", "Speak.")],
    [("你从哪里来？", "从雪里来。"), ("冷么？", "惯了。"), ("当真？", "假的。")],
]


def gemma_1() -> Any:
    return tiny.of_kind("gemma")


def gemma_2() -> Any:
    return tiny.of_kind("gemma2", sliding_window=WINDOW, **tiny.CAPS)


def gemma_3() -> Any:
    return tiny.gemma(sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"])


def with_lora(model: Any, dropout: float = 0.0) -> Any:
    torch.manual_seed(1)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=PROJECTIONS, init_lora_weights=False, lora_dropout=dropout
    )
    return get_peft_model(model.double(), config, autocast_adapter_dtype=False).double()


def examples(template: str = "gemma", loss_on: str = "all") -> list[Example]:
    encoder = PromptEncoder(tiny.tokenizer(), template)
    return [encoder.example("You are Zhen Huan, a consort.", turns, loss_on) for turns in ROWS]


def one_by_one(model: Any, rows: list[Example]) -> torch.Tensor:
    """The plain computation: full logits of each row, averaged over all labels."""
    labels = sum(y != IGNORED for row in rows for y in row.labels)
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_ids]), use_cache=False).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(
            logits.double(), torch.tensor(row.labels[1:]), ignore_index=IGNORED, reduction="sum"
        )
    return total / labels


def prepare(model: Any, share_prefix: bool) -> Any:
    base = model.get_base_model()
    base.set_attn_implementation(ATTENTION if share_prefix else plain_attention(base.config)[0])
    use_chunked_loss(base)
    base.loss_function.chunk = 100  # several chunks even here
    fuse(model)
    return model


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("build", [gemma_1, gemma_2, gemma_3])
@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("loss_on", ["all", "last"])
def test_loss_and_every_gradient_are_exact(build, share_prefix, template, loss_on):
    rows = examples(template, loss_on)
    expected_loss = one_by_one(model := with_lora(build()), rows)
    expected = gradients(model, expected_loss)
    packed = prepare(with_lora(build()), share_prefix)
    loss = packed(**packing.collate(rows, share_prefix)).loss
    torch.testing.assert_close(loss.double(), expected_loss, rtol=1e-6, atol=0)
    found = gradients(packed, loss)
    assert len(found) == len(expected) == 2 * 7 * 2
    for name, gradient in expected.items():
        # The head's logits are float32 (as on a GPU), and so is transformers' softmax; everything else is float64 here.
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()), msg=name)


def test_several_replies_to_one_prompt_are_learned_from_where_it_ends():
    """All that stands before the replies is shared there, so that each first label follows the same token."""
    encoder = PromptEncoder(tiny.tokenizer(), "gemma")
    rows = [
        encoder.example("You are Zhen Huan.", [("你从哪里来？", reply)], "last")
        for reply in ("雪里。", "宫里来。", "不知。")
    ]
    expected = one_by_one(with_lora(gemma_3()), rows)
    found = prepare(with_lora(gemma_3()), share_prefix=True)(**packing.collate(rows)).loss
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("build", [gemma_1, gemma_2, gemma_3])
def test_twenty_updates_end_at_the_same_weights(build):
    def learn(model, loss_of):
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=1e-3)
        for step in range(20):
            optimizer.zero_grad()
            loss_of(model, examples()[step % 2 :]).backward()
            optimizer.step()
        return torch.cat([w.detach().flatten() for w in weights])

    plain = learn(with_lora(build()), one_by_one)
    start = torch.cat([w.detach().flatten() for w in with_lora(build()).parameters() if w.requires_grad])
    packed = learn(prepare(with_lora(build()), True), lambda model, rows: model(**packing.collate(rows)).loss)
    moved = (plain - start).norm()
    assert moved > 0.1
    assert (packed - plain).norm() < 1e-4 * moved


@pytest.mark.parametrize("share_prefix", [True, False])
def test_the_trainer_averages_over_all_labels_of_an_update(share_prefix, tmp_path):
    """Two packs of two rows are one update, and its loss is that of the four rows."""
    rows = examples()
    arguments = tiny.one_update(tmp_path, rows_a_pack=2, packs=2)
    model = prepare(with_lora(gemma_3()), share_prefix)
    trainer = CharacterTrainer(model, arguments, share_prefix=share_prefix, train_dataset=rows, eval_dataset=rows)
    held_out = trainer.evaluate()["eval_loss"]
    trainer.train()
    expected = one_by_one(with_lora(gemma_3()), rows).item()
    logged = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert held_out == pytest.approx(expected, rel=1e-6)
    assert logged == pytest.approx(expected, rel=1e-5)


def test_activation_checkpointing_changes_nothing():
    rows, results = examples(), []
    for checkpointing in (False, True):
        model = prepare(with_lora(gemma_3()), True).train()
        if checkpointing:
            model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
        results.append(gradients(model, model(**packing.collate(rows)).loss))
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, rtol=1e-9, atol=0)


@pytest.mark.parametrize("cap", [0.0, 0.7])
@pytest.mark.parametrize("window", [0, 5, 12])
@pytest.mark.parametrize("parts", [[7, 1, 9], [6], [3, 3]], ids=str)
def test_both_ways_to_attend_agree(parts, window, cap):
    """The one that a GPU takes and the one that a CPU takes."""
    torch.manual_seed(0)
    pack = Pack(8, parts)
    query, key, value = (torch.randn(1, heads, 8 + sum(parts), 4, dtype=torch.float64) for heads in (4, 2, 2))
    ways = _attend_at_once, _attend_by_part
    one, other = (attend(Heads(query, key, value), pack, Scores(0.3, window, cap)) for attend in ways)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("build", [gemma_1, gemma_2, gemma_3])
def test_a_prepared_model_still_generates_what_it_would(build):
    prompt = torch.tensor([examples()[1].input_ids])
    options = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = with_lora(build()).generate(input_ids=prompt, **options)
    model = prepare(with_lora(build()), True)
    with logits_again(model.get_base_model()):
        assert torch.equal(model.generate(input_ids=prompt, **options), expected)
    model(**packing.collate(examples())).loss.backward()  # and goes on learning


def test_a_row_does_not_see_its_neighbours():
    rows = examples()
    model = prepare(with_lora(gemma_3()), True)
    loss = model.get_base_model().loss_function
    alone = label_losses(model, loss, packing.collate(rows[:1], True))
    beside = label_losses(model, loss, packing.collate(rows, True))[: len(alone)]
    torch.testing.assert_close(beside, alone, rtol=1e-5, atol=1e-6)


def test_the_prefix_is_everything_shared_and_never_a_label():
    rows = examples()
    encoder = PromptEncoder(tiny.tokenizer())
    assert packing.common_prefix(rows) == len(encoder.prefix("You are Zhen Huan, a consort."))
    same = [rows[0], rows[0]]
    assert packing.common_prefix(same) == next(i for i, y in enumerate(rows[0].labels) if y != IGNORED)


def test_a_pack_is_shorter_than_its_rows():
    rows = examples()
    batch, apart = packing.collate(rows), packing.collate(rows, share_prefix=False)
    saved = (len(rows) - 1) * packing.common_prefix(rows)
    assert batch["input_ids"].shape[1] == apart["input_ids"].shape[1] - saved
    assert torch.equal(batch["labels"], apart["labels"])
