"""Metrics per query, over ranks: pure functions of where the relevant images came and how many there are.

`hits_Qk` says for every query which of its matches, best first, are relevant; `relevant_Q` how many relevant images
its gallery holds. Every query must have one at least: what a metric of a query without any would be is for no formula
to say, and such queries are left out and counted. Columns beyond the gallery's end are false, or not there.

docs/reference/metrics.md has each with its formula, its namesakes in other libraries, and an example by hand.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lookalike.core.config import did_you_mean
from lookalike.core.errors import UsageError

Hits = Bool[np.ndarray, "Q k"]
Counts = Int64[np.ndarray, "Q"]
PerQuery = Float64[np.ndarray, "Q"]


def precision_at(hits: Hits, relevant: Counts, depth: int) -> PerQuery:
    """Modified precision, as the Google Universal Image Embedding challenge (2022) defines its mP@5.

    A query with n_q < depth relevant images is measured on its first n_q matches alone, so that 1 can be reached.
    """
    reach = np.minimum(relevant, depth)
    return np.asarray((hits & _first(hits, reach)).sum(axis=1) / reach)


def plain_precision_at(hits: Hits, _relevant: Counts, depth: int) -> PerQuery:
    """Precision as information retrieval has it: of `depth` places, how many are relevant. Few relevant images cap it.

    Where the gallery holds fewer rows than `depth`, the places that stay empty count as wrong.
    """
    return np.asarray(hits[:, :depth].sum(axis=1) / depth)


def recall_at(hits: Hits, _relevant: Counts, depth: int) -> PerQuery:
    """1 where one of the first `depth` matches is relevant, else 0."""
    return np.asarray(hits[:, :depth].any(axis=1), np.float64)


def average_precision_at(hits: Hits, relevant: Counts, depth: int) -> PerQuery:
    """Average precision of the first `depth` matches: precision at each hit, summed, over min(n_q, depth).

    With a depth of 100 it is the measure of Google Landmarks v2 (Weyand et al., 2020, eq. 2), with 1000 that of ILIAS.
    """
    return _average_precision(hits[:, :depth], np.minimum(relevant, depth))


def average_precision_at_r(hits: Hits, relevant: Counts) -> PerQuery:
    """mAP@R of Musgrave, Belongie and Lim (A Metric Learning Reality Check, 2020): average precision at depth n_q."""
    return _average_precision(hits & _first(hits, relevant), relevant)


def r_precision(hits: Hits, relevant: Counts) -> PerQuery:
    """The share of relevant rows among the first n_q."""
    return np.asarray((hits & _first(hits, relevant)).sum(axis=1) / relevant)


def _first(hits: Hits, count: Counts) -> Hits:
    """The first `count` places of each query."""
    return np.asarray(np.arange(hits.shape[1]) < count[:, None])


def _average_precision(hits: Hits, over: Counts) -> PerQuery:
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.asarray((precision * hits).sum(axis=1) / over)


@dataclass(frozen=True)
class Metric:
    """One number a query; its mean is what is reported."""

    function: Callable[..., PerQuery]  # of hits, counts, and the depth where it has one
    depth: int | None  # how many matches of a query it looks at; None: as many as the query has relevant images
    words: str  # what it is for one query; n_q is its number of relevant images

    def __call__(self, hits: Hits, relevant: Counts) -> PerQuery:
        """Of every query; where `depth` is None, `hits` reach as far as the query with the most relevant images."""
        if self.depth is None:
            return self.function(hits, relevant)
        return self.function(hits, relevant, self.depth)


Metrics = Mapping[str, Metric]

_AT = {
    "mp": (precision_at, "1/min(n_q, {k}) x relevant images among the first min(n_q, {k}) matches"),
    "p": (plain_precision_at, "1/{k} x relevant images among the first {k} matches"),
    "recall": (recall_at, "1 if one of the first {k} matches is relevant, else 0"),
    "map": (
        average_precision_at,
        "sum over the relevant images among the first {k} matches of the precision at their ranks, "
        "divided by min(n_q, {k})",
    ),
}
_AT_R = {
    "map@r": Metric(
        average_precision_at_r,
        None,
        "sum over the relevant images among the first n_q matches of the precision at their ranks, divided by n_q",
    ),
    "r-precision": Metric(r_precision, None, "1/n_q x relevant images among the first n_q matches"),
}
NAMES = ("mp@K", "p@K", "recall@K", "map@K", *_AT_R)
"""What can be asked for, K being any number from 1."""
_DEEPEST = 10_000


def metric_of(name: str) -> Metric:
    """The metric of a name such as `recall@10` or `map@r`; UsageError if there is none."""
    if name in METRICS:
        return METRICS[name]
    if name in _AT_R:
        return _AT_R[name]
    found = re.fullmatch(r"(\w+)@([1-9]\d*)", name)
    if found is None or found[1] not in _AT:
        near = did_you_mean(name, ["mp@5", "p@5", "recall@10", "map@100", *_AT_R])
        raise UsageError(f"There is no metric `{name}`.{near}", hint=f"metrics: {', '.join(NAMES)}, such as recall@10")
    if (depth := int(found[2])) > _DEEPEST:
        raise UsageError(f"`{name}` looks at {depth:,} matches of every query; expected at most {_DEEPEST:,}.")
    function, words = _AT[found[1]]
    if (found[1], depth) == ("recall", 1):
        words = "1 if the first match is relevant, else 0"
    return Metric(function, depth, words.format(k=depth))


def metrics_of(names: Iterable[str]) -> dict[str, Metric]:
    """Metrics by their names, in lower case, each once; those of `METRICS` where no name is given."""
    return {name: metric_of(name) for name in map(str.lower, names)} or METRICS


METRICS: dict[str, Metric] = {}
"""What is reported unless other metrics are asked for, by name."""
METRICS |= {name: metric_of(name) for name in ("mp@5", "recall@1", "map@100")}
