"""Nearness to labels against a loop over all pairs; wrong labels that are planted come first."""

from collections import defaultdict

import numpy as np
import pytest

from lookalike.core.shapes import l2_normalize
from lookalike.exploring import labels
from lookalike.exploring.labels import NEAR, classes_of, fits_of, nearest_in, score_of


def rows(count: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    classes = rng.integers(-1, 12, count)
    vectors = l2_normalize(rng.normal(size=(13, 10))[classes] + 0.7 * rng.normal(size=(count, 10)))
    copies = np.where(rng.random(count) < 0.2, rng.integers(0, 8, count), -1)
    return vectors, classes, copies


def test_nearness_is_that_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "NEIGHBORS", 119)  # all others: then nothing is left to guess
    monkeypatch.setattr(labels, "_STEP", 50)
    monkeypatch.setattr(labels, "_BLOCK", 30)
    vectors, classes, copies = rows()
    found = fits_of(vectors, classes, copies)
    for i in range(len(vectors)):
        near = defaultdict(list)
        for j in range(len(vectors)):
            own_copy = copies[i] >= 0 and copies[i] == copies[j] and classes[i] == classes[j]
            if i != j and classes[j] >= 0 and not own_copy:
                near[classes[j]].append(float(vectors[i] @ vectors[j]))
        own = sorted(near.pop(classes[i], []))[-NEAR:]
        if classes[i] < 0 or not own:
            assert np.isnan(found.own[i])
            assert found.nearest[i] == -1
            assert np.isnan(score_of(found)[i])
            continue
        assert found.own[i] == pytest.approx(np.mean(own), abs=1e-5)
        means = {c: np.mean(sorted(values)[-len(own) :]) for c, values in near.items() if len(values) >= len(own)}
        best = max(means, key=means.__getitem__)
        if found.nearest[i] == best:  # a class with fewer images is filled up with the farthest image's cosine
            assert found.other[i] == pytest.approx(means[best], abs=1e-5)
        else:
            assert len(near[found.nearest[i]]) < len(own)
            assert found.other[i] > means[best]


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_planted_errors_come_first(share: float) -> None:
    rng = np.random.default_rng(3)
    true = np.repeat(np.arange(40), 10)
    vectors = l2_normalize(rng.normal(size=(40, 32))[true] + 0.8 * rng.normal(size=(400, 32)))
    wrong = np.zeros(400, bool)
    wrong[rng.choice(400, round(share * 400), replace=False)] = True
    given = np.where(wrong, (true + rng.integers(1, 40, 400)) % 40, true)
    fits = fits_of(vectors, given, np.full(400, -1))
    first = np.argsort(-score_of(fits))[: wrong.sum()]
    assert wrong[first].mean() >= 0.95
    assert (fits.nearest[wrong] == true[wrong]).mean() >= 0.9
    assert (score_of(fits)[~wrong] > 0.5).mean() <= 0.01


def test_an_image_unlike_all_is_odd() -> None:
    rng = np.random.default_rng(4)
    true = np.repeat(np.arange(20), 10)
    vectors = l2_normalize(rng.normal(size=(20, 32))[true] + 0.3 * rng.normal(size=(200, 32)))
    vectors[7] = l2_normalize(rng.normal(size=(1, 32)))[0]
    fits = fits_of(vectors, true, np.full(200, -1))
    assert int(np.nanargmax(fits.odd)) == 7
    assert fits.odd[7] > 0.5
    one = fits_of(vectors, np.zeros(200, np.int64), np.full(200, -1))  # one label: no other can fit better
    assert (one.nearest == -1).all()
    assert (one.doubt == 0).all()


def test_copies_do_not_bear_witness() -> None:
    rng = np.random.default_rng(5)
    true = np.repeat(np.arange(6), 8)
    vectors = l2_normalize(rng.normal(size=(6, 16))[true] + 0.3 * rng.normal(size=(48, 16)))
    vectors[1] = vectors[0]
    given = true.copy()
    given[:2] = 3  # two copies with one wrong label
    copies = np.full(48, -1)
    copies[:2] = 0
    assert set(np.argsort(-score_of(fits_of(vectors, given, copies)))[:2].tolist()) == {0, 1}


def test_equal_vectors_and_few_rows() -> None:
    fits = fits_of(np.ones((4, 1), np.float32), np.array([0, 0, 1, 1]), np.full(4, -1))
    assert np.isfinite(score_of(fits)).all()
    single = fits_of(np.ones((1, 1), np.float32), np.zeros(1, np.int64), np.full(1, -1))
    assert np.isnan(score_of(single)).all()


def test_classes_are_pairs_of_domain_and_label() -> None:
    numbers, names = classes_of(["a", "a", "b", None, "a"], ["x", None, "x", "x", "x"])
    assert numbers.tolist() == [0, -1, 1, 2, 0]
    assert names == ["x", "x", "x"]
    vectors = l2_normalize(np.array([[1, 0], [1, 0.1], [0, 1], [1, 0.5]], np.float32))
    assert nearest_in(vectors, 0, np.arange(4), 2).tolist() == [1, 3]
