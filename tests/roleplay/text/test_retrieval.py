"""Retrieval: which training rows are shown for a message, in which order, and when none is."""

import pytest

from roleplay.errors import DataError
from roleplay.text.retrieval import Retriever
from roleplay.text.rows import Row

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
