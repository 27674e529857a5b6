"""Exact nearest neighbours by inner product, on NumPy arrays, in bounded memory.

Two levels keep the selection cheap. The score matrix is made piece by piece in a buffer that fits the cache, and of
every block of 64 gallery rows only the maximum is kept. The k best rows lie in the k blocks with the best maxima
(before a row of any other block come k rows, one of each of those), so only k blocks a query are scored once more.
Each thread multiplies on its own: a BLAS that spreads products this thin over its threads waits more than it works.

A large search multiplies codes of eight bits instead, and scores in float32 only what they leave open (`coded.py`).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from lookalike.core.machine import cores
from lookalike.core.threads import Apply, in_threads
from lookalike.retrieval import coded, codes, excluded
from lookalike.retrieval.best import Part, Rows, Scores, best_of_columns, largest_columns, merged
from lookalike.retrieval.excluded import Pairs

QUERIES, CODED_QUERIES, FEW = 512, 1024, 64  # queries of one task: at most, of codes too, and at least, if there are
PIECE = 8192  # vectors that are looked through at a time
CHUNK = 512  # gallery rows of one product: with 512 queries the scores take 1 MiB, about a core's second cache
PANEL = 2**18  # gallery rows of one task
BLOCK, SMALL_BLOCK = 64, 16  # gallery rows with one maximum; small blocks are cheaper to score again ...
LARGE_K, SMALL_GALLERY = 16, 2**15  # ... where k is large, or there are few blocks to choose from
DIRECT = 2**17  # numbers in a score matrix that is so small that blocks bring nothing
WHOLE = 2**22  # scores that are held at a time where blocks bring nothing (16 MiB)
GATHERED = 2**20  # numbers of the candidates' vectors that are copied at a time (4 MiB)
ALONE = 10**7  # multiplications below which threads cost more than they bring
CODED, CODES = 4 * 10**10, 2**25  # multiplications from which on codes pay; codes that are held at a time (32 MiB)
FINITE = float(np.finfo(np.float32).max)


def knn(
    queries: Float[np.ndarray, "Q D"],
    gallery: Float[np.ndarray, "G D"],
    k: int,
    exclude: Int64[np.ndarray, "Q"] | Int64[np.ndarray, "Q E"] | None = None,
    largest: float | None = None,
) -> tuple[Scores, Rows]:
    """The k gallery rows with the largest inner product, for every query.

    Exact in float32: other float types are converted piece by piece. Equal scores go to the lower row. Neither the
    Q x G scores nor a copy of the gallery is ever held: beside inputs and outputs, each thread needs about 64 MiB and
    (1024 + 64 k) x D x 4 bytes; a large search once 32 MiB of codes, and ONNX Runtime's 30 MiB.

    `exclude` holds gallery rows that must not be found by a query (itself, its group); -1 stands for none. `largest` is
    the gallery's largest absolute number, if that is known; else the whole gallery is looked through.

    >>> la.knn(np.array([[0.1, 0.9]]), np.eye(2), k=1)
    (array([[0.9]], dtype=float32), array([[1]]))

    Returns:
        Scores, falling, and the rows they belong to, min(k, G) a query; score -inf and row -1 where `exclude` leaves
        fewer. Rounding may bring the product of vectors of length 1 a little above 1.

    Raises:
        ValueError: `k` < 1, a number not finite or so large that a score could overflow, sizes that do not fit.
    """
    _check_sizes(queries, gallery, k, exclude)
    k = min(k, len(gallery))
    if exclude is not None:
        exclude = (exclude[:, None] if exclude.ndim == 1 else exclude).astype(np.int64, copy=False)
    with _mapper(len(queries) * len(gallery) * queries.shape[1]) as apply:
        largest = _largest(gallery, "gallery", apply) if largest is None else largest
        # |score| <= D x max|q| x max|g|: below float32's end, no score can become infinite or NaN.
        if _largest(queries, "queries", apply) * largest * queries.shape[1] > FINITE:
            raise ValueError("the vectors are so long that their inner products could overflow float32")
        try:
            plan = _plan(queries, gallery, k, may_code=largest <= FINITE / 2)
            return _search(queries, gallery, k, exclude, plan, apply)
        except coded.UndecidedError:
            pass  # here ends what the error's traceback holds: the arrays of tasks
        # All queries again, since two ways may round otherwise.
        return _search(queries, gallery, k, exclude, _plan(queries, gallery, k, may_code=False), apply)


def _search(
    queries: np.ndarray, gallery: np.ndarray, k: int, exclude: np.ndarray | None, plan: "Plan", apply: Apply
) -> tuple[Scores, Rows]:
    """What `knn` returns, by a plan."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    firsts, panels = range(0, len(queries), plan.step), range(0, len(gallery), plan.panel)
    # Codes serve one panel, and all its queries: only then do they pay for themselves, and take little memory.
    is_coded = plan.way == "codes"
    for group in ([start] for start in panels) if is_coded else [panels]:
        code = codes.code_rows(gallery[group[0] : group[0] + plan.panel], coded.CHUNK, apply) if is_coded else None

        def task(place: tuple[int, int], code: codes.Rows | None = code) -> Part:
            asked = slice(place[0], place[0] + plan.step)
            part = gallery[place[1] : place[1] + plan.panel]
            pairs = excluded.pairs(None if exclude is None else exclude[asked] - place[1], len(part))
            some = _float32(queries[asked])
            if plan.way == "direct":
                best = _direct(some, part, k, pairs)
            elif code is None:
                best = _two_level(some, part, k, plan.block, pairs)
            else:
                best = coded.by_bar(some, part, k, pairs, code)
            return Part(best.scores, np.where(best.rows < 0, -1, best.rows + place[1]))

        parts = apply(task, ((first, start) for first in firsts for start in group))
        for first in firsts:
            asked = slice(first, first + plan.step)
            for start in group:  # in rising order, so that the stable sort keeps the lower row first
                best = next(parts)
                if start or best.scores.shape[1] < k:
                    best = merged(Part(scores[asked], rows[asked]), best)
                scores[asked], rows[asked] = best
    return scores, rows


