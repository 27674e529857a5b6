"""Vectors that are nearly the same: what a row is like before it, and what is like any of others. Exact."""

import numpy as np
from jaxtyping import Bool, Float, Int64

from lookalike.core.journal import Progress
from lookalike.retrieval.exact import knn

_STEP = 2**14  # rows that are compared with all of them at a time; progress is said in between
_BLOCK = 1024  # rows with an equal that are compared with as many at a time (4 MiB)
_ROUNDING = 1e-5  # between two ways to the same cosine


def first_alike(vectors: Float[np.ndarray, "N D"], least: float) -> Int64[np.ndarray, "N"]:
    """The first row before each whose cosine with it is at least `least`; -1 where there is none.

    Vectors have length 1 (or 0: like nothing). Memory: a few MiB beside what `knn` takes. ValueError: a number is not
    finite.
    """
    nearest = np.empty(len(vectors), np.float32)
    with Progress("compare", "images", len(vectors)) as bar:
        for start in range(0, len(vectors), _STEP):
            some = np.arange(start, min(start + _STEP, len(vectors)))
            nearest[some] = knn(vectors[some], vectors, 1, exclude=some, largest=1.0)[0][:, 0]
            bar.advance(len(some))
    first = np.full(len(vectors), -1, np.int64)
    close = np.flatnonzero(nearest >= least - _ROUNDING)  # few: only these are compared with each other
    blocks = [close[i : i + _BLOCK] for i in range(0, len(close), _BLOCK)]
    for number, mine in enumerate(blocks):
        for theirs in blocks[: number + 1]:
            alike = (vectors[mine] @ vectors[theirs].T >= least) & (theirs < mine[:, None])
            new = alike.any(axis=1) & (first[mine] < 0)
            first[mine[new]] = theirs[alike[new].argmax(axis=1)]
    return first


def like_any(
    vectors: Float[np.ndarray, "N D"], others: Float[np.ndarray, "M D"], least: float
) -> Bool[np.ndarray, "N"]:
    """Which rows have a cosine of at least `least` with one of `others`; vectors as those of `first_alike`."""
    if not len(others):
        return np.zeros(len(vectors), bool)
    return np.asarray(knn(vectors, others, 1)[0][:, 0] >= least)
