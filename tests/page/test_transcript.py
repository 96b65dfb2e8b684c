"""The record behind both panes: it follows undo and edit, keeps the sides apart, and is safe to read back."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from page.chat import exchanges, saved, shown
from page.chat.choices import EXAMPLES, NOTHING, PERSONA
from page.chat.exchanges import OPEN, SIDES, UNVEILED, Exchange
from page.chat.saved import Kept
from page.serving.middleware import MAX_BODY
from page.words import WORDS, language
from roleplay.engine.protocol import ADAPTER, BASE, Answer, Sampling, Speaker
from roleplay.errors import DataError
from roleplay.results import tally as ballots
from roleplay.results import wording as texts
from roleplay.results.tally import Tally
from roleplay.text.rows import read_rows

DONE = {side: Answer(f"{side} says", 5, 0.1, 0.5, "end") for side in SIDES}
LOOKED_UP = Answer("it says", 5, 0.1, 0.5, "end", shown_rows=(("※ q", "a"),), candidate=2)


def exchange(user: str, *sides: str, **changes: object) -> Exchange:
    answers = {side: replace(DONE[side], text=f"{side} on {user}") for side in sides}
    return replace(Exchange(user, answers, dict.fromkeys(sides, "persona"), "zhenhuan", Sampling(seed=7)), **changes)


RECORD = [exchange("one", ADAPTER), exchange("two", ADAPTER, BASE), Exchange("unanswered")]


def test_each_side_is_asked_with_its_own_replies_and_the_others_where_it_has_none() -> None:
    adapter, base = (exchanges.question(RECORD, side, "persona", "three") for side in SIDES)
    assert adapter.turns == (("one", "adapter on one"), ("two", "adapter on two"))
    assert base.turns == (("one", "adapter on one"), ("two", "base on two"))
    assert (base.persona, base.user) == ("persona", "three")


def test_a_long_history_is_cut_from_its_oldest_turns() -> None:
    record = [exchange(str(number), ADAPTER) for number in range(exchanges.MAX_TURNS + 5)]
    turns = exchanges.question(record, ADAPTER, "", "now").turns
    assert len(turns) == exchanges.MAX_TURNS
    assert turns[0][0] == "5"


@pytest.mark.parametrize(
    ("users", "kept"),
    [
        (["one", "two", "unanswered"], [True, True, False]),
        (["one"], [True]),
        ([], []),
        (["other", "two"], [False, True]),
        (["one", "two", "unanswered", "stopped in the queue"], [True, True, False, False]),
    ],
)
def test_align(users: list[str], kept: list[bool]) -> None:
    record = exchanges.align(users, RECORD)
    assert [e.user for e in record] == users
    assert [bool(e.answers) for e in record] == kept


def test_panes_show_the_same_turns() -> None:
    left, right = (shown.pane_messages(RECORD, number, False, SIDES, "en") for number in (0, 1))
    assert shown.users(left) == shown.users(right) == ["one", "two", "unanswered"]
    assert [m["role"] for m in left] == [m["role"] for m in right] == ["user", "assistant"] * 2 + ["user"]
    assert left[1]["content"][0]["text"] == "adapter on one"
    assert left[1]["content"][1]["text"] == "5 tokens · first in 0.10 s · 10.0 tok/s · seed 7" + shown.EXPLAINABLE
    assert "Not asked" in right[1]["content"][1]["text"]


def test_an_adapter_from_a_hub_says_its_revision_and_a_browser_keeps_it() -> None:
    kept = Kept([replace(exchange("x", *SIDES), revision="3f2a91c" + "0" * 33)], True, "", PERSONA)
    record = saved.from_json(json.loads(json.dumps(saved.to_json(kept)))).record
    left, right = (shown.pane_messages(record, number, False, SIDES, "en")[1] for number in (0, 1))
    assert (
        left["content"][1]["text"].startswith("revision 3f2a91c · ") and "revision" not in right["content"][1]["text"]
    )


@pytest.mark.parametrize(
    ("blind", "verdict", "left", "named"),
    [
        (True, OPEN, BASE, False),
        (True, "left", BASE, True),
        (False, "left", ADAPTER, False),
        (True, UNVEILED, ADAPTER, False),
        (True, "", ADAPTER, False),
    ],
)
def test_blind_order_and_labels(blind: bool, verdict: str, left: str, named: bool) -> None:
    message = shown.answer_message(exchange("x", *SIDES, order=(BASE, ADAPTER), verdict=verdict), 0, blind, SIDES, "en")
    assert message
    text, footer = (part["text"] for part in message["content"])
    assert text == f"{left} on x"
    assert ("Base model" in footer) == named
    assert ("seed" in footer) == (verdict != OPEN)


@pytest.mark.parametrize(
    ("stop", "told"),
    [("loop", "cut: it repeated itself"), ("overtaken", "ended: the next message was sent"), ("length", "cut at the")],
)
def test_why_an_answer_is_not_whole_is_told_in_a_word(stop: str, told: str) -> None:
    cut = exchange("x", ADAPTER, answers={ADAPTER: Answer("x", 5, stop=stop)})
    assert told in shown.footer("en", cut, ADAPTER)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(), "Reading the message"),
        (Answer(place=2), "number 2 in the queue"),
        (Answer(weighing=8), "weighing 8 answers"),
    ],
)
def test_why_there_is_no_word_yet_is_told(answer: Answer, told: str) -> None:
    assert told in shown.footer("en", exchange("x", ADAPTER, answers={ADAPTER: answer}), ADAPTER)


@pytest.mark.parametrize(
    ("stops", "verdict", "votable"),
    [
        (("end", "length"), OPEN, True),
        (("end", "loop"), OPEN, True),
        (("end", "overtaken"), OPEN, False),
        (("end", ""), OPEN, False),
        (("end", "stopped"), OPEN, False),
        (("end", "out of memory"), OPEN, False),
        (("end", "end"), "left", False),
        (("end", "end"), "", False),
        (("end",), OPEN, False),
    ],
)
def test_votable(stops: tuple[str, ...], verdict: str, votable: bool) -> None:
    answers = {side: Answer("x", 1, stop=stop) for side, stop in zip(SIDES, stops, strict=False)}
    assert Exchange("q", answers, verdict=verdict).votable is votable


def test_a_vote_closes_the_exchange() -> None:
    last = exchange("x", *SIDES, order=(BASE, ADAPTER), verdict=OPEN)
    record, vote = exchanges.judge([*RECORD, last], "left", {"zhenhuan": {"template": "gemma"}})
    assert vote
    assert vote.winner == BASE
    assert vote.provenance == {"template": "gemma"}
    assert vote.sampling["seed"] == 7
    assert record[-1].verdict == "left"
    assert exchanges.judge(record, "left", {})[1] is None
    assert exchanges.judge([], "left", {})[1] is None


def test_what_a_browser_keeps_comes_back() -> None:
    last = exchange("x", *SIDES, verdict=OPEN, examples=(("a", "b"),), answers={ADAPTER: LOOKED_UP, BASE: DONE[BASE]})
    last = replace(last, character="Zhen Huan", weights_sha256={ADAPTER: "ab" * 32})
    kept = Kept([*RECORD, last], True, "persona", NOTHING)
    back = saved.from_json(saved.to_json(kept))
    assert list(back.record[:3]) == RECORD
    assert back.record[3] == replace(last, verdict=UNVEILED)
    assert (back.compare, back.persona, back.given) == (True, "persona", NOTHING)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("record"),
        lambda value: value.update(base_persona=value.pop("given")),  # the form of earlier versions
        lambda value: value.update(given="<b>"),
        lambda value: value["record"][0].update(examples=["a"]),
        lambda value: value.update(record=3),
        lambda value: value["record"][0].pop("answers"),
        lambda value: value["record"][0]["answers"]["adapter"].update(tokens="<b>"),
        lambda value: value["record"][0]["answers"]["adapter"].update(tokens=float("inf")),
        lambda value: value["record"][0]["answers"]["adapter"].update(candidate=-1),
        lambda value: value["record"][0]["answers"]["adapter"].pop("stop"),
        lambda value: value["record"][0]["sampling"].update(temperature=99),
        lambda value: value["record"][0].update(order=["adapter", "adapter"]),
        lambda value: value["record"][0].update(verdict="won"),
        lambda value: value["record"][0].update(weights_sha256="<b>"),
        lambda value: value["record"][0]["answers"]["adapter"].update(shown_rows="<b>"),
    ],
)
def test_a_foreign_conversation_is_refused(change) -> None:  # type: ignore[no-untyped-def]
    value = json.loads(saved.to_json(Kept(RECORD, True, "", PERSONA)))
    change(value)
    with pytest.raises(DataError, match="starts anew"):
        saved.from_json(json.dumps(value))


@pytest.mark.parametrize(
    ("changes", "given", "told"),
    [
        ({}, PERSONA, "seed 7"),
        ({"personas": {BASE: ""}}, NOTHING, "seed 7 · without a persona"),
        ({"examples": (("a", "b"),)}, EXAMPLES, "seed 7 · with training rows as examples"),
        ({"answers": {ADAPTER: DONE[ADAPTER], BASE: LOOKED_UP}}, EXAMPLES, "seed 7 · with training rows as examples"),
        ({"answers": {ADAPTER: LOOKED_UP, BASE: DONE[BASE]}}, PERSONA, "seed 7"),
    ],
)
def test_what_the_base_model_was_given_is_told(changes: dict[str, object], given: str, told: str) -> None:
    one = exchange("x", *SIDES, **changes)
    assert one.given(BASE) == given
    assert shown.pane_messages([one], 1, False, SIDES, "en")[1]["content"][1]["text"].endswith(told + shown.EXPLAINABLE)
    assert f"{told} · at most 256 tokens*" in saved.as_markdown([one], "Zhen Huan", "en")


@pytest.mark.parametrize(
    "text",
    [
        "<script>x</script>",
        "a < b & c",
        "&lt;b&gt;",
        "<!-- -->",
        "<?php ?>",
        "1<2",
        "文<字",
        "&#60;",
        "</p>",
        "<\u2060b>",
        "<\u2060\u2060b>",
        "&\u2060lt;",
        "<\u20601",
        "&\u2060 ",
    ],
)
def test_markup_is_made_inert_and_comes_back(text: str) -> None:
    inert = shown.defuse(text)
    assert shown.restore(inert) == text
    assert not any(f"{a}{b}" in inert for a in "<" for b in "spb/!?")
    assert "&l" not in inert
    assert "&#" not in inert


def test_training_rows_are_read_by_the_trainer(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(saved.as_rows(RECORD), encoding="utf-8")
    assert read_rows(tmp_path / "rows.json")[0][0].turns == (("one", "adapter on one"), ("two", "adapter on two"))
    assert json.loads(saved.as_rows([])) == []


def test_markdown_holds_both_answers() -> None:
    text = saved.as_markdown(RECORD, "Zhen Huan", "en")
    assert text.startswith("# Zhen Huan\n\n> persona\n\n**You**\n\none\n") and text.count("> ") == 1
    assert text.index("adapter on two") < text.index("**Base model, untuned**") < text.index("base on two")


def test_exports_say_who_spoke_with_which_weights_at_which_strength() -> None:
    other = {"adapter": "two", "strength": 0.5, "other": Speaker("zhenhuan", 1.5), "character": "Sun Wukong"}
    other |= {"personas": {ADAPTER: "You are a monkey.", BASE: "persona"}, "weights_sha256": {ADAPTER: "ab" * 32}}
    record = [exchange("one", *SIDES), exchange("two", *SIDES, **other)]
    text = saved.as_markdown(record, "Zhen Huan", "en")
    first, second, *_ = text.split("**You**")[1:]
    assert "zhenhuan, strength 1.00*" in first and "tokens*" in first  # the base model has no adapter
    assert "**Zhen Huan**" in first and "**Sun Wukong**" in second and "Zhen Huan" not in second
    assert first.endswith("> You are a monkey.\n\n> persona\n\n") and text.count("> ") == 3
    assert "two, strength 0.50, SHA-256 abababababab*" in second and "zhenhuan, strength 1.50*" in second
    (row,) = json.loads(saved.as_rows(record))
    assert row["speaker"] == "zhenhuan, strength 1.00; Sun Wukong: two, strength 0.50, SHA-256 abababababab"


def flat(words: object, path: str = "") -> dict[str, str]:
    """Every text of a JSON value by the way to it; how many there are of one name counts too."""
    inner = words.items() if isinstance(words, dict) else enumerate(words) if isinstance(words, list | tuple) else None
    return {path: str(words)} if inner is None else {k: v for n, w in inner for k, v in flat(w, f"{path}/{n}").items()}


FIGURES = {
    language: flat([texts.TEXTS[language], texts.MEASURES[language], texts.FLIPS[language], texts.ARMS[language]])
    | flat(texts.READING[language], "reading")
    for language in ("en", "zh")
}


@pytest.mark.parametrize("words", [WORDS, FIGURES], ids=["page", "figures"])
def test_both_languages_say_the_same_things(words: dict[str, dict[str, str]]) -> None:
    english, chinese = words["en"], words["zh"]
    assert english.keys() == chinese.keys()
    placeholders = {
        key: sorted(part.split("}")[0].split(":")[0] for part in english[key].split("{")[1:]) for key in english
    }
    for key, text in chinese.items():
        assert sorted(part.split("}")[0].split(":")[0] for part in text.split("{")[1:]) == placeholders[key], key


@pytest.mark.parametrize(
    ("header", "wanted"),
    [("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-US,zh;q=0.5", "en"), ("", "en"), (None, "en"), ("ZH", "zh")],
)
def test_language(header: str | None, wanted: str) -> None:
    assert language(header) == wanted


@pytest.mark.parametrize(
    ("tally", "sentences"),
    [
        (Tally(), ["No votes yet"]),
        (Tally(ties=2), ["2 ties, 0 both bad", "Not yet conclusive"]),
        (Tally(3, 1, 1, 0, 2, 2), ["won 3 of 4", "75%", "30% to 95%", "Not yet conclusive."]),
        (Tally(30, 2, 0, 0, 16, 16), ["People prefer the adapter."]),
        (Tally(16, 16, 0, 0, 16, 16), ["A and B win alike (16 to 16), as they should."]),
        (Tally(16, 16, 0, 0, 30, 2), ["One side wins too often (30 to 2)"]),
    ],
)
def test_score(tally: Tally, sentences: list[str]) -> None:
    told = ballots.score("en", tally)
    assert all(sentence in told for sentence in sentences)
    assert ("win" in told.split("both bad")[-1]) == (tally.left + tally.right >= ballots.ENOUGH)  # of A and B


@pytest.mark.parametrize(
    ("message", "persona", "past", "says"),
    [
        ("hi", "", 0, ""),
        (" \n", "", 0, "Write a message"),
        ("x" * 2000, "", 0, ""),
        ("x" * 2001, "", 0, "2,001"),
        ("hi", "p" * 2001, 0, "persona"),
        ("hi", "", exchanges.MAX_EXCHANGES, "200 messages"),
    ],
)
def test_refusals(message: str, persona: str, past: int, says: str) -> None:
    refusal = exchanges.refusal("en", message, persona, past)
    assert says in refusal
    assert bool(says) == bool(refusal)


def worst() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What a browser may hand in, of the widest characters: a conversation, its longest exchange, one unanswered."""
    wide, long = "\N{PEACOCK}" * 3000, "\N{PEACOCK}" * (saved.MAX_REPLY + 1)
    answer = {"text": long, "stop": wide, "tokens": 1, "dropped_turns": 0, "seconds": 1, "seconds_to_first_token": 0}
    whole = json.loads(saved.to_json(Kept([exchange("one", *SIDES)], True, wide, PERSONA)))
    item = whole["record"][0] | {"user": wide, "adapter": wide, "answers": dict.fromkeys(SIDES, answer)}
    item |= {"personas": dict.fromkeys(SIDES, wide), "examples": [[long, long]] * 9, "verdict": ""}
    item |= {"character": wide[:300], "weights_sha256": dict.fromkeys(SIDES, wide[:100])}
    return whole, item, item | {"examples": [], "answers": {}}


