"""Vectors as whole numbers of eight bits: their products are three times as fast, and how far off they are is known.

With q = q' + e and g = c + g' + f, where q' and g' are what the codes say, c is one vector for all of the gallery and
e and f are what the codes leave out, q.g - q.c - q'.g' = e.(g - c) + q'.f, which by Cauchy and Schwarz is at most
|e| |g - c| + |q'| |f|. So products of codes tell which rows can't be among the best; the others are scored in float32.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int8, Int32, UInt8

from lookalike.core.machine import multiplies_bytes, onnx_session
from lookalike.core.threads import Apply

ROW_LEVELS, ZERO = 127, 128  # codes of gallery rows are unsigned, and 128 stands for zero
# Two products of 255 x 63 still fit the 16 bits in which processors without VNNI add them; of 255 x 127 they do not.
QUERY_LEVELS, SAFE_QUERY_LEVELS = 127, 63
TINY = float(np.finfo(np.float32).tiny)
PIECE = 4096  # rows that are turned into codes at a time


class Rows(NamedTuple):
    """Gallery rows as codes, filled up with zeros; row = center + step x (code - 128) + error."""

    codes: UInt8[np.ndarray, "G D"]
    center: Float32[np.ndarray, "D"]
    step: float
    error: float  # the longest
    length: float  # the largest distance of a row from the center


class Queries(NamedTuple):
    """Queries as codes; a score is at most `slack` from scale x product of codes + shift."""

    codes: Int8[np.ndarray, "D Q"]
    scale: Float32[np.ndarray, "Q"]
    shift: Float32[np.ndarray, "Q"]
    slack: Float32[np.ndarray, "Q"]


def code_rows(gallery: np.ndarray, fill: int, apply: Apply) -> Rows:
    """Codes of gallery rows [G D], of any float type; filled up to a multiple of `fill` rows."""
    codes = np.full((-(-len(gallery) // fill) * fill, gallery.shape[1]), ZERO, np.uint8)
    pieces = range(0, len(gallery), PIECE)
    # Any center gives right bounds, and one near the mean gives tight ones.
    center = gallery[:: -(-len(gallery) // PIECE)].mean(axis=0, dtype=np.float64).astype(np.float32)

    def reach(first: int) -> tuple[np.ndarray, np.ndarray]:
        piece = gallery[first : first + PIECE]
        return piece.min(axis=0), piece.max(axis=0)

    lows, highs = zip(*apply(reach, pieces), strict=True)
    low, high = (end(ends, axis=0).astype(np.float64) for end, ends in ((np.min, lows), (np.max, highs)))
    step = max(float(np.maximum(high - center, center - low).max()) / ROW_LEVELS, TINY)

    def code(first: int) -> tuple[float, float]:
        steps = gallery[first : first + PIECE].astype(np.float32)
        steps -= center
        steps *= np.float32(1 / step)  # in steps, since squares of tiny numbers would vanish
        whole = np.rint(steps).clip(-ROW_LEVELS, ROW_LEVELS)
        np.add(whole, ZERO, out=codes[first : first + len(steps)], casting="unsafe")
        length = np.einsum("nd,nd->n", steps, steps).max()
        steps -= whole
        error = np.einsum("nd,nd->n", steps, steps).max()
        return step * math.sqrt(error), step * math.sqrt(length)

    errors, lengths = zip(*apply(code, pieces), strict=True)
    return Rows(codes, center, step, max(errors), max(lengths))


def code_queries(queries: Float32[np.ndarray, "Q D"], rows: Rows) -> Queries:
    """Codes of queries that are searched in `rows`; each has its own step."""
    exact, center, width = queries.astype(np.float64), rows.center.astype(np.float64), queries.shape[1]
    steps = np.maximum(np.abs(exact).max(axis=1, keepdims=True) / _levels(), TINY)
    whole = np.rint(exact / steps)
    error, length = np.linalg.norm(exact - whole * steps, axis=1), np.linalg.norm(whole * steps, axis=1)
    # What float32 adds: the score itself and the products' scaling are sums of up to D rounded numbers, and what is
    # too small for float32 is lost.
    reach = (length + error) * (rows.length + rows.error + np.linalg.norm(center))
    rounding = width * (4 * np.finfo(np.float32).eps * reach + 2**14 * TINY)
    slack = error * rows.length + length * rows.error + rounding
    scale = steps[:, 0] * rows.step
    shift = exact @ center - ZERO * whole.sum(axis=1) * scale
    codes = np.ascontiguousarray(whole.astype(np.int8).T)
    return Queries(codes, *(value.astype(np.float32) for value in (scale, shift, slack)))


def product(rows: UInt8[np.ndarray, "G D"], queries: Int8[np.ndarray, "D Q"]) -> Int32[np.ndarray, "G Q"]:
    """The matrix product of codes, on the thread that calls it."""
    result: np.ndarray = _session().run(None, {"rows": rows, "queries": queries})[0]
    return result


@functools.cache
def _levels() -> int:
    return QUERY_LEVELS if multiplies_bytes() else SAFE_QUERY_LEVELS


@functools.cache
def _session() -> Any:
    """One operator in ONNX Runtime: NumPy multiplies whole numbers a hundred times slower."""
    from onnx import parser

    model = parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 20]>
        codes (uint8[G, D] rows, int8[D, Q] queries) => (int32[G, Q] products) {
            products = MatMulInteger(rows, queries)
        }"""
    )
    return onnx_session(model.SerializeToString(), threads=1)
