import numpy as np
import pytest

import lookalike.training.pca as module
from lookalike.core.errors import RunError
from lookalike.training.pca import lda, pca, shrinkage_of, within_classes


def l2_normalize(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def features(rows=300, width=20, seed=0):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(rows, width)) * np.linspace(2, 0.1, width) @ rng.normal(size=(width, width)) + 3
    return (mixed * rng.uniform(0.5, 4, (rows, 1))).astype(np.float32)


@pytest.mark.reference("sklearn")
@pytest.mark.parametrize("dimension", [1, 5, 20])
def test_pca_as_in_sklearn(dimension):
    from sklearn.decomposition import PCA

    x = features()
    reference = PCA(dimension, svd_solver="full").fit(l2_normalize(x.astype(np.float64)))
    weight, bias = pca(x, dimension)
    expected = reference.transform(l2_normalize(x.astype(np.float64)))
    found = l2_normalize(x) @ weight + bias
    turn = np.sign((expected * found).sum(axis=0))  # an eigenvector's sign is arbitrary
    np.testing.assert_allclose(found, expected * turn, atol=3e-5)


def test_power_scales_by_the_variance():
    x = features()
    plain, _ = pca(x, 6)
    variance = (l2_normalize(x) @ plain).var(axis=0)
    for power in (-0.5, -0.125, 0.25):
        weight, bias = pca(x, 6, power)
        np.testing.assert_allclose(weight, plain * variance**power, rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose((l2_normalize(x) @ weight + bias).mean(axis=0), 0, atol=1e-4)
    whitened, bias = pca(x, 6, -0.5)
    np.testing.assert_allclose(np.cov((l2_normalize(x) @ whitened + bias).T, bias=True), np.eye(6), atol=5e-3)


def test_blocks_change_nothing(monkeypatch):
    x, label = features(), np.arange(300) % 12
    whole = [*pca(x, 7, -0.125), *lda(x, label, 7)]
    monkeypatch.setattr(module, "_BLOCK", 37)
    for a, b in zip(whole, [*pca(x, 7, -0.125), *lda(x, label, 7)], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)


@pytest.mark.reference("sklearn")
@pytest.mark.parametrize("count", [1, 40, 900])
def test_rows_beside_count_like_all_others(count):
    from sklearn.decomposition import PCA

    x, beside = features(), features(count, seed=3) + np.float32(0.7)
    both = l2_normalize(np.concatenate([x, beside]).astype(np.float64))
    expected = PCA(5, svd_solver="full").fit(both).transform(both)
    weight, bias = pca(x, 5, others=beside)
    found = both @ weight + bias
    turn = np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found, expected * turn, atol=3e-5)


