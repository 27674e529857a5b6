"""A term that keeps the tower's geometry: what was near before training stays near.

Few classes say little about the rest of the world. A tower that has seen much of it knows which images resemble
each other; a margin loss alone forgets that while it pulls its classes together.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from lookalike.core.config import in_range
from lookalike.losses.centers import l2_normalize

_FAR = -1e9  # a logit that takes no part in a softmax


@dataclass(frozen=True)
class SimilarityDistillation:
    """Each image's neighbours within the batch, weighed as the tower weighs them.

    For every image the tower's similarities to the other images of the batch, and the embedding's, become two
    distributions; the term is the divergence of the second from the first (Kullback-Leibler, in nats), as in
    similarity-preserving distillation (Passalis and Tefas, 2018, arXiv:1803.10837).
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
        """The divergence, mean over the batch; 0 where the embedding's cosines equal the tower's.

        Args:
            features: The tower's; taken from the batch's mean, as a tower's features all point one way.
            embedding: Of unit length.
        """
        centred = l2_normalize(features - features.mean(axis=0, keepdims=True))
        tower = self._log_shares(jax.lax.stop_gradient(centred))
        ours = self._log_shares(embedding)
        return jnp.sum(jnp.exp(tower) * (tower - ours), axis=1).mean()

    def _log_shares(self, rows: Float32[Array, "B X"]) -> Float32[Array, "B B"]:
        """Log of the share that each other row has in a row's neighbourhood; no row is its own neighbour."""
        self_BB = jnp.eye(rows.shape[0], dtype=bool)
        return jax.nn.log_softmax(jnp.where(self_BB, _FAR, rows @ rows.T / self.temperature), axis=1)
