"""Which rows make up a step: pure in (seed, step), so that a run goes on where it stopped, on any number of hosts.

Positions are those of the caller's arrays, 0 to N - 1. Every host computes all of a step and takes its `share`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int, Int64, Shaped

from lookalike.core.config import in_range
from lookalike.core.errors import UsageError

Sample = Literal["balanced", "uniform"]

_PURPOSES = {"rows": 1, "classes": 2, "pixels": 3, "members": 4}  # streams of one seed that never meet
_STREAMS = 8  # more than there are purposes: a domain's streams lie that far from the next one's
_FINE = 100  # a share is met to this part of an equal one


@dataclass(frozen=True)
class Mixture:
    """What a step is made of: how often each domain, within it each class, and how many images of a class at once.

    By default every class comes equally often, whatever its domain.
    """

    domains: Literal["proportional", "balanced", "single"] = "proportional"
    """proportional: by its classes, or its images where `classes` is uniform, as if there were no domains; balanced:
    every domain equally often; single: every batch is of one domain, each in turn."""
    floor: float = 0.0
    """Least share of a domain in the images, 0 to 1; those above it give in proportion."""
    cap: float = 1.0
    """Greatest share of a domain in the images, 0 to 1; those below it get more in proportion."""
    classes: Sample = "balanced"
    """Within a domain. balanced: every class equally often; uniform: every image equally often."""
    per_class: int = 0
    """Images of each class in a batch, which it must divide; 0: as they come. A class that has fewer repeats them."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, 1.0, "floor", "cap")
        in_range(self, 0.0, math.inf, "per_class")
        if self.floor > self.cap:
            raise UsageError(f"`floor` of Mixture is {self.floor}; expected no more than its `cap`, {self.cap}.")
        if self.domains == "single" and (self.floor, self.cap) != (0.0, 1.0):
            raise UsageError(
                "`floor` and `cap` of Mixture are shares in a batch; expected none where each is `single`."
            )


class _Domain(NamedTuple):
    """The rows of a domain sorted by class, and what its endless row is made of."""

    rows: Int64[np.ndarray, "M"]  # positions, class by class
    starts: Int64[np.ndarray, "C"]  # where each class begins in `rows`
    counts: Int64[np.ndarray, "C"]  # how many rows each class has; at least 1
    number: int  # 0 to the number of domains - 1
    length: int  # of a permutation: classes, or rows
    permutation: Callable[[int], Int64[np.ndarray, "n"]]  # of an epoch; the last two are kept


def sampler(
    mixture: Mixture,
    label_N: Int[np.ndarray, "N"],
    domain_N: Shaped[np.ndarray, "N"],
    batch: int,
    seed: int,
) -> Callable[[int], Int64[np.ndarray, "B"]]:
    """The positions of each step, of `batch` rows: what is sorted once is sorted here.

    Labels are any integers, and a class lies in one domain. Each domain is an endless row of permutations: of its rows,
    or of its classes, each of which goes through its rows in turn and begins somewhere else each time round. So no row
    of a class comes twice before all have come once in that round. With `per_class` images of a class at once these
    are distinct if it has as many, and those left over at the end of a round wait for another one.

    Raises:
        UsageError: `per_class` doesn't divide the batch, or the bounds of the shares can't be met.
    """
    each = max(mixture.per_class, 1)
    if batch % each:
        raise UsageError(f"`per_class` of Mixture is {each}; expected a divisor of the batch, {batch}.")
    if not len(label_N):
        raise ValueError("there are no rows to sample from")
    if mixture.domains == "proportional" and (mixture.floor, mixture.cap) == (0.0, 1.0):
        domain_N = np.zeros_like(label_N)
    names, domain_N = np.unique(domain_N, return_inverse=True)
    members = [np.flatnonzero(domain_N == number) for number in range(len(names))]
    parts = [_domain(mixture, label_N, rows, number, seed) for number, rows in enumerate(members)]
    sizes = [part.length if mixture.domains == "proportional" else 1 for part in parts]
    turns = _turns(bounded(np.array(sizes, np.float64), mixture.floor, mixture.cap))
    draws = batch // each

    def single(step: int) -> Int64[np.ndarray, "B"]:
        (domain,), (visit,) = _visits(turns, np.array([step]), seed)
        return _drawn(mixture, parts[domain], visit * draws + np.arange(draws), seed).reshape(-1)

    def mixed(step: int) -> Int64[np.ndarray, "B"]:
        domains, visits = _visits(turns, step * draws + np.arange(draws), seed)
        found = np.empty((draws, each), np.int64)
        for domain in np.unique(domains).tolist():
            here = domains == domain
            found[here] = _drawn(mixture, parts[domain], visits[here], seed)
        return found.reshape(-1)

    return single if mixture.domains == "single" else mixed


