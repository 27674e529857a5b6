"""The search on several devices against a slow one: what it finds, ties, and what must not be found."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core.shapes import l2_normalize
from lookalike.retrieval import devices as searching
from lookalike.retrieval.devices import OnDevices


def slow(queries, gallery, k, exclude):
    """All products at once, in float64."""
    products = queries.astype(np.float64) @ gallery.astype(np.float64).T
    for query, rows in enumerate(exclude):
        products[query, rows[rows >= 0]] = -np.inf
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    scores = np.take_along_axis(products, order, axis=1)
    return scores, np.where(np.isneginf(scores), -1, order)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    count=st.sampled_from((1, 2, 7, 40, 133)),
    k=st.sampled_from((1, 3, 10, 200)),
    used=st.sampled_from((1, 3, 8)),
)
def test_as_a_slow_search(seed, count, k, used):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "PIECE", 8)
        patch.setattr(searching, "QUERIES", 4)
        rng = np.random.default_rng(seed)
        gallery = l2_normalize(rng.integers(-2, 3, (count, 4)).astype(np.float32))  # of few directions: ties
        queries = l2_normalize(rng.integers(-2, 3, (9, 4)).astype(np.float32))
        exclude = rng.integers(-1, count, (9, 3))
        scores, rows = OnDevices(gallery, jax.devices()[:used]).search(queries, k, exclude)
        right, _ = slow(queries, gallery, k, exclude)
        np.testing.assert_allclose(scores, right, atol=1e-6)
        assert ((rows < 0) == np.isneginf(scores)).all()
        for query in range(9):
            mine = rows[query][rows[query] >= 0]
            assert len({*mine.tolist()}) == len(mine)
            assert not np.isin(mine, exclude[query]).any()
            np.testing.assert_allclose(gallery[mine] @ queries[query], scores[query, : len(mine)], atol=1e-6)


def test_equal_vectors_come_by_their_rows(monkeypatch):
    monkeypatch.setattr(searching, "PIECE", 4)
    gallery = np.tile(np.float32([[0.6, 0.8]]), (30, 1))
    _, rows = OnDevices(gallery, jax.devices()).search(gallery[:5], 4, np.arange(5)[:, None])
    assert rows.tolist() == [[row for row in range(5) if row != query][:4] for query in range(5)]
    _, rows = OnDevices(gallery, jax.devices()).search(gallery[:1], 3)
    assert rows.tolist() == [[0, 1, 2]]
