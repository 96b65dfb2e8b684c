"""Weighs hints and turns into a speaker for every speech of a chapter, by the forward-backward algorithm.

A state is (speaker of the speech before, speaker of this one), so that "the same again" and "back to the one before"
can be weighed. The posterior of the best speaker is the confidence.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from dataset.novel.hints import Hint

NOBODY = ""  # somebody whom the text does not name here
NARRATOR = "I"
_REACH = 40.0  # how far off a candidate may stand, in speeches and paragraphs
Answers = Sequence[tuple[str, float]]
_BACK = (3.0, 1.0, 0.0)  # for who spoke before the other: with nothing, a paragraph or a scene between
_ENTRY = -1.5  # for one who spoke neither of the two speeches before
_MOST = 9  # candidates for one speech


def standing(hints: Sequence[Hint]) -> dict[str, float]:
    """How much a chapter shows of each of its people, against how much it only speaks of them, in log-odds."""
    shown, spoken_of = Counter[str](), Counter[str]()
    for hint in hints:
        shown.update({hint.name: 6} if hint.weight > 2 else {})
        shown.update(dict.fromkeys(hint.present, 2))
        shown.update(dict.fromkeys(hint.addressed, 1))
        shown.update({hint.self_named: 6} if hint.self_named else {})
        spoken_of.update(set(hint.mentioned) - set(hint.addressed))
    return {
        name: 0.7 * math.log((count + 1) / (count + 2 * spoken_of[name] + 2)) + 0.2 * math.log(1 + count / 2)
        for name, count in shown.items()
        if name not in ("", "?")
    }


def candidates(hints: Sequence[Hint], gender: Mapping[str, str], known: Answers) -> list[dict[str, float]]:
    """Who may speak each speech, and how likely before it is weighed: by standing and by nearness."""
    places: dict[str, list[tuple[float, float]]] = {}
    clock, times = 0.0, []
    for at, hint in enumerate(hints):
        clock += 1 + (0, 2, 12)[int(hint.fresh)]
        times.append(clock)
        near = [
            (hint.name, 0),
            (hint.self_named, 0),
            *((n, 1) for n in hint.addressed),
            *((n, 2) for n in hint.present),
        ]
        near += [(known[at][0], 0)] if known and known[at][1] > 0.7 else []
        for name, far in near:
            places.setdefault(name, []).append((clock, far))
    prior = standing(hints)
    found = []
    for time, hint in zip(times, hints, strict=True):
        distance = {
            name: min(abs(time - place) + far for place, far in places[name]) for name in prior if name in places
        }
        score = {name: prior[name] - 0.06 * min(far, 40) for name, far in distance.items()}
        near_by = sorted((-score[name], name) for name, far in distance.items() if far <= _REACH or name == hint.name)
        chosen = [name for _, name in near_by][:_MOST]
        wanted = hint.gender
        if wanted and not any(gender.get(name) == wanted for name in chosen):
            fitting = sorted((far, name) for name, far in distance.items() if gender.get(name) == wanted)
            chosen += [name for _, name in fitting[:2]]
        found.append({name: score[name] for name in chosen} | {NOBODY: -3.0})
    return found


def _emission(name: str, hint: Hint, gender: Mapping[str, str]) -> float:
    if name == NOBODY:
        return hint.weight if hint.name == "?" else 0.0
    score = hint.weight if name == hint.name else 0.0
    sex = gender.get(name, "")
    if hint.gender and sex and sex != hint.gender:
        score -= 6.0
    if hint.others and name == NARRATOR:
        score -= hint.others
    if hint.self_named == name:
        score += 4.0
    if name in hint.addressed:
        score -= 6.0
    elif name in hint.mentioned and hint.self_named != name:
        score -= 1.5
    if name in hint.present and not hint.name:
        score += 0.7
    return score


def _turn(first: str, second: str, hint: Hint, before: Hint, gender: Mapping[str, str]) -> float:
    """How well `second` follows `first`."""
    score = 0.0
    if first == second:
        score += hint.same
        if hint.new_turn and not hint.weight:
            score -= (5.0, 0.3, 0.0)[int(hint.fresh)]
    else:
        score -= hint.same / 2 if hint.same < 0 else 0.0
        if first in hint.addressed:
            score += 1.0
        if second in before.addressed:
            score += 1.5
        for listener, name in ((hint.listener, first), (before.listener, second)):
            if listener and gender.get(name) and gender[name] != listener and hint.fresh < 2:
                score -= 2.0
    return score


def attribute(hints: Sequence[Hint], gender: Mapping[str, str], known: Answers = ()) -> list[tuple[str, float]]:
    """The likeliest speaker of each speech and its posterior probability; `known` are earlier answers to start from."""
    choices = candidates(hints, gender, known)
    emissions = []
    for hint, names in zip(hints, choices, strict=True):
        scores = {name: _emission(name, hint, gender) for name in names}
        least = max(scores.values()) - 7.0  # nobody less likely can win
        emissions.append({name: score for name, score in scores.items() if score > least or name == NOBODY})

    def step(at: int, older: str, old: str, new: str) -> float:
        hint = hints[at]
        score = emissions[at][new] + _turn(old, new, hint, hints[at - 1], gender)
        if new == NOBODY or new not in (old, older):
            return score + choices[at][new] + _ENTRY
        return score + (_BACK[int(hint.fresh)] if new != old else 0.0)

    forward: list[dict[tuple[str, str], float]] = []
    for at in range(len(hints)):
        if not at:
            forward.append({("", new): emissions[0][new] + choices[0][new] for new in emissions[0]})
            continue
        values: dict[tuple[str, str], list[float]] = {}
        for (older, old), value in forward[-1].items():
            for new in emissions[at]:
                values.setdefault((old, new), []).append(value + step(at, older, old, new))
        forward.append({pair: _log_sum(several) for pair, several in values.items()})
    backward = dict.fromkeys(forward[-1], 0.0) if forward else {}
    answers: list[tuple[str, float]] = []
    for at in range(len(hints) - 1, -1, -1):
        marginal: dict[str, list[float]] = {}
        for (old, new), value in forward[at].items():
            marginal.setdefault(new, []).append(value + backward[old, new])
        totals = {name: _log_sum(several) for name, several in marginal.items()}
        best = max(totals, key=lambda name: (totals[name], name))
        answers.append((best, math.exp(totals[best] - _log_sum(list(totals.values())))))
        if at:
            backward = {
                (older, old): _log_sum([step(at, older, old, new) + backward[old, new] for new in emissions[at]])
                for older, old in forward[at - 1]
            }
    return answers[::-1]


def epithets(hints: Sequence[Hint], answers: Sequence[tuple[str, float]], gender: Mapping[str, str]) -> dict[str, str]:
    """Which named person each "our visitor" of a chapter is: who names himself so, or is so addressed by the other."""
    prior = standing(hints)
    votes: dict[str, Counter[str]] = {}
    for at, (name, _) in enumerate(answers):
        if name[:1].islower():
            count = votes.setdefault(name, Counter())
            if hints[at].self_named:
                count[hints[at].self_named] += 3
            for beside in (at - 1, at + 1):
                if 0 <= beside < len(answers) and answers[beside][0] != name:
                    count.update(hints[beside].addressed)
                    count[answers[beside][0]] -= 2
                    if 0 <= 2 * beside - at < len(answers) and max(hints[n].fresh for n in (at, beside)) < 2:
                        count[answers[2 * beside - at][0]] += 1  # who answers the same person, one turn on
    joined = {}
    for name, count in votes.items():
        sex = gender.get(name, "")
        for person in list(count):
            fits = not sex or gender.get(person, "") in ("", sex)
            if not fits or person in (NARRATOR, NOBODY) or person[0].islower() or prior.get(person, -9) < -1.5:
                del count[person]
        best = max(sorted(count), key=lambda p: count[p], default="")
        if best and count[best] > 1:
            joined[name] = best
    return joined


def _log_sum(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values))
