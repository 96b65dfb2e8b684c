"""The page without a browser: how answers stream into it and what it exposes."""

from dataclasses import replace

import pytest
from gradio_client import Client

from page.build import build, launch_options
from page.chat import exchanges
from page.chat.choices import NUMBERS, Choices
from page.look import as_said, heading
from page.plain_chatbot import pane
from page.serving.start import Started
from roleplay.engine.protocol import ADAPTER, BASE, Sampling
from roleplay.errors import RoleplayError
from roleplay.results.votes import Box
from roleplay.text.known import known
from roleplay.text.retrieval import Retriever
from roleplay.text.rows import Row
from tests.scripted import REPLIES, ScriptedEngine

SAMPLING = dict(zip(NUMBERS, (0.7, 0.9, 50, 1.1, 0.2, 1, 256, 64), strict=True))


def begin(message: str = "你是谁？", retriever: Retriever | None = None, **changes: object) -> exchanges.Exchange:
    chosen = Choices(persona=" p ", adapter="a", seed="3", numbers=SAMPLING)
    return exchanges.begin(message, replace(chosen, **changes), retriever)


@pytest.mark.parametrize(
    ("changes", "personas"),
    [
        ({}, {ADAPTER: "p", BASE: "p"}),
        ({"given": "nothing"}, {ADAPTER: "p", BASE: ""}),
        ({"compare": False}, {ADAPTER: "p"}),
        ({"adapter": ""}, {BASE: "p"}),
        ({"adapter": "", "compare": False, "given": "nothing"}, {BASE: "p"}),
    ],
)
def test_who_is_asked_with_which_persona(changes: dict[str, object], personas: dict[str, str]) -> None:
    assert begin(**changes).personas == personas


def test_examples_go_to_the_base_side_alone_and_into_the_vote() -> None:
    retriever = Retriever(known([Row((("你从何处来？", "自甄府来。"),)), Row((("Who are you?", "A consort."),))]))
    shown = retriever.examples("你是谁？")
    assert shown
    new = begin(given="examples", retriever=retriever, blind=True)
    past = [exchanges.begin("hi", Choices(persona="p", adapter="a", seed="1", numbers=SAMPLING))]
    *_, whole = exchanges.grow(ScriptedEngine(pause=0), past, new, "en")
    questions = exchanges.request(past, whole).questions
    assert questions[BASE].turns == tuple(shown)
    assert questions[ADAPTER].turns == ()
    assert (questions[ADAPTER].persona, questions[BASE].persona) == ("p", "p")
    vote = exchanges.judge([*past, whole], "left", {})[1]
    assert vote
    assert vote.examples == len(shown)
    assert vote.prompt_sha256[BASE] != vote.prompt_sha256[ADAPTER]


@pytest.mark.parametrize("changes", [{"compare": False}, {"adapter": ""}, {"retriever": None}, {"given": "persona"}])
def test_no_examples_where_there_is_none_to_be_given_them(changes: dict[str, object]) -> None:
    retriever = Retriever(known([Row((("你是谁？", "甄嬛。"),))]))
    assert begin(given="examples", retriever=retriever).examples
    assert begin(**({"given": "examples", "retriever": retriever} | changes)).examples == ()


def test_seeds_are_fresh_unless_given() -> None:
    assert begin().sampling == Sampling(**SAMPLING, seed=3)
    assert begin(seed=" 7 ").sampling.seed == 7
    assert len({begin(seed=empty).sampling.seed for empty in (None, "") * 10}) == 20
    for bad in ("abc", "-1", "1.5", "99999999999"):
        with pytest.raises(RoleplayError, match=f"seed is .?{bad}"):
            begin(seed=bad)


def test_blind_orders_do_not_follow_the_seed() -> None:
    assert {begin(blind=True).order for _ in range(60)} == {(ADAPTER, BASE), (BASE, ADAPTER)}


def test_answers_grow_and_closing_ends_them() -> None:
    engine = ScriptedEngine(pause=0)
    stages = list(exchanges.grow(engine, [], begin(), "en"))
    assert not any(answer.tokens for answer in stages[0].answers.values())
    assert {s: a.text for s, a in stages[-1].answers.items()} == {
        s: t.format(user="你是谁？") for s, t in REPLIES.items()
    }
    stream = exchanges.grow(engine, [], begin(), "en")
    next(stream), next(stream)
    stream.close()
    assert engine.closed_early == 1


@pytest.mark.parametrize(
    ("message", "error", "says"),
    [("x" * 2001, "", "2,001 characters"), ("hi", "the engine is gone: restart it", "gone")],
)
def test_refusals_and_errors_end_every_answer(message: str, error: str, says: str) -> None:
    engine = ScriptedEngine(error=error)
    last = list(exchanges.grow(engine, [], begin(message=message), "en"))[-1]
    assert all(says in answer.stop for answer in last.answers.values())
    assert len(engine.requests) == bool(error)


@pytest.mark.parametrize(("names", "menu"), [([], False), (["one"], False), (["one", "two"], True)])
def test_adapter_menu_only_where_there_is_a_choice(tmp_path, names: list[str], menu: bool) -> None:  # type: ignore[no-untyped-def]
    demo = build(Started(ScriptedEngine(names)), Box(tmp_path))
    shown = {block.elem_id: block.visible for block in demo.blocks.values() if block.elem_id in ("adapter", "right")}
    assert shown == {"adapter": menu, "right": bool(names)}


@pytest.mark.parametrize("names", [[], ["one"]])
def test_without_an_adapter_the_page_says_how_to_make_one(tmp_path, names: list[str]) -> None:  # type: ignore[no-untyped-def]
    command = "python -m train.lora --base-model google/gemma-2b-it --name mine"
    demo = build(Started(ScriptedEngine(names), command=command), Box(tmp_path))
    shown = [block for block in demo.blocks.values() if block.elem_id == "make"]
    assert [block.value for block in shown] == ([] if names else [f"```sh\n{command}\n```"])  # type: ignore[attr-defined]


def test_nothing_is_offered_as_an_api(tmp_path) -> None:  # type: ignore[no-untyped-def]
    demo = build(Started(ScriptedEngine()), Box(tmp_path))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    info = Client(url, verbose=False).view_api(return_format="dict")
    demo.close()
    assert info == {"named_endpoints": {}, "unnamed_endpoints": {}}


def test_what_a_pane_sends_is_inert_and_what_comes_back_is_what_was_said() -> None:
    said = [{"role": "assistant", "content": "<img src=x onerror=hit()> &lt;b&gt;"}]
    sent = pane().postprocess(said)
    assert sent.root[0].content[0].text == "<\u2060img src=x onerror=hit()> &\u2060lt;b&\u2060gt;"  # type: ignore[union-attr]
    back = pane().preprocess(sent)
    assert back[0]["content"][0]["text"] == said[0]["content"]


def test_names_and_greetings_are_text() -> None:
    assert "<img" not in heading("<img src=x>") and "&lt;img src=x&gt;" in heading("<img src=x>")
    assert not set(as_said("<b>*x*</b> [a](b) `c` _d_")) & set("<>*[]()`_")
