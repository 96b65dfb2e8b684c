"""A considered answer is the best of several of the plain sampler's, by a measure that transformers has too."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from roleplay.engine import batch
from roleplay.engine.batch import Asked, RunningBatch, RunningRow, Voice
from roleplay.engine.cache import CachePool
from roleplay.engine.likelihood import PART, ScoredRow
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE, Question, Request, Sampling
from roleplay.engine.weighing import GAIN, Weighing
from roleplay.text.known import known
from roleplay.text.prompts import Fitted, PromptEncoder, Turn
from roleplay.text.retrieval import MARK, Retriever, RetrievingEncoder
from roleplay.text.rows import Row
from roleplay.weights import inspection
from tests import tiny
from tests.roleplay.engine.test_engine import base_model

COUNT, ROOM = 4, 300
DICE = Sampling(temperature=1.0, top_p=1.0, top_k=0, frequency_penalty=0.0, max_new_tokens=10, seed=5)
QUESTION = Question("Be brief and kind to all.", (("a", "b"),), "What is it?")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    folder: Path = tiny.adapter(tmp_path_factory.mktemp("adapters") / "tiny")
    return LocalEngine(base_model(), [inspection.inspect(folder)], 400)


def weigh(local: LocalEngine, sampling: Sampling) -> Weighing:
    """The base model's weighing, computed to its end."""
    weighing = Weighing(local.encoders["gemma"], QUESTION, ROOM, Voice(BASE), sampling)
    rows = list(weighing.rows)
    for _ in local._scheduler.run(rows):
        rows += weighing.follow()
    return weighing


def rank(local: LocalEngine, reply: list[int]) -> float:
    """The measure from plain forward passes."""
    means = []
    for user in (QUESTION.user, ""):
        prompt = local.encoders["gemma"].prompt(QUESTION.persona, QUESTION.turns, user)
        with torch.inference_mode():
            scores = tiny.gemma()(torch.tensor([prompt + reply])).logits[0].log_softmax(-1)
        means.append(sum(float(scores[len(prompt) - 1 + n, token]) for n, token in enumerate(reply)) / len(reply))
    return means[0] + GAIN * (means[0] - means[1])


def test_the_best_of_what_the_plain_sampler_says_is_shown(local: LocalEngine) -> None:
    weighing = weigh(local, replace(DICE, candidates=COUNT))
    plain = [weigh(local, replace(DICE, seed=DICE.seed + number)).rows[0] for number in range(COUNT)]
    assert [row.reply for row in weighing.rows] == [row.reply for row in plain]
    ranks = [rank(local, row.drawn) for row in weighing.rows]
    assert len(set(ranks)) == COUNT
    assert weighing.best is weighing.rows[ranks.index(max(ranks))]
    assert [weighing._rank(row)[3] for row in weighing.rows] == pytest.approx(ranks, abs=1e-3)


def test_what_was_said_before_is_said_again_only_where_there_is_nothing_else(local: LocalEngine) -> None:
    weighing = weigh(local, replace(DICE, candidates=COUNT))
    first, second, *_ = weighing.ranked
    weighing._said = {first.stream.text.strip()}
    assert weighing.ranked[0] is second and weighing.ranked[-1] is first
    weighing._said = {row.stream.text.strip() for row in weighing.rows}
    assert weighing.ranked[0] is first


def test_equal_replies_are_scored_once(local: LocalEngine) -> None:
    weighing = weigh(local, replace(DICE, temperature=0.0, candidates=COUNT))
    assert len(set(map(id, weighing._scored.values()))) == 1
    assert weighing.best and weighing.best.reply == weigh(local, replace(DICE, temperature=0.0)).rows[0].reply


