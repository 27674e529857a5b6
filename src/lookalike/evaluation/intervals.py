"""How sure a mean is: 95 % intervals over classes, as the images of one class find or miss each other together."""

import math

import numpy as np
from jaxtyping import Float64, Int64, Shaped

NORMAL = 1.959964  # within so many standard deviations lie 95 % of a normal distribution


def half_width(
    values: Float64[np.ndarray, "Q"], classes: Int64[np.ndarray, "Q"], domains: Shaped[np.ndarray, "Q"]
) -> float | None:
    """Half of the 95 % interval of the unweighted mean over domains of the mean over a domain's queries.

    Classes are drawn, each with all its queries, in each domain on its own: the variance of a ratio of sums over
    clusters (Cochran, Sampling Techniques, 1977, eq. 6.9). None where a domain has one class, which tells nothing of
    others. For the difference of two encoders give the differences of their values, query by query.
    """
    variance, names = 0.0, sorted(set(domains.tolist()))
    for name in names:
        mine = domains == name
        value, codes = values[mine], classes[mine] - classes[mine].min()
        count = np.bincount(codes)
        away, drawn = np.bincount(codes, value) - value.mean() * count, np.count_nonzero(count)
        if drawn < 2:
            return None
        variance += float(away @ away) * drawn / (drawn - 1) / len(value) ** 2
    return NORMAL * math.sqrt(variance) / len(names)
