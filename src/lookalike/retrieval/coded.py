"""Exact search in one panel by codes of eight bits (`codes.py`), which are multiplied once.

Every query has a bar, a score that its k best rows are likely to reach; a sample of the rows says which. Of every row
whose product of codes allows that it reaches the bar, the score is computed in float32. If k of them do reach it, they
hold the k best, as no row that reaches it was left out, however the bar was found. The few queries of which fewer do
are asked again with a lower bar, which the k-th best that they found is if there is one.
"""

import math
from typing import NamedTuple

import numpy as np

from lookalike.retrieval import codes, excluded
from lookalike.retrieval.best import Part, best_of_pairs, merged
from lookalike.retrieval.excluded import Pairs

CHUNK = 1024  # gallery rows of one product
STRIDE = 16  # one of so many rows is in the sample
BLOCK, SAMPLED = 8, 32  # rows of a chunk, and of a large sample, that are looked at as one, by their maximum
HELD = 2**19  # pairs of a query and a row that wait for their scores
SURE, SURE_OF_K = 2048, 8  # rows a query, and times k, that may reach the bar before float32 is faster
GATHERED = 2**17  # numbers of the pairs' vectors that are copied at a time: larger copies are new memory every time
NEVER = -(2**31)  # below every product of codes


class UndecidedError(Exception):
    """So many rows are so alike that codes can't tell which are the best."""


def by_bar(queries: np.ndarray, gallery: np.ndarray, k: int, pairs: Pairs, rows: codes.Rows) -> Part:
    """The k best rows of every query; `UndecidedError` if too many rows may be among them."""
    search = Search(queries, gallery, k, pairs, codes.code_queries(queries, rows), rows)
    best = Part(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1))
    left, missed = (SURE + SURE_OF_K * k) * len(queries), np.arange(len(queries))
    for bar in [*_likely(search), np.full(len(queries), -np.inf)]:
        bar = np.maximum(bar, best.scores[:, -1])[missed]  # which k rows reach
        found, left = _reaching(_of_queries(search, missed), bar, left)
        best.scores[missed], best.rows[missed] = found
        missed = missed[found.scores[:, -1] < bar]
        if not len(missed):
            break
    return best


class Search(NamedTuple):
    """What is searched in what."""

    queries: np.ndarray
    gallery: np.ndarray
    k: int
    pairs: Pairs
    asked: codes.Queries
    rows: codes.Rows


def _of_queries(search: Search, some: np.ndarray) -> Search:
    if len(some) == len(search.queries):
        return search
    asked = search.asked
    few = codes.Queries(np.ascontiguousarray(asked.codes[:, some]), *(value[some] for value in asked[1:]))
    pairs = excluded.of_queries(search.pairs, some)
    return search._replace(queries=search.queries[some], pairs=pairs, asked=few)