def share(batch: int, parts: int = 1, devices: int = 1, host: int = 0, hosts: int = 1) -> Int64[np.ndarray, "P R"]:
    """The places in a step's `batch` of the items that host `host` of `hosts` gets, for each of the batch's `parts`.

    Parts, which divide the batch, are taken one after the other. Each is filled up at its end, with items of its own,
    so that all `devices` of all hosts divide it.
    """
    each = batch // parts
    rows = -(-each // devices) * devices
    mine = np.arange(host * rows // hosts, (host + 1) * rows // hosts)
    return each * np.arange(parts)[:, None] + mine[None, :] % each


def bounded(weights: Float[np.ndarray, "n"], floor: float, cap: float) -> Float64[np.ndarray, "n"]:
    """Shares of sum 1, in proportion to `weights` (above 0) but cut to `floor` and `cap`; UsageError if none are."""
    n = len(weights)
    if floor * n > 1 + 1e-9 or cap * n < 1 - 1e-9:
        wrong, least = ("floor", "at most") if floor * n > 1 else ("cap", "at least")
        value = floor if wrong == "floor" else cap
        raise UsageError(f"`{wrong}` of Mixture is {value}; with {n} domains expected {least} {1 / n:.4g}.")
    low, high = 0.0, 1.0 / float(weights.min())
    for _ in range(100):  # the sum rises with the factor: halve what it can be
        factor = (low + high) / 2
        low, high = (factor, high) if np.clip(factor * weights, floor, cap).sum() < 1 else (low, factor)
    shares: np.ndarray = np.clip(high * weights, floor, cap).astype(np.float64)
    shares /= shares.sum()
    return shares


def generator(seed: int, step: int, item: int, view: int = 0) -> np.random.Generator:
    """Random numbers for a view of item `item` of step `step`: the same whoever draws them, and when."""
    return _philox(seed, "pixels", 0, step, item, view)


def _domain(
    mixture: Mixture, label_N: Int[np.ndarray, "N"], rows: Int64[np.ndarray, "M"], number: int, seed: int
) -> _Domain:
    balanced = mixture.classes == "balanced"
    labels = label_N[rows] if balanced or mixture.per_class else np.zeros_like(rows)
    _, counts = np.unique(labels, return_counts=True)
    counts, rows = counts.astype(np.int64), rows[np.argsort(labels, kind="stable")]
    length, stream = (len(counts), "classes") if balanced else (len(rows), "rows")
    permutation = lru_cache(maxsize=2)(lambda epoch: _philox(seed, stream, number, epoch).permutation(length))
    return _Domain(rows, np.cumsum(counts) - counts, counts, number, length, permutation)


def _turns(shares: Float64[np.ndarray, "n"]) -> tuple[int, ...]:
    """How often each domain comes in a round: at least once, and as nearly as `_FINE` tells in proportion."""
    turns = np.maximum(1, np.round(shares * _FINE * len(shares))).astype(np.int64)
    return tuple((turns // np.gcd.reduce(turns)).tolist())


def _visits(
    turns: tuple[int, ...], places: Int64[np.ndarray, "B"], seed: int
) -> tuple[Int64[np.ndarray, "B"], Int64[np.ndarray, "B"]]:
    """The domain at each place of the endless row of rounds, and how often it came before."""
    slots, length = np.repeat(np.arange(len(turns)), turns), sum(turns)
    rounds, row = np.unique(places // length, return_inverse=True)
    names = rounds[:, None] * length + np.arange(length)  # no two slots of a stream have the same one
    domains = slots[np.argsort(_mix(_mix(names.astype(np.uint64)) ^ np.uint64(seed)), axis=1)]
    visits = np.empty_like(domains)
    first = np.cumsum(turns) - turns
    np.put_along_axis(visits, np.argsort(domains, axis=1, kind="stable"), np.arange(length) - first[slots], axis=1)
    domain: np.ndarray = domains[row, places % length]
    return domain, visits[row, places % length] + places // length * np.array(turns)[domain]


def _drawn(mixture: Mixture, domain: _Domain, places: Int64[np.ndarray, "P"], seed: int) -> Int64[np.ndarray, "P K"]:
    """Positions of the rows at these places of a domain's endless row; at each there are K of one class."""
    epochs, offsets = places // domain.length, places % domain.length
    drawn = np.empty_like(places)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        drawn[here] = domain.permutation(epoch)[offsets[here]]
    balanced = mixture.classes == "balanced"
    if not mixture.per_class:
        one_each: np.ndarray = domain.rows[_in_turn(domain, drawn, epochs, seed) if balanced else drawn]
        return one_each[:, None]
    classes, visits = drawn, epochs
    if not balanced:  # a class comes as often as it has rows, and each of these stands for one visit
        classes = np.searchsorted(domain.starts, drawn, side="right") - 1
        visits = epochs * domain.counts[classes] + drawn - domain.starts[classes]
    visited = zip(classes.tolist(), visits.tolist(), strict=True)
    return np.stack([_members(domain, c, v, mixture.per_class, seed) for c, v in visited])


def _in_turn(
    domain: _Domain, classes: Int64[np.ndarray, "P"], visits: Int64[np.ndarray, "P"], seed: int
) -> Int64[np.ndarray, "P"]:
    """Where in the domain's `rows` the row is that each class gives when it was visited `visits` times before."""
    count = domain.counts[classes]
    own = classes.astype(np.uint64) ^ np.uint64(domain.number << 32)
    turn = _mix(_mix(own ^ _mix((visits // count).astype(np.uint64))) ^ np.uint64(seed))
    begin = (turn % count.astype(np.uint64)).astype(np.int64)
    found: np.ndarray = domain.starts[classes] + (visits % count + begin) % count
    return found


def _members(domain: _Domain, label: int, visit: int, each: int, seed: int) -> Int64[np.ndarray, "K"]:
    """Positions of `each` rows of a class that was visited so often before: the next ones of a permutation of all."""
    count, start = int(domain.counts[label]), int(domain.starts[label])
    rounds, place = divmod(visit, max(1, count // each))
    order = _philox(seed, "members", domain.number, rounds, label).permutation(count)
    return domain.rows[start + order[(place * each + np.arange(each)) % count]]


def _philox(seed: int, purpose: str, domain: int, *place: int) -> np.random.Generator:
    """Counter-based, so that any place in any stream is reached at once; the lowest word is left to count."""
    first, second, third = (*place, 0, 0)[:3]
    key = [seed, _PURPOSES[purpose] + _STREAMS * domain]
    return np.random.Generator(np.random.Philox(key=key, counter=[0, second, first, third]))


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al., 2014): 64 bits in, 64 well-mixed bits out."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
