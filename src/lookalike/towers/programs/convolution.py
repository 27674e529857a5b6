"""Convolutions of one map in JAX, and gradients that a CPU computes quickly; the caller says `jax.vmap`."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from lookalike.core.mesh import used
from lookalike.towers.ops import Padding, pads
from lookalike.towers.programs.products import Matmul, plain

Tap = tuple[int, int]  # row and column in a kernel


def convolution(
    x: Float[Array, "H W C"],
    weight: Array,
    stride: int = 1,
    dilation: int = 1,
    padding: Padding = "symmetric",
    matmul: Matmul = plain,
) -> Float[Array, "H2 W2 O"]:
    """A map convolved, sizes in pixels; each channel by itself if the kernel is [height, width, 1, channels].

    A kernel of 1x1 is a `matmul`: on a CPU the weights' gradient of such a convolution took several times as long.
    """
    around = tuple(pads(length, weight.shape[0], stride, dilation, padding) for length in x.shape[:2])
    if weight.shape[2] == 1 and x.shape[2] > 1:  # its weights stay float32, for they are few and matter most
        return _depthwise(jnp.pad(x, (*around, (0, 0))), used(weight)[:, :, 0], stride, dilation)
    if weight.shape[:2] == (1, 1) and around == ((0, 0), (0, 0)):
        return matmul(x[::stride, ::stride], weight[0, 0])
    weight = used(weight, x.dtype)
    layout, dilations = ("NHWC", "HWIO", "NHWC"), (dilation, dilation)
    return lax.conv_general_dilated(
        x[None], weight, (stride, stride), around, rhs_dilation=dilations, dimension_numbers=layout
    )[0]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: Float[Array, "H W C"], weight: Float[Array, "h w C"], stride: int, dilation: int) -> Array:
    """A depthwise convolution without padding, as a sum of shifted maps that XLA fuses into one pass.

    XLA's own grouped convolution on a CPU took 5 to 36 times as long for 3x3 taps, and its gradients
    longer still.
    """
    total = jnp.zeros((), jnp.float32)
    for tap, shifted in _shifted(x, weight.shape[0], stride, dilation):
        total = total + shifted.astype(jnp.float32) * weight[tap][None, None]
    return total.astype(x.dtype)


def _shifted(x: Float[Array, "H W C"], side: int, stride: int, dilation: int) -> Iterator[tuple[Tap, Array]]:
    """Each tap of a kernel and the part of the map that it multiplies, [H2 W2 C]."""
    seen = [(length - (side - 1) * dilation - 1) // stride * stride + 1 for length in x.shape[:2]]
    for row, column in product(range(side), repeat=2):
        y, x0 = row * dilation, column * dilation
        yield (row, column), x[y : y + seen[0] : stride, x0 : x0 + seen[1] : stride]


def _depthwise_backward(stride: int, dilation: int, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    """Gradients of the map and of the weights."""
    x, weight = kept
    taps = _gradient_of_taps(x, gradient, weight.shape[0], stride, dilation)
    return _gradient_of_map(gradient, weight, stride, dilation, x.shape), taps.astype(weight.dtype)


def _gradient_of_taps(
    x: Float[Array, "H W C"], gradient: Float[Array, "H2 W2 C"], side: int, stride: int, dilation: int
) -> Float32[Array, "h w C"]:
    """A tap's is the sum over all places of gradient times shifted map.

    First over short runs of a row, one reduction for all taps of a kernel's row: XLA on a CPU unrolls it, and reads
    both maps once for these taps. One sum after the other takes 2 to 5 times as long, and one reduction for all 25 or
    49 taps 4 times.
    """
    height, width, channels = gradient.shape
    run = next((length for length in (8, 7, 6, 5, 4) if width % length == 0), width)
    runs = (height, width // run, run, channels)
    products = [
        (shifted.astype(jnp.float32) * gradient.astype(jnp.float32)).reshape(runs)
        for _, shifted in _shifted(x, side, stride, dilation)
    ]
    sums = []
    for row in range(side):
        zeros = [jnp.zeros((), jnp.float32)] * side
        sums += lax.reduce(products[row * side : (row + 1) * side], zeros, _add_all, (2,))
    return jnp.stack([part.sum(axis=(0, 1)) for part in sums]).reshape(side, side, channels)


def _add_all(a: Sequence[Array], b: Sequence[Array]) -> list[Array]:
    return [x + y for x, y in zip(a, b, strict=True)]


def _gradient_of_map(
    gradient: Float[Array, "H2 W2 C"], weight: Float[Array, "h w C"], stride: int, dilation: int, shape: tuple[int, ...]
) -> Float[Array, "H W C"]:
    """A place's is the sum over the taps that multiplied it of tap times gradient there.

    Places as far apart as the stride had the same taps, so each such set is a sum of shifted gradients by itself, which
    is then spread over the map.
    """
    side, reach = weight.shape[0], -(-(weight.shape[0] - 1) * dilation // stride)
    padded = jnp.pad(gradient, ((reach, reach), (reach, reach), (0, 0))).astype(jnp.float32)
    total = jnp.zeros(shape, jnp.float32)
    for first in product(range(stride), repeat=2):
        height, width = (-(-(length - start) // stride) for length, start in zip(shape[:2], first, strict=True))
        part = jnp.zeros((height, width, shape[2]), jnp.float32)
        for tap in product(range(side), repeat=2):  # `first` was multiplied by it for the output at y, x
            behind = [start - index * dilation for start, index in zip(first, tap, strict=True)]
            if not any(distance % stride for distance in behind):
                y, x = (distance // stride + reach for distance in behind)
                part = part + padded[y : y + height, x : x + width] * weight[tap][None, None]
        ends = (
            length - start - (n - 1) * stride - 1
            for length, start, n in zip(shape, first, (height, width), strict=False)
        )
        spread = [(start, end, stride - 1) for start, end in zip(first, ends, strict=True)]
        total = total + lax.pad(part, jnp.zeros((), part.dtype), (*spread, (0, 0, 0)))
    return total.astype(gradient.dtype)


_depthwise.defvjp(lambda x, weight, *steps: (_depthwise(x, weight, *steps), (x, weight)), _depthwise_backward)
