"""Votes between any two: each pair has its tally, and three that met have a ranking once there are votes enough."""

import random
from dataclasses import replace

import pytest

from page.votes_view import votes_html
from roleplay.engine.protocol import ADAPTER, BASE, Question, Request, Sampling, Speaker
from roleplay.results.ranking import Player, pairs, ranking
from roleplay.results.votes import EXAMPLES, NOTHING, Ballot, Vote, cast

ASKED = Question("You are a consort.", (), "who are you?")
GIVEN = {ADAPTER: "Your servant.", BASE: "A language model."}
ONE, HALF, TWO, PLAIN = Player("one"), Player("one", 0.5), Player("two"), Player()


def vote(first: Player, second: Player, winner: str) -> Vote:
    """Of which `winner` is the first's side, the second's, or a choice."""
    asked = {ADAPTER: ASKED, BASE: replace(ASKED, persona="") if second.given == NOTHING else ASKED}
    other, examples = Speaker(second.adapter, second.strength), 4 * (second.given == EXAMPLES)
    request = Request(asked, Sampling(), first.adapter, strength=first.strength, other=other)
    made, others = ({"adapter_sha256": one.sha256} if one.sha256 else {} for one in (first, second))
    ballot = Ballot(request, GIVEN, (BASE, ADAPTER), made, examples, other=others)
    return cast({ADAPTER: "right", BASE: "left"}.get(winner, winner), ballot)


def test_a_pair_has_one_tally_whoever_stood_where() -> None:
    votes = [vote(ONE, PLAIN, ADAPTER), vote(ONE, Player("two", 0.0), BASE), vote(ONE, TWO, ADAPTER)]
    votes += [vote(TWO, ONE, ADAPTER), vote(TWO, ONE, "tie"), vote(TWO, ONE, "bad"), vote(HALF, ONE, ADAPTER)]
    met = pairs([*votes, vote(ONE, ONE, ADAPTER)])
    assert set(met) == {(ONE, PLAIN), (ONE, TWO), (HALF, ONE)}
    beside = met[ONE, TWO]
    assert (beside.adapter, beside.base, beside.ties, beside.bad, beside.left, beside.right) == (1, 1, 1, 1, 0, 2)
    assert (met[ONE, PLAIN].adapter, met[ONE, PLAIN].base) == (1, 1)


def test_the_base_model_with_rows_or_without_a_persona_is_another_opponent() -> None:
    rows, bare = Player(given=EXAMPLES), Player(given=NOTHING)
    votes = [vote(ONE, PLAIN, ADAPTER)] * 20 + [vote(ONE, rows, BASE)] * 20 + [vote(ONE, bare, "tie")]
    met = pairs([*votes, vote(Player("one", 0.0), rows, BASE)])
    assert [(pair, tally.adapter, tally.base) for pair, tally in met.items()] == [
        ((ONE, PLAIN), 20, 0),
        ((ONE, rows), 0, 20),
        ((ONE, bare), 0, 0),
        ((PLAIN, rows), 0, 1),
    ]
    html = votes_html(votes, ONE, "en")
    assert "The adapter won 20 of 20" in html and "People prefer the base model with training rows." in html
    assert "one beside the base model without a persona: 0 of 0" in html
    nobody = replace(votes[0], questions={side: {"persona": ""} for side in (ADAPTER, BASE)})
    assert set(pairs([nobody])) == {(ONE, PLAIN)}  # neither was told a persona


def test_checkpoints_of_one_name_are_counted_apart_and_named_by_their_hashes() -> None:
    old, new = (Player("one", sha256=letters * 32) for letters in ("ab", "cd"))
    votes = [vote(old, PLAIN, ADAPTER)] * 20 + [vote(new, PLAIN, BASE)] * 30 + [vote(new, old, "tie")] * 5
    met = pairs([*votes, vote(new, new._replace(strength=0.5), ADAPTER)])
    assert [(tally.adapter, tally.base) for tally in met.values()] == [(20, 0), (0, 30), (0, 0), (1, 0)]
    assert [one.player for one in ranking(met)] == [old, PLAIN, new]
    html = votes_html(votes, new, "en")
    assert "<p>one (cdcdcdcdcdcd): The adapter won 0 of 30" in html and "<li>one (abababababab): " in html
    assert "<p>one (abababababab) beside the base model: 20 of 20" in html
    assert "<p>one (cdcdcdcdcdcd) beside one (abababababab): 0 of 0" in html
    before = votes_html(votes[:20], new, "en")  # trained anew, and not voted on yet
    assert "one (cdcdcdcdcdcd): No votes yet" in before and "one (abababababab) beside" in before
    assert "abab" not in votes_html(votes[:20], old, "en")  # one checkpoint needs no hash


def test_the_ranking_finds_the_chances_that_made_the_votes() -> None:
    dice, strength, votes = random.Random(1), {ONE: 4.0, TWO: 2.0, PLAIN: 1.0}, list[Vote]()
    for first, second in ((ONE, TWO), (TWO, PLAIN), (ONE, PLAIN)):
        chance = strength[first] / (strength[first] + strength[second])
        votes += [vote(first, second, ADAPTER if dice.random() < chance else BASE) for _ in range(600)]
    ranked = ranking(pairs(votes))
    assert [one.player for one in ranked] == [ONE, TWO, PLAIN]
    for one in ranked:
        own, others = strength[one.player], [strength[other] for other in strength if other != one.player]
        assert one.share.value == pytest.approx(sum(own / (own + other) for other in others) / 2, abs=0.03)
        assert one.share.low < one.share.value < one.share.high < one.share.low + 0.08
    html = votes_html(votes, ONE, "en")
    assert "<li>one: 7" in html and "one beside two: " in html and "People prefer the adapter." in html


def test_few_votes_make_no_ranking() -> None:
    votes = [vote(ONE, TWO, ADAPTER)] * 30 + [vote(TWO, PLAIN, ADAPTER)] * 3
    assert ranking(pairs(votes)) == [] and "not yet conclusive: it takes three" in votes_html(votes, ONE, "en")
    assert "anking" not in votes_html(votes[:30], ONE, "en")
    apart = [vote(ONE, PLAIN, ADAPTER)] * 30 + [vote(TWO, HALF, ADAPTER)] * 30
    assert ranking(pairs(apart)) == []


def test_who_has_few_votes_or_met_nobody_else_hides_no_ranking() -> None:
    votes = [vote(ONE, TWO, ADAPTER)] * 20 + [vote(TWO, PLAIN, ADAPTER)] * 20
    whole = ranking(pairs(votes))
    assert {one.player for one in whole} == {ONE, TWO, PLAIN}
    odd, far = Player("one", 0.35), Player("three")
    assert ranking(pairs([*votes, vote(odd, PLAIN, BASE)])) == whole
    assert ranking(pairs([*votes, *[vote(far, HALF, BASE)] * 30])) == whole
    # Whoever is left with too few once another is left out goes too.
    short = [vote(ONE, TWO, ADAPTER)] * 20 + [vote(PLAIN, TWO, BASE)] * 15 + [vote(PLAIN, odd, BASE)] * 5
    assert ranking(pairs(short)) == []
