"""One query of several vectors: the mean of what is wanted, without what it shares with what is not."""

import numpy as np
from jaxtyping import Float, Float32

from lookalike.core.errors import UsageError
from lookalike.core.shapes import l2_normalize

_NOTHING = 1e-4  # length of what is left of a unit vector that lies among those it is turned away from: rounding


def combined(like: Float[np.ndarray, "A D"], unlike: Float[np.ndarray, "B D"]) -> Float32[np.ndarray, "D"]:
    """The unit vector q = m - P m, where m is the mean of the unit vectors of `like`, at unit length, and P projects
    onto the space that `unlike` spans; there may be none.

    A cosine with q no longer counts what the query has in common with any row of `unlike`. For one row u and unit
    vectors that is m - (m . u) u, the orthogonal negation of Widdows, "Orthogonal Negation in Vector Spaces for
    Modelling Word-Meanings and Document Retrieval" (ACL 2003), which needs no weight.

    UsageError if nothing is left: the parts cancel out, or the query is what it is turned away from.
    """
    wanted = l2_normalize(np.asarray(like, np.float64)).mean(axis=0)
    size = np.linalg.norm(wanted)
    if size < _NOTHING:
        raise UsageError("The parts of the query cancel each other out.", hint="search with each alone")
    query = wanted / size
    if len(unlike):
        _, sizes, directions = np.linalg.svd(np.asarray(unlike, np.float64), full_matrices=False)
        span = directions[sizes > 1e-6 * sizes[0]]  # the same vector twice spans one direction
        query = query - span.T @ (span @ query)
    if (size := np.linalg.norm(query)) < _NOTHING:
        raise UsageError(
            "Nothing is left of a query without what it is turned away from.",
            hint="leave out `--unlike` and `--not`, or give other ones",
        )
    return (query / size).astype(np.float32)  # type: ignore[no-any-return]
