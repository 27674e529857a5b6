import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.losses import SigmoidPairs, SupCon, pair_loss

PAIRS = [SupCon(0.1), SupCon(0.5), SigmoidPairs(), SigmoidPairs(5.0, -2.0)]


def paper(config, embedding, label):
    """Equation 2 of SupCon, and algorithm 1 of SigLIP with labels, one pair at a time."""
    found, count = [], len(label)
    for i in range(count):
        others = [j for j in range(count) if j != i]
        if isinstance(config, SigmoidPairs):
            signed = [(1 if label[i] == label[j] else -1, embedding[i] @ embedding[j]) for j in others]
            found.append(sum(-math.log(1 / (1 + math.exp(-z * (config.scale * c + config.bias)))) for z, c in signed))
            continue
        total = sum(math.exp(embedding[i] @ embedding[a] / config.temperature) for a in others)
        positive = [p for p in others if label[p] == label[i]]
        shares = [math.exp(embedding[i] @ embedding[p] / config.temperature) / total for p in positive]
        found.append(-sum(map(math.log, shares)) / len(positive) if positive else 0.0)
    return found


def drawn(count=10):
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(count, 5)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    return embedding, np.array([0, 0, 1, 1, 1, 2, 3, 3, 2, 9], np.int32)  # class 9 has no second image


@pytest.mark.parametrize("config", PAIRS, ids=repr)
def test_as_in_the_paper(config):
    embedding, label = drawn()
    found = pair_loss(config, jnp.asarray(embedding), jnp.asarray(label))
    np.testing.assert_allclose(found, paper(config, embedding.astype(np.float64), label), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", PAIRS, ids=repr)
def test_order_carries_no_meaning(config):
    embedding, label = map(jnp.asarray, drawn())
    order = np.random.default_rng(1).permutation(10)
    moved = pair_loss(config, embedding[order], label[order])
    np.testing.assert_allclose(moved, pair_loss(config, embedding, label)[order], rtol=1e-5, atol=1e-6)


def test_without_a_positive_a_row_is_only_pushed():
    """It counts nothing itself; what its neighbours count still moves it."""
    embedding, label = map(jnp.asarray, drawn())
    assert float(pair_loss(SupCon(), embedding, label)[9]) == 0.0
    gradient = jax.grad(lambda e: pair_loss(SupCon(), e, jnp.arange(10, dtype=jnp.int32)).sum())(embedding)
    assert float(jnp.abs(gradient).max()) == 0.0


@pytest.mark.parametrize("config", PAIRS, ids=repr)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_finite_wherever_rows_coincide(config, dtype):
    axis, zero = jnp.zeros(4).at[0].set(1.0), jnp.zeros(4)
    each = jax.jit(
        lambda e, label: (pair_loss(config, e, label), jax.grad(lambda x: pair_loss(config, x, label).sum())(e))
    )
    for batch in ([axis] * 4, [axis, -axis, axis, -axis], [zero] * 4, [1.0001 * axis, axis, zero, -axis], [axis]):
        for label in ([0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1]):
            found = each(jnp.stack(batch).astype(dtype), jnp.asarray(label[: len(batch)], jnp.int32))
            assert all(bool(jnp.isfinite(x).all()) for x in found)
