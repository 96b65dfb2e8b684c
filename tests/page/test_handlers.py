"""What events do, without drawing a page: values go in by name, updates come out by the name of a control."""

import html
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from page import layout, state
from page.chat.choices import EXAMPLES, NUMBERS, PERSONA, Choices
from page.chat.exchanges import OPEN, Exchange
from page.chat.saved import Kept, kept_now, to_json
from page.handlers import Handlers
from page.serving.rate_limit import Rate
from page.serving.start import About, Started
from page.words import WORDS
from roleplay.engine.protocol import ADAPTER, BASE, CANDIDATES, STRENGTH, Answer, Sampling, Speaker
from roleplay.results.votes import Box
from roleplay.text import personas
from roleplay.text.known import known
from roleplay.text.personas import Persona
from roleplay.text.retrieval import Retriever
from roleplay.text.rows import Row
from tests.scripted import ScriptedEngine

VISITOR = state.Visitor("en", "1.2.3.4")
OTHER = Persona("Physician", "You are the court physician.", "Sit down.", ("Is it serious?",))
CHOICES = Choices(adapter="one", numbers={name: getattr(Sampling(), name) for name in NUMBERS})
OTHERWISE = " two has other weights or rows here: asked again, it may answer otherwise."
CONTROLS = {field.name for field in fields(layout.Controls)} | set(NUMBERS)


@pytest.fixture
def handlers(tmp_path: Path) -> Handlers:
    about = {"one": About(tmp_path / "one"), "two": About(tmp_path / "two", persona=OTHER)}
    return Handlers(Started(ScriptedEngine(["one", "two"], pause=0), about), Box(tmp_path), Rate(0))


def said(handlers: Handlers, message: str, record: list[Exchange], **changes: object) -> list[Exchange]:
    *_, last = handlers.answer(message, record, CHOICES.__class__(**vars(CHOICES) | changes), VISITOR)
    assert last.keys() <= CONTROLS
    return last["record"]


def test_an_answer_leaves_the_page_as_it_may_go_on(handlers: Handlers) -> None:
    sent = handlers.send("hi", [], CHOICES, VISITOR)
    assert sent["compare"] == sent["blind"] == gr.update(interactive=False)
    assert (sent["message"]["value"], sent["message"]["interactive"], sent["asked"]) == ("", False, "hi")
    *_, last = handlers.answer("hi", [], CHOICES, VISITOR)
    assert last["compare"] == last["blind"] == gr.update(interactive=True)
    assert json.loads(last["saved"])["record"][0]["user"] == "hi"
    assert [message["role"] for message in last["right"]] == ["user", "assistant"]


def test_a_seed_that_is_no_number_is_the_answer(handlers: Handlers) -> None:
    (exchange,) = said(handlers, "hi", [], seed="abc")
    assert {answer.stop for answer in exchange.answers.values()} == {
        "seed is 'abc'; choose a number from 0 to 4294967295"
    }


def test_the_composer_is_free_when_the_character_has_answered_unless_that_tells_who_she_is(handlers: Handlers) -> None:
    handlers.engine.replies |= {ADAPTER: "Yes.", BASE: "word " * 100}  # type: ignore[attr-defined]
    for blind, while_writing in ((False, True), (True, False)):
        updates = list(handlers.answer("hi", [], replace(CHOICES, blind=blind), VISITOR))
        freed = [number for number, update in enumerate(updates) if update.get("message", {}).get("interactive")]
        assert (freed[0] < len(updates) - 2) is while_writing
        assert freed[-1] == len(updates) - 1 and updates[-1]["message"]["stop_btn"] is False


def test_the_next_message_ends_what_the_base_model_still_writes(handlers: Handlers) -> None:
    handlers.engine.replies |= {ADAPTER: "Yes.", BASE: "word " * 100}  # type: ignore[attr-defined]
    answering = handlers.answer("hi", [], CHOICES, VISITOR)
    record = next(update["record"] for update in answering if "message" in update)
    sent = handlers.send("and now?", record, CHOICES, VISITOR)
    assert list(answering) == [] and handlers.engine.closed_early == 1  # type: ignore[attr-defined]
    assert WORDS["en"]["overtaken"] in sent["right"][1]["content"][1]["text"]
    first, second = said(handlers, "and now?", record)
    assert (first.answers[ADAPTER].stop, first.answers[BASE].stop) == ("end", "overtaken")
    assert second.answers[BASE].stop == "end" and not handlers.running


