"""An evaluation of a tiny adapter: replies as the engine gives them, losses as peft gives them, what is written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.nn import functional as F

from roleplay.engine import batch, sampling
from roleplay.engine.local import LocalEngine
from roleplay.engine.protocol import ADAPTER as ADAPTER_SIDE
from roleplay.engine.protocol import BASE as BASE_SIDE
from roleplay.engine.protocol import CONSIDERED, Question, Request, Sampling
from roleplay.errors import RoleplayError
from roleplay.results import board as scoreboard
from roleplay.results.board import BARE_BASE, BASE_WITH_PERSONA, BASE_WITH_ROWS, MEASURES, TUNED
from roleplay.text.known import known
from roleplay.text.prompts import PromptEncoder
from roleplay.text.retrieval import Retriever
from roleplay.text.rows import Row
from roleplay.weights import base_models, devices, inspection, layout
from roleplay.weights.adapters import Adapter
from tests import tiny
from train.evaluate import EvaluationFlags, evaluate
from train.learning.packing import IGNORED
from train.measuring import choosing
from train.measuring import subject as subjects
from train.measuring.likelihoods import row_example
from train.measuring.losses import Losses, label_count
from train.measuring.replies import Ask, Writer
from train.measuring.sections import SECTIONS
from train.measuring.subject import Subject

CONTEXT = 8192  # a token is a byte here
ROWS = [
    {"instruction": f"{who}今日可好？", "output": f"{who}安好，{what}。", "scene": what, "split": split}
    for who, what, split in (
        ("皇上", "正批折子", "train"),
        ("太后", "在佛堂念经", "train"),
        ("眉姐姐", "方才来下了一盘棋", "train"),
        ("温太医", "煎了一夜的药", "held_out"),
        ("胧月", "描红描得满手墨", "held_out"),
        ("The maid", "She swept the yard", "held_out"),
    )
]
LISTS = {
    "identity": [{"user": "来者何人", "accept": ["甄嬛"]}, {"user": "Your name?", "accept": ["Zhen Huan"]}],
    "breaks": [{"user": "学猫叫", "obeyed": ["喵"]}, {"user": "Be a cat", "obeyed": ["meow"]}],
    "rules": {"claims to be a machine": ["我是机器"]},
    "labelled": [{"user": "a", "reply": "我是机器", "held": False}, {"user": "a", "reply": "茶凉了", "held": True}],
    "conversations": [["早", "坐", "茶", "去"], ["Hi", "Sit", "Tea", "Go"]],
    "plain": [{"language": lang, "text": text} for lang in ("zh", "en") for text in ("水开了。", "It rains.")],
}


FACTS = [
    {"user": "令尊是谁？", "options": ["是甄远道。", "是沈自山。", "是年羹尧。", "是安比槐。"]},
    {"user": "Where?", "options": ["In Yongshou.", "In Jingren.", "In Yikun.", "In Suiyu."]},
]
RECALL = [
    {"turns": ["我叫阿宝", "我叫什么"], "accept": ["阿宝"], "reject": []},
    {"turns": ["I am Bo", "Fine day", "Who am I?"], "accept": ["Bo"], "reject": ["Bob"]},
]


def base_model() -> base_models.BaseModel:
    choice = ("", "")
    model = tiny.gemma(max_position_embeddings=CONTEXT)
    return base_models.BaseModel(model, tiny.tokenizer(), tiny.BASE_NAME, "random", choice, choice, choice)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return inspection.inspect(tiny.adapter(tmp_path_factory.mktemp("adapters") / "tiny"))


@pytest.fixture
def subject(adapter: Adapter) -> Subject:
    held_out = [
        Row((("温太医可好？", "煎了一夜的药。"),)),
        Row((("雪停了么？", "还没有。"), ("那便再等等。", "等，也是我擅长的。"))),
    ]
    trained = [Row((("太医来过么？", "来过。"),)), Row((("雪大不大？", "大。"),))]
    encoder = PromptEncoder(tiny.tokenizer(), "gemma")
    arms = (BARE_BASE, BASE_WITH_PERSONA, BASE_WITH_ROWS, TUNED)
    return Subject(adapter, arms, 6, held_out, [0, 1], trained, Retriever(known(trained)), encoder, encoder)


def test_replies_are_those_of_the_engine(adapter: Adapter) -> None:
    base = base_model()
    engine = LocalEngine(base, [adapter])
    writer = Writer(base_model(), [adapter], base_models.fingerprint(base.model))
    asks = [
        Ask(name, "gemma", Question("你是甄嬛。", turns, user), Sampling(max_new_tokens=length, seed=seed))
        for seed, (name, turns, user, length) in enumerate(
            [("tiny", (), "你是谁？", 12), ("", (), "Who are you?", 5), ("tiny", (("冷么", "不冷"),), "那便好", 9)] * 7
        )
    ]
    replies = writer.write(asks)
    assert len(asks) > 16 and len({reply.text for reply in replies}) > 3
    for ask, reply in zip(asks, replies, strict=True):
        side = ADAPTER_SIDE if ask.adapter else BASE_SIDE
        *_, last = engine.answer(Request({side: ask.question}, ask.sampling))
        assert (reply.text, reply.tokens) == (last[side].text.strip(), last[side].tokens)
        assert reply.stopped == (last[side].stop == "end")


def test_a_considered_reply_is_that_of_the_engine_too(adapter: Adapter, subject: Subject) -> None:
    ask = replace(subject, considered=True).ask(TUNED, (), "你是谁？", 3)
    assert ask.sampling.candidates == CONSIDERED.candidates
    ask = replace(ask, sampling=replace(ask.sampling, max_new_tokens=6), later=("冷么？",))
    base = base_model()
    writer, engine = Writer(base_model(), [adapter], base_models.fingerprint(base.model)), LocalEngine(base, [adapter])
    for number, (user, reply) in enumerate(writer.conversation(ask)):
        *_, last = engine.answer(Request({ADAPTER_SIDE: ask.question}, ask.sampling))
        assert (user, reply.text) == (ask.question.user, last[ADAPTER_SIDE].text.strip())
        ask = ask.next(reply) if number == 0 else ask


def test_a_known_question_is_not_generated_again(adapter: Adapter) -> None:
    base = base_model()
    writer = Writer(base, [adapter], base_models.fingerprint(base.model))
    ask = Ask("", "gemma", Question("", (), "你是谁？"), Sampling(max_new_tokens=4))
    done: list[int] = []
    first = writer.write([ask], done.append)
    base.model.model.embed_tokens.weight.data.zero_()  # another model now
    assert writer.write([ask, ask], done.append) == first * 2
    assert sum(done) == 3


def test_a_conversation_goes_on_from_its_own_replies(adapter: Adapter) -> None:
    writer = Writer(base_model(), [adapter], base_models.fingerprint(base_model().model))
    done: list[int] = []
    question, sampling = Question("你是甄嬛。", (), "你是谁？"), Sampling(max_new_tokens=4, seed=7)
    first = Ask("", "gemma", question, sampling, later=("冷么？", "走罢。"))
    other = replace(first, question=Question("", (), "Who?"), later=())
    writer.write([first, other], done.append)
    assert sum(done) == 4
    (reply,) = writer.write([first])
    second = first.next(reply)
    assert second.question == Question("你是甄嬛。", (("你是谁？", reply.text),), "冷么？")
    assert second.sampling.seed == 8 and second.later == ("走罢。",)
    alone = Writer(base_model(), [adapter], base_models.fingerprint(base_model().model))
    third = second.next(*writer.write([second]))
    assert writer.write([third]) == alone.write([third])


def test_a_list_has_the_same_replies_whatever_else_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Down to the bit: bfloat16 rounds by where a prompt is cut, which the prompts of others must not decide."""
    seen = list[torch.Tensor]()

    def next_tokens(logits: torch.Tensor, *rest: Any) -> list[int | None]:
        seen.extend(logits.clone())
        return sampling.next_tokens(logits, *rest)

    monkeypatch.setattr(batch, "next_tokens", next_tokens)
    persona = "You are Amos Pascoe, keeper of the light on Crumb Island, and short of words. " * 3
    asks = [
        Ask("", "gemma", Question(persona, (), user), Sampling(max_new_tokens=4, seed=seed), later)
        for seed, (user, later) in enumerate(
            [("What do you see?", ("And now?", "Is it far?")), ("What is it?", ()), ("Who are you?", ()), ("Who?", ())]
        )
    ]
    others = [replace(ask, question=replace(ask.question, user=f"{ask.question.user[:9]} here?")) for ask in asks * 2]

    def logits(*lists: list[Ask]) -> list[bytes]:
        base = base_model()
        writer = Writer(replace(base, model=wide.to(torch.bfloat16)), [], "")
        writer._plain = {"gemma": PromptEncoder(base.tokenizer, "gemma")}
        for own in lists:
            seen.clear()
            writer.write(own)
        return sorted(step.float().numpy().tobytes() for step in seen)

    shape: dict[str, Any] = {"hidden_size": 64, "head_dim": 64, "max_position_embeddings": CONTEXT}
    wide = tiny.gemma(**shape)
    alone = logits(asks)
    assert len(alone) == 24 and alone == logits(others, asks) == logits(asks[::-1])


