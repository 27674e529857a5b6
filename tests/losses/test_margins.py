"""The margins against a slow transcription of the papers in float64, at the poles, and under laws."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core.errors import UsageError
from lookalike.losses import AdaCos, AdaFace, ArcFace, CosFace, CurricularFace, NormFace, class_loss, memory_of

MARGINS = [
    ArcFace(0.3, 30.0),
    ArcFace(0.5, 64.0),
    ArcFace(1.5, 64.0),
    CosFace(0.35, 64.0),
    CosFace(0.2, 16.0),
    NormFace(16.0),
    NormFace(64.0),
    AdaCos(fixed=True),
    AdaCos(),
    AdaFace(),
    CurricularFace(),
]
WIDE = [margin for margin in MARGINS if hasattr(margin, "margin")]


# The papers, one number at a time, in float64, with their arccos.


def turned(cosine, angle):
    """cos(a + angle), held at 1 below angle 0; past pi the line that the authors' code of ArcFace goes on with."""
    a = math.acos(cosine)
    if a + angle < 0:
        return 1.0
    return math.cos(a + angle) if a + angle <= math.pi else cosine - angle * math.sin(angle)


def true_cosine(margin, cosine, m, quality):
    if isinstance(margin, NormFace | AdaCos):
        return cosine
    if isinstance(margin, CosFace):
        return cosine - m
    if isinstance(margin, AdaFace):  # f(z) = s cos(theta + g_angle) - g_add
        return turned(cosine, -m * quality) - (m * quality + m)
    return turned(cosine, m)


def paper(margin, cos_BC, label_B, length_B=None, margin_B=None, memory=None):
    """Each row's cross-entropy, and the running values behind the batch."""
    cos_BC = np.clip(np.asarray(cos_BC, np.float64), -1, 1)
    length_B = np.ones(len(cos_BC)) if length_B is None else np.asarray(length_B, np.float64)
    memory = {name: float(value) for name, value in (memory or {}).items()}
    own = [row[label] for row, label in zip(cos_BC, label_B, strict=True)]
    quality, scale = [0.0] * len(own), getattr(margin, "scale", None)
    if isinstance(margin, AdaFace):
        quality, memory = qualities(margin, length_B, memory)
    if isinstance(margin, AdaCos):
        scale, memory = adacos(margin, cos_BC, label_B, own, memory)
    if isinstance(margin, CurricularFace):
        memory = {"t": (1 - margin.momentum) * sum(own) / len(own) + margin.momentum * memory.get("t", 0.0)}
    found = []
    for b, (row, label) in enumerate(zip(cos_BC, label_B, strict=True)):
        m = getattr(margin, "margin", 0.0) if margin_B is None else float(margin_B[b])
        hard = true_cosine(margin, row[label], m, quality[b])
        logits = []
        for j, cosine in enumerate(row):
            if j == label:
                cosine = hard
            elif isinstance(margin, CurricularFace) and cosine > hard:
                cosine = cosine * (memory["t"] + cosine)
            logits.append(scale * cosine)
        top = max(logits)
        found.append(top + math.log(sum(math.exp(x - top) for x in logits)) - logits[label])
    return np.array(found), memory


def qualities(margin, length_B, memory):
    """AdaFace: length to mean and deviation, both running means; sums are divided by their weight."""
    new = {"mean": length_B.mean(), "deviation": math.sqrt(((length_B - length_B.mean()) ** 2).mean()), "weight": 1.0}
    memory = {n: margin.momentum * memory.get(n, 0.0) + (1 - margin.momentum) * new[n] for n in new}
    mean, deviation = (memory[n] / memory["weight"] for n in ("mean", "deviation"))
    return [min(max((z - mean) / (deviation + 1e-3) * margin.concentration, -1), 1) for z in length_B], memory


