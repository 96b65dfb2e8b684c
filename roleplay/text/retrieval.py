"""Retrieval: the training rows nearest to a message, shown as turns right before it.

To the base model it is a rival of fine-tuning. An adapter that has learnt to read such rows answers by them, so that a
small model need not know by heart what they say. Source: RAFT (Zhang et al., "RAFT: Adapting Language Model to Domain
Specific RAG", 2024). Nearness is the cosine of TF-IDF vectors of words and short runs of characters, which needs no
word segmentation and no model, or that by what is meant (`roleplay.text.meaning`) and a part of it. What goes on from a
matter is near where that matter was spoken of just before. What the visitor has told is found where it is asked for. A
fallback, found by what is meant alone, comes before what is far.
"""

from collections.abc import Callable, Collection, Sequence
from copy import copy
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from roleplay.errors import DataError
from roleplay.text.known import Known, parts
from roleplay.text.languages import is_mostly_chinese
from roleplay.text.prompts import Example, PromptEncoder, Turn
from roleplay.text.told import asks_about_oneself, joined, said_back, statements

NEAREST = 4  # rows that are shown
ELSEWHERE, SPOKEN_OF = -0.2, 0.3  # nearer is what goes on from a matter: not spoken of, and spoken of
RIVALS = 0.95  # of the nearness of the nearest: what is farther is not shown beside it
WORDS = 0.8  # what nearness by words adds to another: "father" and "husband" mean much the same to a small model
FEW = 1000  # the nearest turns, which are put in order: more than have one reply, or have been said
RARE, FEWEST = 150, 2  # a part that one message in so many has, or no more than so few, tells what one is about
TOLD = 0.1  # of nearness by such words to what the visitor said before: a message so near is about that
SHARED = 1.3  # what that nearness counts beside the others where what was told is asked for,
ASKED_FOR = 0.05  # and by how much it must be nearer, with it, than what else could be shown
LEAST_SHARED = 0.12  # with what is asked, of what is said back: "my" alone makes less
ALIKE = 0.8  # of the most that is shared: of what shares so much the latest is said back
MOST_TOLD = 100  # sentences that are looked through, the latest
TOLD_SENTENCES = 2  # of a message are said back: the one that is asked for and the next, which may correct it
REMEMBERED = 16  # messages whose order of turns is kept: one is asked for several times while it is answered
LATEST = (1.0, 0.8)  # what the last replies of a conversation count, to tell what is spoken of
MARK = "※ "  # opens what the user says in a row that is shown to an adapter: no visitor has said it


class _Index(NamedTuple):
    """What the known turns are compared by."""

    vectorizer: Any
    telling: Any  # which parts of a text are `RARE`
    messages: Any  # a sparse matrix with a column for every turn
    replies: Any  # the same for what is replied, each reply of a matter once
    matters: Any  # the number of the matter that each of these is of
    going_on: Any  # which turns go on from a matter
    after: Any  # the numbers of those matters
    fallback: Any  # whether a turn is a fallback's, and whether its message is in Chinese
    chinese: Any


