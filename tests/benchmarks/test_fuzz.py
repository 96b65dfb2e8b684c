"""The fuzz and the soak in small: that they find nothing, and that they would find something."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import fuzz, fuzz_http, soak
from benchmarks.hostile import MARKUP, messages
from roleplay.text.prompts import PromptEncoder
from tests import tiny


def test_no_text_becomes_a_control_token() -> None:
    assert not any(fuzz.fuzz_prompt(tiny.tokenizer(), 400, 1).values())


def test_an_encoder_that_lets_control_tokens_through_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def plainly(encoder: PromptEncoder, text: str) -> list[int]:
        return encoder.tokenizer(text.encode("utf-8", "replace").decode(), add_special_tokens=False).input_ids

    monkeypatch.setattr(PromptEncoder, "encode", plainly)
    assert len(fuzz.fuzz_prompt(tiny.tokenizer(), 100, 1)["texts with a control token"]) > 10


def test_every_token_comes_in_every_form() -> None:
    text = next(messages(["<eos>"], 1))
    assert all(form in text for form in ("<eos>", "<EOS>", "＜ｅｏｓ＞"))
    assert any(MARKUP[0] in text for text in messages(["<eos>"], 200))
    assert max(len(text) for text in messages(["<eos>"], 4000)) == 1_000_000


def test_the_page_answers_no_request_with_its_insides() -> None:
    sent, found = fuzz.fuzz_page(60, 1)
    assert sent > 600
    assert not any(found.values()), found


@pytest.mark.parametrize(
    "text",
    [
        "Traceback (most recent call last)",
        "'NoneType' object has no attribute 'strip'",
        'File "/srv/app.py", line 3',
        "KeyError: 3",
    ],
)
def test_pythons_words_are_known(text: str) -> None:
    assert fuzz_http.INSIDES.search(text)


def test_people_who_chat_stop_leave_and_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "GROWTH", 1.0)  # so short a run only warms up
    report = tmp_path / "soak.json"
    words = [
        "soak",
        "--minutes",
        "0.25",
        "--clients",
        "4",
        "--tabs",
        "2",
        "--base-model",
        "tiny",
        "--json",
        str(report),
    ]
    monkeypatch.setattr("sys.argv", words)
    assert soak.main() == 0
    figures: dict[str, Any] = json.loads(report.read_text())["figures"]
    assert figures["compared"] and figures["chatted"]
    assert (figures["wrong answers"], figures["failed requests"], figures["stuck requests"]) == (0, 0, 0)


@pytest.mark.parametrize(("said", "wrong"), [("yes", 0), ("no", 1)])
def test_a_wrong_answer_is_seen(said: str, wrong: int) -> None:
    expected = {(True, ("Who?",)): {"adapter": "yes"}}
    client = soak.Client("", 0, 0.0, expected, soak.Tally())
    client.said = ["Who?"]
    tab = SimpleNamespace(record=lambda: [{"answers": {"adapter": {"text": said}}}])
    client.tally.seconds.append(0.1)
    client.check(tab, True)  # type: ignore[arg-type]
    assert len(client.tally.wrong) == wrong
    assert soak.sound(client.tally, True, 0.0) is not bool(wrong)


@pytest.mark.parametrize(
    ("tally", "alive", "growth"),
    [
        (soak.Tally(), True, 0.0),  # nobody was answered
        (soak.Tally(seconds=[0.1], failed=["refused"]), True, 0.0),
        (soak.Tally(seconds=[0.1], stuck=["a client"]), True, 0.0),
        (soak.Tally(seconds=[0.1]), False, 0.0),
        (soak.Tally(seconds=[0.1]), True, 0.03),
    ],
)
def test_a_soak_that_is_not_sound_says_so(tally: soak.Tally, alive: bool, growth: float) -> None:
    assert not soak.sound(tally, alive, growth)
