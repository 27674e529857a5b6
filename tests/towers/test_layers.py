"""Verbs in JAX against slow NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lookalike.towers.ops import Activation, Conv, Padding, Pooling, Value, pads
from lookalike.towers.programs.convolution import convolution
from lookalike.towers.programs.jax import Jax, group_norm, l2_normalize, rectified
from lookalike.towers.programs.products import merged


def program(**tensors: jax.Array) -> Jax:
    """A program with the tensors `x.<name>`."""
    return Jax({f"x.{name.replace('_', '.')}": tensor for name, tensor in tensors.items()}, "float32")


def value(x: jax.Array) -> Value:
    return Value(x, *x.shape)


def activated(x: jax.Array, kind: Activation) -> jax.Array:
    return program().apply(kind, value(x)).data


def pooled(x: jax.Array, kind: Pooling) -> jax.Array:
    return program().pool(value(x), kind).data[0]


def batch_norm(x: jax.Array, weight: jax.Array, bias: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
    """Behind a convolution that changes nothing."""
    parts = {"norm_weight": weight, "norm_bias": bias, "norm_mean": mean, "norm_variance": variance}
    ops, width = program(conv_weight=jnp.eye(x.shape[1])[None, None], **parts), x.shape[1]
    return ops.conv(Conv("x", width, width, 1), value(x), eps=1e-3).data


def slow_conv(x: np.ndarray, weight: np.ndarray, stride: int, dilation: int, pads: list[tuple[int, int]]) -> np.ndarray:
    """One output pixel at a time, in float64."""
    x = np.pad(x.astype(np.float64), (*pads, (0, 0)))
    side, depthwise = weight.shape[0], weight.shape[2] == 1 and x.shape[2] > 1
    reach = (side - 1) * dilation + 1
    rows = []
    for top in range(0, x.shape[0] - reach + 1, stride):
        row = []
        for left in range(0, x.shape[1] - reach + 1, stride):
            seen = x[top : top + reach : dilation, left : left + reach : dilation]
            row.append((seen * weight[:, :, 0]).sum((0, 1)) if depthwise else np.einsum("hwi,hwio->o", seen, weight))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(("height", "width"), [(12, 12), (13, 10)])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_convolutions(height: int, width: int, depthwise: bool, stride: int, dilation: int):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(height, width, 5)).astype(np.float32)
    weight = rng.normal(size=(3, 3, 1 if depthwise else 5, 5)).astype(np.float32)
    ours = convolution(jnp.asarray(x), jnp.asarray(weight), stride, dilation)
    np.testing.assert_allclose(ours, slow_conv(x, weight, stride, dilation, [(dilation, dilation)] * 2), atol=1e-5)
    if dilation == 1:  # TensorFlow's rule: ceil(length / stride) outputs, the odd pixel of padding at the end
        spare = [max((-(-n // stride) - 1) * stride + 3 - n, 0) for n in (height, width)]
        same = slow_conv(x, weight, stride, 1, [(s // 2, s - s // 2) for s in spare])
        np.testing.assert_allclose(convolution(jnp.asarray(x), jnp.asarray(weight), stride, 1, "same"), same, atol=1e-5)


@pytest.mark.parametrize(("side", "stride", "dilation"), [(3, 2, 1), (3, 1, 2), (5, 2, 1), (7, 1, 1), (3, 3, 2)])
@pytest.mark.parametrize("padding", ["symmetric", "late"])
def test_slopes_of_depthwise_convolutions(side: int, stride: int, dilation: int, padding: Padding):
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((13, 16, 4), (side, side, 1, 4)))
    around = [pads(length, side, stride, dilation, padding) for length in x.shape[:2]]

    def theirs(weight: jax.Array, x: jax.Array) -> jax.Array:
        y = jax.lax.conv_general_dilated(
            x[None],
            weight,
            (stride, stride),
            around,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
        )
        return jnp.sin(y).sum()

    def ours(weight: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sin(convolution(x, weight, stride, dilation, padding)).sum()

    found, wanted = (jax.jit(jax.grad(one, (0, 1)))(weight, x) for one in (ours, theirs))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_kernel_of_one_place_is_a_product_of_all_images(stride: int):
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((3, 5, 7, 4), (1, 1, 4, 6)))

    def theirs(weight: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, weight, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def ours(weight: jax.Array, x: jax.Array) -> jax.Array:
        return jax.vmap(lambda one: convolution(one, weight, stride, matmul=merged))(x)

    def found(run) -> list[jax.Array]:
        def loss(weight: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            return jnp.sin(run(weight, x)).sum(), run(weight, x)

        gradients, values = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(weight, x)
        return [values, *gradients]

    for a, b in zip(found(ours), found(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_depthwise_convolution_in_16_bits_sums_in_32():
    x, weight = jnp.ones((9, 9, 2), jnp.bfloat16), jnp.full((7, 7, 1, 2), 1.0)
    convolve = jax.jit(convolution)
    assert float(convolve(x, weight)[4, 4, 0]) == 49
    x = x.at[0, 0].set(256)  # 256 + 1 is 256 in 16 bits
    assert float(convolve(x, weight)[3, 3, 0]) == 304


def test_norms():
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(4, 5, 6)) * 3 + 2).astype(np.float32)
    weight, bias, mean = (rng.normal(size=6).astype(np.float32) for _ in range(3))
    variance = rng.uniform(0.5, 2, 6).astype(np.float32)
    w, b = jnp.asarray(weight), jnp.asarray(bias)

    rows = x[0].astype(np.float64)
    wanted = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-3) * weight + bias
    found = jax.jit(lambda x: program(weight=w, bias=b).norm("x", value(x), 1e-3).data)(jnp.asarray(x[0]))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)

    square = x[:, :4].reshape(16, 6)
    grouped = square.astype(np.float64).reshape(16, 3, 2)
    centred = grouped - grouped.mean((0, 2), keepdims=True)
    wanted = (centred / np.sqrt((centred**2).mean((0, 2), keepdims=True) + 1e-3)).reshape(16, 6) * weight + bias
    by_groups = jax.jit(lambda x: program(weight=w, bias=b).norm("x", value(x), 1e-3, groups=3).data)
    found = by_groups(jnp.asarray(square))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)

    wanted = (x - mean) / np.sqrt(variance + 1e-3) * weight + bias
    found = jax.jit(batch_norm)(jnp.asarray(x.reshape(20, 6)[:16]), w, b, jnp.asarray(mean), jnp.asarray(variance))
    np.testing.assert_allclose(found, wanted.reshape(20, 6)[:16], rtol=1e-4, atol=1e-5)


def test_stored_statistics_do_not_learn():
    _, bias, mean, variance = jax.grad(lambda parts: batch_norm(jnp.ones((4, 3)), *parts).sum())(
        [jnp.ones(3) for _ in range(4)]
    )
    assert not mean.any()
    assert not variance.any()
    assert bias.all()


@pytest.mark.parametrize("depthwise", [False, True])
def test_gradients_of_a_norm_that_its_kernel_takes(depthwise: bool):
    """Against the convolution, then the norm, in float64."""
    rng = np.random.default_rng(3)
    parts = {
        "conv.weight": rng.normal(size=(3, 3, 1 if depthwise else 4, 4)),
        "norm.weight": rng.normal(size=4),
        "norm.bias": rng.normal(size=4),
        "norm.mean": rng.normal(size=4),
        "norm.variance": rng.uniform(0.5, 2, 4),
    }
    x = rng.normal(size=(36, 4))

    def ours(parts: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        ops = Jax({f"x.{name}": part for name, part in parts.items()}, "float32")
        return jnp.sin(ops.conv(Conv("x", 4, 4, 3, depthwise=depthwise), value(x), eps=1e-3).data).sum()

    def theirs(parts: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        y = jax.lax.conv_general_dilated(
            x.reshape(1, 6, 6, 4),
            parts["conv.weight"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4 if depthwise else 1,
        ).reshape(36, 4)
        normed = (y - parts["norm.mean"][None]) / jnp.sqrt(parts["norm.variance"][None] + 1e-3)
        return jnp.sin(normed * parts["norm.weight"][None] + parts["norm.bias"][None]).sum()

    def gradients(loss, dtype) -> tuple[dict[str, jax.Array], jax.Array]:
        return jax.jit(jax.grad(loss, (0, 1)))(
            {n: jnp.asarray(p, dtype) for n, p in parts.items()}, jnp.asarray(x, dtype)
        )

    with jax.enable_x64(True):
        wanted = gradients(theirs, jnp.float64)
    found = gradients(ours, jnp.float32)
    np.testing.assert_allclose(found[1], wanted[1], atol=1e-4)
    for name in ("conv.weight", "norm.weight", "norm.bias"):
        np.testing.assert_allclose(found[0][name], wanted[0][name], atol=1e-4)


@pytest.mark.parametrize("high", [6.0, np.inf])
def test_what_is_cut_off_has_no_gradient(high: float):
    x = jnp.asarray([-1.0, 0.0, 1e-6, 3.0, 6.0, 7.0])
    values, back = jax.vjp(lambda x: rectified(x, high), x)
    np.testing.assert_array_equal(values, np.clip(x, 0, high))
    np.testing.assert_array_equal(back(jnp.ones(6))[0], (x > 0) & (x < high))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_maximum_has_a_gradient(compiled: bool):
    def total(x: jax.Array) -> jax.Array:
        return program().max_pool(value(x), 3, 2).data.sum()

    slope = (jax.jit(jax.grad(total)) if compiled else jax.grad(total))(jnp.arange(16.0)[:, None])
    np.testing.assert_array_equal(slope[:, 0], [i in {5, 7, 13, 15} for i in range(16)])


@pytest.mark.parametrize("level", [0.0, 10.0, 100.0])
def test_group_norm_of_a_flat_map_is_its_bias(level: float):
    """Without a variance there is nothing but the shift; the difference of two mean squares can be negative."""
    x = jnp.tile(level + jnp.asarray([[[0.0, 1.0, 2.0, 3.0]]]), (16, 16, 1))
    found = group_norm(x, jnp.ones(4), jnp.arange(4.0), 4, 1e-5)
    np.testing.assert_allclose(found, np.tile(np.arange(4.0), (16, 16, 1)), atol=1e-5)


def plain_group_norm(x: jax.Array, weight: jax.Array, bias: jax.Array, groups: int, eps: float) -> jax.Array:
    """By the formula, in the precision of what goes in; its gradient is JAX's own."""
    maps = x.reshape(x.shape[0] * x.shape[1], groups, -1)
    centred = maps - maps.mean((0, 2), keepdims=True)
    normed = centred / jnp.sqrt((centred**2).mean((0, 2), keepdims=True) + eps)
    return normed.reshape(x.shape) * weight[None, None] + bias[None, None]


