"""Terms beside the class loss that hold an embedding, features or weights to what they were, or to a larger encoder.

Each is a frozen value with a `weight` (0 leaves it out) that is called with its inputs; `Geometry` has one of each.
What is held to is never moved: no gradient flows into it. A tower's features all point one way, so rows are compared
by their directions from the batch's mean.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from jaxtyping import Float, Float32

from lookalike.core.config import in_range
from lookalike.core.errors import UsageError
from lookalike.core.later import Array, jax, jnp
from lookalike.losses.centers import l2_normalize

_FAR = -1e9  # a logit that takes no part in a softmax
_OF_FEATURES = "similarity", "gram", "distance", "angle"
_LEAST_SQUARE = 1e-6  # squared distances between rows are not taken below this: a root has no gradient at 0

Features = Float[Array, "B F"]
Embedding = Float[Array, "B D"]
Tensors = Mapping[str, Float[Array, "..."]]
Term = Float32[Array, ""]


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

    def __call__(self, features: Features, embedding: Embedding) -> Term:
        """The divergence of embeddings of unit length from the tower's features, mean over the batch."""
        return _divergence(features, embedding, self.temperature)


@dataclass(frozen=True)
class GramDistillation:
    """Cosines within the batch as the tower has them: mean square of their differences over all pairs
    (similarity-preserving distillation, Tung and Mori, 2019, arXiv:1907.09682, on directions).
    """

    weight: float = 0.0
    """How much the term counts beside the class loss; 0 leaves it out."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, math.inf, "weight")

    def __call__(self, features: Features, embedding: Embedding) -> Term:
        """The term, of embeddings of unit length."""
        held, moved = _directions(features), _float32(embedding)
        return jnp.square(moved @ moved.T - held @ held.T).mean()


@dataclass(frozen=True)
class RkdDistance:
    """Distances between images of the batch, each in units of their mean, as the tower has them: Huber loss, mean over
    pairs (Park et al., 2019, arXiv:1904.05068, RKD-D).
    """

    weight: float = 0.0
    """How much the term counts beside the class loss; 0 leaves it out."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, math.inf, "weight")

    def __call__(self, features: Features, embedding: Embedding) -> Term:
        """The term, of embeddings of unit length."""
        pairs = ~jnp.eye(len(features), dtype=bool)
        errors = _distances(_float32(embedding), pairs) - _distances(_directions(features), pairs)
        return _huber(errors, pairs)


@dataclass(frozen=True)
class RkdAngle:
    """Angles between images of the batch as the tower has them: Huber loss of cosines at the middle of three different
    images, mean over all threes (Park et al., 2019, arXiv:1904.05068, RKD-A). Time grows with B^3.
    """

    weight: float = 0.0
    """How much the term counts beside the class loss; 0 leaves it out."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, math.inf, "weight")

    def __call__(self, features: Features, embedding: Embedding) -> Term:
        """The term, of embeddings of unit length."""
        held, moved = _directions(features), _float32(embedding)
        held, moved = held @ held.T, moved @ moved.T
        count = len(features)
        others = ~jnp.eye(count, dtype=bool)

        @jax.checkpoint  # so that memory grows with B^2
        def at(middle: Array) -> Term:
            ends = others[middle][:, None] & others[middle][None, :] & others
            return _huber(_angles(moved, middle) - _angles(held, middle), ends)

        return jax.lax.map(at, jnp.arange(count)).mean()


@dataclass(frozen=True)
class FeatureAnchor:
    """Features as they were before training: mean square of the differences, over batch and width (arXiv:2508.12137,
    which takes it with weight 1000 on images of any kind).
    """

    weight: float = 0.0
    """How much the term counts beside the class loss; 0 leaves it out."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, math.inf, "weight")

    def __call__(self, features: Features, untouched: Features) -> Term:
        """The term."""
        return jnp.square(_float32(features) - jax.lax.stop_gradient(_float32(untouched))).mean()


@dataclass(frozen=True)
class L2Sp:
    """Weights as they were before training (Li et al., 2018, arXiv:1802.01483): sum over tensors of the mean square of
    their differences, as in the code of arXiv:2508.12137, which takes it with weight 1e5.
    """

    weight: float = 0.0
    """How much the term counts beside the class loss; 0 leaves it out."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, math.inf, "weight")

    def __call__(self, weights: Tensors, untouched_weights: Tensors) -> Term:
        """The term, over the tensors of `weights`; each has its namesake in `untouched_weights`."""
        total = jnp.zeros((), jnp.float32)
        for name, weight in weights.items():
            held = jax.lax.stop_gradient(_float32(untouched_weights[name]))
            total = total + jnp.square(_float32(weight) - held).mean()
        return total


@dataclass(frozen=True)
class VectorDistillation:
    """Each image's neighbours within the batch, weighed as a larger encoder's stored vectors weigh them: the term of
    `SimilarityDistillation`, so that widths may differ.
    """

    weight: float = 0.0
    """How much the term counts beside the class loss; 0 leaves it out."""
    temperature: float = 0.1
    """Divides both kinds of cosines before their softmax."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, math.inf, "weight")
        in_range(self, 1e-3, math.inf, "temperature")

    def __call__(self, teacher: Float[Array, "B V"], embedding: Embedding) -> Term:
        """The divergence of embeddings of unit length from the teacher's vectors, mean over the batch."""
        return _divergence(teacher, embedding, self.temperature)


