"""Rows of numbers as directions."""

import numpy as np
from jaxtyping import Float, Float32

_BLOCK = 4096  # rows that are held in float64 at a time


def l2_normalize(vectors: Float[np.ndarray, "N D"]) -> Float32[np.ndarray, "N D"]:
    """Every row at length 1, in float32; rows of zeros stay zeros.

    Lengths are float64, in which no square of a float32 overflows or vanishes.
    """
    found = np.zeros(vectors.shape, np.float32)
    for first in range(0, len(vectors), _BLOCK):
        block = vectors[first : first + _BLOCK].astype(np.float64)
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        found[first : first + _BLOCK] = np.divide(block, lengths, out=block, where=lengths > 0)
    return found
