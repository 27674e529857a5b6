"""Folds keep classes and domains back; their score against a slow loop."""

import numpy as np
import pytest

from lookalike.core.errors import RunError
from lookalike.data.collection import Collection
from lookalike.training.folds import Fold, folds
from lookalike.training.rows import Rows


def rows(domains=4, classes=6, each=3):
    label = np.repeat(np.arange(domains * classes), each).astype(np.int32)
    domain = np.array([f"d{c // classes}" for c in label])
    names = tuple(f"d{c // classes}\t{c}" for c in range(domains * classes))
    nowhere = Collection.__new__(Collection)  # which nothing here reads
    return Rows(nowhere, np.arange(len(label)), label, domain, names)


def test_classes_and_domains_are_kept_back():
    given = rows()
    found = folds(given)
    assert len(found) == 3
    assert set().union(*(fold.unseen for fold in found)) == {"d0", "d1", "d2", "d3"}
    kept = set()
    for fold in found:
        learned, held = (set(given.label[mask].tolist()) for mask in (fold.learned, fold.held))
        assert not learned & held
        assert not set(given.domain[fold.learned].tolist()) & fold.unseen
        seen = [c for c in held if f"d{c // 6}" not in fold.unseen]
        assert seen
        assert learned
        kept |= held
    assert kept == set(range(24))
    assert [f.held.tolist() for f in folds(given)] == [f.held.tolist() for f in found]
    assert [f.held.tolist() for f in folds(given, seed=1)] != [f.held.tolist() for f in found]


def test_of_two_domains_none_is_kept_back():
    assert all(not fold.unseen for fold in folds(rows(domains=2)))


def test_rows_without_a_label_are_never_judged():
    given = rows()
    given.label[::3] = -1
    for fold in folds(given):
        assert not fold.held[::3].any()


def test_too_few_classes():
    with pytest.raises(RunError, match="4 classes are too few to choose by: 6 are the least"):
        folds(rows(domains=1, classes=4))


def test_the_score_is_what_a_slow_loop_finds():
    given, rng = rows(each=4), np.random.default_rng(0)
    fold = Fold(np.zeros(96, bool), np.ones(96, bool), frozenset({"d1"}))
    vectors = (rng.normal(size=(96, 5)) + given.label[:, None] % 7).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    per_domain = {name: [] for name in ("d0", "d1", "d2", "d3")}
    for query in range(96):
        others = [i for i in np.argsort(-(vectors @ vectors[query]), kind="stable") if i != query]
        hits = sum(given.label[i] == given.label[query] for i in others[:3])  # three others of its class
        per_domain[given.domain[query]].append(hits / 3)
    means = {name: np.mean(values) for name, values in per_domain.items()}
    score = fold.score(vectors, given)
    assert score.classes == pytest.approx(np.mean([means[n] for n in ("d0", "d2", "d3")]), abs=1e-6)
    assert score.domains == pytest.approx(means["d1"], abs=1e-6)
    assert score.mean == pytest.approx((score.classes + score.domains) / 2)
