"""Losses over the pairs of a batch, without class centers: for batches of P classes with K images each."""

from dataclasses import dataclass

from jaxtyping import Float, Float32, Int32

from lookalike.core.config import in_range
from lookalike.core.later import Array, jax, jnp

_FAR = -1e9  # a logit that takes no part in a softmax


@dataclass(frozen=True)
class SupCon:
    """Supervised contrastive loss (Khosla et al., 2020, arXiv:2004.11362, equation 2): the mean over an image's
    positives of their negative log share among all other images. An image without a positive counts nothing.
    """

    temperature: float = 0.1
    """Divides the cosines before the softmax."""

    def __post_init__(self) -> None:
        in_range(self, 1e-3, 1e3, "temperature")

    def __call__(self, cos_BB: Float32[Array, "B B"], same_BB: Array) -> Float32[Array, "B"]:
        """Each row's loss, from cosines and which pairs are of one class."""
        self_BB = jnp.eye(len(cos_BB), dtype=bool)
        log_share_BB = jax.nn.log_softmax(jnp.where(self_BB, _FAR, cos_BB / self.temperature), axis=1)
        positive_BB = same_BB & ~self_BB
        count_B = positive_BB.sum(axis=1, dtype=jnp.float32)
        return -jnp.sum(log_share_BB, axis=1, where=positive_BB) / jnp.maximum(count_B, 1.0)


@dataclass(frozen=True)
class SigmoidPairs:
    """Each pair by itself, alike or not (Zhai et al., 2023, arXiv:2303.15343, algorithm 1), alike being of one class.

    Scale and bias are fixed, at what the paper starts from.
    """

    scale: float = 10.0
    """Multiplies the cosines."""
    bias: float = -10.0
    """Added to them, as most pairs are not alike."""

    def __post_init__(self) -> None:
        in_range(self, 1e-3, 1e4, "scale")
        in_range(self, -1e4, 1e4, "bias")

    def __call__(self, cos_BB: Float32[Array, "B B"], same_BB: Array) -> Float32[Array, "B"]:
        """Each row's loss, summed over the other rows."""
        sign_BB = jnp.where(same_BB, 1.0, -1.0)
        loss_BB = jax.nn.softplus(-sign_BB * (self.scale * cos_BB + self.bias))
        return jnp.sum(loss_BB, axis=1, where=~jnp.eye(len(cos_BB), dtype=bool))


Pairs = SupCon | SigmoidPairs


def pair_loss(config: Pairs, embedding_BD: Float[Array, "B D"], label_B: Int32[Array, "B"]) -> Float32[Array, "B"]:
    """Loss of each row against the other rows of the batch; embeddings have length 1."""
    cos_BB = jnp.matmul(embedding_BD, embedding_BD.T, preferred_element_type=jnp.float32)
    return config(cos_BB, label_B[:, None] == label_B[None, :])
