"""The margins against a slow transcription of the papers in float64, at the poles, and under laws."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.losses import ArcFace, CosFace, margin_loss

MARGINS = [
    ArcFace(0.3, 30.0),
    ArcFace(0.5, 64.0),
    ArcFace(0.0, 16.0),
    ArcFace(1.5, 64.0),
    CosFace(0.35, 64.0),
    CosFace(0.2, 16.0),
]


def paper(margin, cos_BC, label_B):
    """Equation 3 of ArcFace and equation 2 of CosFace, one number at a time, float64, with their arccos."""
    losses = []
    for row, label in zip(np.clip(np.asarray(cos_BC, np.float64), -1, 1), label_B, strict=True):
        logits = []
        for j, cosine in enumerate(row):
            if j != label:
                logits.append(margin.scale * cosine)
            elif isinstance(margin, CosFace):
                logits.append(margin.scale * (cosine - margin.margin))
            else:
                angle = math.acos(cosine)
                fell = cosine - margin.margin * math.sin(margin.margin)
                hard = math.cos(angle + margin.margin) if angle <= math.pi - margin.margin else fell
                logits.append(margin.scale * hard)
        top = max(logits)
        losses.append(top + math.log(sum(math.exp(x - top) for x in logits)) - logits[label])
    return np.array(losses)


@partial(jax.jit, static_argnums=0)
def mean_and_slope(margin, cos_BC, label_B):
    return jax.value_and_grad(lambda c: margin_loss(margin, c, label_B).mean())(cos_BC)


@partial(jax.jit, static_argnums=0)
def each_and_slope(margin, cos_BC, label_B):
    """Every row's loss; rows do not touch each other, so that the slope of their sum is every row's slope."""
    return margin_loss(margin, cos_BC, label_B), jax.grad(lambda c: margin_loss(margin, c, label_B).sum())(cos_BC)


@pytest.mark.parametrize("margin", MARGINS, ids=repr)
def test_value_as_in_the_paper(margin):
    rng = np.random.default_rng(0)
    cos_BC = rng.uniform(-0.999, 0.999, (40, 7)).astype(np.float32)
    label_B = rng.integers(0, 7, 40).astype(np.int32)
    found = margin_loss(margin, jnp.asarray(cos_BC), jnp.asarray(label_B))
    np.testing.assert_allclose(found, paper(margin, cos_BC, label_B), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("margin", MARGINS, ids=repr)
def test_slope_as_finite_differences_of_the_paper(margin):
    rng = np.random.default_rng(1)
    cos_BC = rng.uniform(-0.9, 0.9, (5, 4))
    label_B = np.array([0, 1, 2, 3, 0], np.int32)
    _, found = mean_and_slope(margin, jnp.asarray(cos_BC, jnp.float32), jnp.asarray(label_B))
    step = 1e-6
    for place in np.ndindex(cos_BC.shape):
        if abs(cos_BC[place] + math.cos(margin.margin)) < 1e-3:
            continue  # the paper's own step lies there
        up, down = cos_BC.copy(), cos_BC.copy()
        up[place] += step
        down[place] -= step
        slope = (paper(margin, up, label_B).mean() - paper(margin, down, label_B).mean()) / (2 * step)
        assert found[place] == pytest.approx(slope, rel=2e-3, abs=2e-4)


def edges(margin):
    ulp = np.nextafter(np.float32(1), np.float32(2))
    turn = -math.cos(margin.margin)
    near = [turn, turn - 1e-6, turn + 1e-6, np.nextafter(np.float32(turn), np.float32(-2))]
    return np.array([0.0, -0.0, 1.0, -1.0, ulp, -ulp, 1 - 6e-8, -1 + 6e-8, *near], np.float32)


@pytest.mark.parametrize("margin", MARGINS, ids=repr)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_finite_at_the_poles(margin, dtype):
    pairs = np.stack(np.meshgrid(edges(margin), edges(margin)), axis=-1).reshape(-1, 2)
    rows = np.concatenate([pairs[:, [0, 1, 1]], pairs[:, [1, 0, 0]]])
    cos_BC, label_B = jnp.asarray(rows, dtype), np.zeros(len(rows), np.int32)
    loss_B, slope_BC = each_and_slope(margin, cos_BC, label_B)
    assert np.isfinite(loss_B).all()
    assert np.isfinite(np.asarray(slope_BC, np.float32)).all()
    assert (np.asarray(loss_B) >= -1e-3).all()
    sure = ~near_turn(margin, cos_BC)
    assert sure.sum() > len(rows) / 2
    np.testing.assert_allclose(loss_B[sure], paper(margin, cos_BC, label_B)[sure], rtol=1e-4, atol=2e-3)


def near_turn(margin, cos_BC):
    """At pi - margin the paper steps down, so that rounding decides on which side a number falls."""
    true_B = np.asarray(cos_BC, np.float64)[:, 0]
    return (np.abs(true_B + math.cos(margin.margin)) < 1e-5) & (isinstance(margin, ArcFace) and margin.margin > 0)


@pytest.mark.parametrize("margin", MARGINS, ids=repr)
def test_alone_or_far_from_every_class(margin):
    label_B = jnp.zeros(1, jnp.int32)
    alone = margin_loss(margin, jnp.full((1, 1), -1.0), label_B)
    assert float(alone[0]) == pytest.approx(0.0, abs=1e-4)
    far = margin_loss(margin, jnp.full((1, 2), -1.0), label_B)
    np.testing.assert_allclose(far, paper(margin, np.full((1, 2), -1.0), [0]), rtol=1e-5)


@pytest.mark.parametrize("margin", MARGINS, ids=repr)
def test_the_harder_cosine_falls_with_the_angle(margin):
    cosine = np.cos(np.linspace(0, math.pi, 20001)).astype(np.float32)
    harder = np.asarray(margin.margin_cosine(jnp.asarray(cosine)))
    assert (np.diff(harder) <= 1e-6).all()  # cosine itself is rounded to 6e-8
    assert (harder <= cosine + 1e-6).all()
    assert harder.min() >= float(margin.margin_cosine(jnp.float32(-1.0))) - 1e-5


def test_the_slope_at_the_pole_is_bounded_by_a_thousand():
    slope = jax.vmap(jax.grad(ArcFace(0.5, 1.0).margin_cosine))(jnp.asarray([1.0, 1 - 6e-8, 0.99, -1.0], jnp.float32))
    assert float(jnp.abs(slope).max()) <= 1000
    np.testing.assert_allclose(slope[2], math.sin(math.acos(0.99) + 0.5) / math.sin(math.acos(0.99)), rtol=1e-4)


def test_a_huge_true_cosine_does_not_cancel():
    """log-sum-exp minus the plain true term plus the harder one would lose every digit here."""
    margin = ArcFace(1.5, 64.0)
    cos_BC = np.full((1, 1000), -0.9, np.float32)
    cos_BC[0, 3] = 1.0
    np.testing.assert_allclose(
        margin_loss(margin, jnp.asarray(cos_BC), jnp.asarray([3], jnp.int32)),
        paper(margin, cos_BC, [3]),
        rtol=1e-4,
        atol=1e-5,
    )


cosines = st.floats(-1.0, 1.0, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(cosines, min_size=4, max_size=4), min_size=3, max_size=3),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
    st.sampled_from(MARGINS),
    st.permutations(range(4)),
)
def test_laws(rows, labels, margin, order):
    cos_BC, label_B = np.array(rows, np.float32), np.array(labels, np.int32)
    loss, slope = mean_and_slope(margin, cos_BC, label_B)
    assert np.isfinite(loss)
    assert np.isfinite(slope).all()
    # The names of the classes carry no meaning.
    moved, _ = mean_and_slope(margin, cos_BC[:, order], np.argsort(order)[label_B].astype(np.int32))
    assert float(moved) == pytest.approx(float(loss), rel=1e-5, abs=1e-5)
    # A wider margin never makes it easier, and every slope points the right way.
    easier, _ = mean_and_slope(type(margin)(0.0, margin.scale), cos_BC, label_B)
    assert float(loss) >= float(easier) - 1e-3
    true = np.arange(4)[None, :] == label_B[:, None]
    assert (np.asarray(slope)[~true] >= 0).all()
    assert (np.asarray(slope)[true] <= 1e-6).all()


@pytest.mark.reference("torch")
def test_norm_face_is_torch_cross_entropy():
    import torch

    rng = np.random.default_rng(2)
    cos_BC = rng.uniform(-1, 1, (16, 9)).astype(np.float32)
    label_B = rng.integers(0, 9, 16)
    expected = torch.nn.functional.cross_entropy(20.0 * torch.tensor(cos_BC), torch.tensor(label_B), reduction="none")
    found = margin_loss(ArcFace(0.0, 20.0), jnp.asarray(cos_BC), jnp.asarray(label_B, jnp.int32))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)
