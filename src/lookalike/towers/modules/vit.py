"""Vision transformer (Dosovitskiy et al., 2021) with the options of `ViTConfig`, blocks stacked and scanned."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lookalike.encoders.config import ViTConfig
from lookalike.towers.modules.attention import MLP, QKV, Attention, Block, Rotations
from lookalike.towers.modules.layers import LayerNorm, Linear
from lookalike.towers.modules.pooling import AttentionPool, Pooling, pool


class ViT(eqx.Module):
    """The tower: patches, further tokens and positions, blocks, last norm, pooling, and a projection if there is one.

    What the config leaves out is None.
    """

    patch: Linear
    class_token: Float[Array, " F"] | None
    registers: Float[Array, "R F"] | None
    position: Float[Array, "N F"] | None
    norm_pre: LayerNorm | None
    blocks: Block
    """All blocks in one: every array has a leading axis of layers."""
    norm_post: LayerNorm
    pool: AttentionPool | None
    head: Linear | None
    config: ViTConfig = eqx.field(static=True)
    remat: bool = eqx.field(static=True)
    """Whether the backward pass computes each block again instead of keeping what is inside it."""

    @classmethod
    def of(cls, config: ViTConfig, tensors: Mapping[str, Array], remat: bool = False) -> "ViT":
        """From tensors named as `config.shapes()` names them."""
        parts = _Parts(config, tensors)
        return cls(
            patch=parts.linear("patch"),
            class_token=tensors.get("class_token"),
            registers=tensors.get("registers"),
            position=tensors.get("position"),
            norm_pre=parts.norm("norm_pre") if config.norm_pre else None,
            blocks=parts.block("blocks"),
            norm_post=parts.norm("norm_post"),
            pool=parts.pool("pool") if config.pool_heads else None,
            head=parts.linear("head") if config.head else None,
            config=config,
            remat=remat,
        )

    def __call__(self, image: Float[Array, "S S 3"], pooling: Pooling) -> Float[Array, " F"]:
        """The features of one normalised image."""
        run = jax.checkpoint(_run, prevent_cse=False) if self.remat else _run
        rotations = self.rotations()
        tokens, _ = jax.lax.scan(lambda x, block: (run(block, x, rotations), None), self.embed(image), self.blocks)
        if self.pool is not None and pooling == "attention":
            pooled = self.pool(self.norm_post(tokens))
        else:
            tokens = tokens[:1] if pooling == "class" else tokens[self.config.prefix :]
            late = self.config.norm_pooled
            pooled = self.norm_post(pool(tokens, pooling)[None])[0] if late else pool(self.norm_post(tokens), pooling)
        return pooled if self.head is None else self.head(pooled[None])[0]

    def states(self, image: Float[Array, "S S 3"]) -> Float[Array, "L1 P F"]:
        """The tokens before the first block and behind each: what a published model is compared by."""
        first, rotations = self.embed(image), self.rotations()
        _, rest = jax.lax.scan(lambda x, block: (block(x, rotations),) * 2, first, self.blocks)
        return jnp.concatenate([first[None], rest])

    def rotations(self) -> Rotations | None:
        """By what every block turns queries and keys; None without rotary positions."""
        if self.config.rope == "none":
            return None
        cosine, sine = self.config.rotations()
        return jnp.asarray(cosine), jnp.asarray(sine)

    def embed(self, image: Float[Array, "S S 3"]) -> Float[Array, "P F"]:
        """The tokens that enter the first block: class token, registers, patches."""
        patches = self.patch(self._cut(image))
        parts = [] if self.class_token is None else [self.class_token.astype(image.dtype)[None]]
        if self.position is not None:
            position = self.position.astype(image.dtype)
            with_class = self.config.positions == "all"
            patches = patches + position[int(with_class) :]
            parts = [part + position[:1] if with_class else part for part in parts]
        if self.registers is not None:
            parts.append(self.registers.astype(image.dtype))
        tokens = jnp.concatenate([*parts, patches])
        return tokens if self.norm_pre is None else self.norm_pre(tokens)

    def _cut(self, image: Float[Array, "S S 3"]) -> Float[Array, "N I"]:
        """The patches of an image as rows."""
        grid, patch, step = self.config.grid, self.config.patch, self.config.step
        if step == patch:
            cut = image[: grid * patch, : grid * patch].reshape(grid, patch, grid, patch, 3).swapaxes(1, 2)
        else:
            at = step * jnp.arange(grid)[:, None] + jnp.arange(patch)[None]
            cut = image[at][:, :, at].swapaxes(1, 2)
        return cut.reshape(grid * grid, patch * patch * 3)


def _run(block: Block, x: Float[Array, "P F"], rotations: Rotations | None) -> Float[Array, "P F"]:
    return block(x, rotations)


class _Parts:
    """The tower's layers, made of tensors by their names."""

    def __init__(self, config: ViTConfig, tensors: Mapping[str, Array]) -> None:
        self.config, self.tensors = config, tensors

    def linear(self, name: str) -> Linear:
        return Linear(self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def norm(self, name: str) -> LayerNorm:
        return LayerNorm(self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], self.config.eps)

    def attention(self, name: str, heads: int) -> Attention:
        qkv = QKV(self.tensors[f"{name}.qkv.weight"], self.tensors.get(f"{name}.qkv.bias"))
        return Attention(qkv, self.linear(f"{name}.out"), heads)

    def mlp(self, name: str) -> MLP:
        return MLP(self.linear(f"{name}.up"), self.linear(f"{name}.down"), self.config.activation)

    def block(self, name: str) -> Block:
        return Block(
            self.norm(f"{name}.norm1"),
            self.attention(f"{name}.attention", self.config.heads),
            self.tensors.get(f"{name}.scale1"),
            self.norm(f"{name}.norm2"),
            self.mlp(f"{name}.mlp"),
            self.tensors.get(f"{name}.scale2"),
        )

    def pool(self, name: str) -> AttentionPool:
        return AttentionPool(
            self.tensors[f"{name}.probe"],
            self.attention(f"{name}.attention", self.config.pool_heads or self.config.heads),
            self.norm(f"{name}.norm"),
            self.mlp(f"{name}.mlp"),
        )
