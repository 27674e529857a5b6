import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.losses import centers_at_means, class_cosines, l2_normalize


def test_cosines_are_those_of_the_nearest_center_of_a_class():
    rng = np.random.default_rng(0)
    weight, rows = rng.normal(size=(5, 3, 4)).astype(np.float32), rng.normal(size=(6, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = np.empty((6, 5))
    for b in range(6):
        for c in range(5):
            expected[b, c] = max(rows[b] @ w / np.linalg.norm(w) for w in weight[c])
    found = class_cosines(jnp.asarray(rows), jnp.asarray(weight))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_length_of_a_center_carries_no_meaning():
    rng = np.random.default_rng(1)
    weight, rows = rng.normal(size=(5, 1, 4)).astype(np.float32), rng.normal(size=(6, 4)).astype(np.float32)
    once = class_cosines(jnp.asarray(rows), jnp.asarray(weight))
    np.testing.assert_allclose(class_cosines(jnp.asarray(rows), jnp.asarray(weight * 7)), once, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_centers_start_at_the_class_means(count):
    rng = np.random.default_rng(2)
    rows, label = rng.normal(size=(50, 8)).astype(np.float32), rng.permutation(np.arange(50) % 4).astype(np.int32)
    weight = np.asarray(centers_at_means(rows, label, int(label.max()) + 1, count, seed=3))
    assert weight.shape == (4, count, 8)
    for c in range(4):
        mean = rows[label == c].mean(axis=0)
        np.testing.assert_allclose(weight[c, 0], mean / np.linalg.norm(mean), atol=1e-6)
        cosines = weight[c] @ weight[c, 0] / np.linalg.norm(weight[c], axis=1)
        assert (cosines > 0.8).all()
        assert len(np.unique(cosines)) == count
    np.testing.assert_array_equal(weight, centers_at_means(rows, label, int(label.max()) + 1, count, seed=3))


def test_a_class_whose_images_take_each_other_away_has_a_center_all_the_same():
    rows = np.random.default_rng(3).normal(size=(8, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows, label = np.concatenate([rows, -rows[:4]]), np.array([0, 1, 2, 3, 4, 4, 4, 4, 0, 1, 2, 3], np.int32)
    weight = np.asarray(centers_at_means(rows, label, int(label.max()) + 1, 1, seed=0))
    lengths = np.linalg.norm(weight[:, 0], axis=1)
    assert (lengths > 0.2).all()
    assert np.isfinite(weight).all()


def test_unit_is_finite_at_zero():
    value, slope = jax.value_and_grad(lambda x: l2_normalize(x).sum())(jnp.zeros(3))
    assert value == 0
    assert jnp.isfinite(slope).all()
    np.testing.assert_allclose(l2_normalize(jnp.asarray([[3.0, 4.0]])), [[0.6, 0.8]], rtol=1e-6)
