"""Features to embedding: linear (from PCA, or trained) or identity, then unit length."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from lookalike.encoders.config import ProjectionConfig
from lookalike.towers.programs.layers import l2_normalize


def project(
    config: ProjectionConfig, tensors: Mapping[str, Array], features: Float[Array, "B F"]
) -> Float32[Array, "B D"]:
    """`l2_normalize(unit?(features) @ weight + bias)`, or `l2_normalize(features)` for identity; always float32.

    Args:
        config: Which.
        tensors: Those of the encoder, by their names: `projection.weight` and `projection.bias`.
        features: Of any length.
    """
    x = l2_normalize(features) if config.l2_normalize_input else features.astype(jnp.float32)
    if config.kind == "linear":
        x = x @ tensors["projection.weight"] + tensors["projection.bias"][None]
    return l2_normalize(x)