class Retriever:
    """Searches what users say in turns, or what is replied.

    They are indexed at once; a function that gives them is called when it is first asked. Raises `DataError` where
    there are none.
    """

    def __init__(self, turns: Sequence[Known] | Callable[[], Sequence[Known]], in_replies: bool = False) -> None:
        self._known, self._in_replies = turns, in_replies
        self._nearness: Callable[[str], Any] = self._by_words
        self._remembered = lru_cache(REMEMBERED)(self._in_order)
        if not callable(turns):
            self._index  # noqa: B018 - so that a set without rows is refused here

    @cached_property
    def _index(self) -> _Index:
        from sklearn.feature_extraction.text import TfidfVectorizer  # a second and a half: not every chat asks

        if not self.known:
            raise DataError("there are no rows to retrieve from: name a data file that has training rows")
        numbers = {name: number for number, name in enumerate(dict.fromkeys(one.matter for one in self.known))}
        going_on = [i for i, one in enumerate(self.known) if one.after and not one.hidden and not self._in_replies]
        vectorizer = TfidfVectorizer(analyzer=parts, sublinear_tf=True)
        messages = vectorizer.fit_transform([one.turn[self._in_replies] for one in self.known])
        telling = messages.getnnz(axis=0) <= max(len(self.known) / RARE, FEWEST)
        said = list(dict.fromkeys((one.turn[1], numbers[one.matter]) for one in self.known)) if going_on else []
        replies = vectorizer.transform([reply for reply, _ in said] or [""])
        after = np.array([numbers.get(self.known[i].after, len(numbers)) for i in going_on], int)
        matters = np.array([matter for _, matter in said], int)
        fallback = np.array([one.fallback for one in self.known], bool)
        chinese = np.array([one.fallback and is_mostly_chinese(one.turn[0]) for one in self.known], bool)
        searched = messages.T.tocsr(), replies.T.tocsr()
        return _Index(vectorizer, telling, *searched, matters, going_on, after, fallback, chinese)

    @cached_property
    def known(self) -> Sequence[Known]:
        """What is searched."""
        return self._known() if callable(self._known) else self._known

    @cached_property
    def replies(self) -> "Retriever":
        """The same turns, searched by what is replied."""
        return Retriever(lambda: self.known, in_replies=True)

    def examples(
        self, text: str, count: int = NEAREST, without: Collection[str] = (), after: Sequence[str] = ()
    ) -> list[Turn]:
        """As `ranked`, the nearest last: next to the question."""
        return [turn for _, turn in self.ranked(text, count, without, after)[::-1]]

    def found(self, asked: str, turns: Sequence[Turn]) -> list[Turn]:
        """The turns that are shown for what is `asked` after `turns`, the nearest last; none says a reply again, and
        none is shown beside one that is much nearer. What the visitor told, and now asks for, is shown alone."""
        if told := self.told(asked, turns):
            return [told]
        said = [reply for _, reply in turns]
        near = self.ranked(asked, NEAREST, set(said), said)
        return [turn for nearness, turn in near[::-1] if nearness >= RIVALS * near[0][0]]

    def ranked(
        self, text: str, count: int, without: Collection[str] = (), after: Sequence[str] = ()
    ) -> list[tuple[float, Turn]]:
        """At most `count` turns that share something with `text`, each with its nearness, the nearest first.

        Of turns with one reply the nearest is among them; none whose message or reply is in `without`. One that goes on
        from a matter is the nearer, by `ELSEWHERE` to `SPOKEN_OF`, the more a reply of that matter is like the last of
        the replies `after` which the text is said.
        """
        found, left_out = list[tuple[float, Turn]](), set(without)
        for nearness, one in self._ranking(text, after):
            if len(found) == count:
                break
            if not one.hidden and left_out.isdisjoint(one.turn):
                left_out.add(one.turn[1])
                found.append((nearness, one.turn))
        return found

    def stands_alone(self, text: str, turns: Sequence[Turn]) -> bool:
        """Whether what is said after `turns` can be answered without them: the nearest to it goes on from nothing, and
        it shares no rare words with what the visitor said before."""
        nearest = next((one for _, one in self._ranking(text, [reply for _, reply in turns])), None)
        return nearest is not None and not nearest.after and self._shared(text, [user for user, _ in turns]) < TOLD

    def told(self, asked: str, turns: Sequence[Turn]) -> Turn | None:
        """What the visitor told in `turns` and is `asked` for now, with what it is when said back; None where nothing
        that was told is asked for."""
        users = [user for user, _ in turns]
        if not (users and asks_about_oneself(asked)):
            return None
        ranking = self._ranking(asked, [reply for _, reply in turns])
        for_told = next((nearness for nearness, one in ranking if one.hidden), 0.0)
        for_else = next((nearness for nearness, one in ranking if not one.hidden and not one.fallback), 0.0)
        if not for_told or for_told + SHARED * self._shared(asked, users) < for_else + ASKED_FOR:
            return None
        return self._told_of(asked, users)

    def _told_of(self, asked: str, users: Sequence[str]) -> Turn | None:
        """Of what was told, the sentence that shares most with what is asked, and the next; the latest of such."""
        said = [statements(user) for user in users]
        told = [own[i : i + TOLD_SENTENCES] for own in said for i in range(len(own))][: -MOST_TOLD - 1 : -1]
        if not told:
            return None
        vectors = self._index.vectorizer.transform([asked, *(own[0] for own in told)])
        weighed = vectors[:1] + vectors[:1].multiply(self._index.telling)  # rare words twice
        shared = (weighed @ vectors[1:].T).toarray().ravel()
        if shared.max() < LEAST_SHARED:
            return None
        best = joined(told[(shared >= ALIKE * shared.max()).argmax()])
        return best, said_back(best)

    def _ranking(self, text: str, after: Sequence[str]) -> list[tuple[float, Known]]:
        return self._remembered(text, tuple(after[-len(LATEST) :]))

    def _in_order(self, text: str, after: tuple[str, ...]) -> list[tuple[float, Known]]:
        """The turns that share something with a text, the nearest first; beside fallbacks `FEW` at most."""
        index = self._index
        nearness = np.array(self._nearness(text), float)
        if len(index.going_on):
            added = np.zeros_like(nearness)
            added[index.going_on] = ELSEWHERE + (SPOKEN_OF - ELSEWHERE) * self._spoken_of(after)[index.after]
            nearness += added * (nearness > 0)  # what shares nothing with the text stays out
        most = FEW + np.count_nonzero(index.fallback)
        few = np.argpartition(-nearness, most)[:most] if len(nearness) > most else np.arange(len(nearness))
        ordered = few[np.lexsort((few, -nearness[few]))]
        return [(float(nearness[i]), self.known[i]) for i in ordered if nearness[i] > 0]

    def by(self, nearness: Callable[[str], Any]) -> "Retriever":
        """The same turns, near by another measure of what the user says in each, to which the words add `WORDS`.

        A fallback, whose messages have no words in common, is found for its language alone.
        """
        other, index = copy(self), self._index

        def both(text: str) -> Any:
            near = nearness(text) + WORDS * self._by_words(text)
            spoken = (index.chinese == is_mostly_chinese(text)) & any(map(str.isalpha, text))
            near[index.fallback & ~spoken] = 0.0
            return near

        other._nearness = both
        other._remembered = lru_cache(REMEMBERED)(other._in_order)
        return other

    def _by_words(self, text: str) -> Any:
        found = (self._index.vectorizer.transform([text]) @ self._index.messages).toarray().ravel()
        if not self._in_replies:
            found[self._index.fallback] = 0.0
        return found

    def _shared(self, text: str, others: Sequence[str]) -> float:
        """How near a text is, by its rare words alone, to the nearest of `others`."""
        if not others:
            return 0.0
        vectors = self._index.vectorizer.transform([text, *others])
        return float((vectors[:1].multiply(self._index.telling) @ vectors[1:].T).max())

    def _spoken_of(self, replies: Sequence[str]) -> Any:
        """Of every matter, how like one of its replies the last of `replies` is or, for less, the one before."""
        index = self._index
        best = np.zeros(max(index.matters.max(), index.after.max()) + 1)  # a matter that is gone has a number too
        for weight, reply in zip(LATEST, replies[::-1], strict=False):
            alike = index.vectorizer.transform([reply]) @ index.replies
            np.maximum.at(best, index.matters[alike.indices], weight * alike.data)
        return best


