"""Margins: what a softmax over cosines gives the true class in place of its cosine, so that it has to be nearer.

Each is a frozen value that is its own configuration. `margin_cosine` is elementwise; `class_loss` (softmax.py) holds
what all share. AdaCos, AdaFace and CurricularFace follow running values, which travel beside them as a `Memory`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float32

from lookalike.core.config import in_range
from lookalike.core.later import Array, jax, jnp, made_at_first_call

# The sine of the true angle is not taken below this in gradients: d cos(a + m) / d cos a = sin(a + m) / sin a has no
# bound at a = 0. A milliradian is less than float32 can tell of a cosine near 1 (an ulp there is 0.35 of it).
_LEAST_SINE = 1e-3
_LEAST_DEVIATION = 1e-3  # added to the deviation of lengths, as the authors of AdaFace do
_SCALES = 1e-3, 1e4

Memory = dict[str, Float32[Array, ""]]
"""Running values of a margin, by name; empty for those that have none."""
Cosines = Float32[Array, "*B"]


@dataclass(frozen=True)
class ArcFace:
    """Additive angular margin (Deng et al., 2019, arXiv:1801.07698); with margin 0 it is NormFace."""

    margin: float = 0.3
    """Radians added to the angle between an image and the center of its class; 0 to pi / 2."""
    scale: float = 30.0
    """Multiplies the cosines before the softmax; no unit."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, math.pi / 2, "margin")
        in_range(self, *_SCALES, "scale")

    def margin_cosine(self, cos_B: Cosines, margin_B: Cosines | None = None) -> Cosines:
        """The cosine that the true class is given: cos(a + margin) for the angle a of `cos_B`.

        Beyond a = pi - margin, where cos(a + margin) would rise again, cos a - margin sin(margin) keeps it falling
        (as the authors' code does; it steps down by cos(margin) + margin sin(margin) - 1 there).
        """
        return _add_angle(cos_B, _each(self.margin, margin_B, cos_B))


@dataclass(frozen=True)
class CosFace:
    """Additive cosine margin (Wang et al., 2018, arXiv:1801.09414)."""

    margin: float = 0.2
    """Taken from the cosine between an image and the center of its class; 0 to 1."""
    scale: float = 30.0
    """Multiplies the cosines before the softmax; no unit."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, 1.0, "margin")
        in_range(self, *_SCALES, "scale")

    def margin_cosine(self, cos_B: Cosines, margin_B: Cosines | None = None) -> Cosines:
        """The cosine that the true class is given: `cos_B` - margin."""
        return jnp.clip(cos_B, -1.0, 1.0) - _each(self.margin, margin_B, cos_B)


@dataclass(frozen=True)
class NormFace:
    """Softmax of cosines without a margin (Wang et al., 2017, arXiv:1704.06369)."""

    scale: float = 16.0
    """Multiplies the cosines before the softmax; no unit."""

    def __post_init__(self) -> None:
        in_range(self, *_SCALES, "scale")

    def margin_cosine(self, cos_B: Cosines) -> Cosines:
        """The cosine itself."""
        return jnp.clip(cos_B, -1.0, 1.0)


@dataclass(frozen=True)
class AdaCos:
    """No margin, and a scale that follows the batch (Zhang et al., 2019, arXiv:1905.00292).

    Memory: `scale`, that of the last step; 0 before the first.
    """

    fixed: bool = False
    """Keep the first scale, sqrt(2) log(C - 1) for C classes."""

    def margin_cosine(self, cos_B: Cosines) -> Cosines:
        """The cosine itself."""
        return jnp.clip(cos_B, -1.0, 1.0)

    def first_scale(self, classes: int) -> float:
        """The fixed scale of so many classes, at least 1: three classes or fewer would have next to none."""
        return max(1.0, math.sqrt(2.0) * math.log(max(classes - 1, 1)))

    def next_scale(self, others_B: Float32[Array, "B"], own_B: Float32[Array, "B"]) -> Float32[Array, ""]:
        """Scale of this batch, 1 to 1e4: log of the mean of `others_B`, over the cosine of the median angle (at most
        pi / 4). `others_B` are log-sum-exps over the other classes at the scale before, `own_B` the true cosines.
        """
        batch = jax.nn.logsumexp(others_B) - math.log(len(others_B))
        median = jnp.median(jnp.arccos(jnp.clip(own_B, -1.0, 1.0)))
        return jnp.clip(batch / jnp.cos(jnp.minimum(median, math.pi / 4)), 1.0, _SCALES[1])


@dataclass(frozen=True)
class AdaFace:
    """A margin by image quality, told from the length of its embedding (Kim et al., 2022, arXiv:2204.00964).

    Memory: `mean` and `deviation` of lengths, running sums of `weight` (which goes from 0 to 1).
    """

    margin: float = 0.4
    """At average quality taken from the cosine; at low quality added to it as an angle; 0 to 1."""
    scale: float = 64.0
    """Multiplies the cosines before the softmax; no unit."""
    concentration: float = 0.333
    """Quality of a length one deviation above the mean; qualities are clipped to -1 and 1."""
    momentum: float = 0.99
    """Share of the running mean and deviation that a batch leaves as it is."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, 1.0, "margin", "concentration", "momentum")
        in_range(self, *_SCALES, "scale")

    def margin_cosine(
        self, cos_B: Cosines, margin_B: Cosines | None = None, quality_B: Cosines | None = None
    ) -> Cosines:
        """The cosine that the true class is given: cos(a - m q) - m (1 + q) for quality q in [-1, 1]; 0 if not given.

        The angle is not turned below 0 (as in the authors' code), nor does its cosine rise beyond pi (as in ArcFace).
        """
        margin_B = _each(self.margin, margin_B, cos_B)
        quality_B = jnp.zeros_like(cos_B) if quality_B is None else quality_B
        return _add_angle(cos_B, -margin_B * quality_B) - margin_B * (1.0 + quality_B)

    def qualities(self, length_B: Float32[Array, "B"], memory: Memory) -> tuple[Float32[Array, "B"], Memory]:
        """Quality of each length, and the memory that has seen them.

        The first batch's statistics count wholly, not against a guess: sums are divided by their weight.
        """
        length_B = jax.lax.stop_gradient(length_B)
        batch = {"mean": length_B.mean(), "deviation": length_B.std(), "weight": jnp.float32(1.0)}
        memory = {name: _running(self.momentum, memory[name], batch[name]) for name in batch}
        weight = jnp.maximum(memory["weight"], 1e-9)
        mean, deviation = memory["mean"] / weight, memory["deviation"] / weight
        quality_B = self.concentration * (length_B - mean) / (deviation + _LEAST_DEVIATION)
        return jnp.clip(quality_B, -1.0, 1.0), memory


