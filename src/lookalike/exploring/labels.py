"""How well labels fit vectors: images that another label fits better, and images that fit none.

An image is never its own witness (leave-one-out), nor are its near duplicates, which would share its mistake. How near
an image is to a class is the mean of its cosines to the `NEAR` nearest images of it (fewer, where its own class has
fewer others), measured in part against what is usual in that class: the median of the same number over the class's own
images, as in confident learning (Northcutt, Jiang and Chuang, 2021), where a class's own images set its threshold. A
label is doubted where another class is nearer than the label's own, by more than is usual in the collection.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from lookalike.core.journal import Progress
from lookalike.retrieval.exact import knn

NEAR = 3
NEIGHBORS = 16  # nearest images among which another class is looked for: of 32 the search takes 1.6 times as long
_STEP = 2**14  # rows at a time; progress is said in between
_BLOCK = 2**24  # cosines that are held at a time (64 MiB)
_LEAST = 1e-5  # of a scale: below it, cosines are equal but for rounding
_SHARE = 0.3  # of the difference between what is usual in two classes: all of it favors classes of few
_FAR = 3.0  # scales above the median gain from which on another label is believed
_ODD, _SOFT = 7.0, 2.0  # scales below the usual from which on an image is odd, and over which that grows


class Fits(NamedTuple):
    """Of each row; NaN and -1 where nothing can be said: no label, or no other image of it."""

    own: Float32[np.ndarray, "N"]  # nearness to its own class
    other: Float32[np.ndarray, "N"]  # to the nearest other one
    nearest: Int64[np.ndarray, "N"]  # which that is; -1: none is among the neighbors
    doubt: Float32[np.ndarray, "N"]  # 0 to 1, above 0.5: another label fits better than its own
    odd: Float32[np.ndarray, "N"]  # 0 to 1, above 0.5: it is far from its own class


def fits_of(
    vectors: Float32[np.ndarray, "N D"], classes: Int64[np.ndarray, "N"], copies: Int64[np.ndarray, "N"]
) -> Fits:
    """Of rows of length 1 with their classes (-1: none); rows of one number in `copies` (-1: none) are near duplicates.

    Memory: a few arrays of N numbers, and what `knn` takes. Time: that of `NEIGHBORS` nearest of all rows.
    """
    told = np.flatnonzero(classes >= 0)
    own, used = _own(vectors, classes, copies, told)
    other, nearest = np.full(len(classes), np.nan, np.float32), np.full(len(classes), -1)
    judged = told[used[told] > 0]
    gallery, theirs = vectors[told], classes[told]
    with Progress("compare", "images", len(judged)) as bar:
        for start in range(0, len(judged), _STEP):
            rows = judged[start : start + _STEP]
            at = np.searchsorted(told, rows)
            scores, found = knn(vectors[rows], gallery, NEIGHBORS, exclude=at, largest=1.0)
            other[rows], nearest[rows] = _best_other(scores, theirs[found], found < 0, classes[rows], used[rows])
            bar.advance(len(rows))
    usual, scale = _usual(own, classes)
    of_other = np.where(nearest >= 0, usual[nearest], usual[classes])
    lack = usual[classes] - own  # how far below what is usual in its class
    gain = other - own + _SHARE * (usual[classes] - of_other)
    gain[nearest < 0] = np.nan
    doubt, odd = _above(gain, *_cut(gain)), _above(lack, _ODD * scale, _SOFT * scale)
    doubt[(nearest < 0) & ~np.isnan(odd)] = 0
    return Fits(own, other, nearest, doubt.astype(np.float32), odd.astype(np.float32))


def _cut(gain: Any) -> tuple[float, float]:
    """From where on another label is believed, and the scale above it: beyond what is usual, and where it is nearer."""
    known = gain[~np.isnan(gain)]
    if not len(known):
        return 0.0, 1.0
    middle = float(np.median(known))
    scale = max(_LEAST, 1.4826 * float(np.median(np.abs(known - middle))))
    return max(0.0, middle + _FAR * scale), scale


def _above(values: Any, cut: float, scale: float) -> Any:
    """0 to 1, rising, 0.5 at the cut; it never is so near 1 that two values become one."""
    x = (values - cut) / scale
    return 0.5 + 0.5 * x / (1 + np.abs(x))


def score_of(fits: Fits) -> Float32[np.ndarray, "N"]:
    """How suspect each row is: by its doubt, or by how odd it is where that is beyond doubt; NaN: not judged."""
    found: Float32[np.ndarray, N] = np.maximum(fits.doubt, np.where(fits.odd > 0.5, fits.odd, 0)).astype(np.float32)
    return found


def classes_of(domains: Sequence[str | None], labels: Sequence[str | None]) -> tuple[Int64[np.ndarray, "N"], list[str]]:
    """A number for each pair of domain and label (-1: no label), and the labels by number."""
    numbers: dict[tuple[str | None, str], int] = {}
    pairs = zip(domains, labels, strict=True)
    found = [-1 if label is None else numbers.setdefault((domain, label), len(numbers)) for domain, label in pairs]
    return np.array(found, np.int64), [label for _, label in numbers]


def nearest_in(
    vectors: Float32[np.ndarray, "N D"], row: int, members: Int64[np.ndarray, "M"], most: int
) -> Int64[np.ndarray, "k"]:
    """The rows of `members` that are nearest to a row, itself left out, best first."""
    others = members[members != row]
    best = np.argsort(-(vectors[others] @ vectors[row]), kind="stable")[:most]
    found: Int64[np.ndarray, k] = others[best]
    return found


def _own(vectors: Any, classes: Any, copies: Any, told: Any) -> tuple[Any, Any]:
    """Nearness of each row to the others of its class, and how many of them that is the mean of."""
    own, used = np.full(len(classes), np.nan, np.float32), np.zeros(len(classes), np.int64)
    order = told[np.argsort(classes[told], kind="stable")]
    ends = np.flatnonzero(np.diff(classes[order], append=np.int64(-1)))
    start = 0
    for end in ends.tolist():
        members = order[start : end + 1]
        start = end + 1
        step = max(1, _BLOCK // len(members))
        for first in range(0, len(members), step):
            rows = members[first : first + step]
            cosines = vectors[rows] @ vectors[members].T
            cosines[np.arange(len(rows)), np.arange(first, first + len(rows))] = -np.inf
            if (copies[rows] >= 0).any():
                cosines[(copies[rows][:, None] == copies[members]) & (copies[rows][:, None] >= 0)] = -np.inf
            if cosines.shape[1] > NEAR:
                cosines = np.partition(cosines, -NEAR, axis=1)[:, -NEAR:]
            there = np.isfinite(cosines)
            used[rows] = there.sum(axis=1)
            total = np.where(there, cosines, 0).sum(axis=1)
            own[rows] = np.where(used[rows] > 0, total / np.maximum(used[rows], 1), np.nan)
    return own, used


def _best_other(scores: Any, theirs: Any, absent: Any, own: Any, used: Any) -> tuple[Any, Any]:
    """The class that is nearest beside its own, by the mean of as many of its images as its own gave.

    Of images that are not among the neighbors, the last neighbor's cosine is what they have at most.
    """
    count, width = scores.shape
    scores = np.where(absent, -1, scores)
    last = scores[:, -1]
    theirs = np.where(absent | (theirs == own[:, None]), -1, theirs)
    order = np.argsort(theirs, axis=1, kind="stable")  # scores fall in each class as before
    theirs, scores = np.take_along_axis(theirs, order, 1), np.take_along_axis(scores, order, 1)
    is_new = np.ones((count, width), bool)
    is_new[:, 1:] = theirs[:, 1:] != theirs[:, :-1]
    places = np.broadcast_to(np.arange(width), (count, width))
    rank = places - np.maximum.accumulate(np.where(is_new, places, 0), axis=1)
    counts = (rank < used[:, None]) & (theirs >= 0)
    groups = np.cumsum(is_new.ravel()) - 1
    total, number = (np.bincount(groups, w.ravel()) for w in (np.where(counts, scores, 0), counts))
    row = np.flatnonzero(is_new.ravel()) // width
    name = theirs.ravel()[is_new.ravel()]
    mean = (total + (used[row] - number) * last[row]) / used[row]
    mean = np.where(name >= 0, mean, -np.inf)
    best = np.lexsort((name, -mean, row))
    best = best[np.searchsorted(row[best], np.arange(count))]
    is_none = name[best] < 0
    return np.where(is_none, last, mean[best]).astype(np.float32), np.where(is_none, -1, name[best])


def _usual(own: Any, classes: Any) -> tuple[Any, float]:
    """The median nearness of each class's rows, those of few rows drawn towards that of all; the scale of what is
    left: a robust standard deviation.
    """
    known = ~np.isnan(own)
    count = int(classes.max(initial=-1)) + 1
    usual = np.full(count + 1, np.nan, np.float64)  # the last is for -1
    if not known.any():
        return usual, 1.0
    every = float(np.median(own[known]))
    rows = np.flatnonzero(known)
    order = rows[np.lexsort((own[rows], classes[rows]))]
    starts = np.searchsorted(classes[order], np.arange(count + 1))
    sizes = np.diff(starts)
    there = np.flatnonzero(sizes)
    middle = (own[order[starts[there] + (sizes[there] - 1) // 2]] + own[order[starts[there] + sizes[there] // 2]]) / 2
    usual[:-1] = every
    usual[there] = (sizes[there] * middle + 2 * every) / (sizes[there] + 2)
    left = own[known] - usual[classes[known]]
    return usual, max(_LEAST, 1.4826 * float(np.median(np.abs(left - np.median(left)))))
