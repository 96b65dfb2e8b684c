"""Answers of the engine: the same for one user or eight, stoppable, seeded, and mended after a failure."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from roleplay.engine import batch, sampling
from roleplay.engine import local as engine
from roleplay.engine.cache import CachePool, KeyValues
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER, BASE, Answer, Question, Request, Sampling, Speaker
from roleplay.engine.sampling import Drawing, gumbel, next_tokens
from roleplay.engine.stream import TextStream
from roleplay.errors import AdapterError, RoleplayError
from roleplay.text.known import known
from roleplay.text.prompts import PromptEncoder
from roleplay.text.retrieval import MARK, Retriever
from roleplay.text.rows import Row
from roleplay.weights import adapters, base_models, inspection, layout, probe
from roleplay.weights.examples import write_examples
from tests import tiny

GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0, frequency_penalty=0.0, max_new_tokens=12)
DICE = Sampling(
    temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, frequency_penalty=0.0, max_new_tokens=12, seed=3
)
CONTEXT = 400
CUTS = list(range(20))  # anywhere


def base_model() -> base_models.BaseModel:
    chosen = ("cpu", "test"), ("float32", "test"), ("sdpa", "test")
    return base_models.BaseModel(tiny.gemma(), tiny.tokenizer(), tiny.BASE_NAME, "random", *chosen)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.adapter(tmp_path_factory.mktemp("adapters") / "tiny")


def changed(folder: Path, target: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> adapters.Adapter:
    """A copy of the adapter with other B matrices."""
    made = tiny.adapter(target)
    weights = load_file(folder / layout.WEIGHTS)
    save_file({k: change(w) if ".lora_B." in k else w for k, w in weights.items()}, made / layout.WEIGHTS)
    return inspection.inspect(made)


@pytest.fixture
def local(folder: Path) -> LocalEngine:
    return LocalEngine(base_model(), [inspection.inspect(folder)], CONTEXT)


def ask(user: str = "你是谁？", *sides: str, turns: tuple[tuple[str, str], ...] = (), persona: str = "") -> Request:
    question = Question(persona, turns, user)
    return Request(dict.fromkeys(sides or (ADAPTER, BASE), question), GREEDY)


def last(local: LocalEngine, request: Request) -> dict[str, Answer]:
    *_, final = local.answer(request)
    return final


def texts(local: LocalEngine, request: Request) -> dict[str, str]:
    return {side: answer.text for side, answer in last(local, request).items()}


def test_an_answer_grows_and_ends(local: LocalEngine) -> None:
    states = list(local.answer(ask()))
    final = states[-1]
    assert set(final) == {ADAPTER, BASE}
    assert final[ADAPTER].text != final[BASE].text
    for side, answer in final.items():
        assert answer.stop in ("end", "length")
        assert 0 < answer.tokens <= GREEDY.max_new_tokens
        assert 0 < answer.seconds_to_first_token <= answer.seconds
        shown = [state[side].text for state in states]
        assert all(b.startswith(a) for a, b in itertools.pairwise(shown))
    assert not any(state[ADAPTER].stop and state[BASE].stop for state in states[:-1])


def test_both_sides_say_what_each_says_alone(local: LocalEngine) -> None:
    alone = texts(local, ask("a", ADAPTER)) | texts(local, ask("a", BASE))
    assert texts(local, ask("a")) == alone


def test_the_base_side_is_a_model_without_adapters(local: LocalEngine) -> None:
    bare = LocalEngine(base_model())
    assert bare.adapters() == []
    for user in ("a", "你好", "long " * 20):
        assert texts(local, ask(user))[BASE] == texts(bare, ask(user, BASE))[BASE]
    with pytest.raises(AdapterError, match="none"):
        next(bare.answer(ask()))


def test_an_adapter_reads_the_rows_that_it_looks_up_and_the_base_model_does_not(folder: Path, tmp_path: Path) -> None:
    looking = tiny.adapter(tmp_path / "looking")
    rows = [("who are you", "I am I."), ("what is it", "It is tea.")]
    write_examples(looking, turns := known([Row((row,)) for row in rows]))
    local = LocalEngine(base_model(), [inspection.inspect(looking), inspection.inspect(folder)], CONTEXT)
    assert "looks up at most 4 of 2 rows" in "\n".join(local.describe())
    said = texts(local, ask("who is it"))
    shown = tuple((MARK + user, reply) for user, reply in Retriever(turns).found("who is it", ()))
    plain = replace(ask("who is it", ADAPTER, turns=shown), adapter="tiny")
    assert len(shown) == 1 and said[ADAPTER] == texts(local, plain)[ADAPTER]
    bare = replace(ask("who is it"), adapter="tiny")
    assert said[ADAPTER] != texts(local, bare)[ADAPTER] and said[BASE] == texts(local, bare)[BASE]
    nobody = replace(ask("who is it"), strength=0.0, other=Speaker("looking", 0.0))
    assert texts(local, nobody) == dict.fromkeys((ADAPTER, BASE), said[BASE])
    for message, read in (("who is it", shown), ("你好", ())):
        for candidates in (1, 2):
            asked = replace(ask(message), sampling=Sampling(max_new_tokens=2, candidates=candidates))
            for answers in local.answer(asked):
                assert {side: answer.shown_rows for side, answer in answers.items()} == {ADAPTER: read, BASE: ()}


def test_a_prompt_is_computed_to_the_end_of_its_persona_first(local: LocalEngine) -> None:
    """There its cache begins, which every other conversation of the persona takes up."""
    persona, encoder = "You are Amos. " * 9, local.encoders["gemma"]
    row = batch.RunningRow(batch.Asked(encoder, Question(persona, (), "Who?"), 300, batch.Voice(BASE)), GREEDY)
    assert row.pending() == encoder.prefix(persona) != row.prompt


def test_greedy_text_is_that_of_generate(local: LocalEngine) -> None:
    base = base_model()
    encoder = PromptEncoder(base.tokenizer)
    prompt = encoder.prompt("Be brief.", (("a", "b"),), "c")
    for penalty in (1.0, 1.3):
        out = tiny.gemma().generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, repetition_penalty=penalty,
            eos_token_id=list(encoder.stop_ids), pad_token_id=0,
        )  # fmt: skip
        request = ask("c", BASE, persona="Be brief.", turns=(("a", "b"),))
        request = replace(request, sampling=replace(GREEDY, repetition_penalty=penalty))
        assert texts(local, request)[BASE] == encoder.decode(out[0, len(prompt) :].tolist())


def test_eight_threads_get_what_one_user_gets(local: LocalEngine) -> None:
    kinds = [(ADAPTER,), (BASE,), (ADAPTER, BASE)]
    requests = [ask(f"{number} " * (1 + 9 * number), *kinds[number % 3]) for number in range(8)]
    alone, together = [texts(local, request) for request in requests], [dict[str, str]()] * 8

    def user(number: int) -> None:
        together[number] = texts(local, requests[number])

    threads = [threading.Thread(target=user, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone


def test_one_side_goes_on_when_the_other_has_ended(local: LocalEngine, folder: Path) -> None:
    """Each token of the base's reply is made the stop; those that the adapter never says must not cut it."""
    wanted, encoder = last(local, ask("?", ADAPTER))[ADAPTER], local.encoders["gemma"]
    asked = torch.tensor([encoder.prompt("", (), "?")])
    greedy: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    base, tuned = tiny.gemma(), PeftModel.from_pretrained(tiny.gemma(), str(folder))
    reply, said = (model.generate(input_ids=asked, **greedy)[0, asked.shape[1] :].tolist() for model in (base, tuned))
    assert set(reply) - set(said)
    for position, token in enumerate(reply):
        encoder.stop_ids = (token,)
        final = last(local, ask("?"))
        assert final[BASE].stop == "end"
        assert final[BASE].tokens <= position
        if token not in said:
            assert final[ADAPTER].text == wanted.text