def _marked(found: Sequence[Turn]) -> list[Turn]:
    return [(MARK + asked, reply) for asked, reply in found]


class RetrievingEncoder(PromptEncoder):
    """Shows the rows nearest to the last message right before it, each marked as none of the visitor's."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str, retriever: Retriever) -> None:
        super().__init__(tokenizer, template)
        self.retriever = retriever

    def found_for(self, turns: Sequence[Turn]) -> list[Turn]:
        """The rows that are shown before the last turn of a row to learn from."""
        return self.retriever.found(turns[-1][0], turns[:-1])

    def heard(self, user: str, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Nothing where the message stands alone: a small model would rather repeat what it has said."""
        return () if turns and self.retriever.stands_alone(user, turns) else turns

    def shown(self, user: str, turns: Sequence[Turn] = ()) -> list[Turn]:
        return _marked(self.retriever.found(user, turns))

    def example(
        self, persona: str, turns: Sequence[Turn], loss_on: str = "all", limit: int = 0, where: str = ""
    ) -> Example:
        """As `PromptEncoder.example`, with rows before the last turn; the farthest go where `limit` is too small."""
        shown = _marked(self.found_for(turns))
        for farthest in range(len(shown)):
            near = shown[farthest:]
            for oldest in range(len(turns)):
                *earlier, last = turns[oldest:]
                learnt = [len(earlier) + len(near), *(range(len(earlier)) if loss_on == "all" else ())]
                whole = self._render(persona, [*earlier, *near, last], learnt, where)
                if not limit or len(whole.input_ids) <= limit:
                    return whole
        return super().example(persona, turns, loss_on, limit, where)


def encoder_for(tokenizer: PreTrainedTokenizerBase, template: str, retriever: Retriever | None) -> PromptEncoder:
    """What makes prompts: with the rows that a retriever finds, where there is one."""
    return RetrievingEncoder(tokenizer, template, retriever) if retriever else PromptEncoder(tokenizer, template)