def test_the_worst_that_a_browser_hands_in_is_small() -> None:
    """As much as the door lets in: what stays of it is what SECURITY.md says."""
    whole, item, small = worst()
    alone = saved.from_json(json.dumps(whole | {"record": [item | {"examples": []}]})).record[0]
    assert (len(alone.adapter), len(alone.user), len(alone.answers[BASE].stop)) == (200, 2000, 500)
    for items in ([item] * 4, [small] * 160, [item] + [small] * 130):
        text = json.dumps(whole | {"record": items}, ensure_ascii=False)
        assert 0.75 * MAX_BODY < len(text.encode()) <= MAX_BODY
        tracemalloc.start()
        kept = saved.from_json(text)
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert kept.record and size < 1.5e6, f"{size / 1e6:.2f} MB"


@pytest.mark.parametrize("text", ["nonsense", "3", "[" * 100_000, "\N{PEACOCK}"])
def test_what_is_no_conversation_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="starts anew"):
        saved.from_json(text)


@pytest.mark.parametrize("numbers", [{"tokens": 10**400}, {"seconds": float("nan")}, {"dropped_turns": -1}])
def test_numbers_of_a_conversation_are_bounded(numbers: dict[str, float]) -> None:
    value = json.loads(saved.to_json(Kept(RECORD, True, "", PERSONA)))
    value["record"][0]["answers"][ADAPTER] |= numbers
    with pytest.raises(DataError):
        saved.from_json(json.dumps(value))


def test_messages_that_a_browser_hands_in_are_cut() -> None:
    record = exchanges.align(["x" * 1_000_000] * 1000, [])
    assert (len(record), {len(e.user) for e in record}) == (exchanges.MAX_EXCHANGES + 1, {2000})


def test_a_reply_that_is_handed_in_is_cut() -> None:
    value = json.loads(saved.to_json(Kept([exchange("one", ADAPTER)], True, "", PERSONA)))
    value["record"][0]["answers"][ADAPTER]["text"] = "x" * 1_000_000
    value["record"][0]["examples"] = [["x" * 1_000_000] * 2] * 100
    (kept,) = saved.from_json(json.dumps(value)).record
    assert len(kept.answers[ADAPTER].text) == saved.MAX_REPLY
    assert [len(text) for turn in kept.examples for text in turn] == [saved.MAX_REPLY] * 8