def test_two_adapters_are_chosen_by_name(folder: Path, tmp_path: Path) -> None:
    other = changed(folder, tmp_path / "other", lambda b: -3 * b)
    local = LocalEngine(base_model(), [inspection.inspect(folder), other], CONTEXT)
    assert local.adapters() == ["tiny", "other"]
    assert any("other" in line for line in local.describe())
    by_name = {name: texts(local, replace(ask(), adapter=name))[ADAPTER] for name in ("tiny", "other")}
    assert by_name["tiny"] != by_name["other"]
    assert texts(local, ask())[ADAPTER] == by_name["tiny"]
    with pytest.raises(AdapterError, match="tiny, other"):
        next(local.answer(replace(ask(), adapter="third")))


def test_the_probe_is_that_of_plain_forward_passes(local: LocalEngine, folder: Path) -> None:
    adapter, encoder = inspection.inspect(folder), local.encoders["gemma"]
    prompts = [torch.tensor([ids]) for ids in probe.probe_prompts(encoder, adapter.persona)]
    attached = PeftModel.from_pretrained(tiny.gemma(), str(folder)).eval()
    with torch.inference_mode():
        ours, theirs = (torch.stack([m(ids).logits[0, -1] for ids in prompts]) for m in (attached, tiny.gemma()))
    assert local.kl_to_base("tiny") == pytest.approx(probe.kl_to_base(ours, theirs), rel=1e-3)
    assert f"mean KL {local.kl_to_base('tiny'):.2f} nat over 8 prompts" in local.describe()[-1]
    assert local.kl_to_base("tiny") > 0