def _likely(search: Search) -> list[np.ndarray]:
    """Bars: the score of the sample's row that is so far down that k of all rows should come before it, and one below.

    Of the k best rows k / STRIDE lie in the sample, give or take its root. Maxima of blocks are enough: the r-th
    largest of them is hardly below the r-th best row, and never above it. A sample that is too small gives no bar.
    """
    asked, expected = search.asked, search.k / STRIDE
    depth = math.ceil(expected + 4 * math.sqrt(expected) + 0.5)
    starts = np.arange(0, len(search.gallery) - STRIDE + 1, STRIDE)
    block = SAMPLED if len(starts) >= 4 * depth * SAMPLED else SAMPLED // 2
    starts = starts[: len(starts) // block * block]
    # A row of every stride, but not always the same one, as a gallery may have a period of its own.
    sample = starts + np.random.default_rng(0).integers(0, STRIDE, len(starts))
    pairs = excluded.of_rows(search.pairs, sample)
    maxima = [np.zeros((0, len(search.queries)), np.int32)]
    for first in range(0, len(sample), CHUNK):
        scores = codes.product(search.rows.codes[sample[first : first + CHUNK]], asked.codes)
        maxima.append(_maxima(excluded.without(scores, first, len(scores), pairs, NEVER), block))
    columns = np.ascontiguousarray(np.concatenate(maxima).T)
    depths = [depth for depth in (depth, 4 * depth) if depth <= columns.shape[1]]
    columns.partition(np.array([columns.shape[1] - depth for depth in depths], np.int64), axis=1)
    bars = [columns[:, -depth] for depth in depths]
    return [np.where(bar == NEVER, -np.inf, bar * asked.scale.astype(np.float64) + asked.shift) for bar in bars]


def _maxima(scores: np.ndarray, block: int) -> np.ndarray:
    """The largest of each block of rows [rows, queries]: of rows i, i + n, i + 2 n, ... of n blocks, which is fast."""
    blocks: np.ndarray = np.maximum.reduce(scores.reshape(block, -1, scores.shape[1]), axis=0)
    return blocks


def _reaching(search: Search, bar: np.ndarray, left: int) -> tuple[Part, int]:
    """The best of the rows that reach the bar, and what is left of the number of pairs that may be looked at."""
    count = len(search.queries)
    best: Part | None = None
    pending: list[np.ndarray] = []
    least = _least(search.asked, bar)
    for first in range(0, len(search.gallery), CHUNK):
        size = min(CHUNK, len(search.gallery) - first)
        scores = codes.product(search.rows.codes[first : first + CHUNK], search.asked.codes)
        found = _not_below(excluded.without(scores, first, size, search.pairs, NEVER), least)
        left -= len(found)
        if left < 0:
            raise UndecidedError
        if pending and sum(map(len, pending)) + len(found) > HELD:
            best = _settled(search, bar, pending, best)
            bar = np.maximum(bar, best.scores[:, -1])  # k rows reach it
            least = _least(search.asked, bar)
        found += np.int32(first * count)
        pending.append(found)
    return _settled(search, bar, pending, best), left


def _least(asked: codes.Queries, bar: np.ndarray) -> np.ndarray:
    """The product of codes below which no score reaches the bar; above what must not be found."""
    with np.errstate(divide="ignore", invalid="ignore"):
        products = np.floor((bar.astype(np.float64) - asked.slack - asked.shift) / asked.scale)
    least: np.ndarray = np.nan_to_num(products, nan=NEVER).clip(NEVER + 1, -NEVER - 1).astype(np.int32)
    return least


def _not_below(scores: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Where in a whole chunk of scores [rows, queries], flattened, they are not below a query's least; in any order."""
    blocks = np.flatnonzero(_maxima(scores, BLOCK) >= least)
    values = scores.reshape(BLOCK, -1).take(blocks, axis=1)
    turn, at = np.divmod(np.flatnonzero(values >= least[blocks % len(least)]), max(1, len(blocks)))
    turn *= scores.size // BLOCK
    turn += blocks[at]
    return turn.astype(np.int32)  # below 2**28: a panel's rows times a task's queries


def _settled(search: Search, bar: np.ndarray, pending: list[np.ndarray], before: Part | None) -> Part:
    """The best so far and of the pairs that wait, whose rows are higher; none waits any more."""
    count = len(search.queries)
    places = np.concatenate([np.zeros(0, np.int32), *pending])
    pending.clear()
    rows = places // count
    places -= rows * count  # half of the time of a divmod
    values = _pair_scores(search.queries, search.gallery, places, rows)
    reach = values >= bar[places]
    # Where k rows reach the bar, others need not be sorted; else the k-th of all is wanted, as the next bar.
    missed = np.bincount(places[reach], minlength=count) < search.k
    reach |= missed[places]
    best = best_of_pairs(places[reach], rows[reach], values[reach], count, search.k)
    return best if before is None else merged(before, best)


def _pair_scores(queries: np.ndarray, gallery: np.ndarray, places: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The score of each pair of a query and a row: a sum of its own, so that equal rows score equally."""
    values = np.empty(len(rows), np.float32)
    step = max(1, GATHERED // queries.shape[1])
    for first in range(0, len(rows), step):
        some = slice(first, first + step)
        candidates = gallery[rows[some]].astype(np.float32, copy=False)
        np.einsum("nd,nd->n", candidates, queries[places[some]], out=values[some])
    return values