def working_memory(width: int, k: int) -> int:
    """Bytes that `knn` holds beside its inputs and outputs, at most: what its docstring says, of this machine."""
    thread = WHOLE * 16 + (CODED_QUERIES + BLOCK * k) * width * 4
    return cores() * thread + CODES + 30 * 2**20


class Plan(NamedTuple):
    """How a search is cut up."""

    step: int  # queries of one task
    panel: int  # gallery rows of one task
    block: int
    way: Literal["direct", "float32", "codes"]  # of all tasks: two may round otherwise, and equal rows not tie


def _plan(queries: np.ndarray, gallery: np.ndarray, k: int, may_code: bool) -> Plan:
    def share(most: int) -> int:  # the same for every core
        tasks = -(-max(1, len(queries)) // (most * cores())) * cores()
        return max(FEW, -(-len(queries) // tasks))

    width, step = queries.shape[1], share(QUERIES)
    block = BLOCK if k <= LARGE_K and len(gallery) >= SMALL_GALLERY else SMALL_BLOCK
    size = min(len(gallery), PANEL)
    if step * size <= DIRECT or 4 * k * block >= size:
        return Plan(step, PANEL, block, "direct")
    panel = min(PANEL, CODES // max(1, width) // coded.CHUNK * coded.CHUNK)
    if not may_code or len(queries) * len(gallery) * width < CODED or 4 * k * BLOCK >= panel:
        return Plan(share(min(QUERIES, WHOLE // (k * block))), PANEL, block, "float32")
    return Plan(share(min(CODED_QUERIES, coded.HELD // k)), panel, block, "codes")


def _check_sizes(queries: np.ndarray, gallery: np.ndarray, k: int, exclude: np.ndarray | None) -> None:
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(f"queries {queries.shape} and gallery {gallery.shape} are not two matrices of one width")
    if k < 1:
        raise ValueError(f"k is {k}, and at least 1 is needed")
    if exclude is not None and (exclude.ndim not in (1, 2) or len(exclude) != len(queries)):
        raise ValueError(f"exclude {exclude.shape} has not one row for each of {len(queries)} queries")


def _largest(vectors: np.ndarray, name: str, apply: Apply) -> float:
    """The largest absolute number; ValueError if one is not finite in float32."""

    def look(first: int) -> float:
        piece = vectors[first : first + PIECE]
        low, high = (float(piece.min()), float(piece.max())) if piece.size else (0.0, 0.0)
        if not -FINITE <= low <= high <= FINITE:  # NaN fails every comparison
            raise ValueError(
                f"{name} hold a number that is not finite in float32, in rows {first} to {first + len(piece) - 1}"
            )
        return max(-low, high)

    return max(apply(look, range(0, len(vectors), PIECE)), default=0.0)


def _float32(vectors: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _mapper(work: int) -> AbstractContextManager[Apply]:
    """`map`, over as many threads as the work deserves."""
    return nullcontext(map) if work < ALONE else in_threads()


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
    step = max(1, WHOLE // len(gallery))
    scores = np.empty((min(step, len(queries)), len(gallery)), np.float32)
    best = []
    for first in range(0, len(queries), step):
        some = queries[first : first + step]
        piece = scores[: len(some)]
        for start, count, rows in _chunks(gallery):
            piece[:, start : start + count] = np.matmul(some, rows.T)[:, :count]
        mine = (pairs.query >= first) & (pairs.query < first + step)
        piece[pairs.query[mine] - first, pairs.row[mine]] = -np.inf
        best.append(best_of_columns(piece, k))
    return Part(np.concatenate([part.scores for part in best]), np.concatenate([part.rows for part in best]))


def _two_level(queries: np.ndarray, gallery: np.ndarray, k: int, block: int, pairs: Pairs) -> Part:
    """From the blocks with the best maxima."""
    maxima = np.ascontiguousarray(_block_maxima(queries, gallery, block, pairs).T)
    chosen = largest_columns(maxima, min(k, maxima.shape[1]))
    rows = (chosen[:, :, None] * block + np.arange(block)).reshape(len(queries), -1)
    scores = _scores_of(queries, gallery, chosen, block).reshape(len(queries), -1)
    query, entry = np.nonzero(chosen[pairs.query] == (pairs.row // block)[:, None])
    scores[pairs.query[query], entry * block + pairs.row[query] % block] = -np.inf
    best = best_of_columns(scores, k)
    return Part(best.scores, np.where(best.rows < 0, -1, np.take_along_axis(rows, best.rows, axis=1)))


def _block_maxima(queries: np.ndarray, gallery: np.ndarray, block: int, pairs: Pairs) -> np.ndarray:
    """The largest score of every block, [blocks, queries]."""
    maxima = np.empty((-(-len(gallery) // block), len(queries)), np.float32)
    buffer = np.empty((CHUNK, len(queries)), np.float32)
    for first, count, rows in _chunks(gallery):
        scores = np.matmul(rows, queries.T, out=buffer[: len(rows)])
        scores = excluded.without(scores, first, count, pairs, -np.inf)
        mine = maxima[first // block : -(-(first + count) // block)]
        groups = scores[: len(mine) * block].reshape(len(mine), block, len(queries))
        np.maximum.reduce(groups, axis=1, out=mine)
    return maxima


def _scores_of(queries: np.ndarray, gallery: np.ndarray, blocks: np.ndarray, block: int) -> np.ndarray:
    """The scores of each query with the rows of its own blocks [Q, blocks]: [Q, blocks, rows]; -inf beyond."""
    scores = np.empty((*blocks.shape, block), np.float32)
    step = max(1, GATHERED // (blocks.shape[1] * block * queries.shape[1]))
    for first in range(0, len(blocks), step):
        some = slice(first, first + step)
        rows = blocks[some, :, None] * block + np.arange(block)
        candidates = _float32(gallery[np.minimum(rows, len(gallery) - 1)])
        # Block by block, since products of equal shape round equally.
        np.matmul(candidates, queries[some, None, :, None], out=scores[some, ..., None])
        scores[some][rows >= len(gallery)] = -np.inf
    return scores