def test_adapters_come_and_go_without_disturbing_an_answer(local: LocalEngine, folder: Path, tmp_path: Path) -> None:
    wanted = texts(local, ask())
    running = local.answer(ask())
    next(running)
    local.add(changed(folder, tmp_path / "other", lambda b: -3 * b))
    local.remove("tiny")
    assert local.adapters() == ["other"]
    assert {side: answer.text for side, answer in list(running)[-1].items()} == wanted
    with pytest.raises(AdapterError, match="no adapter 'tiny'"):
        next(local.answer(replace(ask(), adapter="tiny")))
    other = texts(local, ask())
    assert other[ADAPTER] != wanted[ADAPTER] and other[BASE] == wanted[BASE]


def test_a_name_that_comes_back_with_other_weights_meets_no_old_cache(
    local: LocalEngine, folder: Path, tmp_path: Path
) -> None:
    other = changed(folder, tmp_path / "other", lambda b: -3 * b)
    first, fresh = texts(local, ask()), texts(LocalEngine(base_model(), [other], CONTEXT), ask())
    local.remove("tiny")
    local.add(replace(other, name="tiny"))
    assert texts(local, ask()) == fresh != first


def test_adapters_that_arrive_while_eight_threads_ask(local: LocalEngine, folder: Path, tmp_path: Path) -> None:
    other, wanted, failed = changed(folder, tmp_path / "other", lambda b: -3 * b), texts(local, ask()), list[str]()

    def user() -> None:
        for _ in range(4):
            if texts(local, replace(ask(), adapter="tiny")) != wanted:
                failed.append("another text")

    threads = [threading.Thread(target=user) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(6):
        local.add(replace(other, name=f"user/{number}"))
        local.remove(f"user/{number - 2}")
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert local.adapters() == ["tiny", "user/4", "user/5"]


@pytest.mark.parametrize("questions", [{}, {"left": Question("", (), "a")}], ids=["none", "unknown"])
def test_sides_that_are_not_there(local: LocalEngine, questions: dict[str, Question]) -> None:
    with pytest.raises(RoleplayError, match="sides"):
        next(local.answer(Request(questions)))


# Dice


def test_a_seed_repeats_and_another_does_not(local: LocalEngine) -> None:
    request = replace(ask(), sampling=DICE)
    first = texts(local, request)
    assert texts(local, request) == first
    assert texts(local, replace(request, sampling=replace(DICE, seed=4))) != first


def test_equal_distributions_draw_equal_tokens(folder: Path, tmp_path: Path) -> None:
    same = changed(folder, tmp_path / "same", lambda b: b * 1e-12)
    both = texts(LocalEngine(base_model(), [same]), replace(ask(), sampling=DICE))
    assert both[ADAPTER] == both[BASE]


NOTHING = torch.tensor([], dtype=torch.long)


def draws(
    logits: torch.Tensor, replies: Sequence[Sequence[int]], sampling: Sampling, prompt: torch.Tensor = NOTHING
) -> list[int | None]:
    """What follows each of the replies where all have the same logits."""
    return next_tokens(logits.repeat(len(replies), 1), [Drawing(prompt, reply, sampling) for reply in replies])


def test_noise_depends_on_seed_position_and_token_alone() -> None:
    tokens, (five, six, two, three) = torch.arange(1000), torch.tensor([5, 6, 2, 3])
    noise = gumbel(five, two, tokens)
    assert torch.equal(gumbel(five, two, tokens[[7, 3]]), noise[[7, 3]])
    for other in (gumbel(six, two, tokens), gumbel(five, three, tokens)):
        assert abs(torch.corrcoef(torch.stack([noise, other]))[0, 1]) < 0.15
    many = gumbel(torch.arange(20)[:, None], torch.tensor(0), torch.arange(10_000))
    assert abs(many.mean() - 0.5772) < 0.01
    assert abs(many.var() - torch.pi**2 / 6) < 0.03


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        ({"top_k": 0, "top_p": 1.0}, {0: 0.5, 1: 0.25, 2: 0.15, 3: 0.1}),
        ({"top_k": 2, "top_p": 1.0}, {0: 2 / 3, 1: 1 / 3}),
        ({"top_k": 0, "top_p": 0.6}, {0: 2 / 3, 1: 1 / 3}),
        ({"top_k": 0, "top_p": 0.8}, {0: 5 / 9, 1: 2.5 / 9, 2: 1.5 / 9}),
        ({"top_k": 3, "top_p": 0.5}, {0: 1 / 1}),
        ({"top_k": 1000, "top_p": 1.0, "temperature": 0.5}, {0: 0.7246, 1: 0.1812, 2: 0.0652, 3: 0.029}),
    ],
    ids=str,
)
def test_draws_follow_the_distribution(sampling: dict[str, Any], kept: dict[int, float]) -> None:
    probabilities = torch.tensor([0.5, 0.25, 0.15, 0.1])
    fair = {"temperature": 1.0, "repetition_penalty": 1.0, "frequency_penalty": 0.0, "seed": 11}
    settings = Sampling(**(fair | sampling))
    drawn = draws(probabilities.log(), [[9] * position for position in range(3000)], settings)
    shares = {token: drawn.count(token) / len(drawn) for token in range(4)}
    assert shares == pytest.approx({token: kept.get(token, 0.0) for token in range(4)}, abs=0.03)
    assert {token for token in range(4) if shares[token]} == set(kept)