def test_a_prompt_is_encoded_once_for_all_candidates(local: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, fit = list[str](), local.encoders["gemma"].fit

    def counted(persona: str, turns: Sequence[Turn], user: str, limit: int) -> Fitted:
        asked.append(user)
        return fit(persona, turns, user, limit)

    monkeypatch.setattr(local.encoders["gemma"], "fit", counted)
    weigh(local, replace(DICE, candidates=COUNT))
    assert asked == [QUESTION.user, ""]


def test_both_sides_wait_alike_and_a_stop_ends_all(local: LocalEngine) -> None:
    request = Request(dict.fromkeys((ADAPTER, BASE), QUESTION), replace(DICE, candidates=COUNT))
    states = list(local.answer(request))
    assert all(answer.text == "" and answer.weighing == COUNT for answer in states[0].values())
    assert all(answer.tokens and answer.stop and not answer.weighing for answer in states[-1].values())
    stopped = local.answer(request)
    next(stopped)
    next(stopped)
    stopped.close()
    assert not local.busy and not local._scheduler._batch.rows


def test_long_replies_are_weighed_as_short_ones_are(local: LocalEngine) -> None:
    """Also those of more tokens than are scored in a step."""
    weighing = weigh(local, replace(DICE, candidates=2, max_new_tokens=100))
    assert max(len(row.drawn) for row in weighing.rows) > 80
    assert not any(row.cache for row in (*weighing.rows, *weighing._scored.values()))  # they are kept for their text
    assert [weighing._rank(row)[3] for row in weighing.rows] == pytest.approx(
        [rank(local, row.drawn) for row in weighing.rows], abs=1e-3
    )


def test_what_is_looked_up_counts_as_no_part_of_the_question() -> None:
    """Else a reply would gain by copying a row that is shown."""
    plain = PromptEncoder(tiny.tokenizer())
    encoder = RetrievingEncoder(tiny.tokenizer(), "gemma", Retriever(known([Row((("who is it", "It is I."),))])))
    question, sampling = Question("", (), "who"), Sampling(candidates=2, max_new_tokens=4)
    side = Weighing(encoder, question, 300, Voice(BASE), sampling)
    assert side.rows[0].prompt == plain.prompt("", [(MARK + "who is it", "It is I.")], "who")
    for row in side.rows:
        row.drawn = [5]
        row.end("end")
    (scored,) = side.follow()
    assert scored.prompt == plain.prompt("", [(MARK + "who is it", "It is I.")], "")


def test_memory_that_a_draw_lacks_shifts_no_score_beside_it(
    local: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, known = local.encoders["gemma"], list(range(10, 10 + 2 * PART + 9))
    asked = Asked(encoder, QUESTION, ROOM, Voice(BASE)), replace(DICE, max_new_tokens=60)
    speaker, scored, youngest = RunningRow(*asked), ScoredRow(*asked, known), RunningRow(*asked)
    running = RunningBatch(local._decoder, CachePool(0))
    running.join(speaker)
    while not speaker.reply:
        running.step()
    running.join(scored)
    running.join(youngest)
    while not scored.nats:
        running.step()
    said, seen = list(speaker.reply), list(scored.nats)

    def full(*_: object) -> list[int]:
        raise RuntimeError("no room")

    with monkeypatch.context() as broken:
        broken.setattr(batch, "next_tokens", full)
        running.step()
    assert "no room" in youngest.stop and (speaker.reply, scored.nats) == (said, seen)
    while running.rows:
        running.step()
    with torch.inference_mode():
        prompt = encoder.prompt(QUESTION.persona, QUESTION.turns, QUESTION.user)
        scores = tiny.gemma()(torch.tensor([prompt + known])).logits[0].log_softmax(-1)
    wanted = [float(scores[len(prompt) - 1 + n, token]) for n, token in enumerate(known)]
    assert scored.nats == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("error", [MemoryError, ValueError])
def test_a_reply_whose_scoring_fails_ends_alone(
    local: LocalEngine, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    asked = Asked(local.encoders["gemma"], QUESTION, ROOM, Voice(BASE)), DICE
    scored, youngest = ScoredRow(*asked, [10, 11, 12]), RunningRow(*asked)
    running = RunningBatch(local._decoder, CachePool(0))

    def full(*_: object) -> None:
        raise error("no room")

    monkeypatch.setattr(scored, "read", full)
    for row in (scored, youngest):
        running.join(row)
    while running.rows:
        running.step()
    assert "no room" in scored.stop and youngest.stop in ("end", "length")
