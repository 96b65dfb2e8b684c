"""Retrieval: which training rows are shown for a message, in which order, and when none is."""

import numpy as np
import pytest

from roleplay.errors import DataError
from roleplay.text.known import FALLBACK, Known, known
from roleplay.text.prompts import IGNORED, TEMPLATES, PromptEncoder
from roleplay.text.retrieval import ELSEWHERE, FEW, MARK, SPOKEN_OF, WORDS, Retriever, RetrievingEncoder
from roleplay.text.rows import Row
from tests import tiny

ROWS = [
    Row((("今日可曾用过晚膳？", "用过了。"),)),
    Row((("晚膳用些什么好？", "清粥便好。"),)),
    Row((("娘娘可要赏雪？", "且等雪停。"),)),
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
    assert Retriever(known(ROWS)).examples(message)[-1] == nearest


def test_repeated_rows_are_shown_once_and_strangers_not_at_all() -> None:
    assert Retriever(known(ROWS)).examples("chess") == [("Do you play chess?", "Slowly.")]
    assert Retriever(known(ROWS)).examples("ξψ") == []


def test_as_many_as_asked_and_always_the_same() -> None:
    retriever = Retriever(known(ROWS))
    assert len(retriever.examples("娘娘晚膳赏雪", 2)) == 2
    assert retriever.examples("娘娘晚膳赏雪") == Retriever(known(ROWS)).examples("娘娘晚膳赏雪")


def test_no_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="no rows to retrieve from"):
        Retriever([])


def test_rows_are_ranked_with_their_nearness() -> None:
    (first, turn), *others = Retriever(known(ROWS)).ranked("今日可曾用过晚膳？", 9)
    assert turn == ROWS[0].turns[0] and first == pytest.approx(1)
    assert [nearness for nearness, _ in others] == sorted((n for n, _ in others), reverse=True)


def test_none_is_shown_beside_one_that_is_much_nearer() -> None:
    retriever = Retriever(known(ROWS))
    assert len(retriever.examples("晚膳用些什么好？")) == 2 and retriever.found("晚膳用些什么好？", ()) == [
        ROWS[1].turns[0]
    ]


def test_of_turns_with_one_reply_the_nearest_is_found() -> None:
    turns = [("the old lamp", "A light."), ("the old red lamp", "A light."), ("a red coat", "A coat.")]
    retriever = Retriever([Known(turn, str(number)) for number, turn in enumerate(turns)])
    assert [turn for _, turn in retriever.ranked("the old red lamp", 9)] == [turns[1], turns[2]]
    assert retriever.examples("the old red lamp", without=[turns[1][0]])[-1] == turns[0]


FOLLOWED = [
    Row((("do you like tea?", "Tea is my comfort."),), "tea"),
    Row((("and coffee?", "Tea warms me more."),), "tea"),
    Row((("do you like snow?", "Snow is quiet."),), "snow"),
    Row((("do you like tea?", "Tea is my comfort."), ("why?", "It was my mother's drink.")), "tea then"),
    Row((("do you like snow?", "Snow is quiet."), ("why?", "It hides the walls.")), "snow then"),
    Row((("my name is Ann", "Welcome, Ann."), ("who am I?", "You are Ann.")), "told"),
]


def test_turns_with_one_reply_stand_together() -> None:
    rows = [Row(((said, reply),), "tea") for said, reply in (("a", "1"), ("b", "2"), ("c", "1"), ("a", "1"))]
    assert [one.turn for one in known(rows)] == [("a", "1"), ("c", "1"), ("b", "2")]


