"""The same uncertainty by drawing: percentile intervals over classes and over queries, and a test by signs.

They take nothing for granted of how a mean is distributed, which `intervals.half_width` does, and are slower. Draws
come from a seed: the same vectors have the same interval.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from lookalike.evaluation.report import PerQuery

SEED = 0
LOW, HIGH = 2.5, 97.5  # percentiles of a 95 % interval
AT_A_TIME = 2**22  # numbers of drawn weights that are held (32 MiB)

Values = Float64[np.ndarray, "Q"]
Classes = Int64[np.ndarray, "Q"]
Domains = Shaped[np.ndarray, "Q"]


def intervals(queries: PerQuery, draws: int, seed: int = SEED) -> dict[str, Any]:
    """Percentile intervals [low, high] of each mean over domains: of classes drawn anew, and of queries drawn anew.

    Classes tell what other things of these kinds would give, queries only what other images of the same things would.
    """
    single = np.arange(len(queries.label))
    return {
        "draws": draws,
        "seed": seed,
        "classes": {
            name: interval(v, queries.label, queries.domain, draws, seed) for name, v in queries.values.items()
        },
        "queries": {name: interval(v, single, queries.domain, draws, seed) for name, v in queries.values.items()},
    }


def interval(values: Values, classes: Classes, domains: Domains, draws: int, seed: int = SEED) -> list[float]:
    """The 95 % percentile interval of the unweighted mean over domains of the mean over a domain's queries.

    In each domain as many classes as it has are drawn with replacement, each with all its queries (Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). For single queries give each its own class.
    """
    means = np.zeros(draws)
    rng, names = np.random.default_rng(seed), sorted(set(domains.tolist()))
    for name in names:
        sums, counts = _by_class(values[domains == name], classes[domains == name])
        for some, weights in _drawn(len(sums), draws, rng):
            means[some] += (weights @ sums) / (weights @ counts) / len(names)
    low, high = np.percentile(means, [LOW, HIGH])
    return [float(low), float(high)]


def sign_test(apart: Values, classes: Classes, domains: Domains, draws: int, seed: int = SEED) -> float:
    """The two-sided p of a difference, query by query, between encoders that are equally good.

    If they are, the difference of a class has either sign as likely; all classes have theirs drawn, and p is how often
    the mean over domains is as far from 0 as it was found (Fisher's randomization test, the found one counted in).
    """
    found, drawn = 0.0, np.zeros(draws)
    rng, names = np.random.default_rng(seed), sorted(set(domains.tolist()))
    for name in names:
        sums, counts = _by_class(apart[domains == name], classes[domains == name])
        share = sums / counts.sum() / len(names)
        found += share.sum()
        for first in range(0, draws, step := max(1, AT_A_TIME // len(share))):
            some = slice(first, min(first + step, draws))
            drawn[some] += rng.choice([-1.0, 1.0], (some.stop - some.start, len(share))) @ share
    as_far = np.abs(drawn) >= abs(found) * (1 - 1e-12)  # sums of the same numbers may round apart
    return float((1 + as_far.sum()) / (1 + draws))


def _by_class(values: Values, classes: Classes) -> tuple[Float64[np.ndarray, "C"], Float64[np.ndarray, "C"]]:
    """The sum and the number of the values of each class."""
    codes = classes - classes.min()
    counts = np.bincount(codes)
    there = counts > 0
    return np.bincount(codes, values)[there], counts[there].astype(np.float64)


def _drawn(count: int, draws: int, rng: np.random.Generator) -> "Iterator[tuple[slice, Float64[np.ndarray, 'B C']]]":
    """How often each of `count` is drawn in each draw, some draws at a time."""
    for first in range(0, draws, step := max(1, AT_A_TIME // count)):
        some = slice(first, min(first + step, draws))
        yield some, rng.multinomial(count, np.full(count, 1 / count), some.stop - some.start).astype(np.float64)
