"""The plainest description of an image that still finds something: how much of each color is in it.

Swain & Ballard, "Color Indexing" (1991), compare such counts by their intersection; the square root used here
turns the comparison into a cosine (the Bhattacharyya coefficient), so that it is searched like any embedding.
"""

import numpy as np
from jaxtyping import Float32

from lookalike.core.shapes import Image

LEVELS = 4
"""Steps for each of red, green and blue: 4 x 4 x 4 = 64 numbers, as many as an embedding has."""


def histogram(image: Image) -> Float32[np.ndarray, "64"]:
    """The square roots of the shares of 64 colors in `image`: a vector of unit length."""
    step = 256 // LEVELS
    levels = (image // step).astype(np.int64)
    colors = (levels[..., 0] * LEVELS + levels[..., 1]) * LEVELS + levels[..., 2]
    counts = np.bincount(colors.ravel(), minlength=LEVELS**3)
    shares: np.ndarray = np.sqrt(counts / counts.sum()).astype(np.float32)
    return shares
