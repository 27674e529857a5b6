"""The legend of letters, one for the whole house; rows as directions.

    B  images in a batch          N  rows of a collection
    C  classes (labels)           P  patches or positions of a tower, class token included
    D  numbers in an embedding    Q  queries
    F  numbers in the features    G  gallery rows
    H  height in pixels           K  centers per class; k (small) is the number of matches
    W  width in pixels            L  layers

Signatures carry shapes as jaxtyping annotations with these letters, and the tests check every one of them.
Inside functions a name may end in its shape: `cos_BC`.
"""

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

Image = UInt8[np.ndarray, "H W 3"]
"""One image: RGB, 8 bits, upright."""
Vectors = Float32[np.ndarray, "N D"]
"""Features or embeddings."""
Ids = Int64[np.ndarray, "N"]
"""Row ids of a collection."""

_BLOCK = 4096  # rows that are held in float64 at a time


def l2_normalize(vectors: Float[np.ndarray, "N D"]) -> Vectors:
    """Every row at length 1, in float32; rows of zeros stay zeros.

    Lengths are float64, of rows brought near 1 by a power of two, which rounds nothing: squares keep their range.
    """
    found = np.zeros(vectors.shape, np.float32)
    for first in range(0, len(vectors), _BLOCK):
        block = vectors[first : first + _BLOCK].astype(np.float64)
        if vectors.dtype == np.float64:  # the squares of all others have room
            _, power = np.frexp(np.abs(block).max(axis=1, keepdims=True, initial=0))
            block = np.ldexp(block, -power)
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):  # what is not finite becomes NaN
            found[first : first + _BLOCK] = np.divide(block, lengths, out=block, where=lengths > 0)
    return found
