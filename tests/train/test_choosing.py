"""Choosing by likelihood and remembering: the draw, scores against a plain computation, what is read and refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.nn import functional as F

from roleplay.engine.protocol import Question, Sampling
from roleplay.errors import DataError
from roleplay.results.board import BARE_BASE, BASE_WITH_PERSONA, TUNED
from roleplay.text.characters import load_character
from roleplay.text.known import known
from roleplay.text.prompts import IGNORED, Example, PromptEncoder
from roleplay.text.retrieval import Retriever
from roleplay.text.rows import Row
from roleplay.weights import base_models, inspection
from tests import tiny
from train.measuring import choosing, generated
from train.measuring.choosing import choices
from train.measuring.figures import Board
from train.measuring.losses import Losses, example_nats
from train.measuring.progress import Progress
from train.measuring.replies import Writer
from train.measuring.subject import Bench, Subject
from train.measuring.written import Fact, Recall, Written, load_facts, load_recall

ROWS = [Row(((f"第{n}问？", f"这是第{n}答。"),)) for n in "甲乙丙丁"] + [
    Row((("早。", "早安。"), ("坐？", "且坐，不急。"))),
    Row((("Who?", "It is I."),)),
    Row((("Cold?", "It is cold."),)),
]
PERSONA = "你是甄嬛。"


def base_model() -> base_models.BaseModel:
    choice = ("", "")
    return base_models.BaseModel(tiny.gemma(), tiny.tokenizer(), tiny.BASE_NAME, "random", choice, choice, choice)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    adapter = inspection.inspect(tiny.adapter(tmp_path_factory.mktemp("adapters") / "tiny"))
    encoder, groups = PromptEncoder(tiny.tokenizer(), "gemma"), [0, 0, 1, 2, 3, 4, 5]
    return Subject(
        adapter, (BARE_BASE, BASE_WITH_PERSONA, TUNED), 6, ROWS, groups, ROWS, Retriever(known(ROWS)), encoder, encoder
    )


@pytest.fixture
def bench(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(choosing, "OTHERS", 3)
    base = base_model()
    facts = (
        Fact("何处？", ("永寿宫。", "景仁宫。", "翊坤宫。", "碎玉轩。")),
        Fact("Who?", ("I.", "You.", "He.", "She.")),
    )
    recall = (Recall(("我叫阿宝", "我叫什么"), ("阿宝",), ()), Recall(("a", "b", "c"), ("",), ()))
    writer = Writer(base, [subject.adapter], base_models.fingerprint(base.model))
    return Bench(subject, [], Written(facts=facts, recall=recall), writer, Losses(base, [subject.adapter]), Progress())


def plain_score(model: PeftModel, example: Example, arm: str) -> float:
    """Nat per label, from the whole logits of one example."""
    ids, labels = torch.tensor([example.input_ids]), torch.tensor(example.labels[1:])
    with torch.no_grad():
        if arm == TUNED:
            logits = model(input_ids=ids).logits[0, :-1]
        else:
            with model.disable_adapter():
                logits = model(input_ids=ids).logits[0, :-1]
    return -float(F.cross_entropy(logits, labels, ignore_index=IGNORED))


def test_the_draw_is_of_one_language_and_other_scenes(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "OTHERS", 3)
    found = choices(subject, 200)
    assert found == choices(subject, 200)  # the same for every arm
    assert [choice.row for choice in found] == ROWS[:5]  # two English rows have one other each
    for choice in found:
        own = choice.row.turns[-1][1]
        assert choice.replies[0] == own and len(set(choice.replies)) == 4
        assert all(not reply.isascii() for reply in choice.replies)
    assert ROWS[1].turns[-1][1] not in found[0].replies and ROWS[0].turns[-1][1] not in found[1].replies


def test_fewer_rows_are_taken_evenly(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "OTHERS", 1)
    assert [choice.row for choice in choices(subject, 3)] == [ROWS[0], ROWS[2], ROWS[4]]
    monkeypatch.setattr(choosing, "OTHERS", 9)
    assert choices(subject, 200) == []


def test_choice_is_pointwise_mutual_information_per_token(bench: Bench, subject: Subject) -> None:
    plain = PeftModel.from_pretrained(tiny.gemma(), str(subject.adapter.folder)).eval()
    board, done = Board(), list[float]()
    own, encoder = choices(subject, 200), subject.encoder
    choosing.choice(replace(bench, progress=Progress(done.append)), board)
    assert sum(done) == sum(arm.items for arm in choosing.choice_texts(bench).values()) == 2 * (5 + 5 * 4)
    for arm in (BASE_WITH_PERSONA, TUNED):
        right = []
        for choice in own:
            *past, (user, _) = choice.row.turns
            scores = [
                plain_score(plain, encoder.example(PERSONA, [*past, (user, reply)], "last"), arm)
                - plain_score(plain, encoder.example(PERSONA, [("", reply)], "last"), arm)
                for reply in choice.replies
            ]
            right.append(scores[0] == max(scores))
        assert board.arms[arm]["choice"].value == sum(right) / len(right)
    assert board.flips[BASE_WITH_PERSONA]["choice"]["items"] == 5 and BASE_WITH_PERSONA in board.differences


def test_facts_are_chosen_by_likelihood_per_token(bench: Bench, subject: Subject) -> None:
    plain = PeftModel.from_pretrained(tiny.gemma(), str(subject.adapter.folder)).eval()
    board, done = Board(), list[float]()
    told = choosing.facts(replace(bench, progress=Progress(done.append)), board)
    assert sum(done) == sum(arm.items for arm in choosing.facts_texts(bench).values()) == 2 * 2 * 4
    expected = []
    for arm in (BASE_WITH_PERSONA, TUNED):
        for fact in bench.written.facts:
            examples = [subject.encoder.example(PERSONA, [(fact.user, option)]) for option in fact.options]
            scores = [plain_score(plain, example, arm) for example in examples]
            best = fact.options[scores.index(max(scores))]
            expected.append({"arm": arm, "user": fact.user, "chosen": best, "right": best == fact.options[0]})
    assert told == expected


def test_an_equal_score_is_not_right() -> None:
    assert not choosing._chosen(("a", "b"), (1.0, 1.0)).right
    assert choosing._chosen(("a", "b"), (1.0, 0.5)).right


def test_a_model_that_knows_the_pairs_chooses_them_all(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle in place of the weights: a reply is likely after its own question and nowhere else."""
    monkeypatch.setattr(choosing, "OTHERS", 3)
    known = {tuple(subject.encoder.example(PERSONA, row.turns, "last").input_ids) for row in ROWS}

    class Oracle:
        def nats(self, adapter: str, examples: list[Example], done: Any, pack: int = 0) -> list[float]:
            return [float(tuple(e.input_ids) not in known) * (1 + len(e.input_ids)) * bool(adapter) for e in examples]

    bench = Bench(subject, [], Written(), None, Oracle(), Progress())  # type: ignore[arg-type]
    board = Board()
    choosing.choice(bench, board)
    flip = board.flips[BASE_WITH_PERSONA]["choice"]
    assert (flip["won"], flip["lost"], board.arms[TUNED]["choice"].value) == (5, 0, 1.0)


