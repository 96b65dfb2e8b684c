"""Retrieval as a rival of fine-tuning: the training rows nearest to a message, to be shown to the base model as turns.

Nearness is the cosine of TF-IDF vectors of character n-grams, which needs no word segmentation and no model.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from roleplay.errors import DataError
from roleplay.text.prompts import Turn
from roleplay.text.rows import Row

EXAMPLES = 3


class Retriever:
    """Searches what users say in `rows`, a row of several turns by its last; raises `DataError` without rows."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._turns = list(dict.fromkeys(row.turns[-1] for row in rows))
        if not self._turns:
            raise DataError("there are no rows to retrieve from: name a data file that has training rows")
        self._vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
        self._matrix = self._vectorizer.fit_transform([user for user, _ in self._turns])

    def examples(self, user: str, count: int = EXAMPLES) -> list[Turn]:
        """At most `count` turns whose message shares something with `user`, the nearest last: next to the question."""
        nearness = (self._matrix @ self._vectorizer.transform([user]).T).toarray().ravel()
        best = np.argsort(-nearness, kind="stable")[:count]
        return [self._turns[i] for i in best[::-1] if nearness[i] > 0]
