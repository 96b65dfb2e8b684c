"""The reading sheet from prompts to a scoreboard: what stands on it, in a real browser, and what marks add up to."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from page.scoreboard_tab import scoreboard_html
from roleplay.errors import DataError, RoleplayError
from roleplay.results import board as scoreboard
from roleplay.results.board import BASE_WITH_PERSONA, TUNED, WRITTEN
from roleplay.text.rows import Row
from roleplay.weights import layout
from tests import tiny
from tests.pages import PHONE, WIDE, serious
from tests.train.test_evaluate import LISTS, ROWS, base_model
from train.evaluate import EvaluationFlags, evaluate
from train.measuring import subject as measured
from train.measuring.marks import Reading, Source, agreement, load_reading, summarise
from train.measuring.sheet import Prompt, Talk, fitting, load_prompts, pick_written, shuffle
from train.publishing import sheet as files

pytest_plugins = ("pages",)
HOSTILE = "<script>window.hit = 1</script>"
PROMPTS = [
    {"turns": ["外头冷么？", "那便多穿些。"], "language": "zh"},
    {"turns": ["Is it cold?"], "language": "en"},
    {"turns": [HOSTILE], "language": "en"},
]


def mark(sense: int, answers: int, voice: int, **more: Any) -> dict[str, Any]:
    return {"sense": sense, "answers": answers, "voice": voice, **more}


# What stands on it


def talks(zh: int, en: int) -> list[Talk]:
    return [Talk(((f"问{n}", "答"),), lang, TUNED, "a") for lang, many in (("zh", zh), ("en", en)) for n in range(many)]


@pytest.mark.parametrize(
    ("answered", "rows", "languages"),
    [
        ((9, 6), (20, 20), {"zh": 3, "en": 2}),
        ((7, 1), (9, 9), {"zh": 3, "en": 1}),
        ((6, 6), (9, 1), {"zh": 3, "en": 1}),
    ],
)
def test_a_quarter_is_written_in_the_same_languages(answered: Any, rows: Any, languages: dict[str, int]) -> None:
    held = [Row(((f"话{n}", "嗯"),)) for n in range(rows[0])] + [Row(((f"word {n}", "Yes"),)) for n in range(rows[1])]
    chosen = pick_written(held, talks(*answered))
    assert len(chosen) >= sum(answered) / 3 and all(talk.arm == WRITTEN for talk in chosen)
    assert len(set(chosen)) == len(chosen)
    assert Counter(talk.language for talk in chosen) == languages


def test_a_sheet_asks_as_many_prompts_as_leave_a_quarter_written() -> None:
    prompts = [Prompt((str(number),), "en") for number in range(72)]
    assert fitting(prompts, 2, 48) == prompts
    asked = fitting(prompts, 2, 33)
    assert len(asked) == 49 and asked[0] == prompts[0] and asked[-1] == prompts[70]
    assert len(asked) * 2 <= 3 * 33
    with pytest.raises(DataError, match="0 independent held-out rows are too few"):
        fitting(prompts, 2, 0)


def test_the_order_is_fixed_and_ids_are_those_of_one_sheet() -> None:
    shuffled = shuffle(talks(9, 3))
    assert shuffled == shuffle(talks(9, 3)) and [t.turns for t in shuffled] != [t.turns for t in talks(9, 3)]
    assert {talk.id for talk in shuffled}.isdisjoint(talk.id for talk in shuffle(talks(9, 4)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"turns": [], "language": "zh"}, "prompt 1: turns is"),
        ({"turns": ["a", " "], "language": "zh"}, "prompt 1: turns is"),
        ({"turns": "a", "language": "zh"}, "prompt 1: turns is"),
        ({"turns": ["a"], "language": "fr"}, "prompt 1: language is 'fr'"),
        ("a", "prompt 1: turns is"),
    ],
)
def test_prompts_of_another_form_are_refused(tmp_path: Path, value: Any, message: str) -> None:
    (tmp_path / "sheet.json").write_text(json.dumps([value]))
    with pytest.raises(DataError, match=message):
        load_prompts(tmp_path / "sheet.json")


# What marks add up to


def by_definition(a: list[int], b: list[int]) -> float:
    """Cohen's weighted kappa from its definition: one less observed over expected squared distances."""
    pairs = [(i, j) for i in range(3) for j in range(3)]
    observed = sum((i - j) ** 2 * sum((x, y) == (i, j) for x, y in zip(a, b, strict=True)) for i, j in pairs) / len(a)
    expected = sum((i - j) ** 2 * a.count(i) * b.count(j) for i, j in pairs) / len(a) ** 2
    return 1 - observed / expected


