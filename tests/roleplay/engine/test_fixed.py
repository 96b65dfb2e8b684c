"""Steps of fixed shapes, which a GPU replays, give the logits of the decoder's own; here without a graph."""

import random

import pytest
import torch
from transformers import PreTrainedModel

from roleplay.engine.batch import Asked, RunningBatch, RunningRow, Voice
from roleplay.engine.cache import CachePool, KeyValues
from roleplay.engine.decoder import Decoder, Lora, Segment
from roleplay.engine.fixed import MAX_KL, FixedStep, FixedSteps, Step, choose, difference, graph, rows_in
from roleplay.engine.protocol import Question, Sampling
from roleplay.engine.strengths import scaled
from roleplay.text.prompts import PromptEncoder
from tests import tiny
from tests.roleplay.engine.test_decoder import ALL, model, tokens, with_lora  # noqa: F401 - a fixture, the architectures

ROWS, POSITIONS = 8, 64


def capture(step: FixedStep) -> Step:
    return graph(step, torch.cuda.graph_pool_handle()) if step.ids.is_cuda else step


def adapters(decoder: Decoder, base: PreTrainedModel) -> list[Lora | None]:
    """None, one on all projections, the same at another strength, and one of another rank on some."""
    _, whole = with_lora(base, ALL)
    first = Lora(decoder, whole, 2.0)
    some = {name: weight for name, weight in whole.items() if "q_proj" in name or "up_proj" in name}
    half = {name: weight[:2] if "lora_A" in name else weight[:, :2] for name, weight in some.items()}
    return [None, first, scaled(first, 0.5), Lora(decoder, half, -3.0)]


def test_logits_are_those_of_the_decoder_while_rows_join_and_leave(model: PreTrainedModel) -> None:  # noqa: F811
    decoder, made, dice = Decoder(model), list[FixedStep](), random.Random(5)

    def noted(step: FixedStep) -> Step:
        made.append(step)
        return capture(step)

    fixed, voices = FixedSteps(decoder, noted, ROWS, POSITIONS), adapters(decoder, model)
    running = list[tuple[KeyValues, KeyValues, Lora | None]]()  # the same row, fixed and not
    for number in range(12):
        if number % 2 == 0:
            lora, past = voices[number // 2 % 4], tokens(3 + 9 * number % 37, number)
            first = decoder.new_cache()
            decoder.forward([Segment(past, first, lora)])
            running.append((first, first.copy(len(past)), lora))
        if number in (5, 8):  # its seat is taken by the next one, which it must not show to
            running.pop(dice.randrange(len(running)))
        dice.shuffle(running)
        ids = tokens(len(running), number)
        ours = [Segment([token], own, lora) for token, (own, _, lora) in zip(ids, running, strict=True)]
        theirs = [Segment([token], own, lora) for token, (_, own, lora) in zip(ids, running, strict=True)]
        assert fixed.fits(ours)
        torch.testing.assert_close(fixed.logits(ours), decoder.head(decoder.forward(theirs)), atol=1e-4, rtol=1e-4)
        for own, other, _ in running:
            torch.testing.assert_close(own.part(0, own.length), other.part(0, other.length), atol=1e-4, rtol=1e-4)
    assert 3 <= len(made) <= 9  # as many as adapters and sizes ask for, not one a step


def test_what_does_not_fit_is_left_to_the_decoder() -> None:
    decoder = Decoder(tiny.gemma())
    fixed = FixedSteps(decoder, capture, 2, 8)
    caches = [decoder.new_cache() for _ in range(3)]
    for cache in caches:
        decoder.forward([Segment(tokens(7), cache)])
    segments = [Segment([5], cache) for cache in caches]
    assert fixed.fits(segments[:2]) and not fixed.fits(segments) and not fixed.fits([])
    assert not fixed.fits([Segment([5, 6], decoder.new_cache())])
    assert not fixed.fits([Segment([5], caches[0], wanted=0)])
    fixed.logits(segments[:2])
    assert not fixed.fits(segments[:1])  # it is full
    # It grows out of its seat, and then another one sits there.
    before = caches[0].part(0, 8).clone()
    decoder.forward([Segment([6], caches[0])])
    fixed.logits(segments[2:])
    assert torch.equal(caches[0].part(0, 8), before)


def test_a_running_batch_says_the_same_by_fixed_steps() -> None:
    decoder, encoder = Decoder(tiny.gemma()), PromptEncoder(tiny.tokenizer(), "gemma")
    voices = [Voice(str(number), lora) for number, lora in enumerate(adapters(decoder, tiny.gemma()))]
    said = []
    for fixed in (None, FixedSteps(decoder, capture, ROWS, 256)):
        batch = RunningBatch(decoder, CachePool(1 << 24), fixed)
        rows = [
            RunningRow(
                Asked(encoder, Question("", (), "a" * (n + 1)), 200, voice),
                Sampling(temperature=0.0, max_new_tokens=5 + n),
            )
            for n, voice in enumerate(voices * 2)
        ]
        for row in rows:  # one joins a step
            batch.join(row)
            batch.step()
        while batch.rows:
            batch.step()
        assert fixed is None or not any(fixed._seats._taken)  # what the pool keeps is no larger than it needs to be
        said.append([(row.reply, row.stop) for row in rows])
    assert said[0] == said[1] and all(reply for reply, _ in said[0])


def test_graphs_are_for_cuda_and_only_where_they_agree() -> None:
    decoder = Decoder(tiny.gemma().cpu())
    steps, reason = choose(decoder)
    assert steps is None and "no CUDA GPU" in reason
    assert difference(decoder, FixedSteps(decoder, capture, ROWS, POSITIONS)) < MAX_KL

    def wrong(step: FixedStep) -> Step:
        return lambda: step() * 2

    assert difference(decoder, FixedSteps(decoder, wrong, ROWS, POSITIONS)) > MAX_KL


@pytest.mark.parametrize(("room", "rows"), [(1e12, 32), (32 * 7, 32), (32 * 7 - 1, 16), (3 * 7, 2), (0, 2)])
def test_rows_side_by_side_are_as_many_as_memory_holds(room: float, rows: int) -> None:
    assert rows_in(room, 7) == rows
