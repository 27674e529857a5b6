"""Exact nearest neighbours by inner product, on NumPy arrays, in bounded memory.

Two levels keep the selection cheap. The score matrix is made piece by piece in a buffer that fits the cache, and of
every block of 64 gallery rows only the maximum is kept. The k best rows lie in the k blocks with the best maxima
(before a row of any other block come k rows, one of each of those), so only k blocks a query are scored once more.
Each thread multiplies on its own: a BLAS that spreads products this thin over its threads waits more than it works.

A large search takes its maxima from codes of eight bits (`codes.py`). They say which k blocks are worth scoring first;
the k-th best row of those is a bar, and what the codes can't tell from it, a few more blocks a query, is scored too.
Where k is large, k blocks are many rows, and copying those costs more than all products: then the k-th largest maximum
is the bar, the codes are multiplied once more, and only the rows whose products may reach it are scored.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from lookalike.core.machine import cores
from lookalike.core.threads import Apply, in_threads
from lookalike.retrieval import codes
from lookalike.retrieval.best import Part, Rows, Scores, best_of_columns, best_of_pairs, largest_columns, merged

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
UNSURE = 32  # blocks a query that codes may leave open before float32 is faster
FINE, COARSE = 32, 4  # gallery rows with one maximum where rows are looked for by a bar; maxima of which one makes it
REACHING = 8  # times k blocks of a query may reach its bar before float32 is faster
NEVER = -(2**31)  # below every product of codes
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
        plan = _plan(queries, gallery, k, largest)
        try:
            return _search(queries, gallery, k, exclude, plan, apply)
        except UndecidedError:  # by codes
            return _search(queries, gallery, k, exclude, plan._replace(panel=PANEL, way="float32"), apply)


class UndecidedError(Exception):
    """So many rows are so alike that codes can't tell which are the best."""


