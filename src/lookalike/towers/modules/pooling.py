"""Tokens to features: the class token, the mean, the generalised mean, or a learned probe that asks all tokens."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from lookalike.encoders.config import Pooling as Pooling
from lookalike.towers.modules.attention import MLP, Attention
from lookalike.towers.modules.layers import LayerNorm


def pool(tokens: Float[Array, "P F"], kind: Pooling) -> Float[Array, " F"]:
    """One vector for an image, by a rule without parameters.

    Args:
        tokens: What the tower saw at each place; for `class`, the class token comes first, else it is left out.
        kind: class takes the first token, mean the mean over all; gem the generalised mean with p = 3 (Radenovic et
            al., 2018), which lies between the mean and the maximum, and needs tokens that aren't negative: those of
            convolutional towers. `attention` has parameters, and so is `AttentionPool`.
    """
    if kind == "attention":
        raise ValueError("attention pooling is a part of the tower: AttentionPool")
    if kind == "class":
        return tokens[0]
    if kind == "mean":
        return tokens.astype(jnp.float32).mean(axis=0).astype(tokens.dtype)
    positive = jnp.maximum(tokens.astype(jnp.float32), 1e-6)
    return jnp.cbrt((positive**3).mean(axis=0)).astype(tokens.dtype)


class AttentionPool(eqx.Module):
    """A learned probe asks all tokens, and an MLP is added to the answer (Zhai et al., 2022; SigLIP's pooling)."""

    probe: Float[Array, " F"]
    attention: Attention
    norm: LayerNorm
    mlp: MLP

    def __call__(self, tokens: Float[Array, "P F"]) -> Float[Array, " F"]:
        """One vector for an image, from all of its tokens."""
        x = self.attention(tokens, asking=self.probe.astype(tokens.dtype)[None])
        return (x + self.mlp(self.norm(x)))[0]
