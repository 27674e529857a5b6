"""The best of scores: pure, and the same whatever order the scores come in: equal ones go to the lower row."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

Scores = Float32[np.ndarray, "Q k"]
Rows = Int64[np.ndarray, "Q k"]


class Part(NamedTuple):
    """The best of one panel for a block of queries; rows count from the start of the gallery."""

    scores: Scores
    rows: Rows


def largest_columns(scores: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` largest of every row stand, from left to right; of equal ones the leftmost count."""
    width = scores.shape[1]
    least = np.partition(scores, width - count, axis=1)[:, width - count, None]
    keep = scores >= least
    for row in np.flatnonzero(np.count_nonzero(keep, axis=1) > count):  # ties at the end: only the first fit in
        equal = np.flatnonzero(scores[row] == least[row])
        keep[row, equal[count - np.count_nonzero(keep[row]) :]] = False
    return np.nonzero(keep)[1].reshape(len(scores), count)


def best_of_columns(scores: np.ndarray, k: int) -> Part:
    """The k largest of every row, or all of fewer, falling; of equal ones the first. Where it is -inf, -1."""
    columns = largest_columns(scores, min(k, scores.shape[1]))
    values = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    values, columns = np.take_along_axis(values, order, axis=1), np.take_along_axis(columns, order, axis=1)
    return Part(values, np.where(values == -np.inf, -1, columns))


def merged(before: Part, after: Part) -> Part:
    """The best of two parts, of which the first has the lower rows."""
    scores = np.concatenate([before.scores, after.scores], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, : before.scores.shape[1]]
    rows = np.concatenate([before.rows, after.rows], axis=1)
    return Part(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))


def best_of_pairs(places: np.ndarray, rows: np.ndarray, values: np.ndarray, count: int, k: int) -> Part:
    """The k best of each query, falling, of pairs in any order; equal ones by their rows."""
    order = np.lexsort((rows, -values, places))
    start, stop = (np.searchsorted(places[order], np.arange(count), side) for side in ("left", "right"))
    at = start[:, None] + np.arange(k)
    there = at < stop[:, None]
    at = order[np.where(there, at, 0)] if len(order) else np.zeros_like(at)
    found = Part(np.full(at.shape, -np.inf, np.float32), np.full(at.shape, -1))
    found.scores[there], found.rows[there] = values[at[there]], rows[at[there]]
    return found
