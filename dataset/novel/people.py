"""The persons of an English novel: which names are one person, man or woman, and who tells the story."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from dataset.novel.english_words import (
    NAME,
    NOT_NAMES,
    SELF,
    SUBJECT,
    TITLE,
    TITLES,
    VOCATIVE,
    tag,
    title_gender,
    without_quotes,
)
from dataset.novel.prose import Chapter


class People:
    """The persons of a novel: which names are one person, and whether a man or a woman."""

    def __init__(self, chapters: Sequence[Chapter]) -> None:
        self.narrator = ""
        self.forms: Counter[str] = Counter()
        tagged, vocative = Counter[str](), Counter[str]()
        for chapter in chapters:
            for said in chapter.utterances:
                for gap in (*said.inside, said.tail, said.lead, *said.between):
                    self.forms.update(m[0] for m in re.finditer(NAME, gap))
                for gap in (*said.inside, said.tail):
                    who = tag(gap)
                    tagged.update([who] if who and re.fullmatch(NAME, who) and who not in NOT_NAMES else [])
                spoken = without_quotes(said.text)
                vocative.update(m["name"] for m in VOCATIVE.finditer(spoken) if m.start())
                vocative.update(2 * [m["name"] for m in SELF.finditer(spoken)])
        titled = {form for form in (*self.forms, *vocative) if re.match(TITLE + " ", form)}
        names = titled | set(tagged) | {name for name, count in vocative.items() if count > 1}
        inner = Counter(m[1] for text in _texts(chapters) for m in re.finditer(rf"(?<=[a-z] )({NAME})", text))
        names = {
            n for n in names if n in titled or (n.split()[0] not in NOT_NAMES and (inner[n] or " " in n or n in tagged))
        }
        self.gender: dict[str, str] = {}
        self._key: dict[str, str] = {}
        weight = Counter({name: self.forms[name] + 2 * tagged[name] for name in names})
        self._join(weight)
        self._see_gender(chapters)
        spoken_to, spoken_of = Counter[str](), Counter[str]()
        for name, count in vocative.items():
            spoken_to[self.key(name)] += count
        for name, count in tagged.items():
            spoken_of[self.key(name)] += count
        quiet = [
            (count, name) for name, count in spoken_to.items() if name and not spoken_of[name] and name not in TITLES
        ]
        self.narrator = max(quiet, default=(0, ""))[1]
        doctor = [
            form for form, key in self._key.items() if key == self.narrator and re.match(r"(?:Dr\.|Doctor) ", form)
        ]
        for title in ("Doctor", "Dr"):
            self._key.pop(title, None)
            if doctor:
                self._key[title] = self.narrator

    def _join(self, weight: Counter[str]) -> None:
        """Forms of one name, by surname and title, under the form that is used most."""
        groups: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in sorted(weight, key=lambda n: (-weight[n], n)):
            groups[name.split()[-1], title_gender(name)].append(name)
        for surname in sorted({surname for surname, _ in groups}):
            plain = groups.pop((surname, ""), [])
            both = [g for g in "mf" if (surname, g) in groups]
            # a form without a title joins the title that occurs most
            home = max(both, key=lambda g: sum(weight[n] for n in groups[surname, g]), default="")
            groups[surname, home] = groups.get((surname, home), []) + plain
        for (_, gender), names in groups.items():
            if names:
                shown = max(names, key=lambda n: (weight[n], -len(n), n))
                for name in names:
                    self._key[name] = shown
                self.gender[shown] = gender
        bearers: dict[str, set[str]] = defaultdict(set)
        for name, shown in self._key.items():
            parts = re.sub(f"^{TITLE} ", "", name).split()
            if len(parts) == 2 and self._key.get(parts[0]) == parts[0]:
                bearers[parts[0]].add(shown)
        for first, shown_names in bearers.items():  # a first name that two persons bear is joined to neither
            if len(shown_names) == 1:
                self._key[first] = shown_names.pop()

    def _see_gender(self, chapters: Sequence[Chapter]) -> None:
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        for chapter in chapters:
            for said in chapter.utterances:
                for gap in (*said.inside, said.tail, said.lead, *said.between):
                    for sentence in re.split(r"(?<=[.!?;]) ", gap):
                        subject = SUBJECT.match(sentence)
                        key = self.key(subject["who"]) if subject else ""
                        own = re.search(r"\b(he|his|him|she|her)\b", sentence)
                        if key and own:
                            seen[key]["f" if own[1] in ("she", "her") else "m"] += 1
        for key, counts in seen.items():
            if not self.gender.get(key) and counts["m"] != counts["f"]:
                self.gender[key] = max("mf", key=lambda g: counts[g])

    def key(self, name: str) -> str:
        """The name under which a person is known, or ""; "I" for the narrator."""
        found = self._key.get(name, "")
        if not found and re.match(TITLE + " ", name):
            found = self._key.get(name.split()[-1], "")
        return "I" if found and found == self.narrator else found

    def named_in(self, text: str) -> tuple[str, ...]:
        found = (self.key(m[0]) or self.key(m[0].split()[-1]) for m in re.finditer(NAME, text))
        return tuple(dict.fromkeys(key for key in found if key))


def _texts(chapters: Iterable[Chapter]) -> Iterable[str]:
    for chapter in chapters:
        for said in chapter.utterances:
            yield from (*said.between, said.lead, *said.inside, said.tail, said.text)