@pytest.mark.parametrize(
    ("a", "b", "kappa"),
    [
        ([0, 1, 2, 2], [0, 1, 2, 2], 1),
        ([0, 2], [2, 0], -1),
        ([0, 0, 2, 2], [0, 2, 0, 2], 0),
        ([0, 1, 2, 1], [0, 1, 2, 2], 0.8),  # one step in four: 0.25 observed, 1.25 expected by chance
        ([2, 2, 2], [2, 2, 2], None),  # nothing to agree about
    ],
)
def test_agreement_is_cohens_weighted_kappa(a: list[int], b: list[int], kappa: float | None) -> None:
    one, other = (
        Reading(name, {str(n): mark(value, 1, n % 3) for n, value in enumerate(values)})
        for name, values in (("x", a), ("y", b))
    )
    found = agreement([one, other])
    assert found.get("sense") == pytest.approx(kappa) and "answers" not in found and found["voice"] == pytest.approx(1)
    if kappa is not None:
        assert kappa == pytest.approx(by_definition(a, b))
    assert agreement([one]) == {}


def test_several_pairs_are_averaged_over_what_both_have_read() -> None:
    one = Reading("x", {"a": mark(0, 0, 0), "b": mark(2, 2, 2), "c": mark(2, 0, 0)})
    other = Reading("y", {"a": mark(0, 0, 2), "b": mark(2, 2, 0)})
    third = Reading("z", {"a": mark(2, 0, 0), "b": mark(0, 2, 2)})
    assert agreement([one, other, third]) == pytest.approx({"sense": (1 - 1 - 1) / 3, "answers": 1, "voice": -1 / 3})


SOURCES = {
    **{f"t{n}": Source(TUNED, "zh" if n < 4 else "en", "a") for n in range(8)},
    **{f"o{n}": Source(TUNED, "zh", "other") for n in range(8)},
    **{f"b{n}": Source(BASE_WITH_PERSONA, "zh", "") for n in range(8)},
    "w0": Source(WRITTEN, "zh", ""),
}


def test_means_and_full_shares_are_per_arm_and_language() -> None:
    marks = {id: mark(0, 1, 2) if id[0] in "ob" else mark(2, 2 if id < "t2" else 1, 1) for id in SOURCES}
    again = {id: mark(1, 1, 1) for id in marks if id[0] == "t"}
    found = summarise([Reading("x", marks), Reading("y", again)], SOURCES, "a")
    own = found["arms"][TUNED]
    assert list(found["arms"]) == [BASE_WITH_PERSONA, TUNED]  # one written conversation has no interval
    assert own["all"]["conversations"] == 8 and own["zh"]["conversations"] == own["en"]["conversations"] == 4
    assert own["all"]["sense"]["value"] == 1.5 and own["zh"]["answers"]["value"] == 10 / 8
    assert own["all"]["both full"]["value"] == 2 / 16 and own["en"]["both full"]["value"] == 0
    assert own["en"]["both full"]["high"] > 0.4  # four conversations read twice are four, not eight
    assert found["arms"][BASE_WITH_PERSONA]["all"]["sense"] == {"value": 0, "low": 0, "high": 0}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[]", "the form is"),
        ('{"reader": " ", "scores": {}}', "the form is"),
        ('{"reader": "x", "scores": []}', "the form is"),
        ('{"reader": "x", "scores": {"?": {}}}', r"'\?' is no conversation of this sheet"),
        ('{"reader": "x", "scores": {"t0": 2}}', "t0 has 2; give it sense"),
        ('{"reader": "x", "scores": {"t0": {"arm": 2}}}', "t0 has"),
        ('{"reader": "x", "scores": {"t0": {"sense": 3}}}', "t0 has 3 for sense; a mark is 0, 1 or 2"),
        ('{"reader": "x", "scores": {"t0": {"sense": true}}}', "t0 has True for sense"),
        ('{"reader": "x", "scores": {"t0": {"sense": "2"}}}', "t0 has '2' for sense"),
        ("{", "not the marks of a reader"),
    ],
)
def test_marks_of_another_form_are_refused(tmp_path: Path, value: str, message: str) -> None:
    (tmp_path / "s.json").write_text(value)
    with pytest.raises(DataError, match=message):
        load_reading(tmp_path / "s.json", SOURCES)


