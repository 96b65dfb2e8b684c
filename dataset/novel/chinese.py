"""Who speaks, by what Chinese narration says around a speech: its subject, carried over clauses and sentences."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from dataset.novel import chinese_words as words
from dataset.novel.hints import Hint
from dataset.novel.prose import Chapter, Utterance


def names(chapters: Sequence[Chapter]) -> Counter[str]:
    """Who is said to speak, by the tags that hold a name, its manner and a verb alone, and how often."""
    found: Counter[str] = Counter()
    for chapter in chapters:
        for said in chapter.utterances:
            for text, tag in ((said.lead, words.WHOLE), *((gap, words.AFTER) for gap in (*said.inside, said.tail))):
                clauses = _clauses(text)
                match = tag.match(clauses[-1 if tag is words.WHOLE else 0]) if clauses else None
                if match:
                    front = re.match(f"(?:(?![{words.ADVERB}]){words.PREFIX})*", match["name"])
                    assert front
                    name = match["name"][front.end() :] or match["name"]
                    certain = (
                        len(name) > 1
                        or clauses[-1 if tag is words.WHOLE else 0][match.start("name") + front.end() - 1] in "那这"
                    )
                    if certain and not words.NO_NAME.fullmatch(name):
                        found[name] += 1
    narration = "\n".join(_narration(chapters))
    ends = [match.end() for match in re.finditer(words.NAMED, narration)]
    contexts = Counter(text for end in ends for size in range(1, 9) if (text := narration[end : end + size]) in found)
    for name, count in list(found.items()):
        person = words.PERSON.search(name) or name[0] in "众群诸"
        place = not person and re.search(r"[上下里边旁前后间厢中外]$", name)
        known = name[0] in "众群诸" or (person and count > 1) or (count > 2 and len(name) < 4) or contexts[name] > 0
        if words.NOT_IN_NAMES.search(name):
            known = len(name) < 4 and count > 4 and contexts[name] > 4
        if place or not known or (len(name) > 5 and count < 3):
            del found[name]
    for name in sorted(found, key=len, reverse=True):
        longer = any(found[name[:end]] >= 2 * found[name] for end in range(2, len(name)))
        if longer or (name[0] in words.ADVERB and found[name[1:]] >= 2 * found[name]):
            del found[name]
    return found + _other_names(found, narration)


def _other_names(found: Counter[str], narration: str) -> Counter[str]:
    """Names that no tag holds: longer forms of those found, and who is introduced as "一个…" and then so called."""
    long = "|".join(map(re.escape, sorted((name for name in found if len(name) > 1), key=len, reverse=True))) or "(?!)"
    longer = rf"{words.NAMED}(?P<own>{words.OWN}{{1,2}}?)(?P<name>{long})"
    others = Counter(match["own"] + match["name"] for match in re.finditer(longer, narration))
    others = Counter({name: count for name, count in others.items() if count > 1})
    opening = {clause[:3] for clause in _clauses(narration)}
    others += Counter(name for name in words.INTRODUCED.findall(narration) if len(name) == 3 and name in opening)
    return Counter({name: count for name, count in others.items() if name not in found})


def _narration(chapters: Iterable[Chapter]) -> Iterable[str]:
    for chapter in chapters:
        for said in chapter.utterances:
            yield from (*said.between, said.lead, *said.inside, said.tail)


def _clauses(text: str) -> list[str]:
    return [clause for clause in re.split(r"[，。！？：；,．\s“”]+", text) if clause]


def _stranger(clause: str, tag: re.Pattern[str] = words.WHOLE) -> str:
    """The name in "X笑道", though no other tag has it."""
    match = tag.match(clause) or words.LISTED.match(clause)
    name = match["name"] if match else ""
    if "、" in name:
        return name
    return (
        name if 1 < len(name) < 5 and not words.NO_NAME.fullmatch(name) and not words.NOT_IN_NAMES.search(name) else ""
    )


_NAMED_ONLY = re.compile(r"[“「『][^“”「」『』]*[”」』]")


def _unnamed(clause: str) -> str:
    """The person of "那黄门官…", "五龙二将…", "第三个妖怪…" or "众信…", whom no tag names."""
    match = words.PRESENTED.search(clause) or words.STRANGER.match(clause)
    name = next(filter(None, match.groupdict().values()), "") if match else ""
    if name[:1] in ("众", "第") or name[-1:] == "的":
        return name
    verb = words.NOT_IN_NAMES.search(name, len(name) < 4)  # a short name may open with the sign of a verb
    return "" if len(name) < 2 or verb or words.NO_NAME.fullmatch(name) else name


class Finder:
    """Finds the subject of narration among the names of one novel."""

    def __init__(self, cast: Iterable[str]) -> None:
        cast = set(cast)
        alone = {name[1:] for name in cast if name[0] == "众" and len(name) > 2}
        self.names = sorted(cast | alone | set(words.ROLES.split()), key=lambda name: (-len(name), name))
        choice = "|".join(map(re.escape, self.names)) or "(?!)"
        long = "|".join(re.escape(name) for name in self.names if len(name) > 1) or "(?!)"
        self.first = re.compile(
            rf"(?P<front>{words.PREFIX}*?(?:(?![把将对向与被])\w{{1,5}}的)?)(?:{words.ATTRIBUTE}(?={long}))?(?P<name>{choice})"
        )
        title = "|".join(name for name in self.names if len(name) > 1 and words.PERSON.search(name))
        self.titled = re.compile(rf"(?:那|这|却说|只见)+(?P<name>(?P<own>\w{{1,3}}?)(?:{title}))")
        own = rf"(?!{words.MANNER}|{words.VERB})(?P<own>{words.OWN}{{1,2}})"
        said = rf"(?:{words.MANNER}*{words.VERB}$|闻言|听说|听了|听罢|见说)"
        self.fuller = re.compile(rf"{words.PREFIX}*?(?P<name>{own}(?:{long})){said}")
        self.any = re.compile(choice)
        self.to = re.compile(words.ADDRESSEE.format(choice))
        self.calls = re.compile(rf"^(?P<name>{long})(?=[，！：:]|啊|呀)")

    def subject(self, clause: str) -> str:
        """The name that a clause begins with, or that it makes appear; "他" and the like for a pronoun, or ""."""
        match = self.first.match(clause)
        if match and not (len(match["name"]) == 1 and re.search("[听闻]", match["front"])):  # "hears that someone …"
            return self.shown(match["name"], match["front"])
        titled = self.titled.match(clause) or self.fuller.match(clause)
        if titled and not words.NOT_IN_NAMES.search(titled["name"]) and not words.NO_NAME.fullmatch(titled["own"]):
            return titled["name"]
        if pronoun := words.PRONOUN.match(clause):
            return pronoun[1]
        for match in self.any.finditer(clause):
            before = clause[: match.start()]
            if (
                words.APPEARS.search(before)
                and not words.AUDIENCE.match(clause)
                and (len(match[0]) > 1 or before[-1] in "那这")
            ):
                return self.shown(match[0], before)
        return _unnamed(clause)

    def shown(self, name: str, before: str) -> str:
        return name if len(name) > 1 else (before[-1:] if before[-1:] in ("那", "这", "群") else "那") + name

    def addressed(self, said: Utterance) -> tuple[str, ...]:
        """Who is spoken to: by the words that end the narration, or by name where the speech opens."""
        last = (_clauses(said.lead) or [""])[-1]
        found = [*self.to.finditer(last), *self.calls.finditer(said.text[:12])]
        return tuple(match["name"] for match in found)

    def hint(self, said: Utterance, before: Sequence[str] = ()) -> Hint:
        """What the narration around a speech says of its speaker; `before` is the narration after the speech before."""
        hint = self.after(said) or self._ahead(said, [*before, *said.between[-2:], said.lead])
        hint.addressed = tuple(name for name in self.addressed(said) if name != hint.name)
        return hint

    def after(self, said: Utterance) -> Hint | None:
        """What a tag inside or behind a speech says of its speaker."""
        for gap in (*said.inside, said.tail):
            clauses = _clauses(gap)
            after = clauses and not said.lead.endswith("：") and words.AFTER.match(clauses[0])
            if after and (subject := self.subject(clauses[0]) or _stranger(clauses[0], words.AFTER)):
                return Hint(subject, 7.0, cue=clauses[0], fresh=1.0)
        return None

    def _ahead(self, said: Utterance, narration: Sequence[str]) -> Hint:
        if not said.lead:
            return Hint()
        tagged = bool(re.search(rf"[：:；声]$|{words.VERB}$", said.lead))
        weight = 8.0 if tagged else 3.5
        sentences = re.split(r"(?<=[。！？．])", _NAMED_ONLY.sub("", "。".join(narration)))
        sentences = [sentence for sentence in sentences if _clauses(sentence)][-4:]
        own = sum(bool(_clauses(sentence)) for sentence in re.split(r"[。！？．]", said.lead))
        cue, pronoun = _clauses(sentences[-1])[-1] if sentences else "", ""
        if words.WRITTEN.search(cue) and not self.first.match(cue):
            return Hint("?", 12.0, fresh=1.0)
        aside, last = "", cue
        for back, sentence in enumerate(reversed(sentences)):
            clauses = _clauses(sentence)
            if aside and back >= own:
                break
            for ago, clause in enumerate(reversed(clauses)):
                by = words.SEEN_BY.match(clause) if back or ago else words.BY.match(clause)
                subject = self.subject(f"那{clause[by.end() :]}" if by else clause)
                if not (back or ago) and words.HEARD.match(clause) and not subject:
                    return Hint("?", 8.0, fresh=1.0)  # a voice whose owner is not seen yet
                if not back:
                    cue = "，".join(clauses[len(clauses) - 1 - ago :])[-60:]
                if subject in words.PRONOUNS:
                    pronoun = pronoun or ("" if back else subject)
                    continue
                if subject and words.SILENT.search(clause) and ago < 2 and clauses[-1][0] == "又":
                    return Hint(cue=cue, same=4.0, fresh=1.0)
                plural = words.PLURAL.match(subject)
                if (plural and pronoun in ("他", "她")) or (back and not plural and words.ALL.match(last)):
                    continue  # "he" is none of "all", and one person is not "all"
                if subject and ago and words.SENSED.match(clause) and not words.INDEFINITE.search(clause):
                    aside = aside or ("" if pronoun else subject)  # whom another saw or heard; "he" is that other
                    continue
                if subject:
                    weight -= 0.3 * ago + 1.5 * back + (1.0 if pronoun else 0.0)
                    return Hint(subject, max(weight, 1.0), cue=cue, fresh=1.0)
                if not back and len(clauses) == 1 and (stranger := _stranger(clause)):
                    return Hint(stranger, 6.0, cue=cue, fresh=1.0)
                if not back and ago == len(clauses) - 1 and words.NEW.match(clause) and "一个个" not in clause:
                    return Hint(cue=cue, same=-2.0, fresh=1.0)
        if aside:
            return Hint(aside, 4.0, cue=cue, fresh=1.0)
        return _unnamed_speaker(said.lead, cue, pronoun)


def _unnamed_speaker(lead: str, cue: str, pronoun: str) -> Hint:
    """Narration that names nobody: a chain of clauses keeps its topic, a bare pronoun or "all" is a turn."""
    clauses = _clauses(lead)
    turns = (
        words.ALL.match(cue)
        or re.match("[那这]边", cue)
        or re.search("^(?:听|闻|见)", lead)
        or (pronoun and len(clauses) == 1)
    )
    acts = (len(clauses) > 1 and len(re.findall("[。！？]", lead)) < 4) or words.ACTS.match(lead) or len(lead) < 8
    earlier = lead[: max(lead.rfind(mark) for mark in "。！？") + 1]  # "he" is who saw another in the same sentence
    acts = acts and not any(map(words.OTHERS.search, _clauses(earlier) if pronoun else clauses))
    return Hint(cue=cue, fresh=1.0, new_turn=False, same=-2.0 if turns else 4.0 if acts else 0.5)


def _turn(said: Utterance, before: Sequence[Utterance]) -> float | None:
    """How much a bare verb or no tag speaks for the speaker before, by what it answers; None where it tells nothing."""
    last, earlier = (one.text.endswith(("？", "?")) for one in before[:-3:-1])
    if not said.lead:  # a speech that ends with a colon leads to a verse of the same speaker
        return 8.0 if before[-1].text.endswith(("：", ":")) else None
    if words.ANSWERS.fullmatch(said.lead) and last:
        return -4.0
    if words.ASKS_AGAIN.fullmatch(said.lead) and not last:
        return -2.0 if earlier or re.search("[应答]道?[：:]?$", before[-1].lead) else 0.5
    if words.COMMANDS.fullmatch(said.lead) and words.SUPERIOR.search(before[-1].text):
        return -2.0
    return None


def hints(chapter: Chapter, finder: Finder) -> Sequence[Hint]:
    """One hint a speech."""
    found: list[Hint] = []
    for at, said in enumerate(chapter.utterances):
        last = chapter.utterances[at - 1].tail if at else ""
        told = last in ("", said.lead) or finder.after(chapter.utterances[at - 1])
        hint = finder.hint(said, () if told else (last,))
        if not hint.name and at > 1 and (same := _turn(said, chapter.utterances[at - 2 : at])) is not None:
            hint.same, hint.new_turn = same, False
        found.append(hint)
    return found
