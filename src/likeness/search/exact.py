"""Exact nearest neighbours by inner product, on NumPy arrays, in bounded memory.

Two levels keep the selection cheap. The score matrix is made piece by piece in a buffer that fits the cache, and of
every block of 64 gallery rows only the maximum is kept. The k best rows lie in the k blocks with the best maxima
(before a row of any other block come k rows, one of each of those), so only k blocks a query are scored once more.
Each thread multiplies on its own: a BLAS that spreads products this thin over its threads waits more than it works.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64

from likeness.core.machine import cores

Scores = Float32[np.ndarray, "Q k"]
Rows = Int64[np.ndarray, "Q k"]

QUERIES, FEW = 512, 64  # queries of one task: at most, and at least where there are as many
CHUNK = 512  # gallery rows of one product: with 512 queries the scores take 1 MiB, about a core's second cache
PANEL = 2**17  # gallery rows of one task
BLOCK, SMALL_BLOCK = 64, 16  # gallery rows with one maximum; small blocks are cheaper to score again when k is large
LARGE_K = 16
DIRECT = 2**22  # numbers in a score matrix that is small enough to be held whole (16 MiB)
GATHERED = 2**20  # numbers of the candidates' vectors that are copied at a time (4 MiB)
ALONE = 10**8  # multiplications below which threads cost more than they bring
FINITE = float(np.finfo(np.float32).max)

_one_at_a_time = threading.Lock()  # the limit on BLAS threads is the whole process's, and every call uses all cores


class Part(NamedTuple):
    """The best of one panel for a block of queries; rows count from the start of the gallery."""

    scores: Scores
    rows: Rows


def knn(
    queries: Float[np.ndarray, "Q D"],
    gallery: Float[np.ndarray, "G D"],
    k: int,
    exclude: Int64[np.ndarray, "Q"] | Int64[np.ndarray, "Q E"] | None = None,
) -> tuple[Scores, Rows]:
    """The k gallery rows with the largest inner product, for every query.

    Exact in float32: other float types are converted piece by piece. Equal scores go to the lower row. Neither the
    Q x G scores nor a copy of the gallery is ever held: beside inputs and outputs, each thread needs about 32 MiB and
    (512 + 64 k) x D x 4 bytes.

    Args:
        queries: What to search for.
        gallery: What to search in.
        k: How many rows to find, at least 1.
        exclude: Gallery rows that must not be found by a query (itself, its group); -1 stands for none.

    Returns:
        Scores, falling, and the rows they belong to; score -inf and row -1 where the gallery has fewer than k rows.

    Raises:
        ValueError: A number is not finite or so large that a score could overflow, or sizes do not fit together.
    """
    _check(queries, gallery, k, exclude)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    if exclude is not None:
        exclude = exclude.astype(np.int64, copy=False).reshape(
            len(queries), exclude.shape[1] if exclude.ndim == 2 else 1
        )
    step = _step(len(queries))
    firsts = range(0, len(queries), step)
    panels = range(0, len(gallery), PANEL)
    block = BLOCK if k <= LARGE_K else SMALL_BLOCK
    # One way for all panels: two ways may round differently, and then equal rows would not tie.
    size = min(len(gallery), PANEL)
    direct = step * size <= DIRECT or 4 * k * block >= size

    def task(place: tuple[int, int]) -> Part:
        some, panel = queries[place[0] : place[0] + step], gallery[place[1] : place[1] + PANEL]
        pairs = _pairs(None if exclude is None else exclude[place[0] : place[0] + step] - place[1], len(panel))
        best = (
            _direct(_float32(some), panel, k, pairs) if direct else _two_level(_float32(some), panel, k, block, pairs)
        )
        return Part(best.scores, np.where(best.rows < 0, -1, best.rows + place[1]))

    with _mapper(len(queries) * len(gallery) * queries.shape[1]) as apply:
        parts = apply(task, ((first, panel) for first in firsts for panel in panels))
        for first in firsts:
            some = slice(first, first + step)
            for _ in panels:  # in rising order, so that the stable sort keeps the lower row first
                scores[some], rows[some] = _merge(Part(scores[some], rows[some]), next(parts))
    return scores, rows


def _check(queries: np.ndarray, gallery: np.ndarray, k: int, exclude: np.ndarray | None) -> None:
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(f"queries {queries.shape} and gallery {gallery.shape} are not two matrices of one width")
    if k < 1:
        raise ValueError(f"k is {k}, and at least 1 is needed")
    if exclude is not None and (exclude.ndim not in (1, 2) or len(exclude) != len(queries)):
        raise ValueError(f"exclude {exclude.shape} has not one row for each of {len(queries)} queries")
    # |score| <= D x max|q| x max|g|: below float32's end, no score can become infinite or NaN.
    bound = _largest(queries, "queries") * _largest(gallery, "gallery") * queries.shape[1]
    if bound > FINITE:
        raise ValueError("the vectors are so long that their inner products could overflow float32")


def _largest(vectors: np.ndarray, name: str) -> float:
    """The largest absolute number; ValueError if one is not finite in float32."""
    largest = 0.0
    for first in range(0, len(vectors), CHUNK):
        piece = vectors[first : first + CHUNK]
        low, high = (float(piece.min()), float(piece.max())) if piece.size else (0.0, 0.0)
        if not -FINITE <= low <= high <= FINITE:  # NaN fails every comparison
            raise ValueError(f"{name} hold a number that is not finite, in rows {first} to {first + len(piece) - 1}")
        largest = max(largest, -low, high)
    return largest


def _float32(vectors: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(vectors, dtype=np.float32)


@contextmanager
def _mapper(work: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """`map`, over as many threads as the work deserves, with BLAS kept to the thread that calls it."""
    if work < ALONE:
        yield map
        return
    from threadpoolctl import threadpool_limits  # here, since its import sets an environment variable

    with _one_at_a_time, threadpool_limits(limits=1, user_api="blas"):
        pool = ThreadPoolExecutor(cores())
        try:
            yield pool.map
        finally:  # an interrupted search does not finish what waits
            pool.shutdown(cancel_futures=True)


def _step(count: int) -> int:
    """Queries of one task, so that the cores get equal shares."""
    tasks = -(-max(1, count) // (QUERIES * cores())) * cores()
    return max(FEW, -(-count // tasks))


class Pairs(NamedTuple):
    """Which query must not find which gallery row; ordered by gallery row."""

    query: np.ndarray
    row: np.ndarray


def _pairs(exclude: np.ndarray | None, size: int) -> Pairs:
    if exclude is None:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    query, entry = np.nonzero((exclude >= 0) & (exclude < size))
    row = exclude[query, entry]
    order = np.argsort(row, kind="stable")
    return Pairs(query[order], row[order])


def _chunks(gallery: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """First row, number of rows, and the rows as float32, filled up with zeros to one height for all.

    Products of equal shape round equally; at the ragged end of a matrix BLAS may add in another order, and a copy of
    a row would not tie with it.
    """
    height = min(CHUNK, -(-len(gallery) // BLOCK) * BLOCK)
    for first in range(0, len(gallery), CHUNK):
        piece = gallery[first : first + CHUNK]
        if len(piece) == height:
            yield first, height, _float32(piece)
        else:
            filled = np.zeros((height, gallery.shape[1]), np.float32)
            filled[: len(piece)] = piece
            yield first, len(piece), filled


def _direct(queries: np.ndarray, gallery: np.ndarray, k: int, pairs: Pairs) -> Part:
    """From every score of the panel, for as many queries at a time as memory allows."""
    step = max(1, DIRECT // len(gallery))
    scores = np.empty((min(step, len(queries)), len(gallery)), np.float32)
    best = []
    for first in range(0, len(queries), step):
        some = queries[first : first + step]
        piece = scores[: len(some)]
        for start, count, rows in _chunks(gallery):
            piece[:, start : start + count] = np.matmul(some, rows.T)[:, :count]
        mine = (pairs.query >= first) & (pairs.query < first + step)
        piece[pairs.query[mine] - first, pairs.row[mine]] = -np.inf
        best.append(_best(piece, k))
    return Part(np.concatenate([part.scores for part in best]), np.concatenate([part.rows for part in best]))


def _two_level(queries: np.ndarray, gallery: np.ndarray, k: int, block: int, pairs: Pairs) -> Part:
    """From the blocks with the best maxima."""
    maxima = _maxima(queries, gallery, block, pairs)
    chosen = _largest_columns(maxima, min(k, maxima.shape[1]))
    rows = (chosen[:, :, None] * block + np.arange(block)).reshape(len(queries), -1)
    scores = _scores_of(queries, gallery, rows)
    query, entry = np.nonzero(chosen[pairs.query] == (pairs.row // block)[:, None])
    scores[pairs.query[query], entry * block + pairs.row[query] % block] = -np.inf
    best = _best(scores, k)
    return Part(best.scores, np.where(best.rows < 0, -1, np.take_along_axis(rows, best.rows, axis=1)))


def _maxima(queries: np.ndarray, gallery: np.ndarray, block: int, pairs: Pairs) -> np.ndarray:
    """The largest score of every block of gallery rows: [queries, blocks]."""
    maxima = np.empty((-(-len(gallery) // block), len(queries)), np.float32)
    buffer = np.empty((CHUNK, len(queries)), np.float32)
    for first, count, rows in _chunks(gallery):
        scores = buffer[: len(rows)]
        np.matmul(rows, queries.T, out=scores)
        scores[count:] = -np.inf
        low, high = np.searchsorted(pairs.row, [first, first + count])
        scores[pairs.row[low:high] - first, pairs.query[low:high]] = -np.inf
        mine = maxima[first // block : -(-(first + count) // block)]
        groups = scores[: len(mine) * block].reshape(len(mine), block, len(queries))
        np.maximum.reduce(groups, axis=1, out=mine)
    return np.ascontiguousarray(maxima.T)


def _scores_of(queries: np.ndarray, gallery: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The score of each query with its own rows; -inf for rows beyond the gallery."""
    scores = np.empty(rows.shape, np.float32)
    step = max(1, GATHERED // (rows.shape[1] * queries.shape[1]))
    for first in range(0, len(queries), step):
        some = slice(first, first + step)
        candidates = _float32(gallery[np.minimum(rows[some], len(gallery) - 1)])
        np.matmul(candidates, queries[some, :, None], out=scores[some, :, None])
    scores[rows >= len(gallery)] = -np.inf
    return scores


def _largest_columns(scores: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` largest of every row stand, from left to right; of equal ones the leftmost count."""
    width = scores.shape[1]
    least = np.partition(scores, width - count, axis=1)[:, width - count, None]
    keep = scores >= least
    for row in np.flatnonzero(np.count_nonzero(keep, axis=1) > count):  # ties at the end: only the first fit in
        equal = np.flatnonzero(scores[row] == least[row])
        keep[row, equal[count - np.count_nonzero(keep[row]) :]] = False
    return np.nonzero(keep)[1].reshape(len(scores), count)


def _best(scores: np.ndarray, k: int) -> Part:
    """The k largest of every row, falling; of equal ones the first. Filled up with -inf and -1."""
    count = min(k, scores.shape[1])
    best = Part(np.full((len(scores), k), -np.inf, np.float32), np.full((len(scores), k), -1, np.int64))
    columns = _largest_columns(scores, count)
    values = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best.scores[:, :count] = np.take_along_axis(values, order, axis=1)
    best.rows[:, :count] = np.take_along_axis(columns, order, axis=1)
    best.rows[best.scores == -np.inf] = -1
    return best


def _merge(before: Part, after: Part) -> Part:
    """The best of two parts, of which the first has the lower rows."""
    scores = np.concatenate([before.scores, after.scores], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, : before.scores.shape[1]]
    rows = np.concatenate([before.rows, after.rows], axis=1)
    return Part(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))
