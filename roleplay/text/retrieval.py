"""Retrieval as a rival of fine-tuning: the training rows nearest to a message, to be shown to the base model as turns.

Nearness is the cosine of TF-IDF vectors of character n-grams, which needs no word segmentation and no model.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from roleplay.errors import DataError
from roleplay.text.prompts import Turn
from roleplay.text.rows import Row

NEAREST = 3  # rows that are shown


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
        from sklearn.feature_extraction.text import TfidfVectorizer  # a second and a half: the chat seldom asks

        turns = list(dict.fromkeys(row.turns[-1] for row in self.rows))
        if not turns:
            raise DataError("there are no rows to retrieve from: name a data file that has training rows")
        vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
        return turns, vectorizer, vectorizer.fit_transform([turn[self._part] for turn in turns])

    @cached_property
    def rows(self) -> Sequence[Row]:
        """What is searched."""
        return self._rows() if callable(self._rows) else self._rows

    @cached_property
    def replies(self) -> "Retriever":
        """The same rows, searched by what is replied."""
        return Retriever(lambda: self.rows, in_replies=True)

    def examples(self, text: str, count: int = NEAREST) -> list[Turn]:
        """At most `count` turns that share something with `text`, the nearest last: next to the question."""
        turns, vectorizer, matrix = self._index
        nearness = (matrix @ vectorizer.transform([text]).T).toarray().ravel()
        best = np.argsort(-nearness, kind="stable")[:count]
        return [turns[i] for i in best[::-1] if nearness[i] > 0]