def test_recall_goes_on_from_its_own_replies(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.measuring.subject.PAGE_TOKENS", 8)
    board = Board()
    told = generated.recall(bench, board)
    assert [(talk["arm"], len(talk["turns"])) for talk in told] == [
        (arm, turns) for arm in (BASE_WITH_PERSONA, TUNED) for turns in (2, 3)
    ]
    assert [talk["right"] for talk in told] == [
        "阿宝" in told[0]["turns"][-1][1],
        True,
        "阿宝" in told[2]["turns"][-1][1],
        True,
    ]
    first = Question(PERSONA, (), "我叫阿宝")
    ask = bench.subject.ask(TUNED, (), "我叫阿宝", 0)
    assert ask.question == first and ask.sampling == Sampling(max_new_tokens=8, seed=0)
    (reply,) = bench.writer.write([replace(ask, later=("我叫什么",))])
    assert told[2]["turns"][0] == ("我叫阿宝", reply.text)
    assert board.flips[BASE_WITH_PERSONA]["recall"]["items"] == 2


@pytest.mark.parametrize(
    ("reply", "right"),
    [("您叫阿宝。", True), ("ABAO, was it not?", True), ("阿宝，还是阿贝？", False), ("不记得了。", False)],
)
def test_what_counts_as_remembered(reply: str, right: bool) -> None:
    assert Recall(("a", "b"), ("阿宝", "Abao"), ("阿贝",)).remembers(reply) == right


@pytest.mark.parametrize(
    ("load", "value", "message"),
    [
        (load_facts, {"user": "a"}, "dict where a list of"),
        (load_facts, [{"user": "a", "options": ["b", "c", "d"]}], "item 1: .*4 different options"),
        (load_facts, [{"user": "a", "options": ["b", "c", "d", "d"]}], "item 1: .*4 different options"),
        (load_facts, [{"user": "a", "options": list("bcde")}, {"user": " ", "options": list("bcde")}], "item 2"),
        (load_facts, [7], "item 1"),
        (load_facts, [{"user": "a", "options": "bcde"}], "no list"),
        (load_recall, [{"turns": ["a"], "accept": ["b"], "reject": []}], "fewer than two turns"),
        (load_recall, [{"turns": ["a", "b"], "accept": [], "reject": []}], "nothing to accept"),
        (load_recall, [{"turns": ["a", "b"], "accept": ["c"]}], "item 1 has no 'reject'"),
    ],
)
def test_lists_of_another_form_are_refused(tmp_path: Path, load: Any, value: Any, message: str) -> None:
    (tmp_path / "list.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path / "list.json")
    assert "\n" not in str(caught.value)


def test_zhen_huans_lists_are_many_and_in_both_languages() -> None:
    character = load_character("zhenhuan")
    assert character.facts and character.recall
    facts, recall = load_facts(character.facts), load_recall(character.recall)
    assert len(facts) >= 100 and len(recall) >= 40
    for asked in ([fact.user for fact in facts], [item.turns[0] for item in recall]):
        assert len(set(asked)) == len(asked) and 0.3 <= sum(map(str.isascii, asked)) / len(asked) <= 0.6
    for item in recall:
        assert not [text for text in item.accept if text.casefold() in item.turns[-1].casefold()], item.turns
        assert not item.remembers(item.turns[-1])


def test_likelihoods_do_not_depend_on_how_many_are_packed(subject: Subject) -> None:
    losses = [Losses(base_model(), [subject.adapter]) for _ in range(2)]
    examples = [subject.encoder.example(PERSONA, row.turns) for row in ROWS]
    one, other = (own.nats("tiny", examples, int, pack) for own, pack in zip(losses, (2, 7), strict=True))
    assert one == pytest.approx(other, rel=1e-5) and example_nats.__doc__
