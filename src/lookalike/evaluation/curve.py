"""What is lost where vectors get smaller: fewer numbers, and numbers of fewer bits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from lookalike.core.shapes import l2_normalize
from lookalike.evaluation.report import Report

DIMENSIONS = (64, 32, 16, 8)
LEVELS = 127  # of eight bits, on both sides of zero

Vectors = Float32[np.ndarray, "N D"]


def half(vectors: Vectors) -> Vectors:
    """As numbers of 16 bits have them."""
    return vectors.astype(np.float16).astype(np.float32)


def eight_bits(vectors: Vectors) -> Vectors:
    """As whole numbers from -127 to 127 have them, with one step for all: the largest number is 127."""
    largest = float(np.abs(vectors).max(initial=0.0))
    return np.rint(vectors * np.float32(LEVELS / largest)) if largest else vectors


def signs(vectors: Vectors) -> Vectors:
    """As a bit a number has them, whether it is at least 0: their cosine counts bits that agree."""
    return np.where(vectors >= 0, np.float32(1), np.float32(-1))


STORED: dict[str, tuple[float, Callable[[Vectors], Vectors]]] = {
    "f32": (4, lambda vectors: vectors),
    "f16": (2, half),
    "int8": (1, eight_bits),
    "binary": (1 / 8, signs),
}
"""How numbers are stored: bytes of one, and what is left of vectors of unit length."""


def curve(vectors: Float[np.ndarray, "N D"], measure: Callable[[Vectors], Report]) -> list[dict[str, Any]]:
    """What is measured of the first 64, 32, 16 and 8 numbers of vectors, and of all, in each kind of storage.

    The first numbers are the best to keep of a PCA, of `head` and of what was trained nested; of other vectors they are
    as good as any. Shortened vectors are brought to unit length again before they are stored.
    """
    return [
        {
            "dimension": dimension,
            "stored": stored,
            "bytes": -(-dimension // 8) if stored == "binary" else int(dimension * size),
            "metrics": dict(measure(made(short)).metrics),
        }
        for dimension, short in _shortened(vectors)
        for stored, (size, made) in STORED.items()
    ]


def _shortened(vectors: np.ndarray) -> Iterator[tuple[int, Vectors]]:
    width = vectors.shape[1]
    for dimension in dict.fromkeys((width, *(size for size in DIMENSIONS if size < width))):
        yield dimension, l2_normalize(vectors[:, :dimension])


def lines(points: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of a table."""
    names = list(points[0]["metrics"])
    body = [
        [str(p["dimension"]), p["stored"], str(p["bytes"]), *(f"{p['metrics'][name]:.4f}" for name in names)]
        for p in points
    ]
    return ["numbers", "stored", "bytes", *names], body
