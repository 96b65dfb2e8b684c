"""Who speaks, by what English narration says around a speech: tags, action beats, pronouns, and names in the speech."""

import re

from dataset.novel.english_words import (
    FEMALE_NOUN,
    MALE_NOUN,
    NOT_NAMES,
    PERSON_NOUN,
    SELF,
    SPEAK,
    SUBJECT,
    TITLE,
    UPPER_THING,
    VOCATIVE,
    WORD,
    tag,
    without_quotes,
)
from dataset.novel.hints import Hint
from dataset.novel.people import People
from dataset.novel.prose import Chapter, Utterance


def _subject(sentence: str) -> str:
    match = SUBJECT.match(sentence) or UPPER_THING.match(sentence)
    return match["who"] if match and match["who"] not in NOT_NAMES - {"He", "She", "I", "They", "It"} else ""


def _acting(sentence: str) -> str:
    """The subject of an action beat where it is a person."""
    who = _subject(sentence)
    if who in ("It", "it"):
        return ""
    thing = re.match(r"(?:The|Our|My|His|Her|An?|This|That|Another) ", who)
    return who if not thing or PERSON_NOUN.search(who) else ""


def _of(who: str, weight: float, cue: str, people: People) -> Hint:
    """The hint that a subject gives."""
    low = who.lower()
    if who == "I":
        return Hint("I", weight, cue=cue)
    if low in ("he", "she"):
        return Hint(gender="m" if low == "he" else "f", others=weight, cue=cue)
    if low in ("they", "we", "it"):
        return Hint(cue=cue, others=weight) if low != "it" else Hint("?", weight, cue=cue)
    if re.match(r"(?:the|our|my|his|her|their|an?|this|that|another) ", low):
        noun = "f" if FEMALE_NOUN.search(low) else "m" if MALE_NOUN.search(low) else ""
        return Hint(low, weight, noun, cue, others=weight)
    key = people.key(who)
    return Hint(key, weight, cue=cue) if key else Hint(cue=cue)


def hint(said: Utterance, people: People) -> Hint:
    """What the narration around a speech says of its speaker."""
    best = Hint()
    for gap in (*said.inside, said.tail):
        if (who := tag(gap)) and not best.cue:
            best = _of(who, 8.0, re.split(r"[,.;:]", gap)[0], people)
    sentences = [s for s in re.split(r"(?<=[.!?;]) ", said.lead) if s]
    if not best.cue and sentences and re.search(rf"\b(?:{SPEAK})\b[^.]*[,:]?$|[,:]$", sentences[-1]):
        best = _of(_subject(sentences[-1]), 6.0, sentences[-1][-60:], people)
    if (not best.cue or (best.gender and not best.name)) and sentences:
        for sentence in reversed(sentences):
            beat = _of(_acting(sentence), 4.5, sentence[:60], people)
            if beat.name not in ("", "?") or (beat.gender and not best.cue):
                fits = not best.gender or people.gender.get(beat.name, "") in ("", best.gender)
                if fits and not (best.others and beat.name == "I"):
                    best = Hint(
                        beat.name,
                        8.0 if best.cue else beat.weight,
                        beat.gender or best.gender,
                        best.cue or beat.cue,
                        others=best.others,
                    )
                break
    if not best.cue:
        for gap in (*said.inside, said.tail):
            if gap and (who := _acting(gap)):
                best = _of(who, 2.0, gap[:60], people)
                break
    return best


def hints(chapter: Chapter, people: People) -> list[Hint]:
    """One hint a speech, with whom it addresses and mentions and how far it stands from the speech before."""
    found = []
    scene, tail, titled = 0, "", dict[str, str]()
    for said in chapter.utterances:
        for text in (*said.between, said.lead, *said.parts, *said.inside, said.tail):
            for match in re.finditer(rf"({TITLE}) {WORD}", text):
                titled[match[1].rstrip(".").lower()] = people.key(match[0])
        best = hint(said, people)
        if best.name[:1].islower() and titled.get(best.name.split()[-1], "I") not in ("I", ""):
            best.name = titled[best.name.split()[-1]]
        text = without_quotes(said.text)
        text = text if len(text) < 600 else f"{text[:200]} … {text[-200:]}"  # a long speech tells of others
        spoken = (people.key(m["name"]) for m in VOCATIVE.finditer(text))
        best.addressed = tuple(dict.fromkeys(key for key in spoken if key))
        best.mentioned = people.named_in(text)
        own = SELF.search(text)
        best.self_named = people.key(own["name"]) if own else ""
        before = " ".join([tail, *said.between[-2:], said.lead])
        by_title = (titled.get(m[1], "") for m in re.finditer(r"\b[Tt]he ([a-z]+)\b", before))
        best.present = (*people.named_in(before), *(name for name in by_title if name not in ("", "I")))
        best.fresh = (
            2.0 if said.scene != scene or sum(map(len, said.between)) > 1500 else float(bool(said.between or tail))
        )
        tail = said.tail if len(said.tail) > 80 else ""
        best.new_turn = said.opens
        scene = said.scene
        if re.search(r"[,.!?] sir\b|^Sir\b|my (?:dear )?(?:sir|fellow)", said.text):
            best.listener = "m"
        elif re.search(r"[,.!?] (?:madam|ma'am|marm|miss)\b|[Mm]y dear madam|^Madam", said.text):
            best.listener = "f"
        found.append(best)
    return found