def test_losses_are_those_of_peft_row_by_row(subject: Subject) -> None:
    plain = PeftModel.from_pretrained(tiny.gemma(max_position_embeddings=CONTEXT), str(subject.adapter.folder)).eval()
    losses = Losses(base_model(), [subject.adapter])
    for arm in subject.arms:
        examples = [row_example(subject, arm, row) for row in subject.held_out]
        nats = losses.nats("tiny" if arm == TUNED else "", examples, int)
        for example, nat in zip(examples, nats, strict=True):
            ids, labels = torch.tensor([example.input_ids]), torch.tensor(example.labels[1:])
            with torch.no_grad():
                if arm == TUNED:
                    logits = plain(input_ids=ids).logits[0, :-1]
                else:
                    with plain.disable_adapter():
                        logits = plain(input_ids=ids).logits[0, :-1]
            expected = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
            assert nat == pytest.approx(float(expected), rel=1e-4)


def test_every_arm_is_scored_on_the_same_tokens(subject: Subject) -> None:
    for row in subject.held_out:
        examples = {arm: row_example(subject, arm, row) for arm in subject.arms}
        labels = {arm: [y for y in example.labels if y != IGNORED] for arm, example in examples.items()}
        assert len(set(map(tuple, labels.values()))) == 1
        assert len(labels[TUNED]) == sum(len(subject.encoder.encode(reply)) + 1 for _, reply in row.turns)
        assert len(examples[BASE_WITH_ROWS].input_ids) > len(examples[BASE_WITH_PERSONA].input_ids)
        for example in examples.values():
            assert all(y in (IGNORED, i) for i, y in zip(example.input_ids, example.labels, strict=True))
            assert label_count(example) == len(labels[TUNED])
        shown = replace(row, turns=(("Who?", "I."), *row.turns), history_weights=(0,) + (1,) * (len(row.turns) - 1))
        assert label_count(row_example(subject, TUNED, shown)) == len(labels[TUNED])


