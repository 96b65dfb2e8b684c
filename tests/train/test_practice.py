"""What an adapter practises with: which rows stand before a training row, and what it then looks up in a chat."""

from collections import Counter
from zlib import crc32

from roleplay.text.known import known
from roleplay.text.prompts import IGNORED, PromptEncoder
from roleplay.text.retrieval import NEAREST, Retriever, RetrievingEncoder
from roleplay.text.rows import Row
from tests import tiny
from train.learning.practice import PracticeEncoder, encoders

WORDS = ("tea", "snow", "rain", "plum", "lamp", "silk", "crane", "brush")
TURNS = [(f"do you like {a} or {b}?", f"{a}, since {b} is dear") for a in WORDS for b in WORDS]
# Eight wordings of each reply, nearer to those of others than to one another.
ALIKE = [(f"{b}, {b} of {crc32((a + b).encode()):x}", f"I like {a}") for a in WORDS for b in WORDS]
RETRIEVER = Retriever(known([Row((turn,)) for turn in TURNS + ALIKE]))


def practice(seed: int = 0) -> PracticeEncoder:
    return PracticeEncoder(tiny.tokenizer(), "gemma", RETRIEVER, seed)


def test_no_row_is_shown_its_own_message_and_most_are_shown_their_reply_in_other_words() -> None:
    found = {turn: practice().found_for([turn]) for turn in TURNS + ALIKE}
    assert not any(user == turn[0] for turn, shown in found.items() for user, _ in shown)
    answered = [any(reply == turn[1] for _, reply in found[turn]) for turn in ALIKE]
    assert 0.65 < sum(answered) / len(ALIKE) < 0.95
    assert not any(reply == turn[1] for turn in TURNS for _, reply in found[turn])  # nobody else has it
    there = [turn for turn, is_there in zip(ALIKE, answered, strict=True) if is_there]
    places = {[reply for _, reply in found[turn]].index(turn[1]) for turn in there}
    assert places == set(range(NEAREST))  # the nearest is a hint, and no more


def test_some_rows_are_shown_none_and_no_row_too_many_and_the_nearest_last() -> None:
    shown = [practice().found_for([turn]) for turn in TURNS]
    assert set(Counter(map(len, shown))) == set(range(NEAREST + 1))
    for turn, own in zip(TURNS, shown, strict=True):
        nearness = {other: near for near, other in RETRIEVER.ranked(turn[0], 99)}
        assert [nearness[other] for other in own] == sorted(nearness[other] for other in own)


def test_most_rows_stand_behind_others_and_only_their_own_reply_is_learnt() -> None:
    plain = PromptEncoder(tiny.tokenizer(), "gemma")
    learnt = [tuple(i for i in practice().example("", [turn]).labels if i != IGNORED) for turn in TURNS]
    assert learnt == [tuple(i for i in plain.example("", [turn]).labels if i != IGNORED) for turn in TURNS]
    behind = [len(practice().example("", [turn]).labels) for turn in TURNS]
    found = [len(RetrievingEncoder.example(practice(), "", [turn]).labels) for turn in TURNS]
    assert len(TURNS) / 2 < sum(a > b for a, b in zip(behind, found, strict=True)) < len(TURNS) * 3 / 4


def test_a_seed_always_shows_the_same_rows() -> None:
    once, again, other = ([practice(seed).found_for([turn]) for turn in TURNS] for seed in (1, 1, 2))
    assert once == again != other


def test_everything_but_the_training_rows_reads_what_the_chat_reads() -> None:
    own, chat = encoders(tiny.tokenizer(), "gemma", RETRIEVER, 0)
    assert isinstance(own, PracticeEncoder) and type(chat) is RetrievingEncoder
    assert any(chat.example("", [turn]) != own.example("", [turn]) for turn in TURNS)
    own, chat = encoders(tiny.tokenizer(), "gemma", None, 0)
    assert own is chat and type(chat) is PromptEncoder
