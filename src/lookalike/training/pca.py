"""Projections in closed form: PCA, and LDA with shrinkage. NumPy alone, no steps, no seed.

Both take features of unit length and give `(weight [F D], bias [D])`, so that `features @ weight + bias` is the
embedding before it is brought to unit length.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from lookalike.core.arrays import l2_normalize
from lookalike.core.errors import RunError

_BLOCK = 4096  # rows whose products are summed in float32; sums over blocks are float64
_NOISE = 1e-6  # share of the largest variance below which one is rounding: that of float32 products is 1e-7
_EQUAL = 1e-12  # a sum of variances that is rounding: rows of unit length are exact to 1e-7

Projection = tuple[Float32[np.ndarray, "F D"], Float32[np.ndarray, "D"]]


def pca(
    features: Float32[np.ndarray, "N F"],
    dimension: int,
    power: float = 0.0,
    metric: Float64[np.ndarray, "F F"] | None = None,
) -> Projection:
    """The directions of greatest variance of the features, brought to unit length first.

    Args:
        features: Any lengths; they are divided out.
        dimension: D, how many directions are kept, the greatest variance first.
        power: Each direction is multiplied by its variance to this power: 0 leaves distances as they are, -1/2
            gives all directions equal weight (whitening), -1/8 a little more weight to the lesser ones. Directions
            in which the features don't differ, as where images are repeated, count as the least in which they do.
        metric: Features are multiplied by this symmetric matrix before anything else (but for their lengths); see
            `within_classes`.

    Raises:
        RunError: There are too few images or features for `dimension` directions, or all features are equal.

    Memory: two float64 F x F matrices beside the features; the covariance is summed block by block.
    """
    rows, width = features.shape
    _enough(
        rows > dimension and width >= dimension, f"PCA to {dimension} numbers", f"{rows} images of {width} features"
    )
    mean = _mean(features)
    scatter = _scatter(features, np.broadcast_to(mean, (1, width)))
    if np.trace(scatter) < _EQUAL:
        raise RunError("The features of all images point the same way, so that no direction tells them apart.")
    variance, vectors = np.linalg.eigh(scatter if metric is None else metric @ scatter @ metric)
    rank = _rank(variance if metric is None else np.linalg.eigvalsh(scatter))  # the same in every metric
    weight = _signed(vectors[:, ::-1][:, :dimension]) * _power(variance[::-1], rank, power)[:dimension]
    return _projection(weight if metric is None else metric @ weight, mean)


def within_classes(
    features: Float32[np.ndarray, "N F"], label: Int[np.ndarray, "N"], power: float, shrinkage: float = 0.7
) -> Float64[np.ndarray, "F F"]:
    """The metric in which differences within a class count less: S^(-power / 2), S the covariance within classes.

    With power 1 the spread within classes is the same in all directions (within-class covariance normalisation,
    Hatch et al., 2006); less of it moves less far from the tower's own metric.

    Args:
        features: Any lengths; they are divided out.
        label: The class of each row, 0 to C - 1.
        power: 0 (no change) to 1.
        shrinkage: s in (1 - s) S + s tr(S) / F, 0 to 1.

    Returns:
        Symmetric; the identity where no class has two images that differ, which leaves nothing to even out.
    """
    within, _ = _within(features, label, shrinkage)
    if np.trace(within) < _EQUAL:
        return np.eye(len(within))
    variance, vectors = np.linalg.eigh(within)
    return (vectors * _power(variance[::-1], _rank(variance), -power / 2)[::-1]) @ vectors.T


def lda(
    features: Float32[np.ndarray, "N F"], label: Int[np.ndarray, "N"], dimension: int, shrinkage: float = 0.7
) -> Projection:
    """The directions in which classes lie far apart, measured by the spread within them (Fisher, 1936).

    The covariance within classes is shrunk to a multiple of the identity: (1 - s) S + s tr(S) / F, without which
    it can't be inverted where images are fewer than features. Distances along the directions are in units of it.

    Args:
        features: Any lengths; they are divided out.
        label: The class of each row, 0 to C - 1.
        dimension: D, at most C - 1.
        shrinkage: s, 0 to 1.

    Raises:
        RunError: There are too few classes for `dimension` directions, no class has two images that differ, or
            too little shrinkage for so few of them.
    """
    rows, width = features.shape
    classes = int(label.max()) + 1
    _enough(classes > dimension <= width, f"LDA to {dimension} numbers", f"{classes} classes")
    mean = _mean(features)
    shrunk, means = _within(features, label, shrinkage)
    between = (means - mean) * np.sqrt(np.bincount(label, minlength=classes) / rows)[:, None]
    if np.trace(shrunk) < _EQUAL:
        raise RunError(
            f"No class has two images that differ ({rows} images of {classes} classes), so there is no spread within "
            "classes to measure by.",
            hint="give more images of a class, or train with `pca`, which needs no labels",
        )
    variance, vectors = np.linalg.eigh(shrunk)
    if _rank(variance) < width:
        raise RunError(
            f"The covariance within classes can't be inverted: {rows} images of {width} features, shrinkage "
            f"{shrinkage}.",
            hint="give a `shrinkage` above 0 and up to 1, 0.7 for instance",
        )
    # Between is of low rank: in the metric of `shrunk` its directions are the singular vectors of C x F numbers.
    whitening = vectors / np.sqrt(variance)
    right = np.linalg.svd(whitening.T @ between.T, full_matrices=False)[0][:, :dimension]
    return _projection(_signed(whitening @ right), mean)


def _rank(variance: Float64[np.ndarray, "F"]) -> int:
    """How many variances are more than rounding."""
    return int(np.count_nonzero(variance > _NOISE * variance.max()))


def _power(variance: Float64[np.ndarray, "F"], rank: int, power: float) -> Float64[np.ndarray, "F"]:
    """Falling variances to a power; those beyond `rank`, which inverse powers would raise, count as the last of it."""
    return np.maximum(variance, variance[rank - 1]) ** power


def _enough(enough: bool, what: str, found: str) -> None:
    if not enough:
        raise RunError(
            f"{what} needs more than that many images or classes, and at least that many features; found {found}.",
            hint="give more training data, or a smaller `--dimension`",
        )


def _blocks(features: Float32[np.ndarray, "N F"]) -> Iterator[tuple[int, Float32[np.ndarray, "n F"]]]:
    """Blocks of rows at unit length, with the number of the first."""
    for start in range(0, len(features), _BLOCK):
        yield start, l2_normalize(features[start : start + _BLOCK])


def _mean(features: Float32[np.ndarray, "N F"]) -> Float64[np.ndarray, "F"]:
    total = np.zeros(features.shape[1])
    for _, block in _blocks(features):
        total += block.sum(axis=0, dtype=np.float64)
    return total / len(features)


def _scatter(
    features: Float32[np.ndarray, "N F"], means: Float64[np.ndarray, "C F"], label: Int[np.ndarray, "N"] | None = None
) -> Float64[np.ndarray, "F F"]:
    """Covariance around one mean, or around the mean of each row's class."""
    total = np.zeros((features.shape[1], features.shape[1]))
    for start, block in _blocks(features):
        around = means[label[start : start + len(block)]] if label is not None else means
        centred = block - around.astype(np.float32)
        total += centred.T @ centred
    return total / len(features)


def _within(
    features: Float32[np.ndarray, "N F"], label: Int[np.ndarray, "N"], shrinkage: float
) -> tuple[Float64[np.ndarray, "F F"], Float64[np.ndarray, "C F"]]:
    """The shrunk covariance within classes, and the classes' means."""
    width, count = features.shape[1], np.bincount(label)
    means = np.zeros((len(count), width))
    for start, block in _blocks(features):
        np.add.at(means, label[start : start + len(block)], block)
    means /= np.maximum(count, 1)[:, None]
    within = _scatter(features, means, label)
    return (1.0 - shrinkage) * within + shrinkage * np.trace(within) / width * np.eye(width), means


def _signed(vectors: Float64[np.ndarray, "F D"]) -> Float64[np.ndarray, "F D"]:
    """An eigenvector's sign is arbitrary; here its entry of largest size is positive, on every machine."""
    largest = np.abs(vectors).argmax(axis=0)
    return vectors * np.where(vectors[largest, np.arange(vectors.shape[1])] < 0.0, -1.0, 1.0)


def _projection(weight: Float64[np.ndarray, "F D"], mean: Float[np.ndarray, "F"]) -> Projection:
    return weight.astype(np.float32), (-mean @ weight).astype(np.float32)
