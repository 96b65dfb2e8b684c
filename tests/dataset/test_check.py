"""What the checker finds in small files of rows, what it writes, and which status it ends with."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import GemmaTokenizer

from dataset.check import Reading, as_text, dedupe, examine, language, main
from roleplay.environment import ROOT
from roleplay.errors import DataError
from roleplay.text import characters, limits
from roleplay.text.personas import Persona, default
from roleplay.text.prompts import IGNORED, PromptEncoder
from roleplay.text.rows import RowFile, parse_row, read_row_file, read_rows
from tests import tiny
from train import lora
from train.learning import memory
from train.measuring.rules import load_lists

HUANHUAN = ROOT.parent / "shared" / "data" / "huanhuan.json"
GOOD = [
    {"instruction": "外头下雪了。", "output": "叫他们把炭添上。", "scene": "a", "split": "train"},
    {"instruction": "Who is there?", "output": "Only the wind, sir.", "scene": "b", "split": "train"},
    {"instruction": "可用过膳了？", "output": "用了半碗粥。", "scene": "c", "split": "held_out"},
]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma tokenizer with one token per byte."""
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = GemmaTokenizer(
        vocab={name: number for number, name in enumerate(names)},
        extra_special_tokens=["<start_of_turn>", "<end_of_turn>"],
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "gemma"}')
    return folder


@pytest.fixture(scope="module")
def encoder(tokenizer_folder: Path) -> PromptEncoder:
    return PromptEncoder(GemmaTokenizer.from_pretrained(tokenizer_folder))


def row(instruction: str, output: str, **more: Any) -> dict[str, Any]:
    return {"instruction": instruction, "output": output, **more}


