"""`train.prefer` on a tiny Gemma: it learns what was chosen, writes where it comes from, and refuses what got worse."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dataset.preferences import (
    AGAIN,
    ALIKE,
    OPPOSED,
    kinds,
    one_sided,
    preferences,
    review,
    sentences,
    vote_pairs,
    vote_thumbs,
)
from roleplay.engine.protocol import ADAPTER, BASE, Question, Request, Sampling
from roleplay.errors import DataError, RoleplayError
from roleplay.results.intervals import Estimate
from roleplay.results.votes import Ballot, Box, Vote, cast
from roleplay.text.known import Known
from roleplay.text.pairs import Pair, parse_pair, prompt_groups, split_pairs
from roleplay.text.rows import Row
from roleplay.weights import base_models, inspection, training_rows
from roleplay.weights.examples import write_examples
from tests import tiny
from train import prefer
from train.learning.checkpoints import what_must_stay
from train.learning.settings import PreferFlags
from train.measuring import gate, own_samples
from train.measuring.gate import IDENTITY, MARGIN, WORSE, Change
from train.measuring.losses import Losses
from train.measuring.replies import Reply, Writer
from train.measuring.resampling import paired_share_difference
from train.measuring.rules import Break, Identity, Lists
from train.measuring.written import Fact, Recall, Written

LIKED, DISLIKED = "Tea, with pleasure.", "No tea for me!"
THINGS = ["snow", "plums", "silk", "the moon", "a crane", "lotus", "amber", "willows", "ink", "a gate", "lamps", "jade"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Gemma 3 and a byte tokenizer, as a base model."""
    folder = tmp_path_factory.mktemp("base")
    tiny.gemma().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Adapters and runs go here and not into the repository."""
    monkeypatch.setattr(prefer, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """One reply is always preferred to another, whatever is asked."""
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"Is there tea by {thing}?", "chosen": LIKED, "rejected": DISLIKED} for thing in THINGS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(base: Path, folder: Path, **changes: object) -> PreferFlags:
    few: dict[str, object] = dict(name="voted", adapter=str(folder), base_model=str(base), dtype="float32")
    few |= dict(learning_rate=1e-2, epochs=2.0, batch_size=5, held_out=0.25, save_every=1, max_length=500)
    return PreferFlags(**(few | changes))  # type: ignore[arg-type]


def vote(choice: str, user: str = "who are you?", stop: str = "end") -> Vote:
    asked = Question("You are a consort.", (("hello", "good evening"),), user)
    request = Request({ADAPTER: asked, BASE: asked}, Sampling(seed=7), "tiny")
    said = {ADAPTER: "Your servant.", BASE: "A language model."}
    stops = {ADAPTER: stop, BASE: "end"}
    return cast(choice, Ballot(request, said, (ADAPTER, BASE), {"template": "gemma"}, stops=stops))


def test_the_chosen_reply_gains_on_held_out_prompts(base, home, folder, pairs, monkeypatch):
    """A stop after the first update, a refusal at the gate, and what is taken then has the bits of a run at one go."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_dropout": 0.5}), encoding="utf-8")
    whole = prefer.prefer(settings(base, folder, pairs=[str(pairs)], name="whole"))
    assert json.loads((whole / "adapter_config.json").read_text(encoding="utf-8"))["lora_dropout"] == 0.0
    training = json.loads((whole / "training.json").read_text(encoding="utf-8"))
    (stage,) = training["preferences"]
    assert stage["adapter"]["name"] == "tiny" and stage["pairs"] == {"learnt": 9, "held out": 3}
    assert stage["results"]["updates"] == 4 and stage["results"]["accuracy"] == 1.0
    changes = {change["name"]: change for change in stage["gate"]}
    assert changes[MARGIN]["verdict"] == "better" and changes[MARGIN]["after"] > changes[MARGIN]["before"]
    assert {key: training[key] for key in ("data", "held_out", "results")} == {
        key: tiny.training()[key] for key in ("data", "held_out", "results")
    }  # what rows its evaluation holds out is the first training's
    card = (whole / "README.md").read_text(encoding="utf-8")
    assert "It goes on from tiny" in card and "by 9 pairs of a chosen and a rejected reply; 3 more" in card
    assert str(home) not in card + json.dumps(training), "a path of this machine"
    assert inspection.inspect(whole).persona == inspection.inspect(folder).persona
    assert not (home / "runs" / "whole").exists()

    monkeypatch.setattr(gate, "compare", lambda *_: [Change(IDENTITY, 30, 0.9, 0.1, Estimate(-0.8, -1, -0.5))])
    with pytest.raises(RoleplayError, match=r"voted is refused: identity got clearly worse.*--resume --keep-anyway"):
        prefer.prefer(settings(base, folder, pairs=[str(pairs)]))
    assert not (home / "adapters" / "voted").exists()
    run = home / "runs" / "voted"
    (run / "checkpoint-4").rename(home / "away")  # as if it had been killed before the last update
    taken = prefer.prefer(settings(base, folder, pairs=[str(pairs)], resume=True, keep_anyway=True))
    one, other = (load_file(adapter / "adapter_model.safetensors") for adapter in (whole, taken))
    assert all(torch.equal(one[name], other[name]) for name in one)
    stage = json.loads((taken / "training.json").read_text(encoding="utf-8"))["preferences"][0]
    assert stage["gate"][-1]["verdict"] == WORSE and not run.exists()


