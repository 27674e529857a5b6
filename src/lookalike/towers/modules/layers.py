"""The few layers that towers are made of. No batch axis: the caller says `jax.vmap`.

Parameters are float32. A layer computes in the dtype of what it is given, norms always in float32.
"""

from collections.abc import Mapping
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lookalike.towers import NORM_PARTS, Conv, Padding, pads


class Linear(eqx.Module):
    """`x @ weight + bias` over the last axis."""

    weight: Float[Array, "*L I O"]
    bias: Float[Array, "*L O"] | None

    def __call__(self, x: Float[Array, "P I"]) -> Float[Array, "P O"]:
        """Every row of `x` by itself."""
        y = x @ self.weight.astype(x.dtype)
        return y if self.bias is None else y + self.bias.astype(x.dtype)[None]


class LayerNorm(eqx.Module):
    """Mean 0 and variance 1 over the last axis, then scale and shift (Ba et al., 2016)."""

    weight: Float[Array, "*L F"]
    bias: Float[Array, "*L F"]
    eps: float = eqx.field(static=True)

    def __call__(self, x: Float[Array, "P F"]) -> Float[Array, "P F"]:
        """Every row of `x` by itself."""
        x32 = x.astype(jnp.float32)
        centred = x32 - x32.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        return (centred * lax.rsqrt(variance + self.eps) * self.weight[None] + self.bias[None]).astype(x.dtype)


