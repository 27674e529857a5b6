"""One query of several vectors, against least squares written out, and what must hold of it."""

import numpy as np
import pytest

from lookalike.core.errors import UsageError
from lookalike.retrieval.combined import combined


def unit(rng, *shape):
    rows = rng.standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_alone_it_is_the_mean_of_directions_whatever_the_lengths():
    rng = np.random.default_rng(0)
    like = unit(rng, 3, 8)
    mean = like[0] + like[1] + like[2]
    found = combined(like * np.array([[1], [20], [0.1]]), np.zeros((0, 8)))
    np.testing.assert_allclose(found, mean / np.sqrt((mean**2).sum()), atol=1e-6)
    assert found.dtype == np.float32


def test_what_it_shares_with_others_is_taken_out():
    """The residual of a fit by the normal equations, which the code does not solve."""
    rng = np.random.default_rng(1)
    like, unlike = unit(rng, 2, 8), unit(rng, 3, 8)
    mean = like.mean(axis=0)
    weights = np.linalg.solve(unlike @ unlike.T, unlike @ mean)
    rest = mean - weights @ unlike
    found = combined(like, unlike)
    np.testing.assert_allclose(found, rest / np.linalg.norm(rest), atol=1e-5)
    np.testing.assert_allclose(unlike @ found, 0, atol=1e-6)
    np.testing.assert_allclose(combined(like, unlike[[0, 1, 2, 0, 2]]), found, atol=1e-5)  # twice is once


def test_nothing_left_is_refused():
    a, b = unit(np.random.default_rng(2), 2, 8)
    with pytest.raises(UsageError, match="Nothing is left"):
        combined(a[None], np.stack([b, 3 * a]))
    with pytest.raises(UsageError, match="cancel each other out"):
        combined(np.stack([a, -a]), np.zeros((0, 8)))