def test_a_token_is_penalised_for_each_time_that_it_was_said() -> None:
    """As in the OpenAI API: the prompt does not count, and the repetition penalty comes first."""
    scores, prompt = torch.tensor([4.0, 3.0, 2.0, -1.0]), torch.tensor([1])
    settings = replace(GREEDY, frequency_penalty=0.6)
    assert draws(scores, [[], [0], [0, 0], [0, 1, 0, 0, 1, 1]], settings, prompt) == [0, 0, 1, 0]
    both = replace(settings, repetition_penalty=2.0)
    assert draws(scores, [[0]], both, prompt) == [2]  # 4 / 2 - 0.6 and 3 / 2 are less


def test_top_p_beyond_the_first_candidates() -> None:
    """A flat distribution over more tokens than are sorted at first."""
    settings = Sampling(temperature=1.0, top_k=0, top_p=0.95, repetition_penalty=1.0, frequency_penalty=0.0)
    drawn = set(draws(torch.linspace(1, 0, 8000), [[9] * position for position in range(300)], settings))
    assert any(token > 2000 for token in drawn if token is not None)
    assert all(token < 7900 for token in drawn if token is not None)


def test_a_row_draws_the_same_beside_any_others() -> None:
    logits, greedy = torch.randn(12, 8192).to(torch.bfloat16).float(), replace(GREEDY, frequency_penalty=0.5)
    alike = [Sampling(seed=seed) for seed in range(4)]
    settings = [*alike, greedy, DICE, replace(DICE, top_k=20, top_p=0.9), replace(DICE, top_p=0.3)] * 2
    drawings = [Drawing(torch.arange(9), range(n, 5 * n), own) for n, own in enumerate(settings[:12])]
    alone = [next_tokens(row[None].clone(), [own])[0] for row, own in zip(logits, drawings, strict=True)]
    assert next_tokens(logits.clone(), drawings) == alone
    assert len(set(alone)) > 6


