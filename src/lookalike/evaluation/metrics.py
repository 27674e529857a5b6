"""Metrics per query, over ranks: pure functions of where the relevant images came and how many there are.

`hits_Qk` says for every query which of its matches, best first, are relevant; `relevant_Q` how many relevant images
its gallery holds. Every query must have one at least: what a metric of a query without any would be is for no formula
to say, and the protocol leaves such queries out and counts them. Columns beyond the gallery's end are false.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64

Hits = Bool[np.ndarray, "Q k"]
Counts = Int64[np.ndarray, "Q"]
PerQuery = Float64[np.ndarray, "Q"]

DEFINITIONS = {
    "mp@5": "1/min(n_q, 5) x relevant images among the first min(n_q, 5) matches",
    "recall@1": "1 if the first match is relevant, else 0",
    "map@100": "sum over the relevant images among the first 100 matches of the precision at their ranks, "
    "divided by min(n_q, 100)",
}
"""Name -> what the function of it computes for one query; n_q is its number of relevant images."""

DEPTH = 100
"""How many matches a query needs for all of them."""


def per_query(hits: Hits, relevant: Counts) -> dict[str, PerQuery]:
    """Every metric of `DEFINITIONS`, in its order."""
    return {
        "mp@5": precision_at(hits, relevant, 5),
        "recall@1": recall_at_1(hits),
        "map@100": average_precision_at(hits, relevant, 100),
    }


def precision_at(hits: Hits, relevant: Counts, depth: int) -> PerQuery:
    """Modified precision, as the Google Universal Image Embedding challenge (2022) defines its mP@5.

    A query with n_q < depth relevant images is measured on its first n_q matches alone, so that 1 can be reached.
    """
    reach = np.minimum(relevant, depth)
    inside = np.arange(hits.shape[1]) < reach[:, None]
    return np.asarray((hits & inside).sum(axis=1) / reach)


def recall_at_1(hits: Hits) -> PerQuery:
    """1 where the first match is relevant, else 0."""
    return np.asarray(hits[:, :1].any(axis=1), np.float64)


def average_precision_at(hits: Hits, relevant: Counts, depth: int) -> PerQuery:
    """Average precision of the first `depth` matches: precision at each hit, summed, over min(n_q, depth)."""
    hits = hits[:, :depth]
    ranks = np.arange(1, hits.shape[1] + 1)
    precision = hits.cumsum(axis=1) / ranks
    return np.asarray((precision * hits).sum(axis=1) / np.minimum(relevant, depth))
