"""Why two answers differ, token by token: the figures are those of transformers, and characters stay whole."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from roleplay.engine.batch import CHUNK
from roleplay.engine.decoder import Segment
from roleplay.engine.local import LocalEngine
from roleplay.engine.pieces import pieces
from roleplay.engine.protocol import ADAPTER, BASE, Answer, Question, Request, Sampling
from roleplay.engine.sampling import Drawing, next_tokens
from roleplay.errors import RoleplayError
from roleplay.text.prompts import PromptEncoder
from roleplay.weights import base_models, inspection
from tests import tiny

QUESTION = Question("Be brief.", (("a", "b"),), "你是谁？")
DICE = Sampling(temperature=1.0, top_p=1.0, top_k=0, frequency_penalty=0.0, max_new_tokens=12, seed=3)
SAID = "hallo, how are you today? " * 4
REQUEST = Request({ADAPTER: QUESTION, BASE: replace(QUESTION, persona="")}, DICE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.adapter(tmp_path_factory.mktemp("adapters") / "tiny")


@pytest.fixture(scope="module")
def local(folder: Path) -> LocalEngine:
    chosen = ("cpu", "test"), ("float32", "test"), ("sdpa", "test")
    base = base_models.BaseModel(tiny.gemma(), tiny.tokenizer(), tiny.BASE_NAME, "random", *chosen)
    return LocalEngine(base, [inspection.inspect(folder)], 400)


def test_log_probabilities_are_those_of_transformers_also_after_a_kept_prompt(local: LocalEngine, folder: Path) -> None:
    encoder, answer = PromptEncoder(tiny.tokenizer()), Answer("甄a", stop="end")
    models = {ADAPTER: PeftModel.from_pretrained(tiny.gemma(), str(folder)), BASE: tiny.gemma()}
    said = encoder.encode(answer.text)
    for _ in range(2):
        found = local.score(REQUEST, answer)
        assert [piece.text for piece in found] == ["甄", "a", ""]
        for side, model in models.items():
            question = REQUEST.questions[side]
            prompt = encoder.prompt(question.persona, question.turns, question.user)
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([[*prompt, *said]])).logits[0, len(prompt) - 1 :].float()
            logprobs = logits.log_softmax(-1)
            tokens = [float(logprobs[n, token]) for n, token in enumerate(said)]
            end = float(logprobs[len(said), list(encoder.stop_ids)].logsumexp(0))
            wanted = [sum(tokens[:3]), tokens[3], end]  # the character has three bytes, and each is a token
            assert [piece.logprobs[side] for piece in found] == pytest.approx(wanted, abs=1e-4)
            best = logprobs.softmax(-1)[3].topk(5).values.tolist()
            assert [share for _, share in found[1].likeliest[side]] == pytest.approx(best, abs=1e-4)
        list(local.answer(REQUEST))  # the second time the prompts are kept


def test_the_sides_part_where_the_same_dice_draw_another_token(local: LocalEngine, folder: Path) -> None:
    """The likeliest token with noise of the draw on it, as `next_tokens` has it, from the logits of transformers."""
    encoder = PromptEncoder(tiny.tokenizer())
    models = {ADAPTER: PeftModel.from_pretrained(tiny.gemma(), str(folder)), BASE: tiny.gemma()}
    alike = list[bool]()
    for sampling in (DICE, replace(DICE, temperature=0.0), replace(DICE, repetition_penalty=1.5)):
        request, choices = Request(REQUEST.questions, sampling), []
        for side, model in models.items():
            question = request.questions[side]
            prompt = encoder.prompt(question.persona, question.turns, question.user)
            said, seen = encoder.encode(SAID), torch.tensor(prompt).unique()
            ids = torch.tensor([[*prompt, *said]])
            with torch.inference_mode():
                logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
            drawings = [Drawing(seen, said[:number], sampling) for number in range(len(logits))]
            choices.append(next_tokens(logits.contiguous(), drawings))
        found = local.score(request, Answer(SAID, stop="length"))
        same = [a == b or {a, b} <= set(encoder.stop_ids) for a, b in zip(*choices, strict=True)]
        assert [piece.same_choice for piece in found] == same
        alike += same
    assert set(alike) == {True, False}


def test_one_of_several_is_looked_into_with_the_dice_that_drew_it(local: LocalEngine) -> None:
    *_, last = local.answer(replace(REQUEST, sampling=replace(DICE, candidates=4)))
    chosen = {side: answer.candidate for side, answer in last.items()}
    assert any(chosen.values())
    for side, answer in last.items():
        drawn = replace(REQUEST, sampling=replace(DICE, seed=DICE.seed + chosen[side]))
        *_, alone = local.answer(drawn)
        assert alone[side].text == answer.text
        found = local.score(replace(REQUEST, sampling=replace(DICE, candidates=4)), answer)
        assert [piece.same_choice for piece in found] == [
            piece.same_choice for piece in local.score(drawn, alone[side])
        ]


@pytest.mark.parametrize("text", ["a 👩‍🔬 b", "👍🏽", "🇨🇳🇫🇷", "é", "❤️!"])
def test_a_character_of_several_signs_is_one_piece(text: str) -> None:
    encoder = PromptEncoder(tiny.tokenizer())
    found = pieces(encoder, encoder.encode(text))
    assert "".join(piece for piece, _ in found) == text
    whole = {"a 👩‍🔬 b": "👩‍🔬", "🇨🇳🇫🇷": "🇫🇷", "❤️!": "❤️"}.get(text, text)
    assert whole in [piece for piece, _ in found]
    assert [part.start for _, part in found[1:]] == [part.stop for _, part in found[:-1]]


def test_an_answer_that_does_not_fit_is_a_sentence(local: LocalEngine) -> None:
    with pytest.raises(RoleplayError, match="takes 500 tokens, more than fit"):
        local.score(REQUEST, Answer("a" * 500, stop="length"))
    assert math.isfinite(local.score(REQUEST, Answer("a", stop="length"))[0].logprobs[BASE])


def test_a_long_chat_is_read_in_parts_beside_the_others(local: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, forward = list[list[int]](), local._decoder.forward

    def counted(segments: Sequence[Segment]) -> torch.Tensor:
        steps.append([len(segment.ids) for segment in segments])
        return forward(segments)

    monkeypatch.setattr(local._decoder, "forward", counted)
    local.forget()
    speaking = local.answer(replace(REQUEST, questions={BASE: QUESTION}))
    while not next(speaking)[BASE].tokens:
        pass
    steps.clear()
    asked = replace(QUESTION, turns=(("a", "b" * 290),))
    local.score(Request({ADAPTER: asked, BASE: asked}, DICE), Answer(SAID[:30], stop="length"))
    beside = [step for step in steps if step[0] == 1]
    assert sum(map(sum, steps)) > 650 and max(map(sum, steps)) <= CHUNK + 1 and len(beside) > 2
    assert list(speaking)[-1][BASE].stop == "length"
