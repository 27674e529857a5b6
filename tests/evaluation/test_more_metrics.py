"""Metrics on demand: against slow loops, hand-worked cases, and the definitions of other libraries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.errors import UsageError
from lookalike.evaluation.metrics import METRICS, metric_of, metrics_of

NAMES = ("mp@5", "mp@2", "p@5", "p@1", "recall@1", "recall@10", "map@100", "map@7", "map@1000", "map@r", "r-precision")


def slow(name, hits, n_q):
    """Each definition word for word, rank by rank."""
    found = [bool(hit) for hit in hits]

    def hit(rank):
        return rank <= len(found) and found[rank - 1]

    def precision(rank):
        return sum(hit(j) for j in range(1, rank + 1)) / rank

    kind, _, at = name.partition("@")
    if name == "r-precision":
        return precision(n_q)
    if name == "map@r":
        return sum(precision(j) for j in range(1, n_q + 1) if hit(j)) / n_q
    k = int(at)
    if kind == "mp":
        reach = min(n_q, k)
        return sum(hit(j) for j in range(1, reach + 1)) / reach
    if kind == "p":
        return sum(hit(j) for j in range(1, k + 1)) / k
    if kind == "recall":
        return float(any(hit(j) for j in range(1, k + 1)))
    return sum(precision(j) for j in range(1, k + 1) if hit(j)) / min(n_q, k)


@st.composite
def ranks(draw):
    """Hits that could happen, as deep as the deepest query."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries, k = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    hits = rng.random((queries, k)) < draw(st.floats(0, 1))
    relevant = np.maximum(hits.sum(axis=1), 1) + rng.integers(0, 50, queries)
    return np.pad(hits, ((0, 0), (0, max(0, int(relevant.max()) - k)))), relevant


@given(ranks(), st.sampled_from(NAMES))
def test_equal_slow_loops(case, name):
    hits, relevant = case
    got = metric_of(name)(hits, relevant)
    assert got.tolist() == pytest.approx([slow(name, row, n) for row, n in zip(hits, relevant.tolist(), strict=True)])


@given(ranks())
def test_laws(case):
    hits, relevant = case
    value = {name: metric_of(name)(hits, relevant) for name in NAMES}
    for each in value.values():
        assert ((each >= 0) & (each <= 1 + 1e-12)).all()
    for lower, higher in [("p@5", "mp@5"), ("map@r", "r-precision"), ("recall@1", "recall@10")]:
        some = relevant >= 5 if lower == "p@5" else relevant > 0
        assert (value[lower][some] <= value[higher][some] + 1e-12).all(), (lower, higher)
    np.testing.assert_array_equal(value["p@1"], value["recall@1"])
    one = relevant == 1  # the competition's case of a single other image: all that counts is the first match
    for name in ("mp@5", "map@r", "r-precision"):
        np.testing.assert_array_equal(value[name][one], value["recall@1"][one])


def test_one_ranking_has_three_precisions_at_5():
    """Three relevant rows, found at ranks 1, 3 and 4: libraries tell .600, 1.000 and .667 of the same thing."""
    hits, relevant = np.array([[1, 0, 1, 1, 0]], bool), np.array([3])
    assert metric_of("p@5")(hits, relevant)[0] == 0.6
    assert metric_of("mp@5")(hits, relevant)[0] == pytest.approx(2 / 3)
    assert hits[0, :5].sum() / min(3, 5) == 1.0  # OML's: over min(n, k), but of all five


def test_metrics_of_other_libraries_from_their_definitions():
    """Transcribed from what they compute; benchmarks/evaluators.py runs the libraries themselves."""
    rng = np.random.default_rng(4)
    hits = rng.random((50, 60)) < 0.25
    hits[:, 3] = True
    n_q = hits.sum(axis=1)
    cumulative = hits.cumsum(axis=1)
    for k in (1, 5, 20):
        reach = np.minimum(n_q, k)
        summed = (cumulative[:, :k] / np.arange(1, k + 1) * hits[:, :k]).sum(axis=1)
        np.testing.assert_allclose(metric_of(f"map@{k}")(hits, n_q), summed / reach)
        oml_map = summed / np.maximum(cumulative[:, k - 1], 1)  # 4.0.0: over what was found among them
        assert (metric_of(f"map@{k}")(hits, n_q) <= oml_map + 1e-12).all()
        oml_precision = cumulative[:, k - 1] / reach
        ours = metric_of(f"mp@{k}")(hits, n_q)
        np.testing.assert_allclose(ours[n_q >= k], oml_precision[n_q >= k])  # only there do definitions agree
        assert (ours <= oml_precision + 1e-12).all()
        oml_cmc = hits[:, :k].any(axis=1)
        np.testing.assert_array_equal(metric_of(f"recall@{k}")(hits, n_q), oml_cmc)
    mask = np.arange(60) < n_q[:, None]  # pytorch-metric-learning: what lies beyond R is masked
    equal = hits & mask
    pml_map_at_r = (equal.cumsum(axis=1) * equal / np.arange(1, 61)).sum(axis=1) / n_q
    np.testing.assert_allclose(metric_of("map@r")(hits, n_q), pml_map_at_r)
    np.testing.assert_allclose(metric_of("r-precision")(hits, n_q), equal.sum(axis=1) / mask.sum(axis=1))


@pytest.mark.reference("sklearn")
def test_ilias_is_scikit_learn_rescaled():
    """ILIAS takes scikit-learn's average precision of the first k, times how many of min(k, n) were found there."""
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(1)
    hits = rng.random((20, 1500)) < 0.02
    hits[:, 5] = True
    n_q, k = hits.sum(axis=1) + rng.integers(0, 30, 20), 1000
    want = [
        average_precision_score(row[:k], -np.arange(k)) * row[:k].sum() / min(k, n)
        for row, n in zip(hits, n_q.tolist(), strict=True)
    ]
    np.testing.assert_allclose(metric_of("map@1000")(hits, n_q), want, rtol=1e-12)


def test_names():
    assert metrics_of(()) is METRICS
    assert list(METRICS) == ["mp@5", "recall@1", "map@100"]
    assert list(metrics_of(["MAP@R", "p@3", "p@3"])) == ["map@r", "p@3"]
    assert metric_of("recall@17").depth == 17
    for name, words in [
        ("map@0", "There is no metric `map@0`"),
        ("recal@1", "Did you mean `recall@10`"),
        ("ndcg@5", "There is no metric `ndcg@5`"),
        ("p@", "There is no metric"),
        ("p@-1", "There is no metric"),
        ("map@99999", "looks at 99,999 matches"),
    ]:
        with pytest.raises(UsageError, match=words):
            metrics_of([name])
