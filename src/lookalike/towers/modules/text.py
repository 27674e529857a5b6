"""The text tower of CLIP (Radford et al., 2021) and SigLIP (Zhai et al., 2023), blocks stacked and scanned."""

from collections.abc import Mapping
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from lookalike.towers.modules.attention import gathered
from lookalike.towers.modules.layers import LayerNorm, Linear, gelu
from lookalike.towers.text import TextConfig


class TextBlock(eqx.Module):
    """Attention, then the MLP, each behind a norm and added to its input."""

    norm1: LayerNorm
    qkv: Linear
    out: Linear
    norm2: LayerNorm
    up: Linear
    down: Linear
    config: TextConfig = eqx.field(static=True)

    def __call__(self, x: Float[Array, "T F"]) -> Float[Array, "T F"]:
        """All tokens of one text."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(gelu(self.up(self.norm2(x)), self.config.activation))

    def attention(self, x: Float[Array, "T F"]) -> Float[Array, "T F"]:
        """What each token gathers from those that it may look at; the softmax is float32."""
        tokens, width = x.shape
        heads = self.config.heads
        q, k, v = self.qkv(x).reshape(tokens, 3, heads, width // heads).transpose(1, 2, 0, 3)
        scores = (q * (width // heads) ** -0.5 @ k.mT).astype(jnp.float32)
        if self.config.causal:
            seen = jnp.tril(jnp.ones((tokens, tokens), bool))
            scores = jnp.where(seen[None], scores, -jnp.inf)  # a token sees itself, so that no row is empty
        return self.out(gathered(scores, v).swapaxes(0, 1).reshape(tokens, width))


class TextTower(eqx.Module):
    """Token ids to features in the space of the image tower's features."""

    token: Float[Array, "V F"]
    position: Float[Array, "T F"]
    blocks: TextBlock
    """All blocks in one: every array has a leading axis of layers."""
    norm_post: LayerNorm
    head: Linear | None
    config: TextConfig = eqx.field(static=True)
    dtype: Literal["float32", "bfloat16"] = eqx.field(static=True)
    """What it computes in; norms and softmax stay float32."""

    @classmethod
    def of(
        cls, config: TextConfig, tensors: Mapping[str, Array], dtype: Literal["float32", "bfloat16"] = "float32"
    ) -> "TextTower":
        """From tensors named as `config.shapes()` names them."""

        def linear(name: str) -> Linear:
            return Linear(tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))

        def norm(name: str) -> LayerNorm:
            return LayerNorm(tensors[f"{name}.weight"], tensors[f"{name}.bias"], config.eps)

        blocks = TextBlock(
            norm1=norm("blocks.norm1"),
            qkv=linear("blocks.attention.qkv"),
            out=linear("blocks.attention.out"),
            norm2=norm("blocks.norm2"),
            up=linear("blocks.mlp.up"),
            down=linear("blocks.mlp.down"),
            config=config,
        )
        head = linear("head") if config.head else None
        return cls(tensors["token"], tensors["position"], blocks, norm("norm_post"), head, config, dtype)

    def __call__(self, ids: Int[Array, " T"]) -> Float32[Array, " F"]:
        """The features of one text, not of unit length.

        Args:
            ids: Its tokens, at most `config.context`; filled up to that length where `config.whole` says so.
        """
        tokens, _ = jax.lax.scan(lambda x, block: (block(x), None), self.embed(ids), self.blocks)
        read = self.norm_post(tokens[self.place(ids)][None])
        features = read if self.head is None else self.head(read)
        return features[0].astype(jnp.float32)

    def embed(self, ids: Int[Array, " T"]) -> Float[Array, "T F"]:
        """The tokens that enter the first block."""
        return (self.token[ids] + self.position[: len(ids)]).astype(self.dtype)

    def place(self, ids: Int[Array, " T"]) -> Int[Array, ""]:
        """Which token the text is read from."""
        match self.config.read:
            case "highest":
                return jnp.argmax(ids)
            case "end":
                return jnp.argmax(ids == self.config.end)
            case "last":
                return jnp.asarray(len(ids) - 1)
