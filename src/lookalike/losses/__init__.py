"""Margin losses, class centers, and the term that keeps the tower's geometry: pure functions of arrays.

Margin losses are softmax over cosines to class centers, with the true class held to a harder standard. The field writes
arccos(cos_BC) + margin over all B x C cosines. Only B of them change, so here the log-sum-exp runs over the plain
cosines with the one true term replaced, and the angle is never formed: cos(a + m) is cos a cos m - sin a sin m. That is
several times as fast (benchmarks/head.py).
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from lookalike.core.config import in_range

# The sine of the true angle is not taken below this in slopes: d cos(a + m) / d cos a = sin(a + m) / sin a has no
# bound at a = 0. A milliradian is less than float32 can tell of a cosine near 1 (an ulp there is 0.35 of it).
_LEAST_SINE = 1e-3
_SAFE_EXPONENT = 80.0  # exp(-80) is a normal float32; below exp(-87) it is not
_LEAST_SQUARE = 1e-12  # squared lengths are not taken below this: the zero vector has a unit form (itself) and a slope
_OPPOSED = 1e-6  # sums of unit vectors below this length a vector are rounding, and tell no direction
_SPREAD = 0.3  # how far further centers of a class start from its mean: the length of the noise beside a unit vector
_FAR = -1e9  # a logit that takes no part in a softmax


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
        """The cosine that the true class is given: cos(a + margin) for the angle a of `cos_B`.

        Beyond a = pi - margin, where cos(a + margin) would rise again, cos a - margin sin(margin) keeps it falling
        (as the authors' code does; it steps down by cos(margin) + margin sin(margin) - 1 there).
        """
        return _add_angle(cos_B, self.margin)


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
        """The cosine that the true class is given: `cos_B` - margin."""
        return jnp.clip(cos_B, -1.0, 1.0) - self.margin


Margin = ArcFace | CosFace


def margin_loss(margin: Margin, cos_BC: Float[Array, "B C"], label_B: Int32[Array, "B"]) -> Float32[Array, "B"]:
    """Cross-entropy of each row's true class, its cosine made harder by `margin`; >= 0 up to rounding.

    Values and slopes are finite for every cosine in [-1, 1], and what rounding makes of it.
    """
    cos_BC = cos_BC.astype(jnp.float32)
    true_BC = jnp.arange(cos_BC.shape[1], dtype=jnp.int32)[None, :] == label_B[:, None]
    true_B = jnp.take_along_axis(cos_BC, label_B[:, None], axis=1)[:, 0]
    hard_B = margin.margin_cosine(true_B)
    logit_BC = margin.scale * jnp.where(true_BC, hard_B[:, None], cos_BC)
    # No cosine exceeds 1, so `scale` can stand for the row's maximum, which saves a pass over B x C, as long as the
    # least term, that of the opposite direction, does not vanish beside it.
    with jax.ensure_compile_time_eval():
        lowest = float(margin.margin_cosine(jnp.float32(-1.0)))
    if margin.scale * (1.0 - lowest) <= _SAFE_EXPONENT:
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


def l2_normalize(x: Float[Array, "*shape D"]) -> Float[Array, "*shape D"]:
    """`x` divided by its length along the last axis; finite in value and slope at zero."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, _LEAST_SQUARE))


def class_cosines(embedding_BD: Float32[Array, "B D"], weight_CKD: Float32[Array, "C K D"]) -> Float32[Array, "B C"]:
    """Cosine of each embedding (unit length) to the nearest of the K centers of every class (Deng et al., 2020).

    The lengths of the centers carry no meaning: they are divided out.
    """
    classes, count, dimension = weight_CKD.shape
    cos_BX = embedding_BD @ l2_normalize(weight_CKD).reshape(classes * count, dimension).T
    return cos_BX if count == 1 else cos_BX.reshape(-1, classes, count).max(axis=2)


def centers_at_means(
    embedding: Float32[np.ndarray, "N D"], label: Int32[np.ndarray, "N"], count: int, seed: int
) -> Float32[Array, "C K D"]:
    """K = `count` centers a class, which start around its mean embedding, the first of them at it; around a random
    direction where its images take each other away. Embeddings have unit length, and every class has an image.
    """
    classes, dimension = int(label.max()) + 1, embedding.shape[1]
    total = np.zeros((classes, dimension), np.float64)
    np.add.at(total, label, embedding)
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    opposed = lengths < _OPPOSED * np.bincount(label, minlength=classes)[:, None]
    drawn = np.random.default_rng((seed, classes)).standard_normal((classes, dimension)) / dimension**0.5
    mean = np.where(opposed, drawn, total / np.where(opposed, 1.0, lengths))
    noise = np.random.default_rng(seed).standard_normal((classes, count, dimension)) * (_SPREAD / dimension**0.5)
    noise[:, 0] = 0.0
    return jnp.asarray(mean[:, None, :] + noise, jnp.float32)


@dataclass(frozen=True)
class SimilarityDistillation:
    """Each image's neighbours within the batch, weighed as the tower weighs them (Passalis and Tefas, 2018,
    arXiv:1803.10837): the tower's similarities to the other images, and the embedding's, become two distributions; the
    term is the divergence of the second from the first (Kullback-Leibler, in nats).
    """

    WAS: ClassVar[str] = "Neighbours"

    weight: float = 0.0
    """How much the term counts beside the margin loss; 0 leaves it out."""
    temperature: float = 0.1
    """Divides both kinds of cosines before their softmax: smaller looks at nearer neighbours only."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, math.inf, "weight")
        in_range(self, 1e-3, math.inf, "temperature")

    def __call__(self, features: Float32[Array, "B F"], embedding: Float32[Array, "B D"]) -> Float32[Array, ""]:
        """The divergence of embeddings of unit length from the tower's features, mean over the batch."""
        centred = l2_normalize(features - features.mean(axis=0, keepdims=True))  # a tower's features all point one way
        tower, ours = self._log_shares(jax.lax.stop_gradient(centred)), self._log_shares(embedding)
        return jnp.sum(jnp.exp(tower) * (tower - ours), axis=1).mean()

    def _log_shares(self, rows: Float32[Array, "B X"]) -> Float32[Array, "B B"]:
        """Log of the share that each other row has in a row's neighbourhood; no row is its own neighbour."""
        self_BB = jnp.eye(rows.shape[0], dtype=bool)
        return jax.nn.log_softmax(jnp.where(self_BB, _FAR, rows @ rows.T / self.temperature), axis=1)
