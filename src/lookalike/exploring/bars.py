"""How near images come that are not the same: the bar that vectors of duplicates must reach."""

import numpy as np
from jaxtyping import Bool, Float32, Int64

SAMPLE = 2000  # rows that are asked for their nearest
NEARLY_ALL = 0.99  # of them stay below what is told, where labels say which images are different
MOST = 0.95  # and where they do not, and copies say how near is near enough
SURE = 0.999  # and where neither labels nor copies say anything
_BLOCK = 8192


def nearest_others(
    vectors: Float32[np.ndarray, "N D"],
    labels: Int64[np.ndarray, "N"] | None,
    alone: Bool[np.ndarray, "N"],
    most: float = MOST,
) -> float:
    """The cosine that nearly all images stay below with what is not the same as they are.

    That is each image's second nearest one, since the nearest may be a copy: with `labels` (-1: none) of those that
    have another label, and `NEARLY_ALL` of the images stay below; else `most`. Only rows that are `alone`, for all that
    is known, are asked and compared. -1 of fewer than three.
    """
    rows = np.flatnonzero(alone if labels is None else alone & (labels >= 0))
    by_label = labels is not None and len(np.unique(labels[rows])) > 1
    if not by_label:
        rows = np.flatnonzero(alone)
    if len(rows) < 3:
        return -1.0
    asked = rows[np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(int)]
    best = np.full((len(asked), 2), -1, np.float32)
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        cosines = vectors[asked] @ vectors[some].T
        if by_label and labels is not None:
            cosines[labels[asked][:, None] == labels[some]] = -1
        else:
            cosines[asked[:, None] == some] = -1
        if cosines.shape[1] > 2:
            cosines = np.partition(cosines, -2, axis=1)[:, -2:]
        best = np.sort(np.concatenate([best, cosines], axis=1), axis=1)[:, -2:]
    return float(np.quantile(best[:, 0], NEARLY_ALL if by_label else most, method="lower"))
