"""Clusters of vectors by density: HDBSCAN (Campello, Moulavi and Sander, 2013) of scikit-learn, from a sample.

scikit-learn's HDBSCAN takes time that grows as the square of the rows. So it sees at most `SAMPLE` rows, spread evenly
through the collection, by their first `NUMBERS` principal components; every other row goes where its nearest row of the
sample is, if it is as near as nine of ten rows of that cluster are to their own nearest. Of n rows a cluster is thus
found from about `least` * n / `SAMPLE` images on.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from lookalike.core.errors import UsageError
from lookalike.core.journal import Progress
from lookalike.retrieval.exact import knn

SAMPLE = 10_000
NUMBERS = 32
_SAMPLES = 2  # neighbors by which a row's density is told
_NEAR = 0.1  # share of a cluster's rows that are farther from their nearest than a row may be that joins
_MIXED = 0.3  # share of its images below which a label says little of a cluster
_STEP = 2**14

Numbers = Int64[np.ndarray, "N"]
Words = Int64[np.ndarray, "C"]


def clusters_of(vectors: Float32[np.ndarray, "N D"], least: int, sample: int = SAMPLE) -> Numbers:
    """The cluster of each row of length 1, the largest 0; -1 for rows in none. `least` rows make a cluster.

    UsageError if scikit-learn is not installed.
    """
    some = np.linspace(0, len(vectors) - 1, min(len(vectors), sample)).astype(int)
    seen = vectors[some]
    found = np.full(len(vectors), -1, np.int64)
    if len(seen) < max(2, least):
        return found
    mine = _hdbscan(_components(seen), least)
    found[some] = mine
    rest = np.setdiff1d(np.arange(len(vectors)), some)
    inside = np.flatnonzero(mine >= 0)
    if len(rest) and len(inside):
        members, cores = mine[inside], seen[inside]
        bars = _bars(cores, members)
        with Progress("assign", "images", len(rest)) as bar:
            for start in range(0, len(rest), _STEP):
                rows = rest[start : start + _STEP]
                scores, at = knn(vectors[rows], cores, 1, largest=1.0)
                joined = members[at[:, 0]]
                found[rows] = np.where(scores[:, 0] >= bars[joined], joined, -1)
                bar.advance(len(rows))
    return by_size(found)


def by_size(numbers: Numbers) -> Numbers:
    """The same clusters, numbered from the largest on; of equal ones the one with the first row comes first."""
    told = np.flatnonzero(numbers >= 0)
    names, first, count = np.unique(numbers[told], return_index=True, return_counts=True)
    place = np.empty(len(names), np.int64)
    place[np.lexsort((first, -count))] = np.arange(len(names))
    found = numbers.copy()
    found[told] = place[np.searchsorted(names, numbers[told])]
    return found


def medoid(vectors: Float32[np.ndarray, "M D"]) -> int:
    """The row that is nearest to the mean of all."""
    return int((vectors @ vectors.mean(axis=0)).argmax())


def told_by_labels(labels: Sequence[str | None]) -> tuple[str, float] | None:
    """The label that most of the images of a cluster have, and the share that has it; None if none has one."""
    known = [label for label in labels if label is not None]
    if not known:
        return None
    names, counts = np.unique(np.array(known), return_counts=True)
    best = int(counts.argmax())
    return str(names[best]), float(counts[best] / len(labels))


def told_by_domain(labels: Sequence[str | None], domains: Sequence[str | None]) -> tuple[str, float] | None:
    """The label as `told_by_labels`; where less than `_MIXED` have it and half are of one domain, that domain."""
    label, domain = told_by_labels(labels), told_by_labels(domains)
    if label and domain and label[1] < _MIXED and domain[1] >= 0.5:
        return domain
    return label


def told_by_words(means: Float32[np.ndarray, "C D"], words: Float32[np.ndarray, "W D"]) -> Words:
    """The word of each cluster: the one that is nearer to its mean than to those of other clusters."""
    cosines = means @ words.T
    found: Words = np.argmax(cosines - cosines.mean(axis=0, keepdims=True), axis=1)
    return found


def _hdbscan(rows: Any, least: int) -> Any:
    try:
        from sklearn.cluster import HDBSCAN
    except ModuleNotFoundError as error:
        raise UsageError(
            "`lookalike clusters` needs scikit-learn, which is not installed here.",
            hint="pip install 'lookalike[explore]'",
        ) from error
    model = HDBSCAN(min_cluster_size=least, min_samples=min(_SAMPLES, len(rows)), copy=True)
    return model.fit_predict(rows).astype(np.int64)


def _components(rows: Any) -> Any:
    """The first principal components of rows."""
    centered = rows - rows.mean(axis=0)
    if rows.shape[1] <= NUMBERS:
        return centered
    _, directions = np.linalg.eigh(centered.T @ centered)
    return centered @ directions[:, -NUMBERS:]


def _bars(cores: Any, members: Any) -> Any:
    """For each cluster the cosine that nine of ten of its rows have with their nearest of the same cluster."""
    bars = np.empty(int(members.max()) + 1, np.float32)
    for number in range(len(bars)):
        own = np.flatnonzero(members == number)
        nearest = knn(cores[own], cores[own], 1, exclude=np.arange(len(own)), largest=1.0)[0][:, 0]
        bars[number] = np.quantile(nearest, _NEAR)
    return bars
