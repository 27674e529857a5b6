"""A trial: queries, the gallery that they are searched in, what is relevant to each, and what it must not find."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int64

from lookalike.core.journal import Progress
from lookalike.evaluation.metrics import METRICS, Counts, Metrics, PerQuery
from lookalike.retrieval.exact import knn

Numbers = Int64[np.ndarray, "N"]
Searcher = Callable[[np.ndarray, int, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Queries, k, and rows that each must not find -> scores and rows, as `knn` gives them, of one gallery."""

REACH = 5  # matches of a query, or n_q where that is less, behind whose last one a tie is looked for
LONG = 10**12  # multiplications from which on progress is said
HELD = 2**21
"""Numbers in the lists of what queries must not find, and of what they find, that are held at a time (16 MiB)."""


@dataclass(frozen=True)
class Same:
    """Which gallery rows belong to a query: those of its number (of its label, its group, its id), but for -1."""

    queries: Int64[np.ndarray, "Q"]
    gallery: Int64[np.ndarray, "G"]

    @cached_property
    def _order(self) -> Numbers:
        return np.argsort(self.gallery, kind="stable")

    @cached_property
    def _start(self) -> Numbers:
        return np.searchsorted(self.gallery, self.queries, sorter=self._order)

    @cached_property
    def counts(self) -> Counts:
        """How many gallery rows each query has."""
        stop = np.searchsorted(self.gallery, self.queries, side="right", sorter=self._order)
        return np.where(self.queries >= 0, stop - self._start, 0)

    def rows(self, places: Numbers) -> Int64[np.ndarray, "some E"]:
        """The gallery rows of some queries, filled up with -1."""
        size = self.counts[places]
        within = np.arange(size.max(initial=0))
        entries = np.minimum(self._start[places, None] + within, max(len(self.gallery) - 1, 0))
        return np.where(within < size[:, None], self._order[entries], -1)


@dataclass(frozen=True)
class Search:
    """What some queries of a trial found, best first."""

    places: Numbers  # of the queries [Q]
    relevant: Counts  # how many relevant rows each has
    found: Int64[np.ndarray, "Q k"]  # gallery rows; -1 where there are fewer
    scores: Float32[np.ndarray, "Q k"]  # their cosines
    hits: Bool[np.ndarray, "Q depth"]  # which are relevant

    def first(self) -> "First":
        """Each query's first match. Every query has a relevant row, and so finds one."""
        every, hits = np.arange(len(self.places)), self.hits[:, : self.found.shape[1]]
        there = self.found >= 0
        missed = np.where(hits.all(axis=1), hits.shape[1] - 1, np.argmin(hits, axis=1))
        reach = np.minimum(self.relevant, REACH)
        after = np.minimum(reach, self.found.shape[1] - 1)
        tied = (after == reach) & there[every, after] & (self.scores[every, after] == self.scores[every, reach - 1])
        return First(self.found[:, 0], hits[:, 0], self.scores[:, 0], self.scores[every, missed], tied)


@dataclass(frozen=True)
class First:
    """The first match of each query, and what its score says; where a query has no relevant row, what stands is void.

    `wrong` is the best score of a row that is not relevant: of the deepest match that was looked at, where all are.
    `tied`: the last match that mP@5 counts, the min(n_q, 5)-th, has the score of the next, so that the order of ids
    decided between them.
    """

    row: Numbers  # of the gallery
    hit: Bool[np.ndarray, "Q"]
    score: Float32[np.ndarray, "Q"]
    wrong: Float32[np.ndarray, "Q"]
    tied: Bool[np.ndarray, "Q"]

    @classmethod
    def nothing(cls, count: int) -> "First":
        """Of `count` queries, to be filled in."""
        low = np.full(count, -np.inf, np.float32)
        return cls(np.full(count, -1), np.zeros(count, bool), low, low.copy(), np.zeros(count, bool))

    def take(self, mask: Bool[np.ndarray, "Q"]) -> "First":
        """Those of the mask."""
        return First(*(getattr(self, each.name)[mask] for each in fields(self)))

    def put(self, places: np.ndarray, other: "First") -> None:
        """Fill in what `other` says, at `places` or a mask."""
        for each in fields(self):
            getattr(self, each.name)[places] = getattr(other, each.name)


