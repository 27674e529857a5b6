import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.losses import SimilarityDistillation


def slow(features, embedding, temperature):
    """The divergence, one pair at a time."""
    features = features - features.mean(axis=0)
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    total, n = 0.0, len(features)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        p = [math.exp(features[i] @ features[j] / temperature) for j in others]
        q = [math.exp(embedding[i] @ embedding[j] / temperature) for j in others]
        total += sum(a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q, strict=True))
    return total / n


def rows(seed, width, count=9):
    x = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_as_a_slow_loop(temperature):
    features, embedding = rows(0, 12) + np.float32(0.5), rows(1, 4)
    found = SimilarityDistillation(1.0, temperature)(jnp.asarray(features), jnp.asarray(embedding))
    assert float(found) == pytest.approx(slow(features, embedding, temperature), rel=1e-4)


def test_zero_where_nothing_moved_and_never_below():
    features = rows(2, 6)
    centred = features - features.mean(axis=0)
    same = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    assert float(SimilarityDistillation()(jnp.asarray(features), jnp.asarray(same))) == pytest.approx(0.0, abs=1e-5)
    for seed in range(5):
        assert float(SimilarityDistillation()(jnp.asarray(features), jnp.asarray(rows(seed, 3)))) > 0


def test_only_the_embedding_is_pulled_and_a_turn_is_free():
    features, embedding = jnp.asarray(rows(3, 6)), jnp.asarray(rows(4, 4))
    towards, ours = jax.grad(lambda f, e: SimilarityDistillation()(f, e), argnums=(0, 1))(features, embedding)
    assert float(jnp.abs(towards).max()) == 0
    assert float(jnp.abs(ours).max()) > 0
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(4, 4)))[0].astype(np.float32)
    turned = SimilarityDistillation()(features, embedding @ jnp.asarray(turn))
    assert float(turned) == pytest.approx(float(SimilarityDistillation()(features, embedding)), rel=1e-4)


def test_finite_for_equal_and_zero_rows():
    same = jnp.ones((4, 3)) / math.sqrt(3)
    value, slope = jax.value_and_grad(lambda e: SimilarityDistillation()(jnp.zeros((4, 3)), e))(same)
    assert jnp.isfinite(value)
    assert jnp.isfinite(slope).all()