def test_what_goes_on_from_a_matter_is_found_where_that_was_spoken_of() -> None:
    turns = known(FOLLOWED)
    assert known([row for row in FOLLOWED for _ in range(3)]) == turns  # a weight is no other matter
    assert [(one.matter, one.after) for one in turns[3:5]] == [("tea then", "tea"), ("snow then", "snow")]
    assert [one.turn[1] for one in turns if one.hidden] == ["You are Ann."]  # it holds for its own conversation alone
    assert known(FOLLOWED[-1:]) == [Known(FOLLOWED[-1].turns[-1], "told")]  # where there is nothing else, it is better
    retriever = Retriever(turns)
    assert "You are Ann." not in [reply for _, reply in retriever.examples("who am I?", 9)]
    about_tea = [("do you drink?", "Tea warms me more.")]  # another reply of the matter than the row's own
    assert retriever.found("why?", about_tea)[-1][1] == "It was my mother's drink."
    assert retriever.found("why?", [*about_tea, ("hm", "Snow is quiet.")])[-1][1] == "It hides the walls."
    assert retriever.found("why?", [*about_tea, ("hm", "ξψ")])[-1][1] == "It was my mother's drink."
    assert retriever.ranked("why?", 1)[0][0] == pytest.approx(1 + ELSEWHERE)
    assert retriever.ranked("why?", 1, after=["Snow is quiet."])[0][0] == pytest.approx(1 + SPOKEN_OF)
    assert (
        retriever.found("ξψ", about_tea) == retriever.found("", about_tea) == []
    )  # what says nothing goes on from nothing
    gone = Retriever([one for one in turns if one.matter != "snow"])
    assert gone.ranked("why?", 9, after=["Snow is quiet."])[-1][0] == pytest.approx(1 + ELSEWHERE)
    replies = retriever.replies.ranked("It hides the walls.", 1)
    assert replies == [(pytest.approx(1), ("why?", "It hides the walls."))]  # nothing is lost by going on


def test_a_fallback_is_found_by_what_is_meant_alone_and_in_its_language() -> None:
    wronged = [("my boss shouts at me", "That was unjust."), ("老板又骂我", "这样不该。")]
    turns = known([*FOLLOWED, *(Row((turn,), f"{FALLBACK}{turn[0]}") for turn in wronged)])
    assert [one.turn for one in turns if one.fallback] == wronged

    def by(nearness: float) -> Retriever:
        near = np.array([nearness if one.fallback else 0.5 for one in turns])
        return Retriever(turns).by(lambda _: near.copy())

    def found(text: str, nearness: float) -> list[str]:
        return [reply for _, reply in by(nearness).found(text, [])]

    assert found("do you like snow?", 0.9) == ["Snow is quiet."]
    assert found("my boss shouts at me", 0.4)[-1] != "That was unjust."  # though it is asked word for word
    assert found("he was rude to me", 0.9) == ["That was unjust."]
    assert found("他对我很凶", 0.9) == ["这样不该。"]
    assert found("il a crié", 0.9) == ["That was unjust."]
    assert not {"That was unjust.", "这样不该。"} & {*found("???", 0.9), *found("666", 0.9)}
    assert wronged[0] not in Retriever(turns).examples("my boss shouts at me", 9)  # by words
    assert by(0.9).stands_alone("he was rude to me", [("do you drink?", "Tea warms me more.")])


def test_fallbacks_do_not_hide_what_was_told() -> None:
    fallbacks = [Known((f"fear {number}", "Tell me."), f"{FALLBACK}{number}") for number in range(FEW + 9)]
    turns = [*known(FOLLOWED), *fallbacks]
    near = np.array([2.9 if one.fallback else 0.7 if one.hidden else 0.1 for one in turns])
    retriever = Retriever(turns).by(lambda _: near.copy())
    assert retriever.found("who am I?", [("I am Ann", "Welcome.")]) == [("I am Ann", "You are Ann.")]


def test_a_message_that_stands_alone_is_asked_alone() -> None:
    encoder = RetrievingEncoder(tiny.tokenizer(), "gemma", Retriever(known(FOLLOWED)))
    turns = [("any tea?", "Tea warms me more.")]
    assert encoder.heard("do you like snow?", turns) == ()
    assert encoder.before("do you like snow?", turns) == encoder.shown("do you like snow?", turns) != []
    for about_the_talk in ("why?", "who am I?", "ξψ"):
        assert encoder.heard(about_the_talk, turns) == turns
        assert encoder.before(about_the_talk, turns) == [*turns, *encoder.shown(about_the_talk, turns)]
    plain = PromptEncoder(tiny.tokenizer())
    assert encoder.fit("", turns, "do you like snow?", 999).ids == plain.prompt(
        "", encoder.shown("do you like snow?"), "do you like snow?"
    )