@dataclass(frozen=True)
class TwoViews:
    """Two views of an image find each other among all views of the batch: NT-Xent, which needs no labels (Chen et al.,
    2020, arXiv:2002.05709, equation 1).
    """

    weight: float = 0.0
    """How much the term counts beside the class loss; 0 leaves it out."""
    temperature: float = 0.1
    """Divides the cosines."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, math.inf, "weight")
        in_range(self, 1e-3, math.inf, "temperature")

    def __call__(self, embedding: Embedding, second_view: Embedding) -> Term:
        """The mean over all 2 B views, of unit length; the gradient flows into both."""
        views, count = jnp.concatenate([_float32(embedding), _float32(second_view)]), len(embedding)
        other = (jnp.arange(2 * count) + count) % (2 * count)
        return -jnp.take_along_axis(_log_shares(views, self.temperature), other[:, None], axis=1).mean()


@dataclass(frozen=True)
class Geometry:
    """All terms of a stage beside the class loss; by default none counts."""

    similarity: SimilarityDistillation = field(default_factory=SimilarityDistillation)
    """Neighbours as the tower's features have them."""
    gram: GramDistillation = field(default_factory=GramDistillation)
    """Cosines as the tower's features have them."""
    distance: RkdDistance = field(default_factory=RkdDistance)
    """Distances as the tower's features have them."""
    angle: RkdAngle = field(default_factory=RkdAngle)
    """Angles as the tower's features have them."""
    anchor: FeatureAnchor = field(default_factory=FeatureAnchor)
    """Features as they were before training."""
    weights: L2Sp = field(default_factory=L2Sp)
    """Weights as they were before training."""
    vectors: VectorDistillation = field(default_factory=VectorDistillation)
    """Neighbours as a larger encoder has them."""
    views: TwoViews = field(default_factory=TwoViews)
    """Two views of each image find each other."""

    def __call__(
        self,
        features: Features,
        embedding: Embedding,
        *,
        untouched: Features | None = None,
        teacher: Float[Array, "B V"] | None = None,
        second_view: Embedding | None = None,
        weights: Tensors | None = None,
        untouched_weights: Tensors | None = None,
    ) -> tuple[Term, dict[str, Term]]:
        """The sum of the terms that count, each times its weight; and each of them, unweighed, by its name.

        Embeddings are held to the untouched features where these are given, else to the features as they are.

        UsageError if one counts and what it looks at is not given.
        """
        held = features if untouched is None else untouched
        inputs: dict[str, dict[str, Any]] = {
            **{name: {"features": held, "embedding": embedding} for name in _OF_FEATURES},
            "anchor": {"features": features, "untouched": untouched},
            "weights": {"weights": weights, "untouched_weights": untouched_weights},
            "vectors": {"teacher": teacher, "embedding": embedding},
            "views": {"embedding": embedding, "second_view": second_view},
        }
        total, terms = jnp.zeros((), jnp.float32), {}
        for name in (each.name for each in fields(self)):
            term = getattr(self, name)
            if term.weight:
                if missing := [given for given, value in inputs[name].items() if value is None]:
                    raise UsageError(
                        f"The term `{name}` has weight {term.weight:g}, but there is no `{missing[0]}` for it.",
                        hint=f"leave `{name}.weight` at 0 here",
                    )
                terms[name] = term(**inputs[name])
                total = total + term.weight * terms[name]
        return total, terms


def _float32(rows: Float[Array, "*shape"]) -> Float32[Array, "*shape"]:
    return rows.astype(jnp.float32)


def _directions(held: Float[Array, "B X"]) -> Float32[Array, "B X"]:
    """Directions of rows from their mean; no gradient flows into them."""
    held = jax.lax.stop_gradient(_float32(held))
    return l2_normalize(held - held.mean(axis=0, keepdims=True))


def _divergence(held: Float[Array, "B X"], embedding: Embedding, temperature: float) -> Term:
    theirs, ours = _log_shares(_directions(held), temperature), _log_shares(_float32(embedding), temperature)
    return jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=1).mean()


def _log_shares(rows: Float32[Array, "B X"], temperature: float) -> Float32[Array, "B B"]:
    """Log of the share that each other row has in a row's neighbourhood; no row is its own neighbour."""
    self_BB = jnp.eye(rows.shape[0], dtype=bool)
    return jax.nn.log_softmax(jnp.where(self_BB, _FAR, rows @ rows.T / temperature), axis=1)


def _distances(rows: Float32[Array, "B X"], pairs: Array) -> Float32[Array, "B B"]:
    """Distances between rows, in units of their mean over `pairs`; all 1 where no two rows differ."""
    product = rows @ rows.T
    square = jnp.diag(product)
    far = jnp.sqrt(jnp.maximum(square[:, None] + square[None, :] - 2.0 * product, _LEAST_SQUARE))
    return far / jnp.maximum(_mean(far, pairs), _LEAST_SQUARE)  # a row alone has no pairs


def _angles(product: Float32[Array, "B B"], middle: Array) -> Float32[Array, "B B"]:
    """Cosines of the angles at row `middle` between all pairs of rows, from all rows' products."""
    own = product[middle]
    differences = product - own[:, None] - own[None, :] + own[middle]
    inverse = jax.lax.rsqrt(jnp.maximum(jnp.diag(differences), _LEAST_SQUARE))
    return differences * inverse[:, None] * inverse[None, :]


def _huber(errors: Float32[Array, "B B"], counted: Array) -> Term:
    """Mean over what is counted: half the square up to 1, the size less a half beyond; 0 if nothing is."""
    size = jnp.abs(errors)
    loss = jnp.where(size <= 1.0, 0.5 * jnp.square(errors), size - 0.5)
    return _mean(loss, counted)


def _mean(x: Float32[Array, "B B"], counted: Array) -> Term:
    return jnp.sum(x, where=counted) / jnp.maximum(counted.sum(dtype=jnp.float32), 1.0)