class GroupNorm(eqx.Module):
    """Mean 0 and variance 1 over the map and a group of channels, then scale and shift (Wu and He, 2018)."""

    weight: Float[Array, " C"]
    bias: Float[Array, " C"]
    groups: int = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        """The whole map at once."""
        height, width, channels = x.shape
        grouped = x.astype(jnp.float32).reshape(height * width, self.groups, channels // self.groups)
        mean = grouped.mean(axis=(0, 2))
        variance = jnp.square(grouped).mean(axis=(0, 2)) - jnp.square(mean)
        # One multiply and one add per pixel: the norm and its scale and shift in one.
        scale = self.weight * jnp.repeat(lax.rsqrt(variance + self.eps), channels // self.groups)
        shift = self.bias - jnp.repeat(mean, channels // self.groups) * scale
        return (x.astype(jnp.float32) * scale[None, None] + shift[None, None]).astype(x.dtype)


class BatchNorm(eqx.Module):
    """Batch norm with its stored statistics, which do not learn (Ioffe and Szegedy, 2015; inference form)."""

    weight: Float[Array, " C"]
    bias: Float[Array, " C"]
    mean: Float[Array, " C"]
    variance: Float[Array, " C"]
    eps: float = eqx.field(static=True)

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        """Every pixel by itself."""
        mean, variance = lax.stop_gradient((self.mean, self.variance))
        scale = self.weight * lax.rsqrt(variance + self.eps)
        y = x.astype(jnp.float32) * scale[None, None] + (self.bias - mean * scale)[None, None]
        return y.astype(x.dtype)


class Kernel(eqx.Module):
    """The weights of a convolution, [height, width, in, out]; depthwise ones are [height, width, 1, channels]."""

    weight: Float[Array, "*L h w I O"]

    def __call__(
        self, x: Float[Array, "H W C"], stride: int = 1, dilation: int = 1, padding: Padding = "symmetric"
    ) -> Float[Array, "H2 W2 O"]:
        """Convolve one map; each channel by itself if the weights are depthwise.

        Args:
            x: The map.
            stride: Step in both directions, in pixels.
            dilation: Distance between the kernel's taps, in pixels.
            padding: Zeros around the map; see `pads`.
        """
        side = self.weight.shape[0]
        around = [pads(length, side, stride, dilation, padding) for length in x.shape[:2]]
        if self.weight.shape[2] == 1 and x.shape[2] > 1:  # its weights stay float32, for they are few and matter most
            return _depthwise(jnp.pad(x, (*around, (0, 0))), self.weight[:, :, 0], stride, dilation)
        maps = lax.conv_general_dilated(
            x[None],
            self.weight.astype(x.dtype),
            (stride, stride),
            around,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return maps[0]


class ConvNorm(eqx.Module):
    """A convolution, its batch norm, and `activation` where the plan has one."""

    conv: Kernel
    norm: BatchNorm
    plan: Conv = eqx.field(static=True)
    activation: Literal["relu6", "silu"] = eqx.field(static=True)

    @classmethod
    def of(
        cls, plan: Conv, tensors: Mapping[str, Array], eps: float, activation: Literal["relu6", "silu"]
    ) -> "ConvNorm":
        """From the tensors `<name of the plan>.conv.weight` and `<name of the plan>.norm.*`."""
        weight, bias, mean, variance = (tensors[f"{plan.name}.norm.{part}"] for part in NORM_PARTS)
        kernel = Kernel(tensors[f"{plan.name}.conv.weight"])
        return cls(kernel, BatchNorm(weight, bias, mean, variance, eps), plan, activation)

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H2 W2 O"]:
        """One map."""
        x = self.norm(self.conv(x, self.plan.stride, self.plan.dilation, self.plan.padding))
        if not self.plan.active:
            return x
        return jnp.clip(x, 0, 6) if self.activation == "relu6" else jax.nn.silu(x)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: Float[Array, "H W C"], weight: Float[Array, "h w C"], stride: int, dilation: int) -> Array:
    """A depthwise convolution without padding, as a sum of shifted maps that XLA fuses into one pass.

    XLA's own grouped convolution on a CPU took 4 to 45 times as long, forward and backward, for kernels of 3 to 7
    taps. The slopes are written by hand: those that JAX derives from 49 slices took 4 to 5 times as long to run and
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


def _depthwise_forward(x: Array, weight: Array, stride: int, dilation: int) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, weight, stride, dilation), (x, weight)


def _depthwise_backward(stride: int, dilation: int, kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    """Slopes of the map and of the weights.

    The map's is a depthwise convolution again, with the kernel turned round, of the slope at its places in the map.
    A tap's is the sum over all places of slope times shifted map.
    """
    (x, weight), side = kept, kept[1].shape[0]
    height, width, channels = slope.shape
    reach, seen = (side - 1) * dilation, ((height - 1) * stride + 1, (width - 1) * stride + 1)
    around = [(reach, length - n, stride - 1) for length, n in zip(x.shape[:2], seen, strict=True)]
    spread = lax.pad(slope, jnp.zeros((), slope.dtype), (*around, (0, 0, 0)))

    def tap(place: Array, slopes: Array) -> Array:
        row, column = place // side, place % side
        shifted = lax.dynamic_slice(x, (row * dilation, column * dilation, 0), (*seen, channels))[::stride, ::stride]
        total = (shifted.astype(jnp.float32) * slope.astype(jnp.float32)).sum(axis=(0, 1))
        return slopes.at[row, column].set(total)

    slopes = lax.fori_loop(0, side * side, tap, jnp.zeros(weight.shape, jnp.float32))
    return _depthwise(spread, weight[::-1, ::-1], 1, dilation), slopes.astype(weight.dtype)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def l2_normalize(x: Float[Array, " D"]) -> Float[Array, " D"]:
    """`x` at length 1, in float32; zeros stay zeros, with a finite gradient."""
    x32 = x.astype(jnp.float32)
    return x32 * lax.rsqrt(jnp.maximum(jnp.sum(x32 * x32), 1e-24))


def gelu(x: Float[Array, "P M"], kind: Literal["gelu", "gelu_tanh", "quick_gelu"]) -> Float[Array, "P M"]:
    """The exact GELU, or the approximation by tanh (SigLIP) or by a sigmoid (OpenAI's CLIP)."""
    return x * jax.nn.sigmoid(1.702 * x) if kind == "quick_gelu" else jax.nn.gelu(x, approximate=kind == "gelu_tanh")