def adacos(margin, cos_BC, label_B, own, memory):
    """AdaCos, fixed and dynamic."""
    first = max(1.0, math.sqrt(2) * math.log(max(cos_BC.shape[1] - 1, 1)))
    if margin.fixed:
        return first, {}
    before = memory.get("scale", 0.0) or first
    total = 0.0
    for row, label in zip(cos_BC, label_B, strict=True):
        total += sum(math.exp(before * c) for j, c in enumerate(row) if j != label)
    angle = np.median([math.acos(c) for c in own])
    scale = math.log(total / len(own)) / math.cos(min(math.pi / 4, angle)) if total else 1.0
    return max(scale, 1.0), {"scale": max(scale, 1.0)}


def on_axes(margin, cos_BC, label_B, length_B=None, **options):
    """The loss of these cosines: the centers are the axes, so that the numbers of an embedding are its cosines."""
    length_B = jnp.ones(len(label_B)) if length_B is None else jnp.asarray(length_B)
    return class_loss(margin, cos_BC, length_B, jnp.eye(cos_BC.shape[1])[:, None, :], label_B, **options)


@partial(jax.jit, static_argnums=0)
def each_and_gradient(margin, cos_BC, label_B, length_B=None, margin_B=None):
    """Every row's loss, and the gradient of their sum."""

    def total(cosines):
        loss_B, *_ = on_axes(margin, cosines, label_B, length_B, margin_B=margin_B)
        return loss_B.sum(), loss_B

    (_, loss_B), gradient = jax.value_and_grad(total, has_aux=True)(cos_BC)
    return loss_B, gradient


def drawn(rows, classes, seed=0, most=0.999):
    rng = np.random.default_rng(seed)
    cos_BC = rng.uniform(-most, most, (rows, classes)).astype(np.float32)
    return cos_BC, rng.integers(0, classes, rows).astype(np.int32), rng.uniform(0.5, 2.0, rows).astype(np.float32)


@pytest.mark.parametrize("margin", MARGINS, ids=repr)
def test_value_as_in_the_paper(margin):
    cos_BC, label_B, length_B = drawn(40, 7)
    found, _ = each_and_gradient(margin, cos_BC, label_B, length_B)
    np.testing.assert_allclose(found, paper(margin, cos_BC, label_B, length_B)[0], rtol=2e-5, atol=3e-5)


@pytest.mark.parametrize("margin", WIDE, ids=repr)
def test_a_margin_for_each_row(margin):
    cos_BC, label_B, length_B = drawn(40, 7, seed=3)
    margin_B = np.linspace(0.0, 0.8, 40).astype(np.float32)
    found, _ = each_and_gradient(margin, cos_BC, label_B, length_B, margin_B)
    np.testing.assert_allclose(found, paper(margin, cos_BC, label_B, length_B, margin_B)[0], rtol=2e-5, atol=3e-5)
    same, _ = each_and_gradient(margin, cos_BC, label_B, length_B, np.full(40, margin.margin, np.float32))
    np.testing.assert_allclose(same, each_and_gradient(margin, cos_BC, label_B, length_B)[0], rtol=1e-6)


@pytest.mark.parametrize("margin", [NormFace(), AdaCos()], ids=repr)
def test_what_has_no_margin_takes_none(margin):
    cos_BC, label_B, _ = drawn(3, 4)
    with pytest.raises(UsageError, match=f"{type(margin).__name__} has no margin"):
        on_axes(margin, jnp.asarray(cos_BC), jnp.asarray(label_B), margin_B=jnp.zeros(3))


