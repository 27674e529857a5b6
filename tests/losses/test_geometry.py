"""Each term against a slow loop over images, pairs or threes, and what must hold for all."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.core.errors import UsageError
from lookalike.losses import (
    FeatureAnchor,
    Geometry,
    GramDistillation,
    L2Sp,
    RkdAngle,
    RkdDistance,
    SimilarityDistillation,
    TwoViews,
    VectorDistillation,
)

OF_FEATURES = [SimilarityDistillation(), GramDistillation(), RkdDistance(), RkdAngle(), VectorDistillation()]


def rows(seed, width, count=9):
    x = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def centred(features):
    moved = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def slow_divergence(features, embedding, temperature):
    """The divergence, one pair at a time."""
    features, total = centred(features), 0.0
    for i in range(len(features)):
        others = [j for j in range(len(features)) if j != i]
        p = [math.exp(features[i] @ features[j] / temperature) for j in others]
        q = [math.exp(embedding[i] @ embedding[j] / temperature) for j in others]
        total += sum(a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q, strict=True))
    return total / len(features)


def huber(x, y):
    return 0.5 * (x - y) ** 2 if abs(x - y) <= 1 else abs(x - y) - 0.5


def slow_gram(features, embedding):
    features = centred(features)
    pairs = itertools.product(range(len(features)), repeat=2)
    return np.mean([(embedding[i] @ embedding[j] - features[i] @ features[j]) ** 2 for i, j in pairs])


def slow_distance(features, embedding):
    """RKD-D: psi = |a - b| / mu, mu the mean over pairs."""
    pairs = list(itertools.permutations(range(len(features)), 2))
    theirs, ours = ([np.linalg.norm(x[i] - x[j]) for i, j in pairs] for x in (centred(features), embedding))
    return np.mean([huber(a / np.mean(ours), b / np.mean(theirs)) for a, b in zip(ours, theirs, strict=True)])


def slow_angle(features, embedding):
    """RKD-A: the cosine at j of i and k."""

    def cosine(x, i, j, k):
        a, b = x[i] - x[j], x[k] - x[j]
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))

    features, threes = centred(features), itertools.permutations(range(len(features)), 3)
    return np.mean([huber(cosine(embedding, *three), cosine(features, *three)) for three in threes])


def slow_two_views(first, second, temperature):
    """Equation 1 of SimCLR, over all 2 B views."""
    views, count = np.concatenate([first, second]).astype(np.float64), len(first)
    total = 0.0
    for i in range(2 * count):
        other = (i + count) % (2 * count)
        share = [math.exp(views[i] @ views[k] / temperature) for k in range(2 * count) if k != i]
        total -= math.log(math.exp(views[i] @ views[other] / temperature) / sum(share))
    return total / (2 * count)


@pytest.mark.parametrize(
    ("term", "slow"),
    [
        (SimilarityDistillation(1.0, 0.05), lambda f, e: slow_divergence(f, e, 0.05)),
        (SimilarityDistillation(1.0, 0.5), lambda f, e: slow_divergence(f, e, 0.5)),
        (VectorDistillation(1.0, 0.2), lambda f, e: slow_divergence(f, e, 0.2)),
        (GramDistillation(), slow_gram),
        (RkdDistance(), slow_distance),
        (RkdAngle(), slow_angle),
    ],
)
def test_as_a_slow_loop(term, slow):
    features, embedding = rows(0, 12) + np.float32(0.5), rows(1, 4)
    found = term(jnp.asarray(features), jnp.asarray(embedding))
    assert float(found) == pytest.approx(slow(features, embedding), rel=1e-4)


def test_two_views_as_a_slow_loop():
    first, second = rows(0, 4), rows(1, 4)
    found = TwoViews(1.0, 0.3)(jnp.asarray(first), jnp.asarray(second))
    assert float(found) == pytest.approx(slow_two_views(first, second, 0.3), rel=1e-5)
    near = rows(0, 4) + 0.01 * rows(1, 4)
    assert float(TwoViews(1.0, 0.3)(jnp.asarray(first), jnp.asarray(near))) < float(found)


def test_anchors_are_mean_squares():
    features, untouched = rows(0, 6), rows(1, 6)
    expected = np.mean([(a - b) ** 2 for a, b in zip(features.ravel(), untouched.ravel(), strict=True)])
    assert float(FeatureAnchor()(jnp.asarray(features), jnp.asarray(untouched))) == pytest.approx(expected, rel=1e-5)
    weights, before = {"a": rows(2, 3), "b": rows(3, 7)[0]}, {"a": rows(4, 3), "b": rows(5, 7)[0], "fixed": rows(6, 2)}
    expected = sum(float(np.mean((weights[name] - before[name]) ** 2)) for name in weights)
    placed = [{name: jnp.asarray(x) for name, x in tensors.items()} for tensors in (weights, before)]
    assert float(L2Sp()(*placed)) == pytest.approx(expected, rel=1e-5)
    with jax.debug_nans(True):
        assert float(L2Sp()(placed[0], placed[0])) == 0.0


@pytest.mark.parametrize("term", OF_FEATURES, ids=repr)
def test_zero_where_nothing_moved_and_never_below(term):
    features = rows(2, 6)
    assert float(term(jnp.asarray(features), jnp.asarray(centred(features), jnp.float32))) == pytest.approx(0, abs=1e-5)
    for seed in range(5):
        assert float(term(jnp.asarray(features), jnp.asarray(rows(seed, 3)))) > 0


@pytest.mark.parametrize("term", OF_FEATURES, ids=repr)
def test_only_the_embedding_is_pulled_and_a_turn_is_free(term):
    features, embedding = jnp.asarray(rows(3, 6)), jnp.asarray(rows(4, 4))
    value, (towards, ours) = jax.jit(jax.value_and_grad(term.__call__, argnums=(0, 1)))(features, embedding)
    assert float(jnp.abs(towards).max()) == 0
    assert float(jnp.abs(ours).max()) > 0
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(4, 4)))[0].astype(np.float32)
    turned = term(features, embedding @ jnp.asarray(turn))
    assert float(turned) == pytest.approx(float(value), rel=1e-4)


@pytest.mark.parametrize("term", [*OF_FEATURES, FeatureAnchor(), TwoViews()], ids=repr)
def test_finite_wherever_rows_coincide(term):
    """Equal, opposite and zero rows, one row alone, from bfloat16 too."""
    axis, zero = jnp.zeros(4).at[0].set(1.0), jnp.zeros(4)
    both = jax.jit(jax.value_and_grad(term.__call__, argnums=(0, 1)))
    for batch in ([axis] * 4, [axis, -axis, axis, -axis], [zero] * 4, [axis, axis, zero, -axis], [axis]):
        for dtype in (jnp.float32, jnp.bfloat16):
            x = jnp.stack(batch).astype(dtype)
            value, gradients = both(x, x[::-1])
            assert jnp.isfinite(value)
            assert all(bool(jnp.isfinite(g).all()) for g in gradients)


def test_geometry_sums_what_counts():
    features, embedding, teacher = (jnp.asarray(rows(seed, width)) for seed, width in ((0, 6), (1, 4), (2, 8)))
    total, terms = Geometry()(features, embedding)
    assert float(total) == 0.0
    assert terms == {}
    given = {
        "untouched": features + 0.1,
        "teacher": teacher,
        "second_view": embedding[::-1],
        "weights": {"a": jnp.ones(3)},
        "untouched_weights": {"a": jnp.zeros(3)},
    }
    names = [field.name for field in dataclasses.fields(Geometry)]
    weighed = {name: type(getattr(Geometry(), name))(weight=float(i)) for i, name in enumerate(names, start=1)}
    total, terms = Geometry(**weighed)(features, embedding, **given)
    assert list(terms) == names
    assert float(total) == pytest.approx(sum(i * float(terms[name]) for i, name in enumerate(names, start=1)), rel=1e-6)
    expected = {
        "similarity": slow_divergence(np.asarray(features), np.asarray(embedding), 0.1),
        "vectors": slow_divergence(np.asarray(teacher), np.asarray(embedding), 0.1),
        "anchor": 0.01,
        "weights": 1.0,
        "views": slow_two_views(np.asarray(embedding), np.asarray(embedding)[::-1], 0.1),
    }
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize(
    ("name", "term", "missing"),
    [
        ("anchor", FeatureAnchor(1000.0), "untouched"),
        ("weights", L2Sp(1.0), "weights"),
        ("vectors", VectorDistillation(1.0), "teacher"),
        ("views", TwoViews(1.0), "second_view"),
    ],
)
def test_a_term_says_what_it_lacks(name, term, missing):
    with pytest.raises(UsageError, match=f"`{name}` has weight .*, but there is no `{missing}`"):
        Geometry(**{name: term})(jnp.ones((2, 3)), jnp.ones((2, 3)))