def _search(
    queries: np.ndarray, gallery: np.ndarray, k: int, exclude: np.ndarray | None, plan: "Plan", apply: Apply
) -> tuple[Scores, Rows]:
    """What `knn` returns, by a plan."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    firsts, panels = range(0, len(queries), plan.step), range(0, len(gallery), plan.panel)
    is_coded = plan.way in ("codes", "bar")
    # Codes serve one panel, and all its queries: only then do they pay for themselves, and take little memory.
    for group in ([start] for start in panels) if is_coded else [panels]:
        code = codes.code_rows(gallery[group[0] : group[0] + plan.panel], CHUNK, apply) if is_coded else None

        def task(place: tuple[int, int], code: codes.Rows | None = code) -> Part:
            asked = slice(place[0], place[0] + plan.step)
            part = gallery[place[1] : place[1] + plan.panel]
            pairs = _pairs(None if exclude is None else exclude[asked] - place[1], len(part))
            some = _float32(queries[asked])
            if plan.way == "direct":
                best = _direct(some, part, k, pairs)
            elif plan.way == "bar" and code is not None:
                best = _by_bar(some, part, k, plan.block, pairs, code)
            else:
                best = _two_level(some, part, k, plan.block, pairs, code)
            return Part(best.scores, np.where(best.rows < 0, -1, best.rows + place[1]))

        parts = apply(task, ((first, start) for first in firsts for start in group))
        for first in firsts:
            asked = slice(first, first + plan.step)
            for _ in group:  # in rising order, so that the stable sort keeps the lower row first
                scores[asked], rows[asked] = merged(Part(scores[asked], rows[asked]), next(parts))
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
    way: Literal["direct", "float32", "codes", "bar"]  # of all tasks: two may round otherwise, and equal rows not tie


def _plan(queries: np.ndarray, gallery: np.ndarray, k: int, largest: float) -> Plan:
    def share(most: int) -> int:  # the same for every core
        tasks = -(-max(1, len(queries)) // (most * cores())) * cores()
        return max(FEW, -(-len(queries) // tasks))

    width, step = queries.shape[1], share(QUERIES)
    block = BLOCK if k <= LARGE_K and len(gallery) >= SMALL_GALLERY else SMALL_BLOCK
    size = min(len(gallery), PANEL)
    if step * size <= DIRECT or 4 * k * block >= size:
        return Plan(step, PANEL, block, "direct")
    coded = min(PANEL, CODES // max(1, width) // CHUNK * CHUNK)
    if len(queries) * len(gallery) * width < CODED or largest > FINITE / 2 or 4 * k * BLOCK >= coded:
        return Plan(step, PANEL, block, "float32")
    step = share(CODED_QUERIES)
    return Plan(step, coded, BLOCK, "codes") if k <= LARGE_K else Plan(step, coded, FINE, "bar")


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


def _two_level(
    queries: np.ndarray, gallery: np.ndarray, k: int, block: int, pairs: Pairs, code: codes.Rows | None
) -> Part:
    """From the blocks with the best maxima; in float32 if codes leave too much open."""
    if code is None:
        asked, products = None, _products(queries, gallery, pairs)
    else:
        asked = codes.code_queries(queries, code)
        products = _coded(asked, code, len(gallery), pairs)
    maxima = np.ascontiguousarray(_block_maxima(products, len(gallery), block).T)
    chosen = largest_columns(maxima, min(k, maxima.shape[1]))
    rows = (chosen[:, :, None] * block + np.arange(block)).reshape(len(queries), -1)
    scores = _scores_of(queries, gallery, np.arange(len(queries)), chosen, block).reshape(len(queries), -1)
    query, entry = np.nonzero(chosen[pairs.query] == (pairs.row // block)[:, None])
    scores[pairs.query[query], entry * block + pairs.row[query] % block] = -np.inf
    best = best_of_columns(scores, k)
    best = Part(best.scores, np.where(best.rows < 0, -1, np.take_along_axis(rows, best.rows, axis=1)))
    if asked is None:
        return best
    unsure = maxima >= _least(asked, best.scores[:, -1] - asked.slack)[:, None]
    np.put_along_axis(unsure, chosen, False, axis=1)
    if np.count_nonzero(unsure) > UNSURE * len(queries):
        return _two_level(queries, gallery, k, block, pairs, None)
    return _with_blocks(best, queries, gallery, np.nonzero(unsure), block, pairs)


def _with_blocks(
    best: Part, queries: np.ndarray, gallery: np.ndarray, places: tuple[np.ndarray, ...], block: int, pairs: Pairs
) -> Part:
    """The best so far or from more blocks: pairs of a query and a block."""
    asked, blocks = places
    scores = _scores_of(queries, gallery, asked, blocks[:, None], block)[:, 0]
    pair, entry = np.nonzero(scores >= best.scores[asked, -1, None])
    values, rows, asked = scores[pair, entry], blocks[pair] * block + entry, asked[pair]
    free = (rows < len(gallery)) & ~np.isin(asked * len(gallery) + rows, pairs.query * len(gallery) + pairs.row)
    k = best.scores.shape[1]
    values = np.concatenate([best.scores.ravel(), values[free]])
    rows = np.concatenate([best.rows.ravel(), rows[free]])
    asked = np.concatenate([np.repeat(np.arange(len(queries)), k), asked[free]])
    return best_of_pairs(asked, rows, values, len(queries), k)


Products = Iterator[tuple[int, int, np.ndarray]]
"""First row, number of rows, scores [rows and more, queries], which the next overwrite; lowest what is excluded."""


def _products(queries: np.ndarray, gallery: np.ndarray, pairs: Pairs) -> Products:
    """In float32."""
    buffer = np.empty((CHUNK, len(queries)), np.float32)
    for first, count, rows in _chunks(gallery):
        yield first, count, _without(np.matmul(rows, queries.T, out=buffer[: len(rows)]), first, count, pairs, -np.inf)


def _coded(asked: codes.Queries, code: codes.Rows, size: int, pairs: Pairs) -> Products:
    """Of codes, of the first `size` rows."""
    for first in range(0, size, CHUNK):
        count = min(CHUNK, size - first)
        scores = codes.product(code.codes[first : first + CHUNK], asked.codes)
        yield first, count, _without(scores, first, count, pairs, NEVER)


def _without(scores: np.ndarray, first: int, count: int, pairs: Pairs, never: float | int) -> np.ndarray:
    """The scores with `never` behind `count` rows, and where a query must not find a row."""
    scores[count:] = never
    low, high = np.searchsorted(pairs.row, [first, first + count])
    scores[pairs.row[low:high] - first, pairs.query[low:high]] = never
    return scores


def _block_maxima(products: Products, size: int, block: int) -> np.ndarray:
    """The largest score of every block, [blocks, queries]."""
    maxima = np.empty((0, 0))
    for first, count, scores in products:
        if first == 0:
            maxima = np.empty((-(-size // block), scores.shape[1]), scores.dtype)
        mine = maxima[first // block : -(-(first + count) // block)]
        groups = scores[: len(mine) * block].reshape(len(mine), block, scores.shape[1])
        np.maximum.reduce(groups, axis=1, out=mine)
    return maxima


def _least(asked: codes.Queries, scores: np.ndarray) -> np.ndarray:
    """The product of codes that stands for a score, rounded down; above what must not be found."""
    with np.errstate(divide="ignore", invalid="ignore"):
        products = np.floor((scores.astype(np.float64) - asked.shift) / asked.scale)
    least: np.ndarray = np.nan_to_num(products, nan=NEVER).clip(NEVER + 1, -NEVER - 1).astype(np.int32)
    return least


def _by_bar(queries: np.ndarray, gallery: np.ndarray, k: int, block: int, pairs: Pairs, code: codes.Rows) -> Part:
    """From the rows that may reach a query's bar, by codes; `UndecidedError` if there are too many."""
    asked = codes.code_queries(queries, code)
    maxima = _block_maxima(_coded(asked, code, len(gallery), pairs), len(gallery), block)
    coarse = np.maximum.reduceat(maxima, np.arange(0, len(maxima), COARSE), axis=0).T
    if coarse.shape[1] < k:
        bar = np.full(len(queries), float(NEVER))
    else:
        bar = np.partition(np.ascontiguousarray(coarse), coarse.shape[1] - k, axis=1)[:, -k].astype(float)
    # The k rows with these maxima score this much less slack, at least, and another may score its own slack more.
    least = _least(asked, bar * asked.scale + asked.shift - 2.0 * asked.slack)
    if np.count_nonzero(maxima >= least) > REACHING * k * len(queries):
        raise UndecidedError
    found = [np.zeros((0, 3), np.int64)]  # a query, a row, and the product of their codes
    for first, count, scores in _coded(asked, code, len(gallery), pairs):
        mine = maxima[first // block : -(-(first + count) // block)]
        blocks, places = np.nonzero(mine >= least)
        values = scores.reshape(-1, block, len(queries))[blocks, :, places]
        pair, entry = np.nonzero(values >= least[places, None])
        found.append(np.stack([places[pair], first + blocks[pair] * block + entry, values[pair, entry]], axis=1))
    places, rows, products = np.concatenate(found).T
    values = np.full(len(rows), -np.inf, np.float32)
    top = products >= bar[places]  # k rows a query at least, whose true scores are a higher bar
    values[top] = _pair_scores(queries, gallery, places[top], rows[top])
    lowest = best_of_pairs(places[top], rows[top], values[top], len(queries), k).scores[:, -1]
    estimates = products * asked.scale[places] + asked.shift[places]
    close = ~top & (estimates >= (lowest - asked.slack)[places])
    values[close] = _pair_scores(queries, gallery, places[close], rows[close])
    known = top | close
    return best_of_pairs(places[known], rows[known], values[known], len(queries), k)


def _pair_scores(queries: np.ndarray, gallery: np.ndarray, places: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The score of each pair of a query and a row: a sum of its own, so that equal rows score equally."""
    step = max(1, GATHERED // queries.shape[1])
    pieces = [slice(i, i + step) for i in range(0, len(rows), step)]
    scored = [np.einsum("nd,nd->n", _float32(gallery[rows[some]]), queries[places[some]]) for some in pieces]
    return np.concatenate([np.zeros(0, np.float32), *scored])


def _scores_of(
    queries: np.ndarray, gallery: np.ndarray, asked: np.ndarray, blocks: np.ndarray, block: int
) -> np.ndarray:
    """The scores of each asked query with the rows of its own blocks [n, blocks]: [n, blocks, rows]; -inf beyond."""
    scores = np.empty((*blocks.shape, block), np.float32)
    step = max(1, GATHERED // (blocks.shape[1] * block * queries.shape[1]))
    for first in range(0, len(blocks), step):
        some = slice(first, first + step)
        rows = blocks[some, :, None] * block + np.arange(block)
        candidates = _float32(gallery[np.minimum(rows, len(gallery) - 1)])
        # Block by block, since products of equal shape round equally.
        np.matmul(candidates, queries[asked[some], None, :, None], out=scores[some, ..., None])
        scores[some][rows >= len(gallery)] = -np.inf
    return scores
