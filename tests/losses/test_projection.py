from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.core.errors import UsageError
from lookalike.losses import Projecting, embeddings, first_memory, folded, unfolded
from lookalike.losses.projection import coded
from lookalike.retrieval.codes import ZERO, code_rows

F, D = 12, 8


def drawn(rows=32, seed=0):
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(rows, F)) * np.linspace(0.05, 2, F) + 0.3).astype(np.float32)
    weight, bias = rng.normal(size=(F, D)).astype(np.float32), rng.normal(size=D).astype(np.float32)
    return jnp.asarray(features), jnp.asarray(weight), jnp.asarray(bias)


def project(config, seed=0, memory=None, key=0):
    (features, *_), (_, weight, bias) = drawn(seed=seed), drawn()
    memory = first_memory(config, F) if memory is None else memory
    return embeddings(config, weight, bias, features, jax.random.key(key), memory)


def test_plain_is_one_linear_map():
    features, weight, bias = drawn()
    [(found, dimension)], memory = project(Projecting())
    np.testing.assert_allclose(
        found, np.asarray(features) @ np.asarray(weight) + np.asarray(bias), rtol=1e-5, atol=1e-5
    )
    assert (dimension, memory) == (D, {})
    assert folded(Projecting(), weight, bias, {}) == (weight, bias)


@pytest.mark.parametrize("samples", [1, 4])
def test_dropout_is_drawn_for_each_sample_and_right_on_average(samples):
    config = Projecting(dropout=0.4, samples=samples)
    found, _ = project(config)
    assert len(found) == samples
    assert len({float(x.sum()) for x, _ in found}) == samples
    again, _ = project(config)
    np.testing.assert_array_equal(found[0][0], again[0][0])
    features, weight, bias = drawn()
    run = jax.jit(jax.vmap(lambda key: embeddings(config, weight, bias, features, key, {})[0][0][0]))
    mean = run(jax.random.split(jax.random.key(1), 4000)).mean(axis=0)
    np.testing.assert_allclose(mean, features @ weight + bias[None, :], atol=0.35)
    assert not np.allclose(found[0][0], features @ weight + bias[None, :], atol=0.35)


@pytest.mark.reference("torch")
def test_batch_norm_is_torchs_and_folds_into_the_map():
    import torch

    _, weight, bias = drawn()
    config, memory = Projecting(batch_norm=True), None
    linear = torch.nn.Linear(F, D)
    linear.load_state_dict({"weight": torch.tensor(np.asarray(weight).T), "bias": torch.tensor(np.asarray(bias))})
    reference = torch.nn.Sequential(torch.nn.BatchNorm1d(F, eps=1e-6, affine=False), linear)
    for seed in range(3):
        [(found, _)], memory = project(config, seed, memory)
        expected = reference(torch.tensor(np.asarray(drawn(seed=seed)[0]))).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    reference.eval()
    features = drawn(seed=9)[0]
    kept_weight, kept_bias = folded(config, weight, bias, memory)
    expected = reference(torch.tensor(np.asarray(features))).detach().numpy()
    np.testing.assert_allclose(features @ kept_weight + kept_bias[None, :], expected, rtol=1e-4, atol=1e-4)
    for back, was in zip(unfolded(config, kept_weight, kept_bias, memory), (weight, bias), strict=True):
        np.testing.assert_allclose(back, was, rtol=1e-4, atol=1e-4)


def test_nested_are_prefixes():
    [(whole, _)], _ = project(Projecting())
    found, _ = project(Projecting(nested=(2, 4, 8)))
    assert [dimension for _, dimension in found] == [2, 4, 8]
    for prefix, dimension in found:
        np.testing.assert_array_equal(prefix, whole[:, :dimension])
    found, _ = project(Projecting(nested=(2, 8), dropout=0.5, samples=3))
    assert [dimension for _, dimension in found] == [2, 8] * 3


def test_eight_bits_are_those_of_a_search():
    """The codes that a search makes of the same rows; the length stays."""
    [(plain, _)], _ = project(Projecting())
    plain = np.asarray(plain)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    unit = (plain / lengths).astype(np.float32)
    searched = code_rows(unit, 1, map)
    expected = searched.center + searched.step * (searched.codes.astype(np.float64) - ZERO)
    np.testing.assert_allclose(coded(jnp.asarray(unit)), expected, atol=1e-6)
    [(found, _)], _ = project(Projecting(eight_bits=True))
    np.testing.assert_allclose(found, expected * lengths, rtol=1e-5, atol=1e-5)
    assert np.abs(found / lengths - unit).max() > 0.2 * searched.step  # they are rounded
    assert np.abs(found / lengths - unit).max() < 0.51 * searched.step


def test_gradients_pass_through_the_rounding():
    features, weight, bias = drawn()

    def total(config, weight):
        [(x, _)], _ = embeddings(config, weight, bias, features, jax.random.key(0), {})
        return jnp.sum(x * jnp.arange(D, dtype=jnp.float32)[None, :])

    plain, rounded = (jax.grad(partial(total, Projecting(eight_bits=bits)))(weight) for bits in (False, True))
    np.testing.assert_array_equal(plain, rounded)


@pytest.mark.parametrize(
    "config",
    [Projecting(batch_norm=True), Projecting(eight_bits=True), Projecting(0.5, 2, True, (2, 8), True)],
    ids=repr,
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_finite_where_rows_coincide(config, dtype):
    _, weight, bias = drawn()

    @jax.jit
    def both(features, weight):
        def total(features, weight):
            found, memory = embeddings(config, weight, bias * 0, features, jax.random.key(0), first_memory(config, F))
            return sum(jnp.sum(x.astype(jnp.float32)) for x, _ in found), memory

        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(features, weight)

    for features in (jnp.zeros((4, F)), jnp.ones((4, F)), jnp.ones((1, F)), jnp.eye(4, F)):
        found = both(features.astype(dtype), weight)
        assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(found))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dropout": 1.0}, "`dropout` of Projecting is 1.0"),
        ({"dropout": float("nan")}, "`dropout` of Projecting is nan"),
        ({"samples": 3}, "3 samples without dropout"),
        ({"samples": 0}, "`samples` of Projecting is 0"),
        ({"nested": (16, 8)}, r"`nested` of Projecting is \(16, 8\)"),
        ({"nested": (0, 8)}, "`nested` of Projecting"),
    ],
)
def test_what_makes_no_sense_is_refused(options, words):
    with pytest.raises(UsageError, match=words):
        Projecting(**options)