def test_both_sides_have_their_lengths_and_blind_the_shorter_one(handlers: Handlers) -> None:
    numbers = CHOICES.numbers | {"max_new_tokens": 256, "base_max_new_tokens": 64}
    (open_,) = said(handlers, "hi", [], numbers=numbers)
    assert [open_.sampling.of(side).max_new_tokens for side in (ADAPTER, BASE)] == [256, 64]
    assert "at most 64 tokens" in handlers.export("markdown", [open_], OTHER, VISITOR)["file"][1]
    record = said(handlers, "hi", [], numbers=numbers, blind=True)
    assert [record[0].sampling.of(side).max_new_tokens for side in (ADAPTER, BASE)] == [64, 64]
    handlers.cast_vote("left", record, True, VISITOR)
    (vote,) = handlers.box.votes()
    assert (vote.sampling["max_new_tokens"], vote.stops) == (64, {ADAPTER: "end", BASE: "end"})


def test_an_edited_message_drops_what_came_after_it(handlers: Handlers) -> None:
    record = said(handlers, "two", said(handlers, "one", []))
    edited = handlers.ask_edited(gr.EventData(None, {"index": 2, "value": "2"}), record, CHOICES, VISITOR)
    assert ([e.user for e in edited["record"]], edited["asked"]) == (["one"], "2")
    again = handlers.ask_again(record, CHOICES, VISITOR)
    assert ([e.user for e in again["record"]], again["asked"]) == (["one"], "two")
    assert handlers.ask_again([], CHOICES, VISITOR)["asked"] == ""


def test_undo_stop_and_clear(handlers: Handlers) -> None:
    record = said(handlers, "hi", [])
    undone = handlers.undo_last(record, CHOICES, VISITOR)
    assert (undone["record"], undone["right"], undone["message"]) == ([], [], "hi")
    assert json.loads(undone["saved"])["record"] == []
    waiting = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert handlers.mark_stopped(waiting, [], CHOICES, VISITOR)["record"] == [Exchange("hi")]
    assert handlers.clear_all(CHOICES)["left"] == []


def test_a_blind_answer_is_voted_on_once(handlers: Handlers) -> None:
    record = said(handlers, "hi", [], blind=True)
    assert record[0].verdict == OPEN
    for _ in range(2):
        record = handlers.cast_vote("left", record, True, VISITOR)["record"]
    (vote,) = handlers.box.votes()
    assert (record[0].verdict, vote.winner) == ("left", record[0].order[0])
    opened = handlers.hide_names(said(handlers, "hi", [], blind=True), CHOICES, VISITOR)
    assert opened["record"][0].verdict == "unveiled"


def test_twenty_votes_at_once_cast_one(handlers: Handlers) -> None:
    record, ready = said(handlers, "hi", [], blind=True), threading.Barrier(20)

    def vote(number: int) -> dict[str, Any]:
        ready.wait()
        return handlers.cast_vote(("left", "right")[number % 2], record, True, VISITOR)

    with ThreadPoolExecutor(20) as pool:
        updates = list(pool.map(vote, range(20)))
    (kept,) = handlers.box.votes()
    assert [update["record"][0].verdict for update in updates if "record" in update] == [kept.choice]
    again = said(handlers, "hi", [], blind=True)  # another answer is another exchange
    handlers.cast_vote("tie", again, True, VISITOR)
    assert len(handlers.box.votes()) == 2


