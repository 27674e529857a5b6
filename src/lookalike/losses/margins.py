"""Margin losses: softmax over cosines to class centers, with the true class held to a harder standard.

A margin is a frozen value: it is its own config, and a pure function of arrays.

The fields write arccos(cos_BC) + margin over all B x C cosines. Only B of them change, so here the log-sum-exp
runs over the plain cosines with the one true term replaced, and the angle is never formed: cos(a + m) is
cos a cos m - sin a sin m. That is several times as fast (benchmarks/head.py).
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32

from lookalike.core.config import in_range

# The sine of the true angle is not taken below this in slopes: d cos(a + m) / d cos a = sin(a + m) / sin a has no
# bound at a = 0. A milliradian is less than float32 can tell of a cosine near 1 (an ulp there is 0.35 of it).
_LEAST_SINE = 1e-3

# exp(-80) is a normal float32; below exp(-87) it is not.
_SAFE_EXPONENT = 80.0


@dataclass(frozen=True)
class ArcFace:
    """Additive angular margin (Deng et al., 2019, arXiv:1801.07698); with margin 0 it is NormFace."""

    margin: float = 0.3
    """Radians added to the angle between an image and the center of its class; 0 to pi / 2."""
    scale: float = 30.0
    """Multiplies the cosines before the softmax; no unit."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, math.pi / 2, "margin")
        in_range(self, 1e-3, 1e4, "scale")

    def margin_cosine(self, cos_B: Float32[Array, "*B"]) -> Float32[Array, "*B"]:
        """The cosine that the true class is given: cos(a + margin) for the angle a of `cos_B`, elementwise.

        Beyond a = pi - margin, where cos(a + margin) would rise again, cos a - margin sin(margin) keeps it falling
        (as the authors' code does; it steps down by cos(margin) + margin sin(margin) - 1 there).
        """
        return _add_angle(cos_B, self.margin)

    @property
    def lowest(self) -> float:
        """The least value of `margin_cosine`."""
        return -1.0 - self.margin * math.sin(self.margin)


@dataclass(frozen=True)
class CosFace:
    """Additive cosine margin (Wang et al., 2018, arXiv:1801.09414)."""

    margin: float = 0.2
    """Taken from the cosine between an image and the center of its class; 0 to 1."""
    scale: float = 30.0
    """Multiplies the cosines before the softmax; no unit."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, 1.0, "margin")
        in_range(self, 1e-3, 1e4, "scale")

    def margin_cosine(self, cos_B: Float32[Array, "*B"]) -> Float32[Array, "*B"]:
        """The cosine that the true class is given: `cos_B` - margin, elementwise."""
        return jnp.clip(cos_B, -1.0, 1.0) - self.margin

    @property
    def lowest(self) -> float:
        """The least value of `margin_cosine`."""
        return -1.0 - self.margin


Margin = ArcFace | CosFace


def margin_loss(margin: Margin, cos_BC: Float[Array, "B C"], label_B: Int32[Array, "B"]) -> Float32[Array, "B"]:
    """Cross-entropy of each row's true class, its cosine made harder by `margin`.

    Args:
        margin: Which margin, how wide, and the scale.
        cos_BC: Cosines to the C class centers, of any float type; rounding may carry them past 1.
        label_B: The true classes, 0 <= label < C.

    Returns:
        The losses, each >= 0 up to rounding. Values and slopes are finite for every cosine in [-1, 1] and its rounding.
    """
    cos_BC = cos_BC.astype(jnp.float32)
    true_BC = jnp.arange(cos_BC.shape[1], dtype=jnp.int32)[None, :] == label_B[:, None]
    true_B = jnp.take_along_axis(cos_BC, label_B[:, None], axis=1)[:, 0]
    hard_B = margin.margin_cosine(true_B)
    logit_BC = margin.scale * jnp.where(true_BC, hard_B[:, None], cos_BC)
    # No cosine exceeds 1, so `scale` can stand for the row's maximum, which saves a pass over B x C, as long as the
    # least term does not vanish beside it.
    if margin.scale * (1.0 - margin.lowest) <= _SAFE_EXPONENT:
        top_B = jnp.full_like(hard_B, margin.scale)
    else:
        top_B = jax.lax.stop_gradient(logit_BC.max(axis=1))
    return top_B + jnp.log(jnp.exp(logit_BC - top_B[:, None]).sum(axis=1)) - margin.scale * hard_B


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _add_angle(cos: Float32[Array, "*B"], margin: float) -> Float32[Array, "*B"]:
    cos = jnp.clip(cos, -1.0, 1.0)
    sine = jnp.sqrt((1.0 - cos) * (1.0 + cos))
    turned = cos * math.cos(margin) - sine * math.sin(margin)
    return jnp.where(cos >= -math.cos(margin), turned, cos - margin * math.sin(margin))


@_add_angle.defjvp
def _add_angle_jvp(margin, primals, tangents):  # type: ignore[no-untyped-def]
    """The slope, with the sine kept from zero: the true one is infinite at cos = 1."""
    (cos,), (tangent,) = primals, tangents
    held = jnp.clip(cos, -1.0, 1.0)
    sine = jnp.maximum(jnp.sqrt((1.0 - held) * (1.0 + held)), _LEAST_SINE)
    turned = math.cos(margin) + math.sin(margin) * held / sine
    slope = jnp.where(held >= -math.cos(margin), turned, 1.0)
    return _add_angle(cos, margin), slope * tangent
