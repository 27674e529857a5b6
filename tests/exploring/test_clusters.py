"""Clusters: planted ones are found, rows beyond the sample go where a loop says; names; places on a plane."""

import numpy as np
import pytest

from lookalike.core.shapes import l2_normalize
from lookalike.exploring.clusters import by_size, clusters_of, medoid, told_by_domain, told_by_labels, told_by_words
from lookalike.exploring.plane import along_curve, fitted_places, plane_of


def planted(each: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Five crowds and as many rows of their own, in any order."""
    rng = np.random.default_rng(seed)
    true = np.repeat([0, 1, 2, 3, 4, -1], each)
    centers = rng.normal(size=(6, 24))
    vectors = centers[true] + 0.15 * rng.normal(size=(len(true), 24))
    vectors[true < 0] = rng.normal(size=(each, 24))
    order = rng.permutation(len(true))
    return l2_normalize(vectors[order]), true[order]


@pytest.mark.reference("sklearn")
@pytest.mark.parametrize("sample", [10_000, 120])
def test_planted_clusters_are_found(sample: int) -> None:
    vectors, true = planted()
    found = clusters_of(vectors, 5, sample)
    names = set()
    for number in range(5):
        own = found[true == number]
        name = np.bincount(own[own >= 0]).argmax()
        names.add(int(name))
        assert (own == name).mean() >= 0.85
        assert (true[found == name] == number).mean() >= 0.95
    assert names == set(range(5))  # what else is found is smaller
    assert np.isin(found[true < 0], range(5)).mean() <= 0.05
    assert np.bincount(found[found >= 0]).tolist() == sorted(np.bincount(found[found >= 0]).tolist(), reverse=True)


@pytest.mark.reference("sklearn")
def test_too_few_rows_make_no_cluster() -> None:
    assert clusters_of(np.ones((3, 2), np.float32), 5).tolist() == [-1, -1, -1]


def test_numbers_fall_with_size() -> None:
    assert by_size(np.array([7, 3, 3, -1, 9, 9, 3])).tolist() == [2, 0, 0, -1, 1, 1, 0]
    assert by_size(np.array([5, 2, 2, 5])).tolist() == [0, 1, 1, 0]
    assert by_size(np.array([-1, -1])).tolist() == [-1, -1]


def test_names() -> None:
    assert told_by_labels(["a", "b", "a", None]) == ("a", 0.5)
    assert told_by_labels([None]) is None
    assert told_by_domain(["a", "b", "c", "d"], ["cars"] * 4) == ("cars", 1.0)
    assert told_by_domain(["a", "a", "c", "d"], ["cars"] * 4) == ("a", 0.5)
    assert told_by_domain([None] * 4, ["cars"] * 4) is None
    vectors = l2_normalize(np.array([[1, 0], [1, 0.1], [0.9, 0.3]], np.float32))
    assert medoid(vectors) == 1
    words = l2_normalize(np.array([[1, 0, 0.5], [0, 1, 0.5], [0.7, 0.7, 0.9]], np.float32))
    means = l2_normalize(np.array([[1, 0.1, 0], [0.1, 1, 0]], np.float32))
    assert told_by_words(means, words).tolist() == [0, 1]


def test_places_fit_and_a_curve_keeps_neighbors() -> None:
    places = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32) * [3, 1] + [5, 7]
    fitted = fitted_places(places.astype(np.float32))
    assert np.abs(fitted).max() == pytest.approx(1)
    assert np.ptp(fitted[:, 0]) == pytest.approx(2)
    assert np.ptp(fitted[:, 1]) / 2 == pytest.approx(np.ptp(places[:, 1]) / np.ptp(places[:, 0]), rel=1e-4)
    assert fitted_places(np.ones((3, 2), np.float32)).tolist() == [[0, 0]] * 3
    order = along_curve(fitted)
    assert sorted(order.tolist()) == list(range(400))
    steps = np.linalg.norm(np.diff(fitted[order], axis=0), axis=1).mean()
    assert steps < 0.3 * np.linalg.norm(np.diff(fitted, axis=0), axis=1).mean()
    corners = np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]], np.float32)
    assert along_curve(corners).tolist() == [1, 2, 3, 0]


@pytest.mark.reference("pacmap")
@pytest.mark.filterwarnings("default")
def test_neighbors_stay_neighbors_on_the_plane() -> None:
    vectors, true = planted(30)
    places = plane_of(vectors, 0)
    assert places.shape == (180, 2)
    assert np.abs(places).max() == pytest.approx(1)
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    crowd = np.flatnonzero(true >= 0)
    assert (true[distance[crowd].argmin(axis=1)] == true[crowd]).mean() >= 0.95
    few = plane_of(vectors[:5], 0)
    assert few.shape == (5, 2)
    assert np.isfinite(few).all()