def test_a_message_about_what_was_told_is_asked_with_it() -> None:
    asked = [Row(((f"do you like {word}?", f"I like {word}."),)) for word in ["flowers", *map(chr, range(200, 400))]]
    encoder = RetrievingEncoder(tiny.tokenizer(), "gemma", Retriever(known(asked)))
    told = [("my flowers are blue", "How fine."), ("hm", "Hm.")]
    assert encoder.heard("do you like flowers?", told) == told
    assert (
        encoder.heard("do you like flowers?", [("do you like tea?", "I like tea.")]) == ()
    )  # these words are anyone's
    assert encoder.heard("ξψ", [("do you like tea?", "I like tea.")]) != ()


def test_what_was_told_is_said_back_where_it_is_asked_for() -> None:
    encoder = RetrievingEncoder(tiny.tokenizer(), "gemma", Retriever(known(FOLLOWED)))
    turns = [("Good day. I am Bob. No, Rob.", "Welcome."), ("do you like snow?", "Snow is quiet.")]
    told = ("I am Bob. No, Rob.", "You are Bob. No, Rob.")  # with what corrects it, without the greeting
    assert encoder.shown("who am I?", turns) == [(MARK + told[0], told[1])]
    assert encoder.heard("who am I?", turns) == turns
    assert encoder.retriever.told("who am?", turns) is None  # not the visitor
    assert encoder.retriever.told("do you like tea as I do?", turns) is None  # rows know better
    assert encoder.retriever.told("who am I?", ()) is None  # nothing was told
    assert encoder.retriever.told("who am I?", [("am I Bob?", "Who knows.")]) is None  # he asked
    assert encoder.retriever.told("who am I?", [("ξψ", "Hm.")]) is None  # nothing of it
    assert Retriever(known(ROWS)).told("who am I?", turns) is None  # no row asks for what was told


def test_of_what_was_told_twice_the_latest_is_said_back() -> None:
    retriever = Retriever(known(FOLLOWED))
    told = retriever.told("who am I?", [("I am Ann.", "Welcome."), ("do you like tea?", "Yes."), ("I am Eve.", "Oh.")])
    assert told == ("I am Eve.", "You are Eve.")


def test_what_is_kept_of_a_conversation_asks_for_something_told_there() -> None:
    asks_nothing = (("hello there", "Good day."), ("my day is good", "I am glad that it is."))
    takes_nothing_up = (("my name is Ann", "Welcome."), ("who am I?", "Who knows."))
    other = Row((("do you like tea?", "Yes."),), "tea")
    assert len(known([other, Row(asks_nothing, "a"), Row(takes_nothing_up, "b")])) == 1
    for scene in ("", "tea"):  # rows without scenes, or with one for all
        rows = [Row((("do you play?", "Yes."),), scene), Row((("do you play?", "Yes."), ("well?", "Fairly.")), scene)]
        assert not any(one.hidden for one in known(rows)) and len(known(rows)) == 2


def test_a_message_is_ranked_once_while_it_is_answered() -> None:
    asked: list[str] = []

    def nearness(text: str) -> list[float]:
        asked.append(text)
        return [1.0, 0.5, 0.4, 0.3, 0.2, 0.1]

    encoder = RetrievingEncoder(tiny.tokenizer(), "gemma", Retriever(known(FOLLOWED)).by(nearness))
    turns = [("do you drink?", "Tea warms me more.")]
    assert len({tuple(encoder.fit("", turns, "why?", 999).ids) for _ in range(8)}) == 1
    assert asked == ["why?"]


def test_of_many_that_are_as_near_the_first_are_found() -> None:
    many = Retriever([Known(("why?", f"Because of {number}."), str(number)) for number in range(3 * FEW)])
    assert len(many.ranked("why?", 4)) == 4


