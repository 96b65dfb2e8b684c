"""Retrieval: the training rows nearest to a message, shown as turns before the conversation.

To the base model it is a rival of fine-tuning. An adapter that has learnt to read such rows answers by them, so that a
small model need not know by heart what they say. Source: RAFT (Zhang et al., "RAFT: Adapting Language Model to Domain
Specific RAG", 2024). Nearness is the cosine of TF-IDF vectors of words and short runs of characters, which needs no
word segmentation and no model. Where several messages have one reply, all of them vote for it.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from roleplay.errors import DataError
from roleplay.text.prompts import Example, PromptEncoder, Turn
from roleplay.text.rows import Row

NEAREST = 4  # rows that are shown
VOTES = (1.0, 0.5, 0.35, 0.25)  # what the nearest messages with one reply add to its nearness
NEIGHBOURS = 300  # messages that vote
_RUN = re.compile(r"[\u3400-\u9fff]+|[^\W_\u3400-\u9fff]+")  # of Chinese characters, or a word
MARK = "※ "  # opens what the user says in a row that is shown to an adapter: no visitor has said it


def _parts(text: str) -> list[str]:
    """What messages are compared by: Chinese characters and pairs of them; words, and four letters in a row of them."""
    parts: list[str] = []
    for run in _RUN.findall(text.lower()):
        if run[0] >= "\u3400":
            parts += [*run, *map("".join, pairwise(run))]
        else:
            whole = f"^{run}$"
            parts += [run, *(whole[i : i + 4] for i in range(len(whole) - 3))]
    return parts


class Retriever:
    """Searches what users say in `rows`, or what is replied, a row of several turns by its last.

    Rows are indexed at once; a function that gives them is called when it is first asked. Raises `DataError` where
    there are none.
    """

    def __init__(self, rows: Sequence[Row] | Callable[[], Sequence[Row]], in_replies: bool = False) -> None:
        self._rows, self._part = rows, int(in_replies)
        if not callable(rows):
            self._index  # noqa: B018 - so that a set without rows is refused here

    @cached_property
    def _index(self) -> tuple[list[Turn], Any, Any]:
        """The distinct last turns, the vectorizer, and what their messages are as rows of a sparse matrix."""
        from sklearn.feature_extraction.text import TfidfVectorizer  # a second and a half: not every chat asks

        turns = list(dict.fromkeys(row.turns[-1] for row in self.rows))
        if not turns:
            raise DataError("there are no rows to retrieve from: name a data file that has training rows")
        vectorizer = TfidfVectorizer(analyzer=_parts, sublinear_tf=True)
        return turns, vectorizer, vectorizer.fit_transform([turn[self._part] for turn in turns])

    @cached_property
    def rows(self) -> Sequence[Row]:
        """What is searched."""
        return self._rows() if callable(self._rows) else self._rows

    @cached_property
    def replies(self) -> "Retriever":
        """The same rows, searched by what is replied."""
        return Retriever(lambda: self.rows, in_replies=True)

    def examples(self, text: str, count: int = NEAREST, without: Collection[str] = ()) -> list[Turn]:
        """As `ranked`, the nearest last: next to the question."""
        return [turn for _, turn in self.ranked(text, count, without)[::-1]]

    def found(self, asked: str, turns: Sequence[Turn]) -> list[Turn]:
        """The rows that are shown for what is `asked` after `turns`, the nearest last; none says a reply again."""
        return self.examples(asked, without={reply for _, reply in turns})

    def ranked(self, text: str, count: int, without: Collection[str] = ()) -> list[tuple[float, Turn]]:
        """At most `count` turns that share something with `text`, each with its nearness, the nearest first.

        Of turns with one reply the nearest is among them, nearer for each further one; none whose message or reply
        is in `without`.
        """
        turns, vectorizer, matrix = self._index
        cosines = (matrix @ vectorizer.transform([text]).T).toarray().ravel()
        near = [i for i in np.argsort(-cosines, kind="stable")[:NEIGHBOURS] if cosines[i] > 0]
        alike, hidden = defaultdict[str, list[int]](list), set(without)
        for i in near:
            if hidden.isdisjoint(turns[i]):
                alike[turns[i][1]].append(i)
        votes = [
            (float(sum(weight * cosines[i] for weight, i in zip(VOTES, group, strict=False))), turns[group[0]])
            for group in alike.values()
        ]
        return sorted(votes, key=lambda vote: -vote[0])[:count]


def _marked(found: Sequence[Turn]) -> list[Turn]:
    return [(MARK + asked, reply) for asked, reply in found]


class RetrievingEncoder(PromptEncoder):
    """Shows the rows nearest to the last message before every conversation, each marked as none of the visitor's."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str, retriever: Retriever) -> None:
        super().__init__(tokenizer, template)
        self.retriever = retriever

    def found_for(self, turns: Sequence[Turn], learnt: int) -> list[Turn]:
        """The rows that are shown for a row to learn from, of which the first turn that is learnt has this number."""
        return self.retriever.found(turns[learnt][0], turns[:learnt])

    def shown(self, user: str, turns: Sequence[Turn] = ()) -> list[Turn]:
        return _marked(self.retriever.found(user, turns))

    def example(
        self, persona: str, turns: Sequence[Turn], loss_on: str = "all", limit: int = 0, where: str = ""
    ) -> Example:
        """As `PromptEncoder.example`, with the rows for the first turn that is learnt, as far as they fit `limit`."""
        own = super().example(persona, turns, loss_on, limit, where)
        shown = _marked(self.found_for(turns, 0 if loss_on == "all" else len(turns) - 1))
        for farthest in range(len(shown)):
            whole = self.behind(persona, shown[farthest:], own)
            if not limit or len(whole.input_ids) <= limit:
                return whole
        return own


def encoder_for(tokenizer: PreTrainedTokenizerBase, template: str, retriever: Retriever | None) -> PromptEncoder:
    """What makes prompts: with the rows that a retriever finds, where there is one."""
    return RetrievingEncoder(tokenizer, template, retriever) if retriever else PromptEncoder(tokenizer, template)
