"""Features to embedding: linear (from PCA, or trained) or identity, then unit length."""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from lookalike.encoders.config import ProjectionConfig
from lookalike.towers.programs.layers import l2_normalize


class Projection(eqx.Module):
    """`l2_normalize(unit?(features) @ weight + bias)`; without a weight, `l2_normalize(features)`. Always float32."""

    weight: Float[Array, "F D"] | None
    bias: Float[Array, " D"] | None
    config: ProjectionConfig = eqx.field(static=True)

    @classmethod
    def of(cls, config: ProjectionConfig, tensors: Mapping[str, Array]) -> "Projection":
        """From tensors named as `config.declare()` names them."""
        return cls(tensors.get("weight"), tensors.get("bias"), config)

    def __call__(self, features: Float[Array, " F"]) -> Float[Array, " D"]:
        """The embedding of one image, of length 1."""
        x = l2_normalize(features) if self.config.l2_normalize_input else features.astype(jnp.float32)
        if self.weight is not None and self.bias is not None:
            x = x @ self.weight + self.bias
        return l2_normalize(x)
