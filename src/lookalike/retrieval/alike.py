"""Vectors that are nearly the same: what a row is like before it, and what is like any of others. Exact."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from lookalike.core.journal import Progress
from lookalike.retrieval.exact import knn

_STEP = 2**14  # rows that are compared with all of them at a time; progress is said in between
_BLOCK = 1024  # rows with an equal that are compared with as many at a time (4 MiB)
_MOST = 64
_ROUNDING = 1e-5  # between two ways to the same cosine


class Found(NamedTuple):
    """Pairs of rows and their cosines."""

    pairs: Int64[np.ndarray, "P 2"]  # the lower row first, in order
    cosines: Float32[np.ndarray, "P"]


def first_alike(
    vectors: Float[np.ndarray, "N D"], least: float, apart: Int64[np.ndarray, "A 2"] | None = None
) -> Int64[np.ndarray, "N"]:
    """The first row before each whose cosine with it is at least `least`; -1 where there is none.

    Vectors have length 1 (or 0: like nothing); pairs of rows that are `apart`, the lower first, don't count. Memory: a
    few MiB beside what `knn` takes. ValueError: a number is not finite.
    """
    first = np.full(len(vectors), -1, np.int64)
    told = set() if apart is None else set(map(tuple, apart.tolist()))
    for mine, theirs, cosines in _blocks(vectors, least):
        alike = (cosines >= least) & (theirs < mine[:, None])
        if told:
            for row, other in zip(*np.nonzero(alike), strict=True):
                alike[row, other] = (int(theirs[other]), int(mine[row])) not in told
        new = alike.any(axis=1) & (first[mine] < 0)
        first[mine[new]] = theirs[alike[new].argmax(axis=1)]
    return first


def alike_pairs(vectors: Float[np.ndarray, "N D"], least: float) -> Found:
    """All pairs of rows whose cosine is at least `least`, but for a row at most the `_MOST` nearest of each 1,024 that
    come before it; vectors as those of `first_alike`.
    """
    pairs, found = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for mine, theirs, cosines in _blocks(vectors, least):
        cosines = np.where(theirs < mine[:, None], cosines, -np.inf)
        if cosines.shape[1] > _MOST:
            bar = np.partition(cosines, -_MOST, axis=1)[:, -_MOST, None]
            cosines = np.where(cosines >= bar, cosines, -np.inf)
        row, other = np.nonzero(cosines >= least)
        pairs.append(np.stack([theirs[other], mine[row]], axis=1))
        found.append(cosines[row, other].astype(np.float32))
    every = np.concatenate(pairs)
    order = np.lexsort((every[:, 1], every[:, 0]))
    return Found(every[order], np.concatenate(found)[order])


def nearest_pairs(vectors: Float[np.ndarray, "N D"], least: float, most: int) -> Found:
    """Each row with the `most` others that are nearest to it, of those whose cosine is at least `least`; a pair once,
    in order. At most N x `most` pairs, whatever the vectors, which are as those of `first_alike`.
    """
    pairs, found = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    with Progress("compare", "images", len(vectors)) as bar:
        for start in range(0, len(vectors), _STEP):
            some = np.arange(start, min(start + _STEP, len(vectors)))
            cosines, rows = knn(vectors[some], vectors, most, exclude=some, largest=1.0)
            row, place = np.nonzero((rows >= 0) & (cosines >= least))
            pairs.append(np.sort(np.stack([some[row], rows[row, place]], axis=1), axis=1))
            found.append(cosines[row, place])
            bar.advance(len(some))
    every, first = np.unique(np.concatenate(pairs), axis=0, return_index=True)
    return Found(every, np.concatenate(found)[first])


def _blocks(vectors: np.ndarray, least: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows that have one like them, block by block with each block up to their own: both, and their cosines."""
    nearest = np.empty(len(vectors), np.float32)
    with Progress("compare", "images", len(vectors)) as bar:
        for start in range(0, len(vectors), _STEP):
            some = np.arange(start, min(start + _STEP, len(vectors)))
            nearest[some] = knn(vectors[some], vectors, 1, exclude=some, largest=1.0)[0][:, 0]
            bar.advance(len(some))
    close = np.flatnonzero(nearest >= least - _ROUNDING)  # few: only these are compared with each other
    blocks = [close[i : i + _BLOCK] for i in range(0, len(close), _BLOCK)]
    for number, mine in enumerate(blocks):
        for theirs in blocks[: number + 1]:
            yield mine, theirs, vectors[mine] @ vectors[theirs].T


def like_any(
    vectors: Float[np.ndarray, "N D"], others: Float[np.ndarray, "M D"], least: float
) -> Bool[np.ndarray, "N"]:
    """Which rows have a cosine of at least `least` with one of `others`; vectors as those of `first_alike`."""
    if not len(others):
        return np.zeros(len(vectors), bool)
    return np.asarray(knn(vectors, others, 1)[0][:, 0] >= least)
