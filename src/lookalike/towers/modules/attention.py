"""What transformer blocks are made of: attention, with rotary positions where asked for, and the MLP."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from lookalike.towers.modules.layers import LayerNorm, Linear, gelu
from lookalike.towers.vit import Activation

Rotations = tuple[Float32[Array, "P d"], Float32[Array, "P d"]]
"""Cosine and sine for each token and half of a head's numbers; see `ViTConfig.rotations`."""


class QKV(eqx.Module):
    """Queries, keys and values in this order, from one matrix; the keys may be without a bias."""

    weight: Float[Array, "*L F F3"]
    bias: Float[Array, "*L G"] | None
    """Of all three, or of queries and values."""

    def __call__(self, x: Float[Array, "P F"]) -> Float[Array, "P F3"]:
        """Every token by itself."""
        y = x @ self.weight.astype(x.dtype)
        if self.bias is None:
            return y
        bias, width = self.bias.astype(x.dtype), x.shape[1]
        if bias.shape[0] == 2 * width:
            bias = jnp.concatenate([bias[:width], jnp.zeros_like(bias[:width]), bias[width:]])
        return y + bias[None]


class Attention(eqx.Module):
    """Multi-head attention of tokens to each other."""

    qkv: QKV
    out: Linear
    heads: int = eqx.field(static=True)

    def __call__(
        self,
        x: Float[Array, "P F"],
        asking: Float[Array, "Q F"] | None = None,
        rotations: Rotations | None = None,
    ) -> Float[Array, "Q F"]:
        """What each asking token gathers; the softmax is float32.

        Args:
            x: The tokens that are looked at.
            asking: The tokens that look; None: `x`.
            rotations: By what queries and keys are turned; only where `x` itself asks.
        """
        width = x.shape[1]
        parts = self.qkv(x).reshape(x.shape[0], 3, self.heads, width // self.heads)
        q, k, v = parts[:, 0], parts[:, 1], parts[:, 2]
        if asking is not None:
            q = self.qkv(asking)[:, :width].reshape(asking.shape[0], self.heads, width // self.heads)
        if rotations is not None:
            q, k = rotated(q, rotations), rotated(k, rotations)
        q, k, v = q.swapaxes(0, 1) * (width // self.heads) ** -0.5, k.swapaxes(0, 1), v.swapaxes(0, 1)
        scores = (q @ k.mT).astype(jnp.float32)
        return self.out(gathered(scores, v).swapaxes(0, 1).reshape(-1, width))


def gathered(scores: Float32[Array, "*h Q K"], v: Float[Array, "*h K d"]) -> Float[Array, "*h Q d"]:
    """The mean of the values, weighted by the softmax of the scores.

    Divided by the sum of the weights only behind their product with the values, which is smaller than they are: on a
    CPU memory takes the time, and a batch of ViT-B/16 passes in three quarters of it.
    """
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    mean = (weights.astype(v.dtype) @ v).astype(jnp.float32) / weights.sum(axis=-1, keepdims=True)
    return mean.astype(v.dtype)


def rotated(x: Float[Array, "P h D"], rotations: Rotations) -> Float[Array, "P h D"]:
    """Queries or keys of all heads, number i of a head turned with number i + D / 2 (Su et al., 2021); in float32."""
    cosine, sine = (part[:, None] for part in rotations)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1).astype(x.dtype)


class MLP(eqx.Module):
    """Two linear layers with an activation between them; for swiglu the first gives gate and value side by side."""

    up: Linear
    down: Linear
    activation: Activation = eqx.field(static=True)

    def __call__(self, x: Float[Array, "P F"]) -> Float[Array, "P F"]:
        """Every token by itself."""
        y = self.up(x)
        if self.activation == "swiglu":
            gate, value = jnp.split(y, 2, axis=-1)
            return self.down(jax.nn.silu(gate) * value)
        return self.down(gelu(y, self.activation))


class Block(eqx.Module):
    """Attention, then the MLP, each behind a norm, scaled where there is a scale, and added to its input."""

    norm1: LayerNorm
    attention: Attention
    scale1: Float[Array, "*L F"] | None
    norm2: LayerNorm
    mlp: MLP
    scale2: Float[Array, "*L F"] | None

    def __call__(self, x: Float[Array, "P F"], rotations: Rotations | None = None) -> Float[Array, "P F"]:
        """All tokens of one image."""
        x = x + _scaled(self.attention(self.norm1(x), rotations=rotations), self.scale1)
        return x + _scaled(self.mlp(self.norm2(x)), self.scale2)


def _scaled(x: Float[Array, "P F"], scale: Float[Array, " F"] | None) -> Float[Array, "P F"]:
    return x if scale is None else x * scale.astype(x.dtype)[None]
