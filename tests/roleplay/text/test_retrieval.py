"""Retrieval: which training rows are shown for a message, in which order, and when none is."""

import pytest

from roleplay.errors import DataError
from roleplay.text.prompts import IGNORED, TEMPLATES, PromptEncoder
from roleplay.text.retrieval import MARK, Retriever, RetrievingEncoder
from roleplay.text.rows import Row
from tests import tiny

ROWS = [
    Row((("今日可曾用过晚膳？", "用过了。"),)),
    Row((("晚膳用些什么好？", "清粥便好。"),)),
    Row((("雪下得真大", "是啊。"), ("娘娘可要赏雪？", "且等雪停。"))),
    Row((("Do you play chess?", "Slowly."),)),
    Row((("Do you play chess?", "Slowly."),)),
]


@pytest.mark.parametrize(
    ("message", "nearest"),
    [
        ("娘娘可要赏雪？", ("娘娘可要赏雪？", "且等雪停。")),
        ("晚膳用什么好呢", ("晚膳用些什么好？", "清粥便好。")),
        ("do you play weiqi?", ("Do you play chess?", "Slowly.")),
    ],
)
def test_the_nearest_row_stands_last(message: str, nearest: tuple[str, str]) -> None:
    assert Retriever(ROWS).examples(message)[-1] == nearest


def test_repeated_rows_are_shown_once_and_strangers_not_at_all() -> None:
    assert Retriever(ROWS).examples("chess") == [("Do you play chess?", "Slowly.")]
    assert Retriever(ROWS).examples("ξψ") == []


def test_as_many_as_asked_and_always_the_same() -> None:
    retriever = Retriever(ROWS)
    assert len(retriever.examples("娘娘晚膳赏雪", 2)) == 2
    assert retriever.examples("娘娘晚膳赏雪") == Retriever(ROWS).examples("娘娘晚膳赏雪")


def test_no_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="no rows to retrieve from"):
        Retriever([])


def test_rows_are_ranked_with_their_nearness() -> None:
    (first, turn), *others = Retriever(ROWS).ranked("今日可曾用过晚膳？", 9)
    assert turn == ROWS[0].turns[0] and first == pytest.approx(1)
    assert [nearness for nearness, _ in others] == sorted((n for n, _ in others), reverse=True)


def test_messages_with_one_reply_vote_for_it_and_it_is_shown_once() -> None:
    alone, light = ("the old red lamps", "A lamp."), ["the old lamp", "the red lamp", "old red lamp"]
    retriever = Retriever([Row((turn,)) for turn in (alone, *((message, "A light.") for message in light))])
    assert [reply for _, (_, reply) in retriever.ranked(alone[0], 9)] == ["A light.", "A lamp."]
    fewer = retriever.ranked(alone[0], 9, without=light[2:])
    assert [reply for _, (_, reply) in fewer] == ["A lamp.", "A light."]


def test_no_row_is_shown_whose_reply_was_said_before() -> None:
    encoder = RetrievingEncoder(tiny.tokenizer(), "gemma", Retriever(ROWS))
    asked, reply = ROWS[1].turns[-1]
    assert encoder.shown(asked)[-1] == (MARK + asked, reply)
    assert reply not in [reply for _, reply in encoder.shown(asked, [("饿了", reply)])]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_prompt_has_the_nearest_rows_before_the_conversation_and_marked(template: str) -> None:
    plain, retriever = PromptEncoder(tiny.tokenizer(), template), Retriever(ROWS)
    encoder = RetrievingEncoder(tiny.tokenizer(), template, retriever)
    turns, user = [("你好", "请坐。")], "晚膳用什么好呢"
    shown = [(MARK + asked, reply) for asked, reply in retriever.examples(user)]
    prompt = encoder.prompt("你是甄嬛。", turns, user)
    assert shown and prompt == plain.prompt("你是甄嬛。", [*shown, *turns], user)
    assert encoder.prompt("", (), "ξψ") == plain.prompt("", (), "ξψ")
    persona, whole = "你是甄嬛。", len(prompt)
    assert encoder.fit(persona, turns, user, whole) == (prompt, 0, len(shown))
    shorter = plain.prompt(persona, shown, user)  # turns go first
    assert encoder.fit(persona, turns, user, whole - 1) == (shorter, 1, len(shown))
    alone = plain.prompt(persona, (), user)  # the rows last
    assert encoder.fit(persona, turns, user, len(shorter) - 1) == plain.fit(persona, turns, user, len(shorter) - 1)
    assert encoder.fit(persona, turns, user, len(alone)) == (alone, 1, 0)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("loss_on", ["all", "last"])
def test_an_example_learns_its_own_replies_and_none_that_it_is_shown(template: str, loss_on: str) -> None:
    plain, retriever = PromptEncoder(tiny.tokenizer(), template), Retriever(ROWS)
    encoder = RetrievingEncoder(tiny.tokenizer(), template, retriever)
    turns = [("晚膳用什么", "清粥。"), ("雪大么", "大。")]
    asked = turns[0 if loss_on == "all" else 1][0]  # the first that is learnt: a later one is not said yet
    shown = [(MARK + user, reply) for user, reply in retriever.examples(asked)]
    example, own = (one.example("甄嬛", turns, loss_on, where="row 1") for one in (encoder, plain))
    assert example.input_ids == plain.example("甄嬛", [*shown, *turns]).input_ids
    assert [label for label in example.labels if label != IGNORED] == [y for y in own.labels if y != IGNORED]
    assert all(label in (IGNORED, token) for label, token in zip(example.labels, example.input_ids, strict=True))
    assert example.where == "row 1"
    fewer = encoder.example("甄嬛", turns, loss_on, limit=len(example.input_ids) - 1)
    assert fewer.input_ids == plain.example("甄嬛", [*shown[1:], *turns]).input_ids
    assert encoder.example("甄嬛", turns, loss_on, limit=len(own.input_ids)).labels == own.labels