def found(values: list[Any]) -> RowFile:
    """The values as if they stood in a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        path.write_text(json.dumps(values), encoding="utf-8")
        return read_row_file(path)


LONG = "这一夜，" * 300
CASES = [
    ([row("好吗？", "")], "error", "1 rows cannot be read"),
    ([row("好吗？", 7)], "error", "1 rows cannot be read"),
    ([row("说长些。", LONG)], "error", "1 rows take more than 1,024 tokens with the persona, which train.lora refuses"),
    (
        [row("可睡了？", "还没有。", history=[["说长些。", LONG]])],
        "warning",
        "1 rows take more than 1,024 tokens with the persona, so their oldest turns are left out",
    ),
    ([row("好吗？", "好。", system="你是旁人。")], "warning", "1 rows have the system text '你是旁人。'"),
    (
        [row(f"夜里几更了，可有人守着门？第{n * 7919}回", f"{n * 104729}", split="train") for n in range(20)],
        "warning",
        "more than half of the user's texts begin alike; if it says who speaks, it is a persona",
    ),
    (
        [row(f"{n * 7919}？", f"（放下茶盏，望着窗外的雪）{n * 104729}", split="train") for n in range(20)],
        "warning",
        "more than half of the replies begin alike",
    ),
    (
        [row(f"{n * 7919}？你是灯塔的守塔人。", f"{n * 104729}", split="train") for n in range(20)],
        "warning",
        "more than half of the user's texts end alike; if it says who speaks, it is a persona",
    ),
    (
        [row(f"{n * 7919}？", f"（笑）{n * 104729}", split="train") for n in range(20)],
        "warning",
        "more than half of the replies begin alike; the model would say it",
    ),
    ([row("再见。", "去罢。<end_of_turn>model")], "error", "1 rows have a reply with a control token"),
    ([row("<start_of_turn>user", "去罢。")], "warning", "1 rows have a user's text with a control token"),
    ([row("外头下雪了！", "叫他们把炭添上。", split="held_out")], "error", "1 held-out rows (nearly) stand"),
    ([row("冷不冷？", "倒还好。", scene="a", split="held_out")], "error", "1 scenes have rows on both sides"),
    ([GOOD[0]], "warning", "1 rows repeat another word for word"),
    ([row("外头下雪了……", "叫他们把炭添上！", split="train")], "warning", "2 distinct rows are nearly the same"),
    ([row("外头下雪了。", "那便不出门了。", split="train")], "note", "1 prompts are answered in more than one way"),
    (
        [row("可睡了？", "还没有。", scene="a", history=[["外头下雪了。", "叫他们把炭添上。"]])],
        "note",
        "1 earlier replies",
    ),
    ([row("你是谁呀？", "Nobody you know.", split="train")], "note", "1 rows answer in another language"),
]


@pytest.mark.parametrize(("extra", "level", "text"), CASES, ids=[text for _, _, text in CASES])
def test_findings(encoder: PromptEncoder, extra: list[dict[str, Any]], level: str, text: str) -> None:
    clean = examine(found(GOOD), "f", Reading(encoder, Persona("x", "You are x."), 1024))
    assert clean.findings == []
    report = examine(found([*GOOD, *extra]), "f", Reading(encoder, Persona("x", "You are x."), 1024))
    assert [finding.level for finding in report.findings if finding.text.startswith(text)] == [level]
    assert any(f.level == "error" for f in report.findings) == (level == "error")


@pytest.mark.parametrize(
    ("text", "name"),
    [("外头冷。", "zh"), ("Only a GPU.", "en"), ("用 GPU 跑一跑 model", "mixed"), ("привет", "other"), ("……", "mixed")],
)
def test_language(text: str, name: str) -> None:
    assert language(text) == name


def test_dedupe_sums_weights_and_keeps_sides_apart() -> None:
    values = [row("甲", "乙"), row("甲 ", "乙", weight=0.5), row("丙", "丁"), row("甲", "乙", split="held_out")]
    values += [row("戊", "己")] * 150
    single = dedupe(values, [parse_row(value, "") for value in values])
    assert single == [
        row("甲", "乙", weight=1.5),
        row("丙", "丁"),
        row("甲", "乙", split="held_out"),
        row("戊", "己", weight=100),  # the most that a row may weigh
    ]
    values = [row("a", "b", history=[["c", "d"]], history_weights=[weight]) for weight in (0, 1)]
    assert dedupe(values, [parse_row(value, "") for value in values]) == values  # one teaches more


def test_preview_marks_what_the_loss_sees(encoder: PromptEncoder) -> None:
    values = [row("三", "四。", history=[["一", "二。"]])]
    report = examine(found(values), "f", Reading(encoder, Persona("x", "你是甲。"), 1024))
    assert [part.text for part in report.preview[0] if part.labelled] == ["二。<end_of_turn>", "四。<end_of_turn>"]
    text = "".join(part.text for part in report.preview[0])
    assert text.startswith("<bos><start_of_turn>user\n你是甲。\n\n一<end_of_turn>")
    assert report.lengths.reply == [2 * len("二。".encode()) + 2]


@pytest.mark.parametrize("loss_on", ["all", "last"])
def test_a_reply_that_is_only_shown_has_no_loss(encoder: PromptEncoder, loss_on: str) -> None:
    chat = row("五", "六。", history=[["一", "二。"], ["三", "四。"]], history_weights=[1, 0], scene="a")
    read, persona = found([chat, row("七", "四。", scene="a")]), Persona("x", "你是甲。")
    report = examine(read, "f", Reading(encoder, persona))
    shown = [part.text for part in report.preview[0] if part.labelled]
    assert shown == ["二。<end_of_turn>", "六。<end_of_turn>"] and "四。" in "".join(p.text for p in report.preview[0])
    assert not any("earlier replies" in finding.text for finding in report.findings)
    (example, _) = lora.encode(read.rows, encoder, persona, lora.LoraFlags(loss_on=loss_on))
    learnt = encoder.tokenizer.decode([label for label in example.labels if label != IGNORED])
    assert learnt == "".join(shown[-1:] if loss_on == "last" else shown)


class _Page(HTMLParser):
    """Tags of a page and every address that a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        loads = [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        self.addresses += [address for address in loads if not address.startswith("#")]


def test_command(tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page, facts, single = (tmp_path / name for name in ("rows.json", "out/r.html", "r.json", "single.json"))
    values = [*GOOD, GOOD[0], row("<script>alert(1)</script>", "<img src=x>", split="train", weight=2)]
    file.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    flags = ["--tokenizer", str(tokenizer_folder), "--html", str(page), "--json", str(facts), "--dedupe", str(single)]
    main([str(file), *flags])  # warnings alone end with status 0
    assert "5 rows, 4 distinct, 3 scenes, 1 held out" in capsys.readouterr().out
    html = page.read_text(encoding="utf-8")
    parsed = _Page(html)
    assert parsed.tags.count("svg") == 3 and "script" not in parsed.tags and "img" not in parsed.tags
    assert parsed.addresses == [] and "url(http" not in html  # it opens offline
    report = json.loads(facts.read_text(encoding="utf-8"))
    assert (report["rows"], report["distinct"], len(report["sha256"])) == (5, 4, 64)
    assert [r.weight for r in read_rows(single)[0]] == [2.0, 1.0, 1.0, 2.0]

    other = tmp_path / "held.json"
    other.write_text(json.dumps([row("外头下雪了。", "叫他们把炭添上。")]), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main([str(file), "--tokenizer", str(tokenizer_folder), "--held-out", str(other), "--json", "-"])
    assert stopped.value.code == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["level"] == "error"


def test_a_character_brings_rows_and_persona(
    tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ink"
    folder.mkdir()
    (folder / "persona.json").write_text(json.dumps({"name": "Ink", "system_prompt": "You are Ink."}))
    flags = ["--character", str(folder), "--tokenizer", str(tokenizer_folder), "--json", "-"]
    with pytest.raises(DataError, match="ink has no rows.json: give a file"):
        main(flags)
    with pytest.raises(DataError, match="no rows to check: give a file"):
        main(["--tokenizer", str(tokenizer_folder)])
    (folder / "rows.json").write_text(json.dumps(GOOD, ensure_ascii=False), encoding="utf-8")
    main(flags)
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["persona"]) == (3, "Ink")


def test_what_judges_a_character_is_read_and_compared_with_its_rows(
    tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(characters.FOLDER / "keeper", tmp_path / "ink"))
    flags = ["--character", str(folder), "--tokenizer", str(tokenizer_folder), "--max-tokens", "9999", "--json", "-"]
    judged = dict[str, int]()

    def told() -> list[dict[str, Any]]:
        report = json.loads(capsys.readouterr().out)
        judged.update(report["judged"])
        findings = report["findings"]
        return [found for found in findings if "judge" in found["text"] or found["level"] == "error"]

    main(flags)
    assert told() == []
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    assert [*judged] == ["lists.json", "facts.json", "recall.json", "sheet.json"] and judged["facts.json"] == len(facts)
    rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    fact = json.loads((folder / "facts.json").read_text(encoding="utf-8"))[0]["user"]
    taught = [rows[0] | {"instruction": f"{fact} !!", "scene": "known"}, rows[0] | {"instruction": "hm", "scene": "hm"}]
    (folder / "rows.json").write_text(json.dumps([*rows, *taught]), encoding="utf-8")
    main(flags)
    (known,) = told()
    assert (
        known["level"] == "warning"
        and known["text"].startswith("1 questions that judge")
        and known["examples"] == [f"{fact} ~ {fact} !!"]
    )
    (folder / "recall.json").write_text('[{"turns": ["alone"], "accept": ["a"], "reject": []}]', encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main(flags)
    assert stopped.value.code == 1
    broken, known = told()
    assert "train.evaluate would refuse this file" in broken["text"] and "recall.json item 1" in broken["text"]


def test_what_judges_the_template_is_no_measure_of_another_character(
    tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(characters.FOLDER / "keeper", tmp_path / "ink"))
    template = characters.FOLDER / characters.PATTERN
    shutil.copy(template / "facts.json", folder)
    own, others = (json.loads((place / "recall.json").read_text("utf-8")) for place in (folder, template))
    (folder / "recall.json").write_text(json.dumps([*own, *others[: len(own) - 1]]), encoding="utf-8")
    main(["--character", str(folder), "--tokenizer", str(tokenizer_folder), "--max-tokens", "9999"])
    printed = capsys.readouterr().out
    assert "warning       facts.json still asks what the template's does" in printed
    assert "recall.json still" not in printed  # fewer than half


def test_a_pattern_that_is_none_is_named(tmp_path: Path) -> None:
    lists = json.loads((characters.FOLDER / "keeper" / "lists.json").read_text(encoding="utf-8"))
    lists["rules"]["speaks of wires"] = ["wire", "(telephone"]
    (tmp_path / "lists.json").write_text(json.dumps(lists), encoding="utf-8")
    with pytest.raises(DataError, match=r"'speaks of wires': '\(telephone' is no pattern \(missing \), unterminated"):
        load_lists(tmp_path / "lists.json")


def test_how_surprising_each_row_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = tiny.gemma(), tiny.tokenizer()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    values = [
        *GOOD,
        row("还有呢？", "没有了。", history=[["可用过膳了？", "用了半碗粥。"]], scene="c", split="held_out"),
    ]
    values += [row(f"Row {n}?", f"The row {n}.", split="train") for n in range(16)]  # more than one pack
    (tmp_path / "rows.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    flags = [str(tmp_path / "rows.json"), "--tokenizer", str(tmp_path / "base"), "--json", str(tmp_path / "out.json")]
    main(flags)
    assert "surprise" not in capsys.readouterr().out
    main([*flags, "--surprise", "--base-model", str(tmp_path / "base")])
    told = capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["surprise"]["rows"]
    assert [entry["where"] for entry in found] == [f"row {n}" for n in range(1, 21)]
    encoder = PromptEncoder(tokenizer)
    for entry, value in zip(found, values, strict=True):
        example = encoder.example(default().system_prompt, parse_row(value, "").turns, "last")
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.input_ids])).logits[0, :-1]
        nat = float(F.cross_entropy(logits, torch.tensor(example.labels[1:]), ignore_index=IGNORED))
        assert entry["nat_per_token"] == pytest.approx(nat, rel=1e-4)
    most = max(found, key=lambda entry: entry["nat_per_token"])
    first = told.split("surprise ")[1].splitlines()[1]
    assert f"{most['nat_per_token']:.2f}  {most['where']}: {most['user']} → {most['reply']}" in first
    assert len(told.split("surprise ")[1].strip().splitlines()) == 1 + 10


def test_nothing_readable_and_dedupe_of_broken_rows(tokenizer_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([row("甲", "")]), encoding="utf-8")
    with pytest.raises(DataError, match="no row can be read; the first says row 1: output"):
        main([str(file), "--tokenizer", str(tokenizer_folder)])
    file.write_text(json.dumps([row("甲", ""), row("甲", "乙")]), encoding="utf-8")
    with pytest.raises(DataError, match="1 rows cannot be read; mend them"):
        main([str(file), "--tokenizer", str(tokenizer_folder), "--dedupe", str(tmp_path / "d.json")])
    assert not (tmp_path / "d.json").exists()


@pytest.mark.skipif(not HUANHUAN.is_file(), reason="no ../shared/data/huanhuan.json")
def test_the_public_set(encoder: PromptEncoder) -> None:
    read = read_row_file(HUANHUAN)
    report = examine(read, "huanhuan.json", Reading(encoder, Persona("x", "你是甄嬛。"), 2048))
    texts = [finding.text for finding in report.findings]
    assert any(text.startswith("109 rows repeat another word for word") for text in texts)
    assert report.repeated[0].user == "你是谁？" and report.repeated[0].copies == 50
    assert not any(finding.level == "error" for finding in report.findings)
    single = dedupe(read.values, read.rows)
    assert len(single) == 3256 and sum(value.get("weight", 1) for value in single) == len(read.values)


def test_the_preview_says_who_reads_it(encoder: PromptEncoder) -> None:
    report = examine(found(GOOD), "rows.json", Reading(encoder, Persona("Amos Pascoe", "You are Amos.")))
    assert "preview       as Amos Pascoe reads it" in as_text(report)


def test_nobody_reads_on_and_the_report_is_new_all_the_same(tokenizer_folder: Path, tmp_path: Path) -> None:
    rows, report = tmp_path / "rows.json", tmp_path / "report.json"
    rows.write_text(json.dumps(GOOD), encoding="utf-8")
    report.write_text("stale")
    unread, output = os.pipe()
    os.close(unread)
    command = [sys.executable, "-m", "dataset.check", str(rows), "--tokenizer", str(tokenizer_folder)]
    done = subprocess.run([*command, "--json", str(report)], stdout=output, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(output)
    assert (done.returncode, done.stderr) == (141, f"wrote {report}\n")
    assert json.loads(report.read_text(encoding="utf-8"))["persona"].endswith("(no --character or --persona was given)")


CARD = [row(f"What of {n * 7919}?", f"Nothing of {n * 104729}.", scene="card") for n in range(20)]


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ([row("外头下雪了。", "叫他们把炭添上。")], "nothing can be held out of 1"),
        ([row("外头下雪了。", "叫他们把炭添上。")] * 6, "5 of them are copies of another"),
        (
            [row(f"{n * 7919}?", f"{n}.", split="train") for n in range(3)],
            "3 training and 0 held-out rows by their own",
        ),
        (CARD, ""),
        ([*CARD[:9], row("How long?", LONG)], "512 fit"),
        ([*CARD[:9], row("How long?", "Long.", history=[["And then?", LONG]])], ""),
        ([*CARD[:9], row("How long?", None)], "output is None"),
        ([value | {"weight": 0.01} for value in CARD], "so low that none was drawn"),
    ],
)
def test_the_check_refuses_what_training_refuses(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[Any], refused: str
) -> None:
    """The real commands with their own defaults, on the same files; training ends where the model would be asked."""
    file, me = tmp_path / "rows.json", tmp_path / "me.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    me.write_text(json.dumps({"name": "x", "system_prompt": "You are x."}), encoding="utf-8")
    try:
        main([str(file), "--persona", str(me), "--tokenizer", str(tokenizer_folder)])
        status = 0
    except SystemExit as ended:
        status = int(str(ended.code))
    monkeypatch.setattr(lora, "ROOT", tmp_path)
    tiny.gemma().save_pretrained(tmp_path / "base")
    GemmaTokenizer.from_pretrained(tokenizer_folder).save_pretrained(tmp_path / "base")
    monkeypatch.setattr(memory, "plan", lambda *args: sys.exit("fits"))
    flags = lora.LoraFlags(name="x", data=[str(file)], persona=str(me), base_model=str(tmp_path / "base"))
    if refused:
        with pytest.raises(DataError, match=refused):
            lora.train(flags)
    else:
        with pytest.raises(SystemExit, match="fits"):
            lora.train(flags)
    assert status == bool(refused)


def test_the_check_holds_out_what_training_holds_out_and_looks_up(
    tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, me = tmp_path / "rows.json", tmp_path / "me.json"
    values = [row(f"What of {n * 7919}?", f"Nothing of {n * 104729}.", scene=str(n)) for n in range(12)]
    values.append(row("And then?", "It fell.", history=[["What fell?", "A star of no other row."]], scene="star"))
    file.write_text(json.dumps(values), encoding="utf-8")
    me.write_text(json.dumps({"name": "x", "system_prompt": "You are x."}), encoding="utf-8")
    flags = [str(file), "--persona", str(me), "--tokenizer", str(tokenizer_folder), "--json", "-"]
    drawn = set()
    for seed, share in ((0, 0.1), (7, 0.1), (7, 0.3)):
        main([*flags, "--retrieval", "--seed", str(seed), "--held-out", str(share)])
        findings = json.loads(capsys.readouterr().out)["findings"]
        (note,) = (found for found in findings if "train.lora would hold out" in found["text"])
        given = lora.LoraFlags(data=[str(file)], persona=str(me), seed=seed, held_out=share, retrieval=True)
        learnt = lora.read_material(given)
        assert [named.split(": ")[1] for named in note["examples"]] == [
            " → ".join(one.turns[-1]) for one in learnt.held_out
        ]
        drawn.add(tuple(note["examples"]))
        warned = {found["text"] for found in findings if found["level"] == "warning"}
        assert {told for told in learnt.notes if "not looked up" in told} == warned
    assert len(drawn) == 3

    values.append(row("How long?", "a" * (limits.EXAMPLE + 1)))
    file.write_text(json.dumps(values), encoding="utf-8")
    main([*flags, "--max-tokens", "9999"])
    with pytest.raises(SystemExit):
        main([*flags, "--max-tokens", "9999", "--retrieval"])
    assert "too many to be looked up: shorten the row" in capsys.readouterr().out
    with pytest.raises(DataError, match="--held-out 0.6: give a share from 0 to 0.5"):
        main([*flags, "--held-out", "0.6"])


def test_several_files_are_checked_as_they_are_trained(
    tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(GOOD, indent=1), encoding="utf-8")
    (tmp_path / "b.csv").write_text("question,answer\nWhere?,Here.\nWhen?,\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "a.json"), str(tmp_path / "b.csv"), "--tokenizer", str(tokenizer_folder)])
    told = capsys.readouterr().out
    assert ended.value.code == 1 and "5 rows, 4 distinct" in told
    assert f"{tmp_path / 'b.csv'} line 3, row 2: output is None" in told
    assert f"{tmp_path / 'b.csv'}: read as question-answer" in told


def test_preference_pairs_are_checked_as_they_are_trained(
    tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, facts = tmp_path / "pairs.jsonl", tmp_path / "pairs-report.json"
    pairs = [{"prompt": f"What of {n * 7919}?", "chosen": f"Nothing of {n}.", "rejected": "No."} for n in range(20)]
    turned = pairs[0] | {"chosen": "No.", "rejected": "Nothing of 0."}
    file.write_text("\n".join(map(json.dumps, [*pairs, pairs[1], turned])), encoding="utf-8")
    flags = [str(file), "--tokenizer", str(tokenizer_folder)]
    main([*flags, "--json", str(facts)])  # warnings alone end with status 0
    told = capsys.readouterr().out
    assert "22 pairs, 19 usable, on 19 prompts" in told
    assert f"1 of 22 pairs left out: the same preference again\n{'':18}{file} row 21: What of 7919?" in told
    assert "2 of 22 pairs left out: others prefer the other reply" in told
    assert "the longer reply is chosen in 19 of 19 pairs" in told
    assert json.loads(facts.read_text(encoding="utf-8"))["usable"] == 19
    with pytest.raises(DataError, match="--html is for training rows"):
        main([*flags, "--html", str(tmp_path / "r.html")])

    file.write_text(json.dumps([*pairs[:3], {"prompt": "a", "chosen": "", "rejected": LONG}]), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main([*flags, "--max-tokens", "30"])
    told = capsys.readouterr().out
    assert stopped.value.code == 1 and "1 pairs cannot be read" in told and "chosen is empty" in told
    assert "3 pairs take more than 30 tokens" in told
