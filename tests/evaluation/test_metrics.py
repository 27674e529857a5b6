"""Metrics against slow transcriptions of their definitions, and laws they obey."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.evaluation.metrics import METRICS, average_precision_at, precision_at, recall_at


def per_query(hits, relevant):
    return {name: metric(hits, relevant) for name, metric in METRICS.items()}


def slow_precision_at_5(hits, n_q):
    """The competition's formula: mP@5 = 1/Q sum_q 1/min(n_q, 5) sum_{j=1}^{min(n_q, 5)} rel_q(j)."""
    total = 0
    for j in range(1, min(n_q, 5) + 1):
        if j <= len(hits) and hits[j - 1]:
            total += 1
    return total / min(n_q, 5)


def slow_average_precision_at_100(hits, n_q):
    total, found = 0.0, 0
    for rank, hit in enumerate(hits[:100], 1):
        if hit:
            found += 1
            total += found / rank
    return total / min(n_q, 100)


@st.composite
def ranks(draw):
    """Hits that could happen: never more of them than relevant images."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries, k = draw(st.integers(1, 6)), draw(st.integers(0, 130))
    hits = rng.random((queries, k)) < draw(st.floats(0, 1))
    relevant = np.maximum(hits.sum(axis=1), 1) + rng.integers(0, 150, queries)
    return hits, relevant


@given(ranks())
def test_equal_their_definitions(case):
    hits, relevant = case
    got = per_query(hits, relevant)
    assert list(got) == ["mp@5", "recall@1", "map@100"]
    for q, n_q in enumerate(relevant.tolist()):
        assert got["mp@5"][q] == pytest.approx(slow_precision_at_5(hits[q], n_q), abs=1e-12)
        assert got["map@100"][q] == pytest.approx(slow_average_precision_at_100(hits[q], n_q), abs=1e-12)
        assert got["recall@1"][q] == (1.0 if len(hits[q]) and hits[q][0] else 0.0)


@given(ranks())
def test_lie_between_0_and_1_and_a_later_hit_never_helps(case):
    hits, relevant = case
    for values in per_query(hits, relevant).values():
        assert ((values >= 0) & (values <= 1)).all()
    best = -np.sort(-hits.astype(np.int8), axis=1) > 0  # the same hits, all in front
    for name, values in per_query(best, relevant).items():
        assert (values >= per_query(hits, relevant)[name] - 1e-12).all()


def test_by_hand():
    hits = np.array([[1, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]], bool)
    relevant = np.array([7, 1, 2])
    assert precision_at(hits, relevant, 5).tolist() == [2 / 5, 0.0, 1.0]  # n_q = 1: only the first match counts
    assert recall_at(hits, relevant, 1).tolist() == [1.0, 0.0, 1.0]
    assert recall_at(hits, relevant, 2).tolist() == [1.0, 1.0, 1.0]
    want = [(1 / 1 + 2 / 3 + 3 / 6) / 7, (1 / 2) / 1, 1.0]
    np.testing.assert_allclose(average_precision_at(hits, relevant, 100), want)


def test_perfect_ranks_reach_1_however_few_there_are():
    for n_q in (1, 3, 5, 99, 100, 500):
        hits = np.arange(100)[None] < n_q
        assert [float(v[0]) for v in per_query(hits, np.array([n_q])).values()] == pytest.approx([1, 1, 1])


@pytest.mark.reference("sklearn")
def test_average_precision_equals_scikit_learn_on_whole_rankings():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    hits = rng.random((20, 80)) < 0.3
    hits[:, 7] = True
    want = [average_precision_score(row, np.arange(80, 0, -1)) for row in hits]
    np.testing.assert_allclose(average_precision_at(hits, hits.sum(axis=1), 100), want, rtol=1e-12)