def test_a_conversation_that_is_half_marked_does_not_count(tmp_path: Path) -> None:
    scores = {"t0": mark(2, 1, 0, note="odd"), "t1": {"sense": 2, "note": "later"}, "t2": {}}
    (tmp_path / "s.json").write_text(json.dumps({"reader": " Ann ", "scores": scores}))
    assert load_reading(tmp_path / "s.json", SOURCES) == Reading("Ann", {"t0": mark(2, 1, 0)})


# A stranger's reading


ESTIMATE = {"value": 1.5, "low": 1.0, "high": 2.0}
PART = {"conversations": 8, **dict.fromkeys(("sense", "answers", "voice", "both full"), ESTIMATE)}
READ = {
    "readers": 2,
    "kappa": {"sense": 0.7},
    "arms": {BASE_WITH_PERSONA: {"all": PART}, TUNED: {"all": PART, "zh": PART}},
}


@pytest.mark.parametrize(
    "reading",
    [
        [],
        "<b>",
        {**READ, "readers": "<b>"},
        {**READ, "note": 1},
        {**READ, "kappa": {"<b>": 1}},
        {**READ, "kappa": {"sense": None}},
        {**READ, "arms": {"<b>": {"all": PART}}},
        {**READ, "arms": {TUNED: {"<b>": PART}}},
        {**READ, "arms": {TUNED: {"all": {**PART, "<b>": 1}}}},
        {**READ, "arms": {TUNED: {"all": {**PART, "conversations": "<b>"}}}},
        {**READ, "arms": {TUNED: {"all": {**PART, "sense": {**ESTIMATE, "low": "<b>"}}}}},
        {**READ, "arms": {TUNED: {"all": {"conversations": 8}}}},
        {"readers": 1},
    ],
)
def test_a_strangers_reading_is_refused(tmp_path: Path, reading: Any) -> None:
    (tmp_path / layout.BOARD).write_text(json.dumps({**tiny.BOARD, "reading": reading}))
    with pytest.raises(DataError, match="not a scoreboard"):
        scoreboard.read(tmp_path / layout.BOARD)


def test_tab_and_card_show_what_readers_found(tmp_path: Path) -> None:
    folder = tiny.adapter(tmp_path / "tiny")
    (folder / layout.BOARD).write_text(json.dumps({**tiny.BOARD, "reading": READ}))
    shown = scoreboard_html("tiny", folder, "No votes yet", "en")
    assert "<h2>Read blind</h2>" in shown and "sense, Chinese" in shown and "1.50 (1.00 to 2.00)" in shown
    assert "sense 0.70." in shown and "150% (100% to 200%)" in shown
    assert "句句有意义" in scoreboard_html("tiny", folder, "尚无投票", "zh")
    text = files.card.write_card(folder).read_text(encoding="utf-8")
    assert "## Read blind\n\nReaders who did not know whose replies they read: 2. Their agreement" in text
    assert "|  | base + persona | adapter |  |\n| --- | --- | --- | --- |\n| conversations | 8 | 8 | Read by" in text
    assert "| sense, Chinese | – | 1.50 (1.00 to 2.00) |  |\n" in text