def test_kto_learns_replies_one_by_one_and_is_measured_on_pairs(base, home, folder, pairs):
    turns = (Known(("who are you?", "I am I."), "0"), Known(("is it late?", "It is."), "1"))
    write_examples(folder, turns)
    made = prefer.prefer(settings(base, folder, pairs=[str(pairs)], loss="kto", keep_anyway=True))
    assert inspection.inspect(made).looked_up.turns == turns  # it goes on looking up
    (stage,) = json.loads((made / "training.json").read_text(encoding="utf-8"))["preferences"]
    assert stage["pairs"] == {"learnt": 9, "held out": 3} and stage["thumbs"] == 18
    assert stage["results"]["accuracy"] == 1.0 and "KTO with beta 0.1" in (made / "README.md").read_text("utf-8")


@pytest.fixture
def taught(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The adapter, with the rows that it says it was trained on."""
    monkeypatch.setattr(training_rows, "PROJECT", home)
    rows = [{"instruction": f"Is there {thing}?", "output": f"There is {thing}."} for thing in THINGS]
    (home / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    *_, files = training_rows.load_rows([home / "rows.json"], training_rows.HELD_OUT, training_rows.SEED)
    path = folder / "training.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"data": files}), encoding="utf-8")
    return folder


def test_an_adapter_makes_its_own_pairs_and_they_mix_with_others(base, home, taught, pairs, monkeypatch):
    """Self-play on what it was trained on; a run that goes on writes nothing anew, and the same seed says the same."""
    monkeypatch.setattr(gate, "compare", lambda *_: [])
    given = settings(base, taught, pairs=[str(pairs)], own_samples=1, own_messages=6, epochs=1.0)
    made = prefer.write_own(given, inspection.inspect(taught))
    again = prefer.write_own(replace(given, own_messages=3), inspection.inspect(taught))
    assert all(
        row["chosen"] == row["prompt"][0]["content"].replace("Is there", "There is")[:-1] + "." for row in made.rows
    )
    assert len(made.rows) == 6 and {row["rejected"] for row in again.rows} <= {row["rejected"] for row in made.rows}

    monkeypatch.setattr(prefer, "write_own", lambda *_: made)
    with monkeypatch.context() as killed:
        killed.setattr(prefer, "check_gate", lambda *_: 1 / 0)  # as if it had been killed there
        with pytest.raises(ZeroDivisionError):
            prefer.prefer(given)
    monkeypatch.setattr(prefer, "write_own", lambda *_: pytest.fail("written anew"))
    with pytest.raises(RoleplayError, match="holds an unfinished run"):  # before anything is written
        prefer.prefer(given)
    voted = prefer.prefer(replace(given, resume=True))
    (stage,) = json.loads((voted / "training.json").read_text(encoding="utf-8"))["preferences"]
    assert [(file["file"], file["rows"]) for file in stage["files"]] == [("pairs.jsonl", 12), ("own samples", 6)]
    assert stage["own"] == {"messages": 6, "replies": 1, "pairs": 6, "rejected": {own_samples.NOT_WRITTEN: 6}}
    card = (voted / "README.md").read_text(encoding="utf-8")
    assert "It answered 6 messages of its training itself, which makes 6 pairs: its reply is rejected beside" in card


ROW = Row((("Who are you?", "I am Zhen Huan, a consort of the palace, and I keep the plum garden."),))
LISTS = Lists((), (), (), (), (), {"machine": ["language model"]})
RANKED = {
    "the last is worst": (["Zhen Huan.", "A consort.", "Tea."], "Zhen Huan.", "Tea.", own_samples.LAST),
    "out of character": (["A language model.", "Zhen Huan.", "Tea."], "Zhen Huan.", "A language model.", "machine"),
    "cut": (["Zhen Huan.", "And so … [cut]", "Tea."], "Zhen Huan.", "And so … [cut]", own_samples.CUT),
    "copied": (
        ["And I keep the plum garden.", "Yes.", "Tea."],
        "Yes.",
        "And I keep the plum garden.",
        own_samples.COPIED,
    ),
}


@pytest.mark.parametrize("case", RANKED)
def test_of_several_own_replies_the_best_is_chosen_and_the_worst_rejected(case):
    said, chosen, rejected, why = RANKED[case]
    replies = [Reply(text, 5, "[cut]" not in text) for text in ["", *said]]
    made = own_samples.pair([ROW], [replies], own_samples.rules(LISTS, [ROW]))
    prompt = [{"role": "user", "content": "Who are you?"}]
    assert made.rows == [{"prompt": prompt, "chosen": chosen, "rejected": rejected}]
    assert made.record["rejected"] == {why: 1}


def test_own_replies_that_all_have_a_fault_or_are_all_the_same_make_no_pair():
    replies = [[Reply("A language model.", 5, True), Reply("I am", 5, False)], [Reply("Yes.", 2, True)] * 2]
    made = own_samples.pair([ROW, ROW], replies, own_samples.rules(LISTS, [ROW]))
    assert made.rows == [] and made.record == {"messages": 2, "replies": 2, "pairs": 0, "rejected": {}}


def test_the_candidates_of_a_writer_stand_as_they_rank(folder):
    adapter, choice = inspection.inspect(folder), ("", "")
    base = base_models.BaseModel(tiny.gemma(), tiny.tokenizer(), tiny.BASE_NAME, "random", choice, choice, choice)
    writer = Writer(base, [adapter], base_models.fingerprint(base.model))
    (wanted,) = own_samples.ask(adapter, [ROW], 3, 0)
    wanted = replace(wanted, sampling=replace(wanted.sampling, max_new_tokens=8))
    (ranked,) = writer.candidates([wanted])
    (best,) = writer.write([wanted])
    assert len(set(ranked)) == 3 and ranked[0] == best


def test_replies_to_lists_and_prompts_are_judged_side_by_side(folder):
    """Two adapters with the same weights say the same, so nothing has changed; another one does not."""
    one = inspection.inspect(folder)
    shutil.copytree(folder, folder.with_name("two"))
    weights = load_file(folder / "adapter_model.safetensors")
    shutil.copytree(folder, folder.with_name("three"))
    save_file({n: w * 3 for n, w in weights.items()}, folder.with_name("three") / "adapter_model.safetensors")
    two, three = (inspection.inspect(folder.with_name(name)) for name in ("two", "three"))
    choice = ("", "")
    base = base_models.BaseModel(tiny.gemma(), tiny.tokenizer(), tiny.BASE_NAME, "random", choice, choice, choice)
    writer = Writer(base, [one, two, three], base_models.fingerprint(base.model))
    asked = ["Who?", "Your name?", "来者何人"]
    said = gate._write(writer, one, [(one.persona, (), user) for user in asked])
    identity = tuple(Identity(user, (reply.text,)) for user, reply in zip(asked, said, strict=True))
    lists = Lists(identity, (Break("Be a cat", ("meow",)),), (), (), (), {})
    last = gate._remembered(writer, one, [Recall(("I am Bo.", "Who am I?"), ("",), ())])
    written = Written(lists, (), (Recall(("I am Bo.", "Who am I?"), ("",), ()),))
    same, other = (gate.replies_changed(writer, (one, new), written, [("", (), "Hi")]) for new in (two, three))
    counted = [("identity", 3), ("in character", 1), (gate.ENDINGS, 5), (gate.RECALL, 1)]
    assert [(change.name, change.items) for change in same] == counted and last == [True]
    assert all(change.before == change.after and change.verdict == gate.UNDECIDED for change in same)
    assert other[0].before == same[0].before == 1.0 > other[0].after
    assert gate.fallen(same) == []
    fact = Fact("Who?", ("a", "b", "c", "d"))
    (known,) = gate.facts_changed(Losses(base, [one, two]), (one, two), writer.encoders, [fact])
    assert (known.name, known.items, known.before) == (gate.FACTS, 1, known.after)


def test_what_looks_rows_up_may_copy_them():
    replies = [Reply("A row that she has learnt by heart and says again.", 9, True), Reply("Tea, then.", 3, True)]
    row = Row((("Who?", replies[0].text),))
    plain, looking = (own_samples.pair([row], [replies], own_samples.rules(LISTS, [row], up)) for up in (False, True))
    assert plain.rows[0]["chosen"] == "Tea, then." and looking.rows[0]["chosen"] == replies[0].text


def test_two_files_of_one_name_are_both_learnt(base, home, folder, pairs):
    other = home / "other" / pairs.name
    other.parent.mkdir()
    other.write_text(pairs.read_text(encoding="utf-8").replace("Is there", "Was there"), encoding="utf-8")
    material = prefer.read_material(settings(base, folder, pairs=[str(pairs), str(other)]))
    assert len(material.pairs) + len(material.held_out) == 24 and len(material.files) == 2
    both = what_must_stay({}, "", material.files, "")
    assert all(both != what_must_stay({}, "", [one], "") for one in material.files)


def test_no_answer_of_a_pair_can_be_looked_up(base, home, folder, pairs, monkeypatch):
    """Not even a held-out one's, whose margin it would flatter."""
    other = Known(("who are you?", "I am I."), "other")
    answers = [Known((f"Is there tea by {thing}?", LIKED), thing) for thing in THINGS]
    write_examples(folder, [*answers, other])
    shown = []

    def look(flags, encoder, persona, material):
        shown.extend(one.turn for one in encoder.retriever.known)
        raise RoleplayError("seen")

    monkeypatch.setattr(prefer, "encode", look)
    with pytest.raises(RoleplayError, match="seen"):
        prefer.prefer(settings(base, folder, pairs=[str(pairs)]))
    assert shown == [other.turn]


VERDICTS = {
    (IDENTITY, -0.5, -0.1): (WORSE, True),
    (IDENTITY, -0.5, 0.1): (gate.UNDECIDED, False),
    (IDENTITY, 0.1, 0.5): (gate.BETTER, False),
    (MARGIN, -0.5, -0.1): (WORSE, False),  # nothing but what must not fall refuses
}


@pytest.mark.parametrize("case", VERDICTS)
def test_what_must_not_fall_refuses_where_its_interval_is_below_zero(case):
    name, low, high = case
    change = Change(name, 30, 0.5, 0.4, Estimate((low + high) / 2, low, high))
    verdict, refused = VERDICTS[case]
    assert change.verdict == verdict and bool(gate.fallen([change])) is refused
    assert str(change).startswith(f"{verdict}: {name}, ")


BAD = {
    "no usable pair in 0 votes and 0 files": {},
    "no such folder of votes": {"votes": "nowhere"},
    "--name tiny is the adapter that it goes on from": {"name": "tiny", "overwrite": True},
    "give a --held-out above 0": {"held_out": 0.0},
    "remove the pair or raise --max-length": {"max_length": 20},
    "no such adapter folder": {"adapter": "nowhere"},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_line(base, home, folder, pairs, message):
    given = {"pairs": [str(pairs)]} if BAD[message] and "votes" not in BAD[message] else {}
    with pytest.raises(RoleplayError, match=message) as error:
        prefer.prefer(settings(base, folder, **(given | BAD[message])))
    assert "\n" not in str(error.value)
    assert not (home / "adapters" / "voted").exists()


def test_an_adapter_without_a_whole_record_is_refused_before_the_run(base, home, folder, pairs):
    (folder / "training.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RoleplayError, match=r"its training.json is not one of train.lora"):
        prefer.prefer(settings(base, folder, pairs=[str(pairs)]))


def test_votes_become_pairs_and_their_kinds_are_counted(tmp_path):
    box = Box(tmp_path / "votes")
    for cast_vote in (vote("left"), vote("left"), vote("right", "and now?"), vote("tie"), vote("bad")):
        box.add(cast_vote)
    box.add(vote("left", "cut?", "length"))  # would teach to end in the middle
    votes = box.votes()
    assert len(preferences(votes)) == 3
    assert kinds(votes) == {"for the adapter": 3, "for the other side": 1, "ties": 1, "both bad": 1, "pairs": 3}
    kept, left_out = review(vote_pairs(votes))
    assert [(pair.user, pair.chosen) for pair in kept] == [
        ("who are you?", "Your servant."),
        ("and now?", "A language model."),
    ]
    assert kept[0].persona == "You are a consort." and kept[0].turns == (("hello", "good evening"),)
    assert sentences(left_out, 3) == ["1 of 3 pairs left out: the same preference again"]


def test_votes_that_make_no_pair_are_thumbs_for_kto(tmp_path):
    """A tie likes both, "both bad" neither, and what most found of a reply counts, on no prompt that is held out."""
    box = Box(tmp_path / "votes")
    for thing in THINGS:
        box.add(vote("left", f"Is there {thing}?"))
    for choice in ("tie", "bad", "bad"):
        box.add(vote(choice, "At last?"))
    alone = vote_thumbs(box.votes())
    assert [(thumb.user, thumb.liked) for thumb in alone] == [("At last?", liked) for liked in [True] * 2 + [False] * 4]
    assert vote_thumbs([vote("tie", stop="length")]) == [replace(alone[1], where="vote 1, base", user="who are you?")]
    material = prefer.read_material(PreferFlags(votes=str(tmp_path / "votes"), loss="kto"))
    assert len(material.thumbs) == 2 * len(material.pairs) + 2
    assert [thumb.liked for thumb in material.thumbs[-4:]] == [True, False, False, False]
    assert not {thumb.user for thumb in material.thumbs} & {pair.user for pair in material.held_out}


def test_contradictions_go_to_the_majority_and_cancel_out_where_there_is_none():
    def pair(user: str, chosen: str, rejected: str) -> Pair:
        return Pair("", (), user, chosen, rejected)

    given = [pair("a", "x", "y")] * 2 + [pair("a", "y", "x"), pair("b", "x", "y"), pair("b", "y", "x")]
    kept, left_out = review([*given, pair("c", "x", "x")])
    assert kept == [pair("a", "x", "y")]
    assert {why: len(out) for why, out in left_out.items()} == {AGAIN: 1, OPPOSED: 3, ALIKE: 1}


def test_one_sided_preferences_are_named():
    votes = [vote("left", str(number)) for number in range(20)]
    found = one_sided(vote_pairs(votes), votes)
    assert [sentence.split(" ")[0] for sentence in found] == ["the", "the", "all"]
    assert "votes may follow the place" in found[0] and "the shorter reply is chosen in 20 of 20 pairs" in found[1]
    assert one_sided(vote_pairs([vote("left"), vote("right")]), [vote("left"), vote("right")]) == []


def test_pairs_on_one_prompt_stay_on_one_side():
    pairs = [Pair("", (), f"{thing}, what of it?", f"{n}", "no", f"{n} {thing}") for thing in THINGS for n in range(3)]
    learnt, held = split_pairs(pairs, 0.25, 0)
    assert {pair.user for pair in learnt}.isdisjoint(pair.user for pair in held)
    assert len(held) == 9 and len(set(prompt_groups(held))) == 3


BAD_ROWS = {
    "list where an object": [],
    "prompt is empty": {"chosen": "a", "rejected": "b"},
    "prompt must be turns of user and assistant": {
        "prompt": [{"role": "assistant", "content": "a"}],
        "chosen": "a",
        "rejected": "b",
    },
    "rejected is empty": {"prompt": "a", "chosen": "b", "rejected": " "},
    "chosen must be a text or a list": {"prompt": "a", "chosen": [1], "rejected": "b"},
    "chosen must be one reply": {"prompt": "a", "chosen": [{"role": "user", "content": "b"}], "rejected": "b"},
    "end with the user's": {"prompt": [{"role": "system", "content": "a"}], "chosen": "b", "rejected": "c"},
}


@pytest.mark.parametrize("message", BAD_ROWS)
def test_a_pair_that_cannot_be_used_is_named(message):
    with pytest.raises(DataError, match=f"here: .*{message}"):
        parse_pair(BAD_ROWS[message], "here")


PUBLISHED = {  # Newcombe 1998, table III, method 10: items that both, only the first, only the second, none got right
    (36, 12, 2, 0): (0.0569, 0.3404),
    (20, 12, 2, 16): (0.0562, 0.3292),
    (36, 14, 0, 0): (0.1528, 0.4167),
    (18, 14, 0, 18): (0.1441, 0.3963),
    (1, 97, 1, 1): (0.8736, 0.9850),
    (54, 0, 0, 0): (-0.0664, 0.0664),
    (30, 0, 0, 24): (-0.0358, 0.0358),
}


@pytest.mark.parametrize("cells", PUBLISHED)
def test_paired_shares_have_the_published_intervals(cells):
    both, one, other, none = cells
    first = [True] * (both + one) + [False] * (other + none)
    second = [True] * both + [False] * one + [True] * other + [False] * none
    found = paired_share_difference(first, second)
    assert (found.low, found.high) == pytest.approx(PUBLISHED[cells], abs=1e-4)
    assert found.value == pytest.approx((one - other) / sum(cells))