def test_another_measure_may_say_what_is_near() -> None:
    plain = Retriever(known(ROWS))
    by_hand = plain.by(lambda text: [0.1, 0.2, 0.9, 0.3] if text == "?" else [0.0] * 4)
    assert [turn for _, turn in by_hand.ranked("?", 2)] == [ROWS[2].turns[0], ROWS[3].turns[0]]
    ((nearness, turn),) = by_hand.ranked("chess", 9)
    assert turn == ROWS[3].turns[0] and nearness == pytest.approx(WORDS * plain.ranked("chess", 9)[0][0])


def test_no_row_is_shown_whose_reply_was_said_before() -> None:
    encoder = RetrievingEncoder(tiny.tokenizer(), "gemma", Retriever(known(ROWS)))
    asked, reply = ROWS[1].turns[-1]
    assert encoder.shown(asked)[-1] == (MARK + asked, reply)
    assert reply not in [reply for _, reply in encoder.shown(asked, [("饿了", reply)])]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_prompt_has_the_nearest_rows_right_before_the_message_and_marked(template: str) -> None:
    plain, retriever = PromptEncoder(tiny.tokenizer(), template), Retriever(known(FOLLOWED))
    encoder = RetrievingEncoder(tiny.tokenizer(), template, retriever)
    turns, user = [("tea?", "Tea warms me more.")], "why?"
    shown = [(MARK + asked, reply) for asked, reply in retriever.found(user, turns)]
    prompt = encoder.prompt("你是甄嬛。", turns, user)
    assert shown and prompt == plain.prompt("你是甄嬛。", [*turns, *shown], user)
    assert encoder.prompt("", (), "ξψ") == plain.prompt("", (), "ξψ")
    persona, whole = "你是甄嬛。", len(prompt)
    assert encoder.fit(persona, turns, user, whole) == (prompt, 0, tuple(shown))
    shorter = plain.prompt(persona, shown, user)  # turns go first
    assert encoder.fit(persona, turns, user, whole - 1) == (shorter, 1, tuple(shown))
    alone = plain.prompt(persona, (), user)  # the rows last
    assert encoder.fit(persona, turns, user, len(shorter) - 1) == plain.fit(persona, turns, user, len(shorter) - 1)
    assert encoder.fit(persona, turns, user, len(alone)) == (alone, 1, ())


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("loss_on", ["all", "last"])
def test_an_example_learns_its_own_replies_and_none_that_it_is_shown(template: str, loss_on: str) -> None:
    plain, retriever = PromptEncoder(tiny.tokenizer(), template), Retriever(known(ROWS))
    encoder = RetrievingEncoder(tiny.tokenizer(), template, retriever)
    first, last = turns = [("晚膳用什么", "清粥。"), ("雪大么", "大。")]
    shown = [(MARK + user, reply) for user, reply in retriever.examples(last[0])]
    example, own = (one.example("甄嬛", turns, loss_on, where="row 1") for one in (encoder, plain))
    assert shown and example.input_ids == plain.example("甄嬛", [first, *shown, last]).input_ids
    assert [label for label in example.labels if label != IGNORED] == [y for y in own.labels if y != IGNORED]
    assert all(label in (IGNORED, token) for label, token in zip(example.labels, example.input_ids, strict=True))
    assert example.where == "row 1"
    last_alone = encoder.without_loss(example, {2}).labels
    assert last_alone == encoder.example("甄嬛", turns, "last").labels and encoder.without_loss(example, ()) == example
    without = encoder.example("甄嬛", turns, loss_on, limit=len(example.input_ids) - 1)
    assert without.input_ids == plain.example("甄嬛", [*shown, last]).input_ids  # turns go first
    alone = len(plain.example("甄嬛", [last]).input_ids)
    assert encoder.example("甄嬛", turns, loss_on, limit=alone).input_ids == plain.example("甄嬛", [last]).input_ids
    with pytest.raises(DataError, match="row 1: "):
        encoder.example("甄嬛", turns, loss_on, alone - 1, "row 1")
