"""Vectors laid out on a plane, so that neighbors stay neighbors: PaCMAP (Wang, Huang, Rudin and Shaposhnik, 2021)."""

import logging
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from lookalike.core.errors import UsageError

FEWEST = 5  # images that can be laid out
Places = Float32[np.ndarray, "N 2"]
_NEAR = 10  # neighbors that are held near
_BITS = 16


def plane_of(vectors: Float32[np.ndarray, "N D"], seed: int) -> Float32[np.ndarray, "N 2"]:
    """Places within -1 to 1 of at least `FEWEST` rows of length 1; UsageError if PaCMAP is not installed."""
    try:
        import pacmap
    except ModuleNotFoundError as error:
        raise UsageError(
            "`lookalike map` needs PaCMAP, which is not installed here.", hint="pip install 'lookalike[explore]'"
        ) from error
    near = min(_NEAR, len(vectors) - 2)
    told = logging.getLogger(pacmap.__name__)
    before = told.level
    told.setLevel(logging.ERROR)  # that a seed makes it repeatable
    try:
        layout: Any = pacmap.PaCMAP(n_components=2, n_neighbors=near, random_state=seed, apply_pca=True)
        places = layout.fit_transform(np.array(vectors, np.float32), init="pca")
    finally:
        told.setLevel(before)
    return fitted_places(np.asarray(places, np.float32))


def fitted_places(places: Float32[np.ndarray, "N 2"]) -> Float32[np.ndarray, "N 2"]:
    """The places moved and scaled into -1 to 1, both directions by one factor."""
    low, high = places.min(axis=0), places.max(axis=0)
    half = float((high - low).max()) / 2 or 1.0
    found: Places = ((places - (low + high) / 2) / half).astype(np.float32)
    return found


def along_curve(places: Float32[np.ndarray, "N 2"]) -> Int64[np.ndarray, "N"]:
    """The rows in the order of a Z-order curve (Morton, 1966): those near each other on the plane are near in it."""
    cells = ((places.astype(np.float64) + 1) / 2 * (2**_BITS - 1)).astype(np.uint64)
    code = np.zeros(len(places), np.uint64)
    for bit in range(_BITS):
        for axis in (0, 1):
            code |= ((cells[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(2 * bit + axis)
    return np.argsort(code, kind="stable").astype(np.int64, copy=False)