@dataclass(frozen=True)
class Trial:
    """Some queries and one gallery. Vectors are of length 1."""

    queries: Float32[np.ndarray, "Q D"]
    gallery: Float32[np.ndarray, "G D"]
    relevant: Same
    excluded: Sequence[Same] = ()  # a row that belongs to a query in one of these ways is not in its gallery
    search: "Searcher | None" = None  # how: None is exact

    def measure(self, metrics: Metrics = METRICS) -> tuple[Counts, dict[str, PerQuery]]:
        """How many relevant rows each query has, and every one of `metrics`; NaN where there is no such row."""
        relevant, values, _ = self.found(metrics)
        return relevant, values

    def found(self, metrics: Metrics = METRICS) -> tuple[Counts, dict[str, PerQuery], First]:
        """The same, and each query's first match."""
        depth = max([REACH + 1, *(metric.depth or 0 for metric in metrics.values())])
        if any(metric.depth is None for metric in metrics.values()):
            depth = max(depth, int(self.relevant.counts.max(initial=0)))
        relevant, first = np.zeros(len(self.queries), np.int64), First.nothing(len(self.queries))
        values = {name: np.full(len(self.queries), np.nan) for name in metrics}
        is_long = len(self.queries) * len(self.gallery) * self.queries.shape[1] >= LONG
        with Progress("search", "queries", len(self.queries)) if is_long else nullcontext() as bar:
            for search in self.searches(depth):
                if bar:
                    bar.advance(len(search.places))
                if not len(search.places):
                    continue
                relevant[search.places] = search.relevant
                first.put(search.places, search.first())
                for name, metric in metrics.items():
                    values[name][search.places] = metric(search.hits, search.relevant)
        return relevant, values, first

    def searches(self, depth: int) -> Iterator["Search"]:
        """What each query with a relevant row finds, its best `depth` rows; some queries at a time."""
        for places in self._pieces(depth):
            excluded = np.hstack([np.empty((len(places), 0), np.int64), *(same.rows(places) for same in self.excluded)])
            excluded.sort(axis=1)
            excluded[:, 1:][excluded[:, 1:] == excluded[:, :-1]] = -1  # every row once
            relevant = self.relevant.counts[places] - self._hits(places, excluded).sum(axis=1)
            some = relevant > 0
            places, relevant = places[some], relevant[some]
            if self.search is None:
                scores, found = knn(self.queries[places], self.gallery, depth, excluded[some], largest=1.0)
            else:
                scores, found = self.search(self.queries[places], depth, excluded[some])
            hits = np.zeros((len(places), depth), bool)
            hits[:, : found.shape[1]] = self._hits(places, found)
            yield Search(places, relevant, found, scores, hits)

    def _hits(self, places: Numbers, rows: np.ndarray) -> np.ndarray:
        """Which of the rows [some, k] are relevant to their query; those at -1 are not."""
        found = np.append(self.relevant.gallery, -1)[rows]
        return np.asarray((found >= 0) & (found == self.relevant.queries[places, None]))

    def _pieces(self, depth: int) -> Iterator[Numbers]:
        """All queries, some at a time, so that lists of rows stay within `HELD` numbers (or one query)."""
        sizes = sum((same.counts for same in self.excluded), np.zeros(len(self.queries), np.int64))
        largest_first = np.argsort(-sizes, kind="stable")
        while len(largest_first):
            step = max(1, HELD // max(int(sizes[largest_first[0]]), depth))
            yield np.sort(largest_first[:step])
            largest_first = largest_first[step:]