def test_a_vote_that_cannot_be_written_is_a_sentence_and_may_be_cast_again(handlers: Handlers) -> None:
    record = said(handlers, "hi", [], blind=True)
    handlers.box.folder.rmdir()
    handlers.box.folder.write_text("a file where the folder should be")
    for language in ("en", "zh"):
        with pytest.raises(gr.Error) as refused:
            handlers.cast_vote("left", record, True, state.Visitor(language, "1.2.3.4"))
        assert refused.value.message == html.escape(WORDS[language]["vote_lost"])
    handlers.box.folder.unlink()
    handlers.cast_vote("left", record, True, VISITOR)
    assert len(handlers.box.votes()) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"choice": "left"}',
        b"3",
        b'{"order": "x"}',
        b'{"provenance": {"adapter_sha256": ["x"]}}',
    ],
    ids=["text", "empty", "bytes", "deep", "part", "number", "order", "hash"],
)
def test_a_bad_line_among_the_votes_is_a_sentence_on_the_scoreboard(
    handlers: Handlers, line: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers.cast_vote("tie", said(handlers, "hi", [], blind=True), True, VISITOR)
    good = json.loads(handlers.box.path.read_bytes())
    if b'"x"' in line:
        line = json.dumps(good | json.loads(line)).encode()  # right but for one value
    with handlers.box.path.open("ab") as file:
        file.write(line + b"\n" + json.dumps(good).encode() + b"\n")
    board = handlers.show_scoreboard("one", VISITOR)["board"]
    assert "2 ties, 0 both bad" in board and "Not counted: 1 lines or files" in board
    assert str(handlers.box.folder) not in board
    assert "votes.jsonl line 2: not a vote" in capsys.readouterr().out


def test_whoever_sits_at_the_machine_sees_how_to_learn_from_the_votes(handlers: Handlers) -> None:
    here = state.Visitor("en", "127.0.0.1")
    assert "usable pairs" not in handlers.show_scoreboard("one", here)["board"]
    for number, message in enumerate(("hi", "hi", "who?", "why?")):  # the first preference is cast twice
        record = said(handlers, message, [], blind=True)
        choice = ("left", "right")[record[0].order.index(ADAPTER)]
        handlers.cast_vote(choice, record, True, VISITOR)
        board = handlers.show_scoreboard("one", here)["board"]
        assert f"make {max(1, number)} usable pairs; train.prefer takes 3 or more" in board
        assert ("python -m train.prefer" in board) == (number == 3)
    assert "python -m train.prefer --adapter adapters/one --votes" in board and "--name one-voted" in board
    assert "usable pairs" not in handlers.show_scoreboard("one", VISITOR)["board"]


def test_an_adapter_brings_its_persona(handlers: Handlers) -> None:
    assert handlers.introduce("one")["persona"] == personas.default().system_prompt
    other = handlers.introduce("two")
    assert other["persona"] == OTHER.system_prompt and OTHER.name in other["title"]
    assert other["left"]["examples"] == [{"text": OTHER.openers[0]}]
    assert other["speaker"] == OTHER
    assert handlers.export("markdown", [], OTHER, VISITOR)["file"][1].startswith("# Physician")


@pytest.mark.parametrize(
    ("kept", "restored"),
    [("You are a gardener.", "You are a gardener."), (OTHER.system_prompt, personas.default().system_prompt)],
)
def test_an_edited_persona_comes_back_and_another_adapters_does_not(
    handlers: Handlers, kept: str, restored: str
) -> None:
    saved = to_json(Kept([], True, kept, PERSONA))
    assert handlers.restore(saved, VISITOR)["persona"] == restored


def test_whom_a_card_brought_comes_back_and_another_adapters_persona_does_not(handlers: Handlers) -> None:
    gardener = Persona("Gardener", "You are a gardener.", "Mind the roses.", ("Which roses?",))
    for speaker, restored in ((gardener, gardener), (OTHER, personas.default())):
        choices = replace(CHOICES, speaker=speaker, persona=speaker.system_prompt)
        saved = handlers.clear_all(choices)["saved"]
        back = handlers.restore(saved, VISITOR)
        assert back["speaker"] == restored and restored.name in back["title"]
        assert back["persona"] == restored.system_prompt
    long = json.loads(saved) | {"speaker": asdict(gardener) | {"greeting": "x" * 30_000}}
    assert handlers.restore(json.dumps(long), VISITOR)["speaker"] == personas.default()


def test_loading_a_conversation_is_rated(handlers: Handlers) -> None:
    handlers.loads = Rate(2)
    saved = to_json(Kept([], True, "You are kind.", PERSONA))
    personas_ = [handlers.restore(saved, VISITOR)["persona"] for _ in range(3)]
    assert personas_ == ["You are kind."] * 2 + [personas.default().system_prompt]


def test_a_message_and_a_persona_that_are_refused_are_kept_cut(handlers: Handlers) -> None:
    (exchange,) = said(handlers, "x" * 1_000_000, [], persona="p" * 1_000_000)
    assert (len(exchange.user), {len(text) for text in exchange.personas.values()}) == (2000, {2000})
    assert "1,000,000 characters" in exchange.answers[ADAPTER].stop
    assert len(handlers.send("x" * 1_000_000, [], CHOICES, VISITOR)["asked"]) == 4000
    (exchange,) = said(handlers, "hi", [], seed="9" * 1_000_000)
    assert len(exchange.answers[ADAPTER].stop) < 200


def test_every_number_of_sampling_has_a_slider_and_a_label(handlers: Handlers) -> None:
    assert tuple(layout.SLIDERS) == NUMBERS
    assert all(name in words for name in NUMBERS for words in WORDS.values())
    assert handlers.set_numbers("lively") == {
        name: getattr(Sampling(temperature=1.0, top_p=0.95, top_k=100), name) for name in NUMBERS[:-2]
    }


def test_what_a_handler_reads_are_its_parameters(handlers: Handlers) -> None:
    assert state.reads(handlers.show_base) == ["compare", "blind"]
    assert state.reads(handlers.mark_stopped) == ["left", "record", *state.CHOSEN]
    request = gr.Request(headers={"accept-language": "zh-CN"}, client={"host": "1.2.3.4"})
    values = {"left": [], "record": [], **dict.fromkeys(state.CHOSEN), "compare": False}
    made = state.arguments(handlers.mark_stopped, values, request)
    assert made["visitor"] == state.Visitor("zh", "1.2.3.4")
    assert (made["choices"].compare, made["choices"].adapter) == (False, "")


def test_both_sides_are_asked(handlers: Handlers) -> None:
    assert set(said(handlers, "hi", [])[0].answers) == {ADAPTER, BASE}


def test_any_two_stand_side_by_side_and_the_vote_names_both(handlers: Handlers) -> None:
    handlers.about["two"] = replace(handlers.about["two"], provenance={"adapter_sha256": "ab"})
    chosen = {"strength": 0.5, "other": "two", "other_strength": 1.2, "blind": True, "persona": "You are one."}
    numbers = CHOICES.numbers | {"base_max_new_tokens": 64}
    record = said(handlers, "hi", [], numbers=numbers, **chosen)
    request = handlers.engine.requests[0]  # type: ignore[attr-defined]
    assert (request.speaker(ADAPTER), request.speaker(BASE)) == (Speaker("one", 0.5), Speaker("two", 1.2))
    assert request.questions[ADAPTER].persona == "You are one."
    assert request.questions[BASE].persona == OTHER.system_prompt  # another character is told her own
    assert request.sampling.of(BASE).max_new_tokens == 256  # an adapter ends its answers
    handlers.cast_vote("left", record, True, VISITOR)
    (vote,) = handlers.box.votes()
    assert vote.speakers == (Speaker("one", 0.5), Speaker("two", 1.2))
    assert vote.other["provenance"] == {"adapter_sha256": "ab"}
    assert "No votes yet" in handlers.show_scoreboard("one", VISITOR)["board"]  # none beside the base model


def test_the_scoreboard_opens_on_the_weights_that_are_here(handlers: Handlers) -> None:
    for letters in ("ab", "cd"):  # trained anew under its name
        handlers.about["one"] = replace(handlers.about["one"], provenance={"adapter_sha256": letters * 32})
        handlers.cast_vote("tie", said(handlers, "hi", [], blind=True), True, VISITOR)
    board = handlers.show_scoreboard("one", VISITOR)["board"]
    assert "<p>one (cdcdcdcdcdcd): 1 ties" in board and "<p>one (abababababab) beside the base model: " in board


def test_another_character_is_given_her_own_rows(handlers: Handlers) -> None:
    for name, about in handlers.about.items():
        rows = Retriever(known([Row((("who are you", f"I am {name}."),))]))
        handlers.about[name] = replace(about, retriever=rows)
    for other, reply in (("two", "I am two."), ("one", "I am one."), ("", "I am one.")):
        (exchange,) = said(handlers, "who are you?", [], given=EXAMPLES, other=other)
        assert exchange.examples == (("who are you", reply),)
    handlers.about["two"] = replace(handlers.about["two"], retriever=None)
    for other, given in (("two", PERSONA), ("", EXAMPLES)):
        choices = replace(CHOICES, given=EXAMPLES, other=other)
        kept = handlers.restore(to_json(kept_now([], choices)), VISITOR)
        assert handlers.sides.show_speakers(choices, VISITOR)["given"]["value"] == kept["given"]["value"] == given


def test_labels_footers_markdown_and_the_kept_chat_say_who_spoke(handlers: Handlers) -> None:
    choices = replace(CHOICES, strength=0.5, other="one", other_strength=1.5)
    shown = handlers.sides.show_speakers(choices, VISITOR)
    assert shown["left"]["label"] == "Fine-tuned adapter, strength 0.50"
    assert shown["right"]["label"] == "The same adapter, strength 1.50" and shown["other_strength"]["visible"]
    *_, last = handlers.answer("hi", [], choices, VISITOR)
    assert last["right"][1]["content"][1]["text"].startswith("The same adapter, strength 1.50 · ")
    assert (
        "**The same adapter, strength 1.50**" in handlers.export("markdown", last["record"], OTHER, VISITOR)["file"][1]
    )
    back = handlers.restore(last["saved"], VISITOR)
    assert (back["strength"], back["other"]["value"], back["other_strength"]) == (0.5, "one", 1.5)
    assert back["record"] == last["record"]
    beside_two = to_json(kept_now([], replace(choices, adapter="two")))  # the menu comes back at one
    back = handlers.restore(beside_two, VISITOR)
    assert (back["strength"], back["other"]["value"], back["other_strength"]) == (1.0, "", 1.0)
    assert [value for _, value in handlers.sides.other_options("two", "one")["choices"]] == ["", "two", "one"]


def test_what_a_server_cannot_do_comes_back_as_it_can(handlers: Handlers) -> None:
    choices = replace(CHOICES, strength=0.5, other="two", other_strength=1.2, numbers=CHOICES.numbers | {CANDIDATES: 8})
    text = handlers.shared.share([], choices)["file"][1]
    handlers.sides.lacks = {STRENGTH: "no strengths", CANDIDATES: "nothing is weighed"}
    back = handlers.shared.load_chat(text, VISITOR)
    assert (back["strength"], back["other_strength"], back[CANDIDATES], back["other"]["value"]) == (1.0, 1.0, 1, "two")


def test_no_conversation_is_loaded_while_an_answer_is_written(handlers: Handlers) -> None:
    text = handlers.shared.share([], CHOICES)["file"][1]
    answering = handlers.answer("hi", [], CHOICES, VISITOR)
    next(answering)
    with pytest.raises(gr.Error, match="still being written"):
        handlers.shared.load_chat(text, VISITOR)
    assert handlers.shared.load_chat(text, replace(VISITOR, session="another page"))["record"] == []
    list(answering)
    assert handlers.shared.load_chat(text, VISITOR)["record"] == []


def test_a_shared_conversation_that_is_too_long_says_how_much_is_missing(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[str]()
    monkeypatch.setattr("page.share_panel.tell", told.append)
    long = {side: Answer("x" * 4500, 1024, stop="length") for side in (ADAPTER, BASE)}
    record = [Exchange(str(number), long, adapter="one") for number in range(36)]
    back = handlers.shared.load_chat(handlers.shared.share(record, CHOICES)["file"][1], VISITOR)
    assert [e.user for e in back["record"]] == [e.user for e in record[-len(back["record"]) :]]
    missing = f"{36 - len(back['record'])} of its messages were left out."
    assert told == [f"{WORDS['en']['share_loaded']} But it was too long to be restored whole: {missing}"]


def test_an_answer_keeps_whose_it_was_and_which_weights_gave_it(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[str]()
    monkeypatch.setattr("page.share_panel.tell", told.append)
    handlers.about["two"] = replace(handlers.about["two"], provenance={"adapter_sha256": "ab" * 32})
    record = said(handlers, "hi", [], other="two", speaker=personas.default())
    handlers.about["two"] = replace(handlers.about["two"], provenance={"adapter_sha256": "cd" * 32})  # trained anew
    text = handlers.export("markdown", record, OTHER, VISITOR)["file"][1]
    assert f"**{personas.default().name}**" in text and "two, strength 1.00, SHA-256 abababababab*" in text
    for _ in range(2):  # what was loaded may be shared again
        back = handlers.shared.load_chat(handlers.shared.share(record, CHOICES)["file"][1], VISITOR)
        record = back["record"]
    assert [sentence.split("But")[1:] for sentence in told] == [[OTHERWISE]] * 2


def test_a_shared_conversation_comes_back_and_says_what_is_not_as_it_was(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[str]()
    monkeypatch.setattr("page.share_panel.tell", told.append)
    handlers.about["two"] = replace(handlers.about["two"], provenance={"adapter_sha256": "ab"})
    numbers = CHOICES.numbers | {"temperature": 1.1}
    chosen = {"adapter": "two", "strength": 0.5, "other": "one", "other_strength": 1.2, "seed": "7", "numbers": numbers}
    record = said(handlers, "hi <b>", said(handlers, "one", [], **chosen), **chosen)
    choices = replace(CHOICES, **chosen, persona="You are kind.", given="nothing")
    name, text = handlers.shared.share(record, choices)["file"]
    back = handlers.shared.load_chat(text, VISITOR)
    assert (name, back["record"]) == ("conversation.roleplay.json", record)
    assert (back["adapter"], back["strength"], back["other"]["value"], back["other_strength"]) == (
        "two",
        0.5,
        "one",
        1.2,
    )
    assert (back["temperature"], back["seed"], back["persona"], back["given"]["value"]) == (
        1.1,
        "7",
        "You are kind.",
        "nothing",
    )
    assert handlers.shared.share(back["record"], choices)["file"][1] == text and back.keys() <= CONTROLS
    changed = json.loads(text)
    changed["kept"]["record"][0]["answers"][BASE]["text"] = "No."
    handlers.shared.load_chat(json.dumps(changed), VISITOR)
    handlers.about["two"] = replace(handlers.about["two"], provenance={"adapter_sha256": "cd"})
    del handlers.about["one"]
    handlers.shared.load_chat(text, VISITOR)
    looked_up = {"adapter_sha256": "ab", "examples_sha256": "ef"}  # other rows, and the same weights
    handlers.about["two"] = replace(handlers.about["two"], provenance=looked_up)
    handlers.shared.load_chat(text, VISITOR)
    older = json.loads(text)
    for hashes in older["hashes"].values():
        del hashes["examples_sha256"], hashes["meaning_sha256"]
    handlers.shared.load_chat(json.dumps(older), VISITOR)
    assert [sentence.split("But")[1:] for sentence in told] == [
        [],
        [" its words were changed after it was saved."],
        [" the adapter one is not here. ", OTHERWISE],
        [" the adapter one is not here. ", OTHERWISE],
        [" the adapter one is not here."],
    ]
    for bad in (None, "", "[]", "{}", text.replace('"numbers"', '"x"'), text.replace("1.1", "99"), "[" * 100_000):
        with pytest.raises(gr.Error, match="holds no conversation of this page"):
            handlers.shared.load_chat(bad, VISITOR)
