"""The approximate search against the exact one: what it finds has the exact scores, and it says how much it misses."""

import sys

import numpy as np
import pytest

from lookalike.core.errors import UsageError
from lookalike.core.shapes import l2_normalize
from lookalike.retrieval.approximate import SMALL, Approximate, share_found
from lookalike.retrieval.exact import knn


def drawn(count, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((60, 16))
    return l2_normalize(centers[rng.integers(0, 60, count)] + 0.4 * rng.standard_normal((count, 16)))


@pytest.mark.reference("faiss")
def test_finds_most_of_what_is_nearest_with_its_exact_scores():
    gallery = drawn(8000)
    queries, own = gallery[::40], np.arange(0, 8000, 40)[:, None]
    right = knn(queries, gallery, 10, own, largest=1.0)
    index = Approximate(gallery)
    scores, rows = index.search(queries, 10, own)
    assert "IVF" in index.words
    assert not (rows == own).any()
    assert (np.diff(scores, axis=1) <= 0).all()
    product = np.einsum("qd,qkd->qk", queries, gallery[rows])
    np.testing.assert_allclose(scores[rows >= 0], product[rows >= 0], atol=1e-5)
    slow = np.mean([len({*a.tolist()} & {*b.tolist()}) / 10 for a, b in zip(rows, right[1], strict=True)])
    assert share_found(rows, right[1]) == pytest.approx(slow)
    assert 0.8 < slow <= 1
    assert (right[0][:, 0] >= scores[:, 0] - 1e-5).all()


def test_few_rows_are_searched_exactly(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    gallery = drawn(SMALL - 1)
    index = Approximate(gallery)
    own = np.arange(20)[:, None]
    for ours, right in zip(index.search(gallery[:20], 5, own), knn(gallery[:20], gallery, 5, own), strict=True):
        np.testing.assert_array_equal(ours, right)
    with pytest.raises(UsageError, match="which is not installed here") as error:
        Approximate(drawn(SMALL))
    assert "lookalike[ann]" in error.value.hint


def test_shares():
    assert share_found(np.array([[1, 2, 3]]), np.array([[3, 4, -1]])) == 0.5
    assert share_found(np.array([[-1]]), np.array([[-1]])) == 1.0