def test_lengths_of_features_carry_no_meaning():
    x = features()
    for a, b in zip(pca(x, 4), pca(x * np.float32(8), 4), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_lda_solves_fishers_problem():
    """Against the definition: w maximises between over shrunk within, in float64 with a plain loop over rows."""
    x, label = features(), np.random.default_rng(1).integers(0, 9, 300)
    u = l2_normalize(x.astype(np.float64))
    within, between, mean = np.zeros((20, 20)), np.zeros((20, 20)), u.mean(axis=0)
    for c in range(9):
        own = u[label == c]
        between += len(own) / 300 * np.outer(own.mean(axis=0) - mean, own.mean(axis=0) - mean)
        for row in own:
            within += np.outer(row - own.mean(axis=0), row - own.mean(axis=0)) / 300
    shrunk = 0.3 * within + 0.7 * np.trace(within) / 20 * np.eye(20)
    values = np.sort(np.linalg.eigvals(np.linalg.inv(shrunk) @ between).real)[::-1]
    weight, bias = lda(x, label, 8, shrinkage=0.7)
    np.testing.assert_allclose(weight.T @ shrunk @ weight, np.eye(8), atol=1e-3)
    np.testing.assert_allclose(np.diag(weight.T @ between @ weight), values[:8], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose((u @ weight + bias).mean(axis=0), 0, atol=1e-3)


@pytest.mark.reference("sklearn")
def test_lda_without_shrinkage_spans_sklearns_space():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    x, label = features(width=10), np.arange(300) % 5
    x[np.arange(300), label] += 6  # classes apart, so that every direction is well determined
    reference = LinearDiscriminantAnalysis(solver="eigen").fit(l2_normalize(x.astype(np.float64)), label)
    expected = l2_normalize(x.astype(np.float64)) @ reference.scalings_[:, :3]
    weight, _ = lda(x, label, 3, shrinkage=0.0)
    found = l2_normalize(x) @ weight
    for i in range(3):
        assert abs(np.corrcoef(found[:, i], expected[:, i])[0, 1]) > 0.9999


def test_the_spread_within_classes_is_evened_out():
    x, label = features(), np.random.default_rng(2).integers(0, 30, 300)
    u = l2_normalize(x.astype(np.float64))
    centred = np.stack([row - u[label == c].mean(axis=0) for row, c in zip(u, label, strict=True)])
    wholly = within_classes(x, label, 1.0, shrinkage=0.0)
    np.testing.assert_allclose(np.cov((centred @ wholly).T, bias=True), np.eye(20), atol=2e-2)
    half = within_classes(x, label, 0.5, shrinkage=0.0)
    np.testing.assert_allclose(half @ half, wholly, rtol=1e-6, atol=1e-6 * np.abs(wholly).max())
    np.testing.assert_allclose(within_classes(x, label, 0.0), np.eye(20), atol=1e-9)


def test_pca_in_a_metric_is_pca_of_the_changed_features():
    x, label = features(), np.arange(300) % 30
    metric = within_classes(x, label, 0.5)
    changed = l2_normalize(x.astype(np.float64)) @ metric
    values, vectors = np.linalg.eigh(np.cov(changed.T, bias=True))
    weight, bias = pca(x, 5, -0.25, metric)
    expected = (changed - changed.mean(axis=0)) @ (vectors[:, ::-1][:, :5] * values[::-1][:5] ** -0.25)
    found = l2_normalize(x) @ weight + bias
    np.testing.assert_allclose(found, expected * np.sign((expected * found).sum(axis=0)), rtol=1e-2, atol=1e-3)


def test_signs_are_the_same_on_every_machine():
    weight, _ = pca(features(), 5)
    assert (weight[np.abs(weight).argmax(axis=0), np.arange(5)] > 0).all()


def test_too_little_to_learn_from():
    with pytest.raises(RunError, match=r"PCA to 64 numbers.*20 images of 100 features"):
        pca(features(20, 100), 64)
    with pytest.raises(RunError, match="PCA to 64 numbers"):
        pca(features(300, 20), 64)
    with pytest.raises(RunError, match=r"LDA to 8 numbers.*5 classes"):
        lda(features(), np.arange(300) % 5, 8)
    with pytest.raises(RunError, match=r"LDA to 8 numbers.*5 classes"):  # of 41: the others have no image here
        lda(features(), np.arange(300) % 5 * 10, 8)
    with pytest.raises(RunError, match=r"can't be inverted: 60 images of 100 features, shrinkage 0\.0"):
        lda(features(60, 100), np.arange(60) % 20, 8, shrinkage=0.0)
    with pytest.raises(RunError, match="point the same way"):
        pca(np.full((50, 8), 3, np.float32), 2)


def poor(kind, width=24, seed=0):
    """Features that say little, and labels: each by another way of having fewer directions than rows."""
    rng = np.random.default_rng(seed)
    rows, label = np.abs(rng.normal(size=(60, width))) + 1, np.arange(60) % 12
    made = {
        "one image a class": (rows, np.arange(60)),
        "repeats": (rows[np.arange(60) // 6], np.arange(60) // 12),
        "repeats of the class": (rows[label], label),
        "two images": (rows[np.arange(60) % 2], np.arange(60) % 2),
        "a line": (rows[:1] + np.linspace(0, 1, 60)[:, None] * rows[1:2], label),
        "some zeros": (rows * (np.arange(60) % 3 > 0)[:, None], label),
        "dead features": (rows * (np.arange(width) < 5), label),
        "far from zero": (rows + 1e4, label),
    }
    features, label = made[kind]
    return features.astype(np.float32), label


POOR = [
    "one image a class",
    "repeats",
    "repeats of the class",
    "two images",
    "a line",
    "some zeros",
    "dead features",
    "far from zero",
]


@pytest.mark.parametrize("within", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", POOR)
def test_directions_that_no_image_takes_are_not_blown_up(kind, within):
    """Whatever the power, no direction weighs more than the least in which the images differ.

    The variance in that direction is told apart from rounding by hand: exactly, in float64.
    """
    x, label = poor(kind)
    metric = within_classes(x, label, within, 0.0) if within else np.eye(x.shape[1])
    assert np.isfinite(metric).all()
    exact = x.astype(np.float64)
    exact = exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-30) @ metric
    variance = np.linalg.eigvalsh(np.cov(exact.T, bias=True))[::-1]
    genuine = variance[variance > 1e-6 * variance[0]][:16]
    plain, _ = pca(x, 16, 0.0, metric)
    for power in (-1.0, -0.25, 0.5):
        weight, bias = pca(x, 16, power, metric)
        assert np.isfinite(weight).all()
        assert np.isfinite(bias).all()
        grown = np.linalg.norm(weight, axis=0) / np.linalg.norm(plain, axis=0)
        assert grown.max() <= 1.02 * max(genuine[-1] ** power, genuine[0] ** power)


@pytest.mark.parametrize("kind", POOR)
def test_lda_learns_or_says_why_not(kind):
    x, label = poor(kind)
    alone = kind in ("one image a class", "repeats of the class", "two images")
    dimension = 1 if kind == "two images" else 3
    if alone:
        with pytest.raises(RunError, match=r"No class has two images that differ \(60 images of"):
            lda(x, label, dimension)
        return
    weight, bias = lda(x, label, dimension)
    assert np.isfinite(weight).all()
    assert np.isfinite(bias).all()
    if kind != "far from zero":
        with pytest.raises(RunError, match="can't be inverted"):
            lda(x[:20], np.arange(20) % 5, dimension, shrinkage=0.0)


@pytest.mark.parametrize(
    ("rows", "width", "expected"), [(1646, 192, 0.209), (1646, 1280, 0.875), (50, 1280, 0.95), (10**6, 64, 0.2)]
)
def test_few_images_for_many_features_are_shrunk_further(rows, width, expected):
    assert shrinkage_of(rows, width) == pytest.approx(expected, abs=1e-3)


def test_lda_counts_the_classes_that_have_images():
    """A fold or a filter leaves the names of all classes, and images of some."""
    x, label = features(90), np.repeat([0, 2, 5], 30)
    with pytest.raises(RunError, match=r"LDA to 3 numbers needs more .* found 3 classes"):
        lda(x, label, 3)
    lda(x, label, 2)
