"""Vision transformer as CLIP has it (Dosovitskiy et al., 2021; Radford et al., 2021), blocks stacked and scanned."""

from collections.abc import Mapping
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from likeness.models.config import ViTConfig
from likeness.models.layers import LayerNorm, Linear, gelu
from likeness.models.pooling import Pooling, pool


class Attention(eqx.Module):
    """Multi-head self-attention; queries, keys and values come from one matrix, in this order."""

    qkv: Linear
    out: Linear
    heads: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, "P F"]) -> Float[Array, "P F"]:
        """All tokens of one picture; the softmax is float32."""
        tokens, width = x.shape
        q, k, v = jnp.moveaxis(self.qkv(x).reshape(tokens, 3, self.heads, width // self.heads), 1, 0)
        scores = jnp.einsum("qhd,khd->hqk", q * (width // self.heads) ** -0.5, k)
        shares = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(x.dtype)
        return self.out(jnp.einsum("hqk,khd->qhd", shares, v).reshape(tokens, width))


class MLP(eqx.Module):
    """Two linear layers with a GELU between them."""

    up: Linear
    down: Linear
    activation: Literal["gelu", "quick_gelu"] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "P F"]) -> Float[Array, "P F"]:
        """Every token by itself."""
        return self.down(gelu(self.up(x), self.activation))


class Block(eqx.Module):
    """Attention, then the MLP, each behind a norm and added to its input."""

    norm1: LayerNorm
    attention: Attention
    norm2: LayerNorm
    mlp: MLP

    def __call__(self, x: Float[Array, "P F"]) -> Float[Array, "P F"]:
        """All tokens of one picture."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(eqx.Module):
    """The tower: patches, class token and positions, blocks, last norm, and CLIP's projection if there is one."""

    patch: Linear
    class_token: Float[Array, " F"]
    position: Float[Array, "P F"]
    norm_pre: LayerNorm | None
    blocks: Block
    """All blocks in one: every array has a leading axis of layers."""
    norm_post: LayerNorm
    head: Linear | None
    config: ViTConfig = eqx.field(static=True)

    @classmethod
    def of(cls, config: ViTConfig, tensors: Mapping[str, Array]) -> "ViT":
        """From tensors named as `config.shapes()` names them."""

        def linear(name: str) -> Linear:
            return Linear(tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))

        def norm(name: str) -> LayerNorm:
            return LayerNorm(tensors[f"{name}.weight"], tensors[f"{name}.bias"], config.eps)

        attention = Attention(linear("blocks.attention.qkv"), linear("blocks.attention.out"), config.heads)
        mlp = MLP(linear("blocks.mlp.up"), linear("blocks.mlp.down"), config.activation)
        return cls(
            patch=linear("patch"),
            class_token=tensors["class_token"],
            position=tensors["position"],
            norm_pre=norm("norm_pre") if config.norm_pre else None,
            blocks=Block(norm("blocks.norm1"), attention, norm("blocks.norm2"), mlp),
            norm_post=norm("norm_post"),
            head=linear("head") if config.head else None,
            config=config,
        )

    def __call__(self, image: Float[Array, "S S 3"], pooling: Pooling) -> Float[Array, " F"]:
        """The features of one normalised picture."""
        tokens, _ = jax.lax.scan(lambda x, block: (block(x), None), self.embed(image), self.blocks)
        tokens = tokens[:1] if pooling == "class" else tokens[1:]
        pooled = pool(self.norm_post(tokens), pooling)
        return pooled if self.head is None else self.head(pooled[None])[0]

    def embed(self, image: Float[Array, "S S 3"]) -> Float[Array, "P F"]:
        """The tokens that enter the first block, class token first."""
        side, patch = self.config.size // self.config.patch, self.config.patch
        patches = image.reshape(side, patch, side, patch, 3).swapaxes(1, 2).reshape(side * side, patch * patch * 3)
        tokens = jnp.concatenate([self.class_token.astype(image.dtype)[None], self.patch(patches)])
        tokens = tokens + self.position.astype(image.dtype)
        return tokens if self.norm_pre is None else self.norm_pre(tokens)