@pytest.mark.parametrize("margin", [AdaCos(), AdaFace(momentum=0.7), CurricularFace(momentum=0.7)], ids=repr)
def test_running_values_as_in_the_paper(margin):
    found = memory = memory_of(margin)
    assert all(float(value) == 0.0 for value in memory.values())
    for step in range(4):
        cos_BC, label_B, length_B = drawn(9, 12, seed=step)
        loss_B, own_B, found = on_axes(margin, jnp.asarray(cos_BC), jnp.asarray(label_B), length_B, memory=found)
        expected_B, memory = paper(margin, cos_BC, label_B, length_B, memory=memory)
        np.testing.assert_allclose(loss_B, expected_B, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(own_B, cos_BC[np.arange(9), label_B])
        assert set(found) == set(memory)
        for name, value in memory.items():
            assert float(found[name]) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("margin", MARGINS, ids=repr)
def test_gradient_as_finite_differences_of_the_paper(margin):
    cos_BC, label_B, length_B = drawn(40, 7, seed=1, most=0.9)
    cos_BC = cos_BC.astype(np.float64)
    _, found = each_and_gradient(margin, cos_BC.astype(np.float32), label_B, length_B)

    def held(cosines):
        """Running values, and which classes CurricularFace finds hard, have no gradient: they are those of `cos_BC`."""
        return fixed_paper(margin, cosines, cos_BC, label_B, length_B).sum()

    step = 1e-6
    for place in np.ndindex(6, 7):
        up, down = cos_BC.copy(), cos_BC.copy()
        up[place] += step
        down[place] -= step
        expected = (held(up) - held(down)) / (2 * step)
        assert found[place] == pytest.approx(expected, rel=2e-3, abs=2e-3)


def fixed_paper(margin, cos_BC, first_BC, label_B, length_B):
    """The paper with its running values as they are for `first_BC`: AdaCos becomes NormFace of that scale."""
    _, memory = paper(margin, first_BC, label_B, length_B)
    if isinstance(margin, AdaCos) and not margin.fixed:
        margin, memory = NormFace(memory["scale"]), {}
    if isinstance(margin, CurricularFace):
        margin = dataclasses.replace(margin, momentum=1.0)  # `t` stays what it is given
    return paper(margin, cos_BC, label_B, length_B, memory=memory)[0]


def edges(margin):
    ulp = np.nextafter(np.float32(1), np.float32(2))
    turn = -math.cos(getattr(margin, "margin", 0.3))
    near = [turn, turn - 1e-6, turn + 1e-6, np.nextafter(np.float32(turn), np.float32(-2))]
    return np.array([0.0, -0.0, 1.0, -1.0, ulp, -ulp, 1 - 6e-8, -1 + 6e-8, *near], np.float32)


@pytest.mark.parametrize("margin", MARGINS, ids=repr)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_finite_at_the_poles(margin, dtype):
    pairs = np.stack(np.meshgrid(edges(margin), edges(margin)), axis=-1).reshape(-1, 2)
    rows = np.concatenate([pairs[:, [0, 1, 1]], pairs[:, [1, 0, 0]]])
    length_B = np.resize(np.array([0.0, 1.0, 1e-20, 3.0, 1e4], np.float32), len(rows))
    cos_BC, label_B = jnp.asarray(rows, dtype), np.zeros(len(rows), np.int32)
    loss_B, gradient_BC = each_and_gradient(margin, cos_BC, label_B, length_B)
    assert np.isfinite(loss_B).all()
    assert np.isfinite(np.asarray(gradient_BC, np.float32)).all()
    assert (np.asarray(loss_B) >= 0).all()
    expected, _ = paper(margin, cos_BC, label_B, length_B)
    sure = ~near_turn(margin, cos_BC) if not isinstance(margin, AdaFace | CurricularFace) else np.zeros(len(rows), bool)
    np.testing.assert_allclose(loss_B[sure], expected[sure], rtol=1e-4, atol=3e-3)


def near_turn(margin, cos_BC):
    """At pi - margin the paper steps down, so that rounding decides on which side a number falls."""
    true_B = np.asarray(cos_BC, np.float64)[:, 0]
    return (np.abs(true_B + math.cos(getattr(margin, "margin", 0.3))) < 1e-5) & isinstance(margin, ArcFace)


@pytest.mark.parametrize("margin", MARGINS, ids=repr)
def test_alone_or_far_from_every_class(margin):
    label_B = np.zeros(1, np.int32)
    for cosine in (-1.0, 0.0, 1.0):
        alone, gradient = each_and_gradient(margin, np.full((1, 1), cosine, np.float32), label_B)
        assert float(alone[0]) == pytest.approx(0.0, abs=1e-6)
        assert float(np.abs(gradient).max()) == pytest.approx(0.0, abs=1e-6)
    far, _ = each_and_gradient(margin, np.full((1, 2), -1.0, np.float32), label_B)
    np.testing.assert_allclose(far, paper(margin, np.full((1, 2), -1.0), [0])[0], rtol=1e-5)


@pytest.mark.parametrize("margin", MARGINS, ids=repr)
def test_the_harder_cosine_falls_with_the_angle(margin):
    cosine = jnp.asarray(np.cos(np.linspace(0, math.pi, 20001)), jnp.float32)
    hard = np.asarray(margin.margin_cosine(cosine))
    assert (np.diff(hard) <= 1e-6).all()  # cosine itself is rounded to 6e-8
    assert (hard <= cosine + 1e-6).all()
    for quality in (-1.0, 0.5, 1.0) if isinstance(margin, AdaFace) else ():
        hard = np.asarray(margin.margin_cosine(cosine, None, jnp.full_like(cosine, quality)))
        assert (np.diff(hard) <= 1e-6).all()
        assert (hard <= cosine + 1e-6).all()


def test_the_gradient_at_the_pole_is_bounded_by_a_thousand():
    gradient = jax.vmap(jax.grad(ArcFace(0.5, 1.0).margin_cosine))(
        jnp.asarray([1.0, 1 - 6e-8, 0.99, -1.0], jnp.float32)
    )
    assert float(jnp.abs(gradient).max()) <= 1000
    np.testing.assert_allclose(gradient[2], math.sin(math.acos(0.99) + 0.5) / math.sin(math.acos(0.99)), rtol=1e-4)


def test_a_huge_true_cosine_does_not_cancel():
    """log-sum-exp minus the plain true term plus the harder one would lose every digit here."""
    margin = ArcFace(1.5, 64.0)
    cos_BC = np.full((1, 1000), -0.9, np.float32)
    cos_BC[0, 3] = 1.0
    found, _ = each_and_gradient(margin, cos_BC, np.array([3], np.int32))
    np.testing.assert_allclose(found, paper(margin, cos_BC, [3])[0], rtol=1e-4, atol=1e-5)


def test_ada_cos_does_not_run_away():
    """Where all images lie at the other centers the paper's scale grows by sqrt(2) a step, without end."""
    memory, label_B = memory_of(AdaCos()), jnp.zeros(4, jnp.int32)
    cos_BC = jnp.ones((4, 3)).at[:, 0].set(0.0)
    step = jax.jit(lambda memory: on_axes(AdaCos(), cos_BC, label_B, memory=memory))
    for _ in range(60):
        loss_B, _, memory = step(memory)
    assert float(memory["scale"]) == 1e4
    assert np.isfinite(loss_B).all()


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
    loss_B, gradient = each_and_gradient(margin, cos_BC, label_B)
    assert np.isfinite(loss_B).all()
    assert np.isfinite(gradient).all()
    # The names of the classes carry no meaning.
    moved_B, _ = each_and_gradient(margin, cos_BC[:, order], np.argsort(order)[label_B].astype(np.int32))
    np.testing.assert_allclose(moved_B, loss_B, rtol=1e-5, atol=1e-5)
    if margin in WIDE:  # a wider margin never makes it easier
        easier_B, _ = each_and_gradient(dataclasses.replace(margin, margin=0.0), cos_BC, label_B)
        assert (np.asarray(loss_B) >= np.asarray(easier_B) - 1e-3).all() or isinstance(margin, CurricularFace)
    true = np.arange(4)[None, :] == label_B[:, None]
    assert (np.asarray(gradient)[true] <= 1e-6).all()
    if not isinstance(margin, CurricularFace):  # whose c (t + c) falls where c < -t / 2
        assert (np.asarray(gradient)[~true] >= 0).all()


@pytest.mark.reference("torch")
def test_norm_face_is_torch_cross_entropy():
    import torch

    cos_BC, label_B, _ = drawn(16, 9, seed=2)
    expected = torch.nn.functional.cross_entropy(
        20.0 * torch.tensor(cos_BC), torch.tensor(label_B).long(), reduction="none"
    )
    found, _ = each_and_gradient(NormFace(20.0), cos_BC, label_B)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)
