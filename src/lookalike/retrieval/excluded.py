"""Which query must not find which gallery row."""

from typing import NamedTuple

import numpy as np


class Pairs(NamedTuple):
    """A query and a row that it must not find; ordered by row."""

    query: np.ndarray
    row: np.ndarray


def pairs(exclude: np.ndarray | None, size: int) -> Pairs:
    """Of `exclude` [Q E], what concerns the rows from 0 to `size`."""
    if exclude is None:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    query, entry = np.nonzero((exclude >= 0) & (exclude < size))
    row = exclude[query, entry]
    order = np.argsort(row, kind="stable")
    return Pairs(query[order], row[order])


def of_queries(pairs: Pairs, queries: np.ndarray) -> Pairs:
    """Those of some queries, whose numbers rise, numbered anew."""
    mine = np.isin(pairs.query, queries)
    return Pairs(np.searchsorted(queries, pairs.query[mine]), pairs.row[mine])


def of_rows(pairs: Pairs, rows: np.ndarray) -> Pairs:
    """Those of some rows, whose numbers rise, numbered anew."""
    mine = np.isin(pairs.row, rows)
    return Pairs(pairs.query[mine], np.searchsorted(rows, pairs.row[mine]))


def without(scores: np.ndarray, first: int, count: int, pairs: Pairs, never: float | int) -> np.ndarray:
    """The scores [rows, queries] with `never` behind `count` rows, and where a query must not find a row."""
    scores[count:] = never
    low, high = np.searchsorted(pairs.row, [first, first + count])
    if high > low:
        scores[pairs.row[low:high] - first, pairs.query[low:high]] = never
    return scores