@pytest.mark.parametrize("level", [0.0, 100.0])
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_gradients_of_group_norm(level: float, groups: int):
    rng = np.random.default_rng(2)
    x = (rng.normal(size=(2, 5, 4, 6)) * 3 + level).astype(np.float32)
    weight, bias = rng.normal(size=(2, 6)).astype(np.float32)

    def loss(norm, x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
        return jnp.sin(jax.vmap(lambda one: norm(one, weight, bias, groups, 1e-3))(x)).sum()

    ours = jax.jit(jax.grad(partial(loss, group_norm), (0, 1, 2)))(*map(jnp.asarray, (x, weight, bias)))
    with jax.enable_x64(True):
        exact = [jnp.asarray(part, jnp.float64) for part in (x, weight, bias)]
        wanted = jax.jit(jax.grad(partial(loss, plain_group_norm), (0, 1, 2)))(*exact)
        assert {part.dtype for part in wanted} == {jnp.dtype("float64")}
    for found, right in zip(ours, wanted, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-4)


def test_group_norm_of_a_map_with_one_far_corner():
    x = np.random.default_rng(0).normal(size=(64, 64, 4)).astype(np.float32)
    x[0, 0] += 50
    with jax.enable_x64(True):
        wanted = np.asarray(plain_group_norm(jnp.asarray(x, jnp.float64), jnp.ones(4), jnp.zeros(4), 2, 1e-5))
    found = group_norm(jnp.asarray(x), jnp.ones(4), jnp.zeros(4), 2, 1e-5)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_gradient_of_group_norm_keeps_only_the_map():
    """In the dtype in which it came: what else is kept grows with channels, not with places."""
    x = jnp.ones((64, 64, 8), jnp.bfloat16)
    _, back = jax.vjp(lambda x: group_norm(x, jnp.ones(8), jnp.zeros(8), 4, 1e-5), x)
    large = [part for part in jax.tree.leaves(back) if part.size >= x.size]
    assert [part.dtype for part in large] == [jnp.bfloat16]
    assert back(x)[0].dtype == jnp.bfloat16


def test_gelus():
    from math import erf, exp

    x = np.linspace(-6, 6, 25, dtype=np.float32)
    exact = [v * 0.5 * (1 + erf(v / 2**0.5)) for v in x]
    quick = [v / (1 + exp(-1.702 * v)) for v in x]
    np.testing.assert_allclose(activated(jnp.asarray(x)[None], "gelu")[0], exact, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(activated(jnp.asarray(x)[None], "quick_gelu")[0], quick, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [0.0, 1e-20, 1.0, 1e15])
def test_unit_length_and_its_gradient_stay_finite(length: float):
    x = jnp.array([length, -length, 0.0])
    found = l2_normalize(x)
    assert jnp.isfinite(jax.jacobian(l2_normalize)(x)).all()
    if length >= 1e-10:
        assert abs(float(jnp.linalg.norm(found)) - 1) < 1e-6


TOKENS = np.random.default_rng(0).uniform(0, 6, (7, 5)).astype(np.float32)


def test_pooling():
    tokens = jnp.asarray(TOKENS)
    np.testing.assert_array_equal(pooled(tokens, "class"), TOKENS[0])
    np.testing.assert_allclose(pooled(tokens, "mean"), TOKENS.mean(0), rtol=1e-6)
    np.testing.assert_allclose(pooled(tokens, "gem"), (TOKENS.astype(np.float64) ** 3).mean(0) ** (1 / 3), rtol=1e-5)


@given(arrays(np.float32, (4, 3), elements=st.floats(0, 100, width=32)))
@settings(max_examples=50, deadline=None)
def test_gem_lies_between_mean_and_maximum(tokens: np.ndarray):
    mean, gem = (np.asarray(pooled(jnp.asarray(tokens), kind)) for kind in ("mean", "gem"))
    assert (gem >= mean * 0.9999 - 1e-5).all()
    assert (gem <= tokens.max(0) * 1.0001 + 1e-5).all()


def test_half_precision_is_averaged_in_single():
    many = jnp.full((4096, 2), 1.01, jnp.bfloat16)
    assert pooled(many, "mean").dtype == jnp.bfloat16
    np.testing.assert_allclose(pooled(many, "mean").astype(jnp.float32), np.float32(jnp.bfloat16(1.01)), rtol=1e-6)
