"""Metrics per query, over ranks: pure functions of where the relevant images came and how many there are.

`hits_Qk` says for every query which of its matches, best first, are relevant; `relevant_Q` how many relevant images
its gallery holds. Every query must have one at least: what a metric of a query without any would be is for no formula
to say, and such queries are left out and counted. Columns beyond the gallery's end are false, or not there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

Hits = Bool[np.ndarray, "Q k"]
Counts = Int64[np.ndarray, "Q"]
PerQuery = Float64[np.ndarray, "Q"]


def precision_at(hits: Hits, relevant: Counts, depth: int) -> PerQuery:
    """Modified precision, as the Google Universal Image Embedding challenge (2022) defines its mP@5.

    A query with n_q < depth relevant images is measured on its first n_q matches alone, so that 1 can be reached.
    """
    reach = np.minimum(relevant, depth)
    inside = np.arange(hits.shape[1]) < reach[:, None]
    return np.asarray((hits & inside).sum(axis=1) / reach)


def recall_at(hits: Hits, _relevant: Counts, depth: int) -> PerQuery:
    """1 where one of the first `depth` matches is relevant, else 0."""
    return np.asarray(hits[:, :depth].any(axis=1), np.float64)


def average_precision_at(hits: Hits, relevant: Counts, depth: int) -> PerQuery:
    """Average precision of the first `depth` matches: precision at each hit, summed, over min(n_q, depth)."""
    hits = hits[:, :depth]
    ranks = np.arange(1, hits.shape[1] + 1)
    precision = hits.cumsum(axis=1) / ranks
    return np.asarray((precision * hits).sum(axis=1) / np.minimum(relevant, depth))


@dataclass(frozen=True)
class Metric:
    """One number a query; its mean is what is reported."""

    function: Callable[[Hits, Counts, int], PerQuery]
    depth: int  # how many matches of a query it looks at
    words: str  # what it is for one query; n_q is its number of relevant images

    def __call__(self, hits: Hits, relevant: Counts) -> PerQuery:
        """Of every query."""
        return self.function(hits, relevant, self.depth)


METRICS = {
    "mp@5": Metric(precision_at, 5, "1/min(n_q, 5) x relevant images among the first min(n_q, 5) matches"),
    "recall@1": Metric(recall_at, 1, "1 if the first match is relevant, else 0"),
    "map@100": Metric(
        average_precision_at,
        100,
        "sum over the relevant images among the first 100 matches of the precision at their ranks, "
        "divided by min(n_q, 100)",
    ),
}
"""What is reported, by name."""