def test_the_best_tokens_are_found_in_few_blocks() -> None:
    logits = torch.randn(3, 8192)
    logits[0, 512:530] += 9.0  # many in one block
    values, tokens = sampling._best(logits, 20)
    assert torch.equal(values, logits.topk(20).values) and torch.equal(logits.gather(1, tokens), values)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_that_are_not_finite_draw_nothing(bad: float) -> None:
    for settings in (GREEDY, DICE, Sampling()):
        drawings = [Drawing(NOTHING, [], settings)] * 2
        assert [token is None for token in next_tokens(torch.tensor([[0.0, bad], [0.0, 1.0]]), drawings)] == [
            True,
            False,
        ]


# Text


@pytest.mark.parametrize("reply", ["甄嬛 🪿 née 👩‍👩‍👧", "a�b", "plain", "\n\n  x"])
def test_no_half_character_is_shown(reply: str) -> None:
    encoder = PromptEncoder(tiny.tokenizer())
    stream, shown = TextStream(encoder), list[str]()
    for token in encoder.encode(reply):
        stream.add(token)
        shown.append(stream.text)
    stream.close()
    assert stream.text == reply
    assert all(reply.startswith(text) for text in shown)


def test_a_reply_cut_inside_a_character_ends_there() -> None:
    encoder = PromptEncoder(tiny.tokenizer())
    stream = TextStream(encoder)
    for token in encoder.encode("a嬛")[:-1]:
        stream.add(token)
    assert stream.text == "a"
    stream.close()
    assert stream.text == "a�"


# Stopping and failing


