"""Approximate nearest neighbours by faiss (the extra `ann`): lists of near rows, of which a search reads some.

Rows are divided among lists by their nearest center (an inverted file), kept as eight bits a number, and a search reads
the lists whose centers are nearest to the query. The best of those are scored again in float32. What it misses is for
whoever uses it to measure: `share_found` does.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from lookalike.core.errors import UsageError
from lookalike.retrieval.best import Rows, Scores
from lookalike.retrieval.exact import knn

PROBED = 1 / 16  # of the lists are read
AGAIN = 4  # times as many rows as are wanted are scored again
TRAINED = 64  # rows a list, of which the centers are learned
SMALL = 1000  # rows below which lists bring nothing: the search is exact


class Approximate:
    """A gallery that is searched approximately; rows have length 1."""

    def __init__(self, gallery: Float32[np.ndarray, "G D"]) -> None:
        """UsageError without faiss."""
        self._gallery, self._index = gallery, None
        if len(gallery) < SMALL:
            return
        faiss = _faiss()
        # Of fewer than 40 rows a list faiss complains that there is too little to learn from.
        lists = max(1, min(round(4 * math.sqrt(len(gallery))), len(gallery) // 40))
        self.words = f"IVF{lists},SQ8, {max(1, round(lists * PROBED))} lists read"
        index: Any = faiss.index_factory(gallery.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        step = max(1, len(gallery) // (TRAINED * lists))
        index.train(np.ascontiguousarray(gallery[::step]))
        index.add(gallery)
        index.nprobe = max(1, round(lists * PROBED))
        self._index = index

    words = "exact, as there are few rows"

    def search(
        self, queries: Float32[np.ndarray, "Q D"], k: int, exclude: Int64[np.ndarray, "Q E"] | None = None
    ) -> tuple[Scores, Rows]:
        """As `exact.knn`; rows that it did not come across are -1, with a score of -inf, behind the others."""
        if self._index is None:
            return knn(queries, self._gallery, k, exclude, largest=1.0)
        k = min(k, len(self._gallery))
        more = 0 if exclude is None else exclude.shape[1]
        _, rows = self._index.search(np.ascontiguousarray(queries), min(AGAIN * k + more, len(self._gallery)))
        scores = np.full(rows.shape, -np.inf, np.float32)
        for place, some in enumerate(rows):
            out = some < 0
            if exclude is not None:
                out |= np.isin(some, exclude[place])
            scores[place, ~out] = self._gallery[some[~out]] @ queries[place]
        rows = np.where(np.isneginf(scores), len(self._gallery), rows)  # behind every other, by score and by row
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        scores, rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
        return scores, np.where(rows == len(self._gallery), -1, rows)


def share_found(approximate: Int64[np.ndarray, "Q k"], exact: Int64[np.ndarray, "Q k"]) -> float:
    """Of what an exact search finds, how much an approximate one does (its recall), as a mean over queries."""
    shares = [
        np.isin(right[right >= 0], some).mean() if (right >= 0).any() else 1.0
        for some, right in zip(approximate, exact, strict=True)
    ]
    return float(np.mean(shares))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UsageError(
            "`--ann` searches by faiss, which is not installed here.", hint="pip install 'lookalike[ann]'"
        ) from error
    return faiss
