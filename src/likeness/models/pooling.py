"""Tokens to features: the class token, the mean, or the generalised mean."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from likeness.models.config import Pooling as Pooling


def pool(tokens: Float[Array, "P F"], kind: Pooling) -> Float[Array, " F"]:
    """One vector for a picture.

    Args:
        tokens: What the tower saw at each place; for `class`, the class token comes first, else it is left out.
        kind: class takes the first token, mean the mean over all; gem the generalised mean with p = 3 (Radenovic et
            al., 2018), which lies between the mean and the maximum.
    """
    if kind == "class":
        return tokens[0]
    if kind == "mean":
        return tokens.astype(jnp.float32).mean(axis=0).astype(tokens.dtype)
    positive = jnp.maximum(tokens.astype(jnp.float32), 1e-6)
    return jnp.cbrt((positive**3).mean(axis=0)).astype(tokens.dtype)
