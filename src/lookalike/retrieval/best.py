"""The best of scores: pure, and the same whatever order the scores come in: equal ones go to the lower row."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

Scores = Float32[np.ndarray, "Q k"]
Rows = Int64[np.ndarray, "Q k"]

HIGHEST = np.int32(2**31 - 1)


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
    """The k best of each of `count` queries, falling, of pairs in any order; equal ones by their rows.

    Sorted as whole numbers that say it all, the query, the float32 score and the row, which is many times as fast as by
    three keys. Numbers of queries and rows must fit in 32 bits together.
    """
    width = int(rows.max(initial=0)).bit_length()
    bits = (values.astype(np.float32) + np.float32(0)).view(np.int32)  # no -0, which would not tie with 0
    falling = np.where(bits < 0, bits, HIGHEST - bits).view(np.uint32)  # negative floats fall as their bits rise
    keys = places.astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= falling
    keys <<= np.uint64(width)
    keys |= rows.astype(np.uint64)
    keys.sort()
    starts = np.searchsorted(keys, np.arange(count + 1, dtype=np.uint64) << np.uint64(32 + width))
    at = starts[:-1, None] + np.arange(k)
    there = at < starts[1:, None]
    keys = keys[at[there]]
    bits = (keys >> np.uint64(width)).astype(np.uint32).view(np.int32)
    found = Part(np.full(at.shape, -np.inf, np.float32), np.full(at.shape, -1))
    found.scores[there] = np.where(bits < 0, bits, HIGHEST - bits).view(np.float32)
    found.rows[there] = keys & np.uint64(2**width - 1)
    return found
