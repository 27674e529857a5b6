"""Trials against loops over lists, and deeper metrics than ours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core.shapes import l2_normalize
from lookalike.evaluation import trials
from lookalike.evaluation.metrics import METRICS, Metric, average_precision_at
from lookalike.evaluation.trials import Same, Trial


@st.composite
def numbers(draw):
    """Numbers of queries and of gallery rows, some without one."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    high = draw(st.integers(0, 6))
    return tuple(rng.integers(-1, high + 1, draw(st.integers(0, 30))) for _ in range(2))


@given(numbers())
def test_who_belongs_to_whom(case):
    queries, gallery = case
    same = Same(queries, gallery)
    want = [[g for g, number in enumerate(gallery) if number == query >= 0] for query in queries]
    assert same.counts.tolist() == [len(rows) for rows in want]
    for place, rows in enumerate(want):
        assert same.rows(np.array([place])).ravel().tolist() == rows
    whole = same.rows(np.arange(len(queries)))
    assert [[g for g in rows if g >= 0] for rows in whole.tolist()] == want


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 50, 2**21]))
def test_equals_a_loop_over_queries(seed, held):
    """Rows that are excluded in two ways count once; a query without a relevant row has no number."""
    rng = np.random.default_rng(seed)
    queries, rows = rng.integers(1, 20), rng.integers(1, 40)
    made = [Same(rng.integers(-1, high, queries), rng.integers(-1, high, rows)) for high in (3, 6, 9)]
    relevant, *excluded = made
    vectors = [l2_normalize(rng.standard_normal((n, 5))) for n in (queries, rows)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "HELD", held)
        counts, values = Trial(*vectors, relevant, excluded).measure()
    for q in range(queries):
        out = {g for same in excluded for g in range(rows) if same.gallery[g] == same.queries[q] >= 0}
        left = sorted(set(range(rows)) - out, key=lambda g: -float(vectors[0][q] @ vectors[1][g]))
        hits = np.array([relevant.gallery[g] == relevant.queries[q] >= 0 for g in left], bool)
        assert counts[q] == hits.sum()
        for name, metric in METRICS.items():
            if hits.any():
                want = metric(hits[None], np.array([hits.sum()]))[0]
                assert values[name][q] == pytest.approx(want)
            else:
                assert np.isnan(values[name][q])


def test_a_metric_of_another_depth_is_one_line(monkeypatch):
    """As ILIAS measures: mAP of the first thousand, among distractors that belong to nobody."""
    monkeypatch.setitem(METRICS, "map@1000", Metric(average_precision_at, 1000, "as map@100, of the first 1000"))
    rng = np.random.default_rng(0)
    queries, gallery = (l2_normalize(rng.standard_normal((n, 8))) for n in (6, 3000))
    label = np.where(np.arange(3000) < 600, np.arange(3000) % 6, -1)
    counts, values = Trial(queries, gallery, Same(np.arange(6), label)).measure()
    assert counts.tolist() == [100] * 6
    for q in range(6):
        ranked = label[np.argsort(-(gallery @ queries[q]), kind="stable")] == q
        precision = [ranked[: r + 1].sum() / (r + 1) for r in range(1000) if ranked[r]]
        assert values["map@1000"][q] == pytest.approx(sum(precision) / 100)
        assert values["map@1000"][q] > values["map@100"][q]


def test_long_searches_say_how_far_they_are(monkeypatch, capsys):
    rng = np.random.default_rng(0)
    vectors, label = l2_normalize(rng.standard_normal((30, 4))), np.arange(30) % 3
    trial = Trial(vectors, vectors, Same(label, label), (Same(np.arange(30), np.arange(30)),))
    trial.measure()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(trials, "LONG", 1)
    trial.measure()
    assert "search 30/30 queries" in capsys.readouterr().err