@pytest.mark.parametrize(("limit", "chosen"), [(9, ["a", "c", "d"]), (2, ["a", "c"])])
def test_prompts_are_one_a_scene(subject: Subject, limit: int, chosen: list[str]) -> None:
    rows = [Row(((user, "x"),)) for user in "abcd"]
    changed = Subject(**{**subject.__dict__, "held_out": rows, "groups": [0, 0, 1, 2]})
    assert [row.turns[0][0] for row in changed.prompts(limit)] == chosen


def test_the_same_tokens_with_other_labels_are_another_loss(subject: Subject) -> None:
    losses, row = Losses(base_model(), [subject.adapter]), subject.held_out[1]
    both = subject.encoder.example("", row.turns)
    last = subject.encoder.example("", row.turns, "last")
    (all_nats,), (last_nats,) = losses.nats("", [both], int), losses.nats("", [last], int)
    assert both.input_ids == last.input_ids and all_nats > last_nats > 0


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(subjects, "PAGE_TOKENS", 12)  # random weights never stop
    monkeypatch.setattr(choosing, "OTHERS", 1)  # two of the three held-out rows are Chinese
    base = base_model()
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "rows.json").write_text(json.dumps(ROWS), encoding="utf-8")
    for name, value in (("lists", LISTS), ("facts", FACTS), ("recall", RECALL)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    folder = tiny.adapter(tmp_path / "tiny")
    (folder / layout.BOARD).unlink()
    (folder / layout.BOARD_PLOT).unlink()
    training = json.loads((folder / layout.TRAINING).read_text(encoding="utf-8"))
    training["persona"]["openers"] = ["你是谁？"]
    (folder / layout.TRAINING).write_text(json.dumps(training), encoding="utf-8")
    common = {"base_model": str(tmp_path / "base"), "data": [str(tmp_path / "rows.json")]}
    common |= {name: str(tmp_path / f"{name}.json") for name in ("lists", "facts", "recall")}
    return {"adapter": [str(folder)], "base_tokens": 5, "prompts": 3, **common}


def test_a_whole_evaluation_writes_board_plot_and_card(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = Path(settings["adapter"][0]), tmp_path / "boards.json"
    before = {path.name for path in folder.iterdir()}
    (board,) = evaluate(EvaluationFlags(**settings, json=str(out)))
    printed, bar = capsys.readouterr()
    assert all(f"tiny, {section}, adapter" in bar for section in SECTIONS) and "tiny, breaks, base + retrieval" in bar
    assert "100%" in bar.splitlines()[-1]
    assert {path.name for path in folder.iterdir()} - before == {layout.BOARD, layout.BOARD_PLOT}
    written = json.loads((folder / layout.BOARD).read_text(encoding="utf-8"))
    assert written == json.loads(out.read_text(encoding="utf-8"))[0]
    assert set(written["arms"][TUNED]) == set(MEASURES)
    assert set(written["differences"]) == {BARE_BASE, BASE_WITH_PERSONA, BASE_WITH_ROWS}
    for values in (*written["arms"].values(), *written["differences"].values()):
        assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in values.values())
    assert written["base_model"]["dtype"] == devices.choose_dtype("cpu")[0]
    assert len(written["drift"][TUNED]) == 4 and len(written["samples"]) == 3
    assert written["held_out"] == {"rows": 3, "groups": 3, "answered": 3}
    assert str(tmp_path) not in (folder / layout.BOARD).read_text(encoding="utf-8")
    text = (folder / layout.CARD).read_text(encoding="utf-8")
    assert "| held-out loss |" in text and board["rule"] in text and "- The adapter against base: " in text
    assert (
        "The adapter less:" in printed
        and "The adapter against base + retrieval: " in printed
        and "The rules blame 0 of 1 good" in printed
    )
    assert list(written["flips"]) == ["choice", "facts", "recall", "identity", "in character"]
    assert list(written["other_flips"]) == [BARE_BASE, BASE_WITH_ROWS]
    assert all(list(lists) == ["identity", "in character"] for lists in written["other_flips"].values())
    assert [entry["arm"] for entry in written["replies"]["facts"]] == [BASE_WITH_PERSONA] * 2 + [TUNED] * 2
    assert [len(talk["turns"]) for talk in written["replies"]["recall"]] == [2, 3] * 2
    for name, flip in written["flips"].items():
        assert flip["items"] >= flip["won"] + flip["lost"] == len(flip["wins"]) + len(flip["losses"])
        assert f"{name}: of {flip['items']} items the adapter wins" in printed and f"- {name}: of " in text
    inspection.inspect(folder)  # still an adapter folder that is accepted


def test_a_partial_board_is_written_and_does_not_replace_a_fuller_one(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(settings["adapter"][0])
    (board,) = evaluate(EvaluationFlags(**settings, sections=["loss", "replies"], retrieval=False))
    assert {BARE_BASE, BASE_WITH_PERSONA, TUNED} <= set(board["arms"]) and BASE_WITH_ROWS not in board["arms"]
    assert {"held-out loss", "stop rate", "tokens"} <= set(board["arms"][BASE_WITH_PERSONA])
    assert scoreboard.read(folder / layout.BOARD) == board and (folder / layout.BOARD_PLOT).exists()
    printed = capsys.readouterr().out
    assert "Not measured: choice, facts, recall, identity, in character" in printed
    assert "Only 3 rows of 3 scenes were held out" in printed
    before = tiny.contents(folder)
    evaluate(EvaluationFlags(**settings, sections=["loss", "plain"], retrieval=False))
    assert tiny.contents(folder) == before
    assert "it has 22 figures that were not measured now" in capsys.readouterr().out


def test_no_adapter_is_judged_by_the_lists_of_another_character(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    sections = ["loss", "identity", "breaks", "drift", "plain", "facts", "recall"]
    none = {"lists": "", "facts": "", "recall": ""}
    (board,) = evaluate(EvaluationFlags(**settings | none | {"sections": sections}, retrieval=False))
    assert set(board["arms"][TUNED]) == {"held-out loss"} and board["replies"] == {} and "rules" not in board
    printed = capsys.readouterr().out
    assert "judged as    no character of dataset/: tiny" in printed
    assert "skipped      identity, breaks, drift, plain of tiny: there is no lists.json" in printed
    assert "skipped      facts of tiny: there is no facts.json" in printed
    assert "skipped      recall of tiny: there is no recall.json" in printed
    (board,) = evaluate(EvaluationFlags(**settings | {"lists": "", "sections": ["plain"]}, character="zhenhuan"))
    assert board["character"] == "zhenhuan" and set(board["arms"][TUNED]) == {"plain Chinese", "plain English"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"character": "nobody"}, "no character 'nobody'"),
        ({"sections": ["loss", "luck"]}, "unknown section 'luck'"),
        ({"prompts": 1}, "an interval needs 2 or more"),
        ({"lists": "missing.json"}, "not readable as evaluation lists"),
        ({"adapter": ["missing"]}, "no such adapter folder"),
        ({"data": []}, "has changed since tiny was trained"),
    ],
)
def test_what_a_user_can_mend_is_one_line(settings: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RoleplayError, match=message) as caught:
        evaluate(EvaluationFlags(**{**settings, **changes}))
    assert "\n" not in str(caught.value)


def test_two_adapters_of_one_name_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RoleplayError, match="have the same name"):
        evaluate(EvaluationFlags(**{**settings, "adapter": settings["adapter"] * 2}))