# The whole way with a tiny model


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(measured, "PAGE_TOKENS", 12)  # random weights never stop
    base = base_model()
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    rows = [
        {"instruction": f"How is number {n}?", "output": f"{['Calm', 'well', 'busy', 'ill'][n]}.", "split": "held_out"}
        for n in range(4)
    ]
    for name, value in (("rows", ROWS + rows), ("lists", LISTS), ("prompts", PROMPTS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    folders = [str(tiny.adapter(tmp_path / name)) for name in ("ying", "yang")]
    common = {"base_model": str(tmp_path / "base"), "data": [str(tmp_path / "rows.json")], "base_tokens": 5}
    files = {"lists": str(tmp_path / "lists.json"), "sheet_prompts": str(tmp_path / "prompts.json")}
    return {"adapter": folders, "sheet": str(tmp_path / "out" / "sheet.html"), **common, **files}


@pytest.fixture
def page_file(settings: dict[str, Any]) -> Path:
    assert evaluate(EvaluationFlags(**settings)) == []
    return Path(settings["sheet"])


def key_of(sheet: Path) -> dict[str, Any]:
    return json.loads(sheet.with_suffix(".key.json").read_text(encoding="utf-8"))


def save_marks(path: Path, reader: str, sheet: Path, **arms: dict[str, int]) -> str:
    """Marks of a made-up reader, by the first letter of the arm."""
    scores = {id: arms[source["arm"][0]] for id, source in key_of(sheet)["conversations"].items()}
    path.write_text(json.dumps({"reader": reader, "scores": scores}))
    return str(path)


def test_a_sheet_holds_every_arm_and_names_none(page_file: Path) -> None:
    html, text = page_file.read_text(encoding="utf-8"), page_file.with_suffix(".txt").read_text(encoding="utf-8")
    sources = list(key_of(page_file)["conversations"].values())
    assert Counter((s["arm"], s["adapter"]) for s in sources) == {
        (BASE_WITH_PERSONA, ""): 3,
        (TUNED, "ying"): 3,
        (TUNED, "yang"): 3,
        (WRITTEN, ""): 3,
    }
    ids = re.findall(r'<article id="(\w+)"', html)
    assert ids == list(key_of(page_file)["conversations"]) == re.findall(r"^--- \d+ of 12, id (\w+)$", text, re.M)
    for told in (html, text):
        assert not [name for name in ("ying", "yang", "base +", "adapter", "reference") if name in told]
        assert told.count("那便多穿些。") == 3  # a second message, asked of every arm
    assert HOSTILE not in html and "&lt;script&gt;window.hit" in html and HOSTILE in text


def test_marks_come_back_as_figures(
    page_file: Path, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = save_marks(tmp_path / "1.json", "Ann", page_file, b=mark(0, 0, 1), a=mark(2, 1, 1), r=mark(2, 2, 2))
    two = save_marks(tmp_path / "2.json", "Bo", page_file, b=mark(0, 1, 1), a=mark(2, 2, 1), r=mark(1, 2, 2))
    folders = [Path(folder) for folder in settings["adapter"]]
    before = json.loads((folders[0] / layout.BOARD).read_text(encoding="utf-8"))
    found = evaluate(EvaluationFlags(sheet=settings["sheet"], scores=[one, two]))
    printed = capsys.readouterr().out
    assert "Bo: 12 of 12 conversations read" in printed and "should come near 2 for sense: doubt" in printed
    assert re.search(r"^answers +0.50 \(.*\) +1.50 \(.*\) +2.00 \(", printed, re.M)
    for folder, own in zip(folders, found, strict=True):
        board = scoreboard.read(folder / layout.BOARD)
        assert board == {**before, "reading": own} and own["readers"] == 2
        assert own["arms"][TUNED]["all"]["both full"]["value"] == 0.5
        assert own["arms"][TUNED]["en"]["conversations"] == 2 and "zh" not in own["arms"][TUNED]
        assert "## Read blind" in (folder / layout.CARD).read_text(encoding="utf-8")

    (folders[1] / layout.BOARD).unlink()
    evaluate(EvaluationFlags(sheet=settings["sheet"], scores=[one]))
    assert "not entered: measure yang with train.evaluate first" in capsys.readouterr().out


def test_a_new_measurement_keeps_the_reading_of_the_same_weights(tmp_path: Path) -> None:
    new = {"arms": {}, "weights": {"sha256": "a"}}
    assert files.keep_reading(tmp_path, new) == new
    for old, kept in (({"weights": {"sha256": "a"}}, True), ({"weights": {"sha256": "b"}}, False), ({}, False)):
        (tmp_path / layout.BOARD).write_text(json.dumps({**old, "reading": READ}))
        assert files.keep_reading(tmp_path, new) == ({**new, "reading": READ} if kept else new)


def test_what_a_user_can_mend_is_one_line(page_file: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    one = save_marks(tmp_path / "1.json", "Ann", page_file, b=mark(0, 0, 1), a=mark(2, 1, 1), r=mark(2, 2, 2))
    weights = Path(settings["adapter"][1]) / layout.WEIGHTS
    for changes, message in (
        ({}, "sheet.key.json is there already"),
        ({"sheet": str(tmp_path / "sheet.txt")}, "ends in .html"),
        ({"sheet": str(tmp_path / "new.html"), "sheet_prompts": "missing.json"}, "missing.json: no such file"),
        ({"sheet": str(tmp_path / "new.html"), "sheet_prompts": ""}, "no sheet.json; say what to ask"),
        ({"sheet": "", "scores": [one]}, "--scores wants the --sheet"),
        ({"sheet": str(tmp_path / "new.html"), "scores": [one]}, "not the key of a sheet"),
        ({"scores": [one, one]}, "of the same reader"),
    ):
        with pytest.raises(RoleplayError, match=message) as caught:
            evaluate(EvaluationFlags(**{**settings, **changes}))
        assert "\n" not in str(caught.value)
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(RoleplayError, match="not the adapter that was read"):
        evaluate(EvaluationFlags(**{**settings, "scores": [one]}))


# In a browser


@pytest.fixture
def page(browser: Browser, page_file: Path, request: pytest.FixtureRequest) -> Any:
    size, dark = getattr(request, "param", (WIDE, False))
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
    )
    context.set_offline(True)
    page, errors = context.new_page(), list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(page_file.as_uri())
    yield page
    assert errors == []
    context.close()


def test_marked_by_keyboard_kept_and_saved(page: Page, page_file: Path) -> None:
    ids = list(key_of(page_file)["conversations"])
    expect(page.locator("#count")).to_have_text("0 of 12 marked")
    page.keyboard.press("2")
    page.keyboard.press("1")
    page.keyboard.press("0")
    page.get_by_label("Note").fill("她 <b>忘了</b>")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Conversation 2 of 12")).to_be_visible()
    for key in ("0", "0", "1", "Backspace", "Enter"):  # to the one before, and on again
        page.keyboard.press(key)
    expect(page.locator("article:visible h2")).to_have_text("Conversation 2 of 12")
    page.get_by_role("radio", name="Anybody could").check()
    page.reload()
    expect(page.locator("article:visible h2")).to_have_text("Conversation 2 of 12")
    expect(page.locator("#count")).to_have_text("2 of 12 marked")
    assert page.locator("fieldset :checked").evaluate_all("all => all.map(i => i.name + i.value)") == [
        "sense0",
        "answers0",
        "voice1",
    ]
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_have_text("Write your name first.")
    page.keyboard.type("Ann / 安")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").click()
    assert download.value.suggested_filename == "scores-Ann-安.json"
    saved = Path(download.value.path())
    assert json.loads(saved.read_text(encoding="utf-8")) == {
        "reader": "Ann / 安",
        "scores": {ids[0]: mark(2, 1, 0, note="她 <b>忘了</b>"), ids[1]: mark(0, 0, 1)},
    }
    sources = {id: Source(**source) for id, source in key_of(page_file)["conversations"].items()}
    assert len(load_reading(saved, sources).marks) == 2


def test_to_the_end_and_back_to_what_was_skipped(page: Page) -> None:
    page.keyboard.press("Enter")  # the first is left unmarked
    for _ in range(11):
        for key in ("2", "2", "2", "Enter"):
            page.keyboard.press(key)
    expect(page.locator("article:visible h2")).to_have_text("Conversation 1 of 12")
    for key in ("2", "2", "2"):
        page.keyboard.press(key)
    page.get_by_role("button", name="First unmarked").click()
    expect(page.get_by_role("status")).to_have_text("All conversations are marked.")
    expect(page.locator("#count")).to_have_text("12 of 12 marked")


@pytest.mark.parametrize(
    "page", [((WIDE), False), ((WIDE), True), ((PHONE), False), ((PHONE), True)], indirect=True, ids=str
)
def test_it_is_readable_everywhere_and_no_reply_is_markup(page: Page) -> None:
    assert page.evaluate("window.hit") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page overflows"
    assert serious(page) == {}
