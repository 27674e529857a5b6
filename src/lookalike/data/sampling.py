"""Which rows make up a step: pure in (seed, step), so that a run goes on where it stopped, on any number of workers.

Positions are those of the caller's arrays, 0 to N - 1.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Int64

Sample = Literal["balanced", "uniform"]  # balanced: every class equally often; uniform: every image equally often

_PURPOSES = {"rows": 1, "classes": 2, "pixels": 3}  # streams of one seed that must not meet


class Groups(NamedTuple):
    """Rows sorted by class."""

    rows: Int64[np.ndarray, "N"]  # positions, class by class
    starts: Int64[np.ndarray, "C"]  # where each class begins in `rows`
    counts: Int64[np.ndarray, "C"]  # how many rows each class has; at least 1


def group(labels: Int[np.ndarray, "N"]) -> Groups:
    """Sort once what `balanced` would otherwise sort again at each step; any integers are labels."""
    _, counts = np.unique(labels, return_counts=True)
    counts = counts.astype(np.int64)
    return Groups(np.argsort(labels, kind="stable").astype(np.int64), np.cumsum(counts) - counts, counts)


def positions(sample: Sample, groups: Groups, batch: int, seed: int, step: int) -> Int64[np.ndarray, "B"]:
    """Positions of step `step`: pieces of an endless row of permutations, of all rows or, `balanced`, of the classes.

    A class then goes through its rows in turn, beginning somewhere else each time round, so that within a class too no
    row comes twice before all have come once in that round.
    """
    places = np.arange(step * batch, (step + 1) * batch)
    if sample == "uniform":
        return _stream(len(groups.rows), places, seed, "rows")
    classes = _stream(len(groups.counts), places, seed, "classes")
    visit, count = places // len(groups.counts), groups.counts[classes]
    turn = _mix(_mix(classes.astype(np.uint64) ^ _mix((visit // count).astype(np.uint64))) ^ np.uint64(seed))
    within = (visit % count + (turn % count.astype(np.uint64)).astype(np.int64)) % count
    picked: np.ndarray = groups.rows[groups.starts[classes] + within]
    return picked


def generator(seed: int, step: int, item: int) -> np.random.Generator:
    """Random numbers for item `item` of step `step`: the same whoever draws them, and when."""
    return _philox(seed, "pixels", step, item)


def _stream(n: int, places: Int64[np.ndarray, "B"], seed: int, purpose: str) -> Int64[np.ndarray, "B"]:
    """Elements of the endless sequence permutation, permutation, ... of range(n)."""
    if n < 1:
        raise ValueError("there are no rows to sample from")
    epochs, offsets = places // n, places % n
    out = np.empty_like(places)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        out[here] = _permutation(n, seed, purpose, epoch)[offsets[here]]
    return out


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, purpose: str, epoch: int) -> Int64[np.ndarray, "n"]:
    order = _philox(seed, purpose, epoch, 0).permutation(n)
    order.flags.writeable = False  # it is shared by all who ask
    return order


def _philox(seed: int, purpose: str, first: int, second: int) -> np.random.Generator:
    """Counter-based, so that any place in any stream is reached at once; the lowest word is left to count."""
    return np.random.Generator(np.random.Philox(key=[seed, _PURPOSES[purpose]], counter=[0, second, first, 0]))


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al., 2014): 64 bits in, 64 well-mixed bits out."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
