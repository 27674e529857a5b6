"""The legend of letters, one for the whole house.

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
from jaxtyping import Bool, Float32, Int64, UInt8

Image = UInt8[np.ndarray, "H W 3"]
"""One image: RGB, 8 bits, upright."""

Vectors = Float32[np.ndarray, "N D"]
"""Rows of float32 numbers: features or embeddings."""

Ids = Int64[np.ndarray, "N"]
"""Row ids of a collection."""

Mask = Bool[np.ndarray, "N"]
"""True where a row takes part."""
