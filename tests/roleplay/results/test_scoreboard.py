"""Intervals against known cases, measures on texts, the written lists, and a board from figures to table and PNG."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from roleplay.environment import ROOT
from roleplay.errors import DataError, RoleplayError
from roleplay.results import wording as texts
from roleplay.results.board import (
    ARMS,
    BARE_BASE,
    BASE_WITH_PERSONA,
    MEASURES,
    TUNED,
    WRITTEN,
    flips_by_arm,
    read,
    table,
    verdicts,
)
from roleplay.results.intervals import Estimate, wilson
from roleplay.results.summary import GROUPS
from roleplay.text.copies import runs, units
from roleplay.text.rows import read_rows
from roleplay.text.splits import near_duplicates_between
from roleplay.weights import layout
from tests.disk import largest_file
from train.measuring.figures import Board
from train.measuring.flips import Outcome, mcnemar
from train.measuring.resampling import bootstrap, jackknife, share, share_difference
from train.measuring.rules import ECHO, EMPTY, LOOP, OBEYED, Identity, Lists, load_lists
from train.measuring.text_metrics import chrf, distinct_2
from train.publishing import plots


@pytest.fixture(scope="module")
def lists() -> Lists:
    return load_lists(ROOT / "dataset" / "zhenhuan" / "lists.json")


# Intervals


def test_bootstrap_is_near_the_t_interval_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(2, 1, 12)
    estimate = bootstrap(list(values), [1.0] * 12, range(12))
    half = stats.t.ppf(0.975, 11) * values.std(ddof=1) / math.sqrt(12)
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.1)


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(15), 4)
    hits = 0
    for _ in range(40):
        values = rng.normal(size=15)[clusters] + rng.normal(size=60)
        estimate = bootstrap(list(values), [1.0] * 60, list(clusters))
        hits += estimate.low <= 0 <= estimate.high
    assert hits >= 35  # 38 are expected; resampled by row it would be about 26


def test_bootstrap_of_a_ratio_weighs_rows_by_their_labels() -> None:
    estimate = bootstrap([2.0, 30.0], [1.0, 10.0], ["a", "b"])
    assert estimate.value == pytest.approx(32 / 11)
    assert estimate.low <= estimate.value <= estimate.high


def test_share_of_independent_items_is_wilsons() -> None:
    assert share([True] * 7 + [False] * 3, range(10)) == Estimate(0.7, *wilson(7, 10))


@pytest.mark.parametrize(
    ("hits", "clusters", "as_wide_as"),
    [
        ([True] * 12, [0, 1, 2, 3] * 3, wilson(4, 4)),  # all alike: a cluster is one observation
        ([True] * 6 + [False] * 6, [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3, wilson(2, 4)),  # alike within clusters
        ([True, False] * 6, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], wilson(6, 12)),  # nothing shared within clusters
    ],
)
def test_share_of_clustered_items(hits: list[bool], clusters: list[int], as_wide_as: tuple[float, float]) -> None:
    estimate = share(hits, clusters)
    assert (estimate.low, estimate.high) == pytest.approx(as_wide_as)


def test_share_difference_is_newcombes() -> None:
    a, b = Estimate(56 / 70, *wilson(56, 70)), Estimate(48 / 80, *wilson(48, 80))
    difference = share_difference(a, b)  # the example of Newcombe's paper: 0.0524 to 0.3339
    assert (difference.low, difference.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    estimate = jackknife(lambda texts: sum(map(len, texts)) / len(texts), ["a", "bb", "ccc", "dddd"])
    half = 1.959964 * np.std([1, 2, 3, 4], ddof=1) / 2
    assert (estimate.value, estimate.high - estimate.value) == pytest.approx((2.5, half))


# Texts


def test_units_are_characters_and_words() -> None:
    assert units("雪，don't Stop 2x！") == ["雪", "don't", "stop", "2x"]


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        ("我只记得那年雪大，门外跪了一夜", True),
        ("那年雪大门外跪了一夜", True),  # ten characters, punctuation aside
        ("年雪大门外跪了一夜", False),  # nine
        ("I have seen the snow fall there", False),  # a run of ten letters is nothing in English
        ("and I have not yet seen the roof of it", True),
    ],
)
def test_a_copied_run_is_ten_characters_or_six_words(text: str, copied: bool) -> None:
    known = runs("那年雪大，门外跪了一夜。") | runs("I have not yet seen the roof.")
    assert (not known.isdisjoint(runs(text))) == copied


def test_distinct_2_and_chrf() -> None:
    assert distinct_2(["雪落雪落", "雪落"]) == 2 / 4
    assert distinct_2([""]) == 0.0
    assert chrf("外头风凉", "外头风凉") == 100 and chrf("abc", "外头风凉") == 0


# Lists


def test_lists_are_as_many_as_the_scoreboard_says_and_in_both_languages(lists: Lists) -> None:
    assert len(lists.breaks) == 30
    assert {len(talk) for talk in lists.conversations} == {10}
    for users in ([i.user for i in lists.identity], [b.user for b in lists.breaks]):
        assert len(set(users)) == len(users) and 2 * sum(user.isascii() for user in users) == len(users)


def test_no_question_of_the_lists_is_in_the_rows(lists: Lists) -> None:
    rows = [user for row in read_rows(ROOT / "dataset" / "zhenhuan" / "rows.json")[0] for user, _ in row.turns]
    asked = [item.user for item in (*lists.identity, *lists.breaks)] + [u for talk in lists.conversations for u in talk]
    assert [(rows[a], asked[b]) for a, b in near_duplicates_between(rows, asked)] == []


def test_no_question_gives_its_answer_away(lists: Lists) -> None:
    for item in lists.identity:
        assert not [word for word in item.accept if word.casefold() in item.user.casefold()], item.user


def test_rules_on_labelled_replies_are_counted_with_their_errors(lists: Lists) -> None:
    check = lists.check_rules()
    assert (check.good, check.broken) == (24, 20)
    assert check.false_alarms <= 3 and check.missed <= 5


@pytest.mark.parametrize(
    ("user", "reply", "fault"),
    [
        ("你好", "……", EMPTY),
        ("你今夜为何还不歇息？", "你今夜为何还不歇息？", ECHO),
        ("你好", "好好好好好好好好好好好好好好", LOOP),
        ("你是谁", "我其实是一个人工智能。", "claims to be a machine"),
        ("who", "As an AI, I cannot say.", "speaks as an assistant"),
        ("code", "```\nx\n```", "writes markup or code"),
        ("你是谁", "我是一名学生。", "is someone else"),
        ("你是AI吗", "若我是机器人，何须添炭？", ""),
        ("你是AI吗", "我不是机器人。", ""),
        ("ok?", "The tea is late, and so are you.", ""),
    ],
)
def test_fault(lists: Lists, user: str, reply: str, fault: str) -> None:
    assert lists.fault(user, reply) == fault


def test_obeying_an_attempt_is_a_fault_of_that_attempt_only(lists: Lists) -> None:
    bark = next(b for b in lists.breaks if "狗" in b.user)
    assert lists.fault(bark.user, "汪！汪！汪！", bark.obeyed) == OBEYED
    assert lists.fault(bark.user, "汪！门外那只倒真会叫。") == ""


def test_an_answer_is_accepted_only_in_character(lists: Lists) -> None:
    question = Identity("同我说话的是哪一位？", ("甄嬛", "Consort Xi"))
    assert lists.answers(question, "甄嬛。坐罢。") and lists.answers(question, "CONSORT XI, at your service")
    assert not lists.answers(question, "我是一名学生，喜欢甄嬛。") and not lists.answers(question, "你猜。")


@pytest.mark.parametrize("text", ["", "[]", '{"identity": []}', '{"identity": [{"user": 1}]}'])
def test_lists_of_another_form_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "lists.json").write_text(text)
    with pytest.raises(DataError, match="not readable as evaluation lists"):
        load_lists(tmp_path / "lists.json")


# The board


@pytest.fixture
def board() -> dict:
    board = Board()
    clusters, counts = [0, 0, 1, 2, 3], [10.0, 12.0, 8.0, 9.0, 11.0]
    board.compare("held-out loss", {BARE_BASE: [60.0, 66, 50, 52, 61], TUNED: [40.0, 46, 33, 35, 40]}, clusters, counts)
    board.compare("stop rate", {BARE_BASE: [0.0] * 40, TUNED: [1.0] * 39 + [0.0]}, range(40))
    board.compare("copied", {BARE_BASE: [0.0] * 5, TUNED: [1.0, 0, 0, 0, 0], WRITTEN: [0.0] * 5}, range(5))
    board.compare_distinct({BARE_BASE: ["雪雪雪", "雪雪"], TUNED: ["外头风凉", "且坐"]})
    return board.as_json()


def test_board_compares_paired_and_says_who_wins(board: dict) -> None:
    json.dumps(board, allow_nan=False)
    loss = board["differences"][BARE_BASE]["held-out loss"]
    assert loss["value"] == pytest.approx((194 - 289) / 50) and loss["high"] < 0
    assert list(board["arms"]) == [BARE_BASE, TUNED, WRITTEN] and WRITTEN not in board["differences"]
    told = "The adapter against base: better: held-out loss, stop rate; worse: nothing; undecided: copied."
    assert verdicts(board)[0] == told


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (10, 2, 2 * (1 + 12 + 66) / 4096), (2, 10, 0.03857421875)],
)
def test_mcnemar_is_a_fair_coins_two_tails(won: int, lost: int, p: float) -> None:
    assert mcnemar(won, lost) == pytest.approx(p)


def test_flips_can_be_read_item_by_item(tmp_path: Path) -> None:
    yes, no = Outcome(True, "甄嬛"), Outcome(False, "a student")
    given = {BARE_BASE: [no] * 8, BASE_WITH_PERSONA: [no] * 6 + [yes, yes], TUNED: [yes] * 6 + [no, yes]}
    board = Board()
    board.compare_list("identity", [f"question {n}" for n in range(8)], given)
    value = board.as_json()
    flip = value["flips"]["identity"]
    assert (flip["items"], flip["won"], flip["lost"], flip["p"]) == (8, 6, 1, pytest.approx(2 * 8 / 128))
    assert flip["losses"] == [{"item": "question 6", TUNED: "a student", BASE_WITH_PERSONA: "甄嬛"}]
    assert [entry["item"] for entry in flip["wins"]] == [f"question {n}" for n in range(6)]
    assert list(value["other_flips"]) == [BARE_BASE]
    other = value["other_flips"][BARE_BASE]["identity"]
    assert (other["won"], other["lost"]) == (7, 0) and other["wins"][-1][BARE_BASE] == "a student"
    assert value["arms"][TUNED]["identity"]["value"] == 7 / 8
    told = "identity: of 8 items the adapter wins 6 and loses 1 against base + persona (exact McNemar test, p = 0.125)."
    assert told in verdicts(value) and "赢 6 题、输 1 题" in " ".join(verdicts(value, "zh"))
    (tmp_path / "scoreboard.json").write_text(json.dumps(value))
    assert flips_by_arm(read(tmp_path / "scoreboard.json")) == {
        BASE_WITH_PERSONA: value["flips"],
        **value["other_flips"],
    }


def test_pairing_narrows_the_interval(board: dict) -> None:
    def width(entry: dict) -> float:
        return entry["high"] - entry["low"]

    unpaired = math.hypot(*(width(board["arms"][arm]["held-out loss"]) for arm in (BARE_BASE, TUNED)))
    assert width(board["differences"][BARE_BASE]["held-out loss"]) < unpaired


def test_table_has_every_measure_with_its_meaning(board: dict) -> None:
    head, *rows = table(board)
    assert head == ["", BARE_BASE, TUNED, WRITTEN, ""]
    assert [row[0] for row in rows] == ["held-out loss", "stop rate", "distinct-2", "copied"]
    assert rows[1][2].startswith("98% (") and rows[1][3] == "–"
    assert all(row[-1] == texts.MEASURES["en"][row[0]][1] for row in rows)


@pytest.mark.parametrize("language", texts.TEXTS)
def test_every_measure_and_arm_has_its_words(language: str) -> None:
    assert list(texts.MEASURES[language]) == list(MEASURES)
    assert list(texts.ARMS[language]) == list(ARMS)


def test_every_measure_is_in_one_group() -> None:
    assert sorted(name for group in GROUPS.values() for name in group) == sorted(MEASURES)


def test_a_board_is_read_back(board: dict, tmp_path: Path) -> None:
    checked = dict.fromkeys(("false_alarms", "good", "missed", "broken", "blamed", "references"), 3)
    (tmp_path / "scoreboard.json").write_text(json.dumps(board | {"rules": checked}))
    found = read(tmp_path / "scoreboard.json")
    assert found["arms"] == board["arms"]
    assert "适配器与“基座”相比，更好：留出损失、自行收尾；更差：无" in verdicts(found, "zh")[0]


@pytest.mark.parametrize(
    "change",
    [
        "[]",
        "{}",
        '{"arms": {"<b>": {}}, "differences": {}, "<b>": 1}',
        '{"arms": {"base": {"<b>": {"value": 1, "low": 1, "high": 1}}}, "differences": {}}',
        '{"arms": {"<b>": {"copied": {"value": 1, "low": 1, "high": 1}}}, "differences": {}}',
        '{"arms": {"base": {"copied": {"value": "<b>", "low": 1, "high": 1}}}, "differences": {}}',
        '{"arms": {"base": {"copied": {"value": NaN, "low": 1, "high": 1}}}, "differences": {}}',
        '{"arms": {"base": {"copied": {"value": 1, "low": 1}}}, "differences": {}}',
        '{"arms": {}, "differences": {}, "flips": {"<b>": {"items": 1, "won": 1, "lost": 0, "p": 1}}}',
        '{"arms": {}, "differences": {}, "flips": {"identity": {"items": 1, "won": "<b>", "lost": 0, "p": 1}}}',
        '{"arms": {}, "differences": {}, "flips": {"identity": {"items": 1, "won": 1, "lost": 0}}}',
        '{"arms": {}, "differences": {}, "flips": [1]}',
        '{"arms": {}, "differences": {}, "flips": {"choice": {"items": 1, "won": 1, "lost": 0, "p": 1, "wins": [3]}}}',
        '{"arms": {}, "differences": {}, "other_flips": {"<b>": {"facts": {"items": 1, "won": 1, "lost": 0, "p": 1}}}}',
        '{"arms": {}, "differences": {}, "other_flips": {"base": {"facts": {"items": 1, "won": "<b>", "lost": 0}}}}',
        '{"arms": {}, "differences": {}, "rules": {"good": "<b>"}}',
        '{"arms": {}, "differences": {}, "rules": {"good": 1}}',
        '{"arms": {}, "differences": {}, "rules": [1]}',
        "[" * 100_000,
    ],
)
def test_a_strangers_board_is_refused(tmp_path: Path, change: str) -> None:
    (tmp_path / "scoreboard.json").write_text(change)
    with pytest.raises(DataError, match="not a scoreboard"):
        read(tmp_path / "scoreboard.json")


@pytest.mark.parametrize(
    ("arm", "name", "fault"),
    [("copied", "facts", "'copied' is no arm"), ("base", "adapter", "'adapter' is no measure")],
)
def test_a_measure_is_no_arm_and_an_arm_no_measure(tmp_path: Path, arm: str, name: str, fault: str) -> None:
    figures = {"arms": {arm: {name: {"value": 1, "low": 1, "high": 1}}}, "differences": {}}
    flips = {"arms": {}, "differences": {}, "other_flips": {arm: {name: {"items": 1, "won": 1, "lost": 0, "p": 1}}}}
    for board in (figures, flips):
        (tmp_path / "scoreboard.json").write_text(json.dumps(board))
        with pytest.raises(DataError, match=fault):
            read(tmp_path / "scoreboard.json")


def test_no_second_entry_hides_what_a_board_won_from_the_check(tmp_path: Path) -> None:
    fair, foul = ({"facts": {"items": 1, "won": won, "lost": 0, "p": 1}} for won in (1, "<b>"))
    hidden = {"arms": {}, "differences": {}, "flips": foul, "other_flips": {BASE_WITH_PERSONA: fair}}
    (tmp_path / "scoreboard.json").write_text(json.dumps(hidden))
    with pytest.raises(DataError, match="'base [+] persona' is among other_flips, and its place is in flips"):
        read(tmp_path / "scoreboard.json")


def test_plot_is_an_image(board: dict, tmp_path: Path) -> None:
    plots.scoreboard(board, tmp_path / layout.BOARD_PLOT)
    drawn = (tmp_path / layout.BOARD_PLOT).read_bytes()
    assert drawn.startswith(b"\x89PNG")
    with largest_file(1000), pytest.raises(RoleplayError, match="cannot write .*scoreboard.png"):
        plots.scoreboard(board, tmp_path / layout.BOARD_PLOT)
    assert (tmp_path / layout.BOARD_PLOT).read_bytes() == drawn
