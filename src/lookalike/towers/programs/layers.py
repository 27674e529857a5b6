"""Arithmetic in JAX that is more than a line: one image, without a batch axis."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from lookalike.towers.ops import Padding, pads


def group_norm(
    x: Float[Array, "P C"], weight: Float[Array, " C"], bias: Float[Array, " C"], groups: int, eps: float
) -> Float[Array, "P C"]:
    """Mean 0 and variance 1 over all places and a group of channels, then scale and shift (Wu and He, 2018).

    The sums are of distances from the mean of a few numbers of each group: of flat maps the difference of two mean
    squares is all rounding. A gradient keeps `x` alone, and computes the rest again.
    """

    def norm(x: Array, weight: Array, bias: Array) -> Array:
        x32, size = x.astype(jnp.float32), x.shape[1] // groups
        near = lax.stop_gradient(jnp.repeat(x32[:: max(len(x) // 16, 1), ::size].mean(axis=0), size))
        far = x32 - near[None]
        means = (part.mean(axis=0).reshape(groups, size).mean(axis=1) for part in (far, far * far))
        level, square = (jnp.repeat(mean, size) for mean in means)
        mean, inverse = near + level, lax.rsqrt(jnp.maximum(square - level * level, 0) + eps)
        return ((x32 - mean[None]) * (weight * inverse)[None] + bias[None]).astype(x.dtype)

    return jax.checkpoint(norm, prevent_cse=False)(x, weight, bias)


def weighted(scores: Float32[Array, "*h Q K"], v: Float[Array, "*h K d"]) -> Float[Array, "*h Q d"]:
    """The mean of the values, weighted by the softmax of the scores.

    Divided by the sum of the weights only behind their product with the values, which is smaller than they are: on a
    CPU memory takes the time, and a batch of ViT-B/16 passes in three quarters of it.
    """
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    mean = (weights.astype(v.dtype) @ v).astype(jnp.float32) / weights.sum(axis=-1, keepdims=True)
    return mean.astype(v.dtype)


def rotated(x: Float[Array, "P h D"], cosine: Any, sine: Any) -> Float[Array, "P h D"]:
    """Queries or keys of all heads, turned by what `Attention.rotations` has; in float32."""
    cosine, sine = (jnp.asarray(part)[:, None] for part in (cosine, sine))
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1).astype(x.dtype)


def l2_normalize(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """`x` at length 1 along the last axis, in float32; zeros stay zeros, with a finite gradient."""
    x32 = x.astype(jnp.float32)
    return x32 * lax.rsqrt(jnp.maximum(jnp.sum(x32 * x32, axis=-1, keepdims=True), 1e-24))


def convolution(
    x: Float[Array, "H W C"], weight: Array, stride: int = 1, dilation: int = 1, padding: Padding = "symmetric"
) -> Float[Array, "H2 W2 O"]:
    """A map convolved, sizes in pixels; each channel by itself if the kernel is [height, width, 1, channels]."""
    around = [pads(length, weight.shape[0], stride, dilation, padding) for length in x.shape[:2]]
    if weight.shape[2] == 1 and x.shape[2] > 1:  # its weights stay float32, for they are few and matter most
        return _depthwise(jnp.pad(x, (*around, (0, 0))), weight[:, :, 0], stride, dilation)
    maps = lax.conv_general_dilated(
        x[None],
        weight.astype(x.dtype),
        (stride, stride),
        around,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return maps[0]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: Float[Array, "H W C"], weight: Float[Array, "h w C"], stride: int, dilation: int) -> Array:
    """A depthwise convolution without padding, as a sum of shifted maps that XLA fuses into one pass.

    XLA's own grouped convolution on a CPU took 4 to 45 times as long, forward and backward, for kernels of 3 to 7
    taps. The gradients are written by hand: those that JAX derives from 49 slices took 4 to 5 times as long to run and
    2 to 3 times as long to compile.
    """
    side, channels = weight.shape[0], x.shape[2]
    height, width = ((length - (side - 1) * dilation - 1) // stride + 1 for length in x.shape[:2])
    total = jnp.zeros((height, width, channels), jnp.float32)
    for row in range(side):
        for column in range(side):
            y0, x0 = row * dilation, column * dilation
            end = (y0 + (height - 1) * stride + 1, x0 + (width - 1) * stride + 1, channels)
            shifted = lax.slice(x, (y0, x0, 0), end, (stride, stride, 1))
            total = total + shifted.astype(jnp.float32) * weight[row, column][None, None]
    return total.astype(x.dtype)


def _depthwise_backward(stride: int, dilation: int, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    """Gradients of the map and of the weights.

    The map's is a depthwise convolution again, with the kernel turned round, of the gradient at its places in the map.
    A tap's is the sum over all places of gradient times shifted map.
    """
    (x, weight), side = kept, kept[1].shape[0]
    height, width, channels = gradient.shape
    reach, seen = (side - 1) * dilation, ((height - 1) * stride + 1, (width - 1) * stride + 1)
    around = [(reach, length - n, stride - 1) for length, n in zip(x.shape[:2], seen, strict=True)]
    spread = lax.pad(gradient, jnp.zeros((), gradient.dtype), (*around, (0, 0, 0)))

    def tap(place: Array, taps: Array) -> Array:
        row, column = place // side, place % side
        shifted = lax.dynamic_slice(x, (row * dilation, column * dilation, 0), (*seen, channels))[::stride, ::stride]
        total = (shifted.astype(jnp.float32) * gradient.astype(jnp.float32)).sum(axis=(0, 1))
        return taps.at[row, column].set(total)

    taps = lax.fori_loop(0, side * side, tap, jnp.zeros(weight.shape, jnp.float32))
    return _depthwise(spread, weight[::-1, ::-1], 1, dilation), taps.astype(weight.dtype)


_depthwise.defvjp(lambda x, weight, *steps: (_depthwise(x, weight, *steps), (x, weight)), _depthwise_backward)