@dataclass(frozen=True)
class CurricularFace:
    """ArcFace in which classes nearer than the true one after its margin count more as training goes on
    (Huang et al., 2020, arXiv:2004.00288).

    Memory: `t`, the running mean of true cosines.
    """

    margin: float = 0.5
    """Radians added to the angle between an image and the center of its class; 0 to pi / 2."""
    scale: float = 64.0
    """Multiplies the cosines before the softmax; no unit."""
    momentum: float = 0.99
    """Share of `t` that a batch leaves as it is."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, math.pi / 2, "margin")
        in_range(self, *_SCALES, "scale")
        in_range(self, 0.0, 1.0, "momentum")

    def margin_cosine(self, cos_B: Cosines, margin_B: Cosines | None = None) -> Cosines:
        """The cosine that the true class is given, as in ArcFace."""
        return _add_angle(cos_B, _each(self.margin, margin_B, cos_B))

    def next_memory(self, own_B: Float32[Array, "B"], memory: Memory) -> Memory:
        """The memory that has seen a batch's true cosines."""
        return {"t": _running(self.momentum, memory["t"], jnp.clip(own_B, -1.0, 1.0).mean())}


Margin = ArcFace | CosFace | NormFace | AdaCos | AdaFace | CurricularFace


def memory_of(margin: Margin) -> Memory:
    """The running values of `margin` before the first step."""
    match margin:
        case AdaCos(fixed=False):
            names = ["scale"]
        case AdaFace():
            names = ["mean", "deviation", "weight"]
        case CurricularFace():
            names = ["t"]
        case _:
            names = []
    return {name: jnp.zeros((), jnp.float32) for name in names}


def _running(momentum: float, before: Float32[Array, ""], now: Float32[Array, ""]) -> Float32[Array, ""]:
    return momentum * before + (1.0 - momentum) * now


def _each(margin: float, margin_B: Cosines | None, cos_B: Cosines) -> Cosines:
    return jnp.full_like(cos_B, margin) if margin_B is None else margin_B


@made_at_first_call
def _add_angle() -> Callable[[Cosines, Cosines], Cosines]:
    """`_turned`, with a gradient of its own."""
    add_angle = jax.custom_jvp(_turned)
    add_angle.defjvp(_turned_jvp)
    return add_angle


def _turned(cos: Cosines, angle: Cosines) -> Cosines:
    """cos(a + angle) for the angle a of `cos`; 1 where a + angle < 0, falling on where it is beyond pi."""
    cos = jnp.clip(cos, -1.0, 1.0)
    sine = jnp.sqrt((1.0 - cos) * (1.0 + cos))
    turned = cos * jnp.cos(angle) - sine * jnp.sin(angle)
    low, high = _outside(cos, angle)
    return jnp.where(low, 1.0, jnp.where(high, cos - angle * jnp.sin(angle), turned))


def _turned_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    """The gradient by the cosine, with the sine kept from zero: the true one is infinite at cos = 1."""
    (cos, angle), (tangent, _) = primals, tangents
    held = jnp.clip(cos, -1.0, 1.0)
    sine = jnp.maximum(jnp.sqrt((1.0 - held) * (1.0 + held)), _LEAST_SINE)
    turned = jnp.cos(angle) + jnp.sin(angle) * held / sine
    low, high = _outside(held, angle)
    return _add_angle(cos, angle), jnp.where(low, 0.0, jnp.where(high, 1.0, turned)) * tangent


def _outside(cos, angle):  # type: ignore[no-untyped-def]
    """Where the angle of `cos`, plus `angle`, is below 0; and where it is beyond pi."""
    return (angle < 0.0) & (cos > jnp.cos(angle)), (angle > 0.0) & (cos < -jnp.cos(angle))