def test_stop_is_within_one_step(local: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, forward = list[int](), local._decoder.forward

    def counted(segments: Any) -> torch.Tensor:
        steps.append(len(segments))
        return forward(segments)

    monkeypatch.setattr(local._decoder, "forward", counted)
    monkeypatch.setattr(batch, "CHUNK", 16)
    answer = local.answer(ask("x" * 100))
    next(answer)  # the first chunk of the prompt
    answer.close()
    assert steps == [1]  # the base side is read after the adapter's
    assert not local.busy


def test_a_waiting_request_can_be_given_up(local: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MIN_INTERVAL", 0)  # every step is told
    local.choose_at_once(2)
    speaking, waiting, last_one = (local.answer(ask(user)) for user in ("a", "b", "c"))
    next(speaking)
    assert next(waiting) == {ADAPTER: Answer(place=1), BASE: Answer(place=1)}
    assert next(last_one)[BASE].place == 2
    waiting.close()
    assert next(last_one)[BASE].place == 1
    speaking.close()
    assert next(last_one)[BASE].place == 0
    last_one.close()
    assert not local.busy


def test_a_visitor_has_two_answers_running(local: LocalEngine) -> None:
    greedy = [local.answer(replace(ask(user), visitor="greedy")) for user in "abc"]
    other = local.answer(replace(ask("d"), visitor="other"))
    assert [next(answer)[BASE].place for answer in (*greedy, other)] == [0, 0, 1, 0]
    greedy[0].close()
    assert next(greedy[2])[BASE].place == 0


def test_who_needs_the_model_alone_comes_next(local: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where somebody computes step after step without a pause."""
    forward, steps, asked, waited = local._decoder.forward, list[int](), threading.Event(), list[int]()

    def slow(segments: Any) -> torch.Tensor:
        steps.append(len(segments))
        asked.set()
        time.sleep(0.02)
        return forward(segments)

    def forget() -> None:
        asked.wait()
        local.forget()
        waited.append(len(steps))

    monkeypatch.setattr(local._decoder, "forward", slow)
    other = threading.Thread(target=forget)
    other.start()
    list(local.answer(ask("a", BASE)))
    other.join(60)
    assert len(steps) >= 12 and waited[0] <= 4


def test_a_long_prompt_is_read_in_chunks_beside_the_others(local: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, forward = list[list[int]](), local._decoder.forward

    def counted(segments: Any) -> torch.Tensor:
        steps.append([len(segment.ids) for segment in segments])
        return forward(segments)

    monkeypatch.setattr(local._decoder, "forward", counted)
    monkeypatch.setattr(batch, "CHUNK", 32)
    speaking = local.answer(ask("a", BASE))
    while not next(speaking)[BASE].tokens:
        pass
    steps.clear()
    reading = local.answer(ask("x" * 300))
    while not next(reading)[ADAPTER].tokens:
        pass
    read = [sum(step) - step.count(1) for step in steps]
    assert len(steps) >= 10 and max(read) <= 32
    assert all(step[0] == 1 for step in steps[:5])  # who spoke goes on speaking


def test_nobody_changes_anybodys_answer(folder: Path) -> None:
    """To the bit in bfloat16: dice over all tokens show what a rounding does."""
    made = base_model()
    wide = tiny.gemma(hidden_size=64, head_dim=64).to(torch.bfloat16)
    local = LocalEngine(replace(made, model=wide), (), CONTEXT)
    requests = [
        replace(
            ask(f"{number} " * (1 + 9 * number), BASE, persona="Be brief and kind."),
            sampling=replace(DICE, seed=number),
        )
        for number in range(6)
    ]
    alone = []
    for request in requests:
        local.forget()
        alone.append(texts(local, request))
    local.forget()
    running = [local.answer(request) for request in requests]
    for number, answer in enumerate(running):
        next(answer)
        if number % 3 == 2:
            answer.close()
    for number in (0, 1, 3, 4):
        *_, final = running[number]
        assert final[BASE].text == alone[number][BASE]
    assert texts(local, requests[2]) == alone[2]  # from a cache that a stop left


@pytest.mark.parametrize("error", [MemoryError, ValueError])
def test_the_youngest_row_goes_where_a_step_fails(
    local: LocalEngine, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    wanted, forward = texts(local, ask("first", BASE)), local._decoder.forward

    def full(segments: Any) -> torch.Tensor:
        if len(segments) > 2:
            raise error("no room")
        return forward(segments)

    monkeypatch.setattr(local._decoder, "forward", full)
    first, second = local.answer(ask("first", BASE)), local.answer(ask("second"))
    next(first)
    *_, shed = second
    *_, final = first
    assert final[BASE].text == wanted[BASE]
    assert "generation failed (no room)" in shed[BASE].stop and shed[ADAPTER].stop in ("end", "length")


def test_cancellations_leave_nothing_behind(local: LocalEngine) -> None:
    wanted, threads = texts(local, ask("after")), threading.active_count()
    for number in range(20):
        answer = local.answer(replace(ask(f"message {number}"), sampling=replace(DICE, seed=number)))
        for _ in range(number % 4):
            next(answer, None)
        answer.close()
    assert threading.active_count() == threads
    assert not local.busy
    assert texts(local, ask("after")) == wanted


def test_an_adapter_that_overflows_fails_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wild = changed(folder, tmp_path / "wild", lambda b: torch.full_like(b, 3e38))
    with pytest.raises(AdapterError, match="not finite"):
        LocalEngine(base_model(), [wild])
    monkeypatch.setattr(engine, "kl_to_base", lambda adapted, base: 0.0)  # as if only a long chat showed it
    local = LocalEngine(base_model(), [wild, inspection.inspect(folder)], CONTEXT)
    final = last(local, ask())
    assert "not finite" in final[ADAPTER].stop
    assert final[ADAPTER].text == ""
    assert final[BASE].stop in ("end", "length")
    assert final[BASE].text == texts(local, ask("你是谁？", BASE))[BASE]
    assert last(local, replace(ask(), adapter="tiny"))[ADAPTER].stop in ("end", "length")


def test_a_failing_step_ends_the_answer_and_not_the_engine(local: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = texts(local, ask())
    reserve = KeyValues.reserve

    def full(cache: KeyValues, tokens: int) -> None:
        if cache.length > 20:
            raise RuntimeError("can't allocate memory\nand more lines")
        reserve(cache, tokens)

    with monkeypatch.context() as broken:
        broken.setattr(KeyValues, "reserve", full)
        final = last(local, ask())
    for answer in final.values():
        assert answer.stop == "generation failed (can't allocate memory): shorten the chat or try again"
    assert local.kept_bytes == 0
    assert texts(local, ask()) == wanted


# Long chats


def test_oldest_turns_go_first(local: LocalEngine) -> None:
    turns = tuple((f"question {n} " * 3, f"reply {n} " * 3) for n in range(8))
    final = last(local, ask("now", turns=turns, persona="Be brief."))
    assert 0 < final[BASE].dropped_turns < 8
    kept = turns[final[BASE].dropped_turns :]
    shortened = last(local, ask("now", turns=kept, persona="Be brief."))
    assert shortened[BASE].text == final[BASE].text
    assert shortened[BASE].dropped_turns == 0


@pytest.mark.parametrize(
    ("user", "new_tokens", "sentence"), [("x" * CONTEXT, 12, "shorten it"), ("x", CONTEXT, "max_new_tokens")]
)
def test_what_cannot_fit_is_refused(local: LocalEngine, user: str, new_tokens: int, sentence: str) -> None:
    with pytest.raises(RoleplayError, match=sentence):
        next(local.answer(replace(ask(user), sampling=replace(GREEDY, max_new_tokens=new_tokens))))
    assert not local.busy


def test_a_kept_cache_changes_no_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight turns, then a retry, an edit of an early turn, and another chat, with the caches and without."""
    kept, bare = (LocalEngine(base_model(), [inspection.inspect(folder)], CONTEXT, size) for size in (1 << 24, 0))
    fed: dict[LocalEngine, int] = {kept: 0, bare: 0}
    for local in fed:
        forward = local._decoder.forward

        def counted(segments: Any, forward: Any = forward, local: LocalEngine = local) -> torch.Tensor:
            fed[local] += sum(len(segment.ids) for segment in segments)
            result: torch.Tensor = forward(segments)
            return result

        monkeypatch.setattr(local._decoder, "forward", counted)
    turns: tuple[tuple[str, str], ...] = ()
    asked = []
    for number in range(8):
        asked.append(ask(f"q{number}", turns=turns))
        turns += ((f"q{number}", texts(bare, asked[-1])[BASE]),)
    asked += [asked[-1], ask("edited", turns=turns[:3]), ask("else", ADAPTER), asked[-1]]
    fed[bare] = 0
    for request in asked:
        assert texts(kept, request) == texts(bare, request)
    assert fed[kept] < 0.5 * fed[bare]


def cache_of(tokens: int) -> KeyValues:
    cache = KeyValues(1, 1, 4, torch.float32, torch.device("cpu"))
    cache.reserve(tokens)
    cache.length = tokens
    return cache


def test_the_pool_is_bounded_and_forgets_the_oldest() -> None:
    one = cache_of(8).bytes
    pool = CachePool(3 * one)
    for number in range(4):
        pool.put("base", [number, *range(10, 17)], cache_of(8))
    assert pool.bytes == 3 * one
    assert pool.take("base", [0, 10, 11], CUTS) is None
    assert pool.take("adapter x", [1, 10, 11], CUTS) is None
    part = pool.take("base", [1, 10, 99], CUTS)
    assert part is not None
    assert part.length == 2
    assert pool.bytes == 3 * one  # the whole of it is still there
    assert pool.take("base", [1, 10, 99], [0]) is None  # not cut there
    whole = pool.take("base", [1, *range(10, 17), 50], CUTS)
    assert whole is not None
    assert whole.length == 8
    assert pool.bytes == 2 * one
    pool.put("base", list(range(9999)), cache_of(9999))
    assert pool.bytes == 0  # larger than the whole pool: nothing is kept


def test_a_prompt_always_leaves_a_token_to_compute() -> None:
    pool = CachePool(1 << 20)
    pool.put("base", [1, 2, 3], cache_of(3))
    part = pool.take("base", [1, 2, 3], CUTS)
    assert part is not None
    assert part.length == 2


def test_an_adapter_for_another_base_is_refused(folder: Path) -> None:
    base = base_model()
    base.model = tiny.gemma(num_hidden_layers=3)
    with pytest.raises(
        AdapterError, match=json.loads((folder / "training.json").read_text())["base_model"]["fingerprint"]
    ):
        LocalEngine(base, [inspection.inspect(folder)])


def test_every_answer_gives_its_memory_back(local: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    trims, trim = list[None](), engine.heap.trim
    monkeypatch.setattr(engine.heap, "trim", lambda: trims.append(trim()))
    last(local, ask())
    stopped = local.answer(ask())
    next(stopped)
    stopped.close()
    assert len(trims) == 2
