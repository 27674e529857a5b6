"""Swin transformer, both versions (Liu et al., 2021 and 2022), the blocks of a stage scanned two by two."""

import math
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from lookalike.encoders.config import SwinConfig
from lookalike.towers.modules.attention import MLP, QKV, gathered
from lookalike.towers.modules.layers import LayerNorm, Linear
from lookalike.towers.modules.pooling import Pooling, pool
from lookalike.towers.swin import EPS_BETWEEN, log_offsets, pairs, regions

# Maps have S x S tokens here; M windows of T tokens; h heads of d numbers; O offsets.


class TableAttention(eqx.Module):
    """Version 1: products of queries and keys, and a learned number for each offset in a window."""

    qkv: QKV
    table: Float[Array, "*L O h"]
    out: Linear
    heads: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, "M T F"], apart: Float32[Array, "M T T"] | None) -> Float[Array, "M T F"]:
        """All windows of one image; `apart` is added to the scores of all heads."""
        q, k, v = _split(self.qkv, x, self.heads)
        scores = _scores(q * q.shape[-1] ** -0.5, k) + self.bias(math.isqrt(x.shape[1]))[None]
        return _gathered(scores, v, apart, self.out)

    def bias(self, window: int) -> Float32[Array, "h T T"]:
        """What is added to the score of each two tokens; a window smaller than the table's uses its middle."""
        reach = (math.isqrt(self.table.shape[0]) + 1) // 2
        return jnp.moveaxis(self.table[pairs(window, reach)], -1, 0)


class PositionMLP(eqx.Module):
    """Offsets in a window to one number for each head."""

    up: Linear
    down: Linear

    def __call__(self, offsets: Float32[Array, "O 2"]) -> Float32[Array, "O h"]:
        """Every offset by itself; between 0 and 16."""
        return 16 * jax.nn.sigmoid(self.down(jax.nn.relu(self.up(offsets))))


class CosineAttention(eqx.Module):
    """Version 2: cosines of queries and keys times a learned scale, and a bias that an MLP makes from the offset."""

    qkv: QKV
    logit_scale: Float[Array, "*L h"]
    """Logarithm of the scale, which is at most 100."""
    position: PositionMLP
    out: Linear
    heads: int = eqx.field(static=True)
    trained_window: int | None = eqx.field(static=True)
    """Side of the windows in which `position` was trained; None: the same as now."""

    def __call__(self, x: Float[Array, "M T F"], apart: Float32[Array, "M T T"] | None) -> Float[Array, "M T F"]:
        """All windows of one image; `apart` is added to the scores of all heads."""
        q, k, v = _split(self.qkv, x, self.heads)
        scale = jnp.exp(jnp.minimum(self.logit_scale, math.log(100)))
        scores = _scores(_direction(q), _direction(k)) * scale[None, :, None, None]
        return _gathered(scores + self.bias(math.isqrt(x.shape[1]))[None], v, apart, self.out)

    def bias(self, window: int) -> Float32[Array, "h T T"]:
        """What is added to the score of each two tokens."""
        table = self.position(jnp.asarray(log_offsets(window, self.trained_window or window)))
        return jnp.moveaxis(table[pairs(window, window)], -1, 0)


class Block(eqx.Module):
    """Attention in windows, then the MLP, each added to its input, with a norm before (version 1) or behind it."""

    norm1: LayerNorm
    attention: TableAttention | CosineAttention
    norm2: LayerNorm
    mlp: MLP

    def __call__(self, x: Float[Array, "S S F"], window: int, shift: int) -> Float[Array, "S S F"]:
        """One map, cut into windows of that side after it was rolled by `shift` tokens."""
        rows = x.reshape(-1, x.shape[2])
        if isinstance(self.attention, TableAttention):
            rows = rows + self._attended(self.norm1(rows).reshape(x.shape), window, shift).reshape(rows.shape)
            rows = rows + self.mlp(self.norm2(rows))
        else:
            rows = rows + self.norm1(self._attended(x, window, shift).reshape(rows.shape))
            rows = rows + self.norm2(self.mlp(rows))
        return rows.reshape(x.shape)

    def _attended(self, x: Float[Array, "S S F"], window: int, shift: int) -> Float[Array, "S S F"]:
        side, features = x.shape[1:]
        # As transformers: zeros at the end, which are looked at like all else, and only then rolled.
        x = jnp.pad(x, ((0, -side % window), (0, -side % window), (0, 0)))
        rolled = jnp.roll(x, (-shift, -shift), axis=(0, 1)) if shift else x
        count = len(x) // window
        windows = rolled.reshape(count, window, count, window, features).swapaxes(1, 2)
        apart = _apart(jnp.asarray(regions(len(x), window, shift), jnp.int32)) if shift else None
        seen = self.attention(windows.reshape(-1, window**2, features), apart)
        rolled = seen.reshape(count, count, window, window, features).swapaxes(1, 2).reshape(x.shape)
        return (jnp.roll(rolled, (shift, shift), axis=(0, 1)) if shift else rolled)[:side, :side]


class Merge(eqx.Module):
    """Four neighbours, down first, become one token: norm and matrix in version 1, matrix and norm in version 2."""

    norm: LayerNorm
    reduction: Linear

    def __call__(self, x: Float[Array, "S S F"]) -> Float[Array, "S2 S2 F2"]:
        """One map; where its side is odd, the last neighbours are zeros."""
        x = jnp.pad(x, ((0, len(x) % 2), (0, len(x) % 2), (0, 0)))
        half, features = len(x) // 2, x.shape[2]
        rows = x.reshape(half, 2, half, 2, features).transpose(0, 2, 3, 1, 4).reshape(-1, 4 * features)
        normed_first = self.norm.weight.shape[0] == 4 * features
        rows = self.reduction(self.norm(rows)) if normed_first else self.norm(self.reduction(rows))
        return rows.reshape(half, half, -1)


class Stage(eqx.Module):
    """The blocks of one map size, and what makes the next map."""

    blocks: Block
    """All blocks in one: every array has a leading axis of layers."""
    merge: Merge | None

    def __call__(
        self, x: Float[Array, "S S F"], window: int, shift: int, remat: bool = False
    ) -> Float[Array, "S2 S2 F2"]:
        """One map; the blocks at odd places move their windows by `shift`. For `remat` see `Swin`."""
        depth = self.blocks.norm1.weight.shape[0]
        even = depth // 2 * 2
        two = jax.tree.map(lambda a: a[:even].reshape(even // 2, 2, *a.shape[1:]), self.blocks)

        def both(x: Float[Array, "S S F"], blocks: Block) -> tuple[Float[Array, "S S F"], None]:
            return _one(blocks, 1)(_one(blocks, 0)(x, window, 0), window, shift), None

        x, _ = jax.lax.scan(jax.checkpoint(both) if remat else both, x, two)
        x = _one(self.blocks, depth - 1)(x, window, 0) if depth % 2 else x
        return x if self.merge is None else self.merge(x)


class Swin(eqx.Module):
    """The tower: patches, stages, last norm."""

    patch: Linear
    norm_patch: LayerNorm
    stages: tuple[Stage, ...]
    norm_post: LayerNorm
    config: SwinConfig = eqx.field(static=True)
    remat: bool = eqx.field(static=True)
    """Whether the backward pass computes each pair of blocks again instead of keeping what is inside them."""

    @classmethod
    def of(cls, config: SwinConfig, tensors: Mapping[str, Array], remat: bool = False) -> "Swin":
        """From tensors named as `config.shapes()` names them."""
        return cls(
            patch=_linear(tensors, "patch"),
            norm_patch=_norm(tensors, "norm_patch", EPS_BETWEEN),
            stages=tuple(_stage(config, tensors, i) for i in range(config.stages)),
            norm_post=_norm(tensors, "norm_post", config.eps),
            config=config,
            remat=remat,
        )

    def __call__(self, image: Float[Array, "S S 3"], pooling: Pooling) -> Float[Array, " F"]:
        """The features of one normalised image."""
        x = self.embed(image)
        for i, stage in enumerate(self.stages):
            x = stage(x, *self.config.window(i, x.shape[0]), self.remat)
        return pool(self.norm_post(x.reshape(-1, x.shape[2])), pooling)

    def embed(self, image: Float[Array, "S S 3"]) -> Float[Array, "S2 S2 F"]:
        """The map that enters the first block; what the image lacks to a whole patch is filled with its mean."""
        patch, missing = self.config.patch, -image.shape[0] % self.config.patch
        image = jnp.pad(image, ((0, missing), (0, missing), (0, 0)))
        side = image.shape[0] // patch
        patches = image.reshape(side, patch, side, patch, 3).swapaxes(1, 2).reshape(side * side, patch * patch * 3)
        return self.norm_patch(self.patch(patches)).reshape(side, side, -1)


def _linear(tensors: Mapping[str, Array], name: str) -> Linear:
    return Linear(tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def _norm(tensors: Mapping[str, Array], name: str, eps: float) -> LayerNorm:
    return LayerNorm(tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps)


def _stage(config: SwinConfig, tensors: Mapping[str, Array], i: int) -> Stage:
    name, merge = f"stages.{i}.blocks", f"stages.{i}.merge"
    blocks = Block(
        norm1=_norm(tensors, f"{name}.norm1", config.eps),
        attention=_attention(config, tensors, i),
        norm2=_norm(tensors, f"{name}.norm2", config.eps),
        mlp=MLP(_linear(tensors, f"{name}.mlp.up"), _linear(tensors, f"{name}.mlp.down"), "gelu"),
    )
    if i == config.stages - 1:
        return Stage(blocks, None)
    return Stage(blocks, Merge(_norm(tensors, f"{merge}.norm", EPS_BETWEEN), _linear(tensors, f"{merge}.reduction")))


def _attention(config: SwinConfig, tensors: Mapping[str, Array], i: int) -> TableAttention | CosineAttention:
    name, heads = f"stages.{i}.blocks.attention", config.heads[i]
    qkv, out = QKV(tensors[f"{name}.qkv.weight"], tensors[f"{name}.qkv.bias"]), _linear(tensors, f"{name}.out")
    if config.version == 1:
        return TableAttention(qkv, tensors[f"{name}.table"], out, heads)
    position = PositionMLP(_linear(tensors, f"{name}.position.up"), _linear(tensors, f"{name}.position.down"))
    trained = config.trained_windows[i] if config.trained_windows else None
    return CosineAttention(qkv, tensors[f"{name}.logit_scale"], position, out, heads, trained)


def _one(blocks: Block, i: int) -> Block:
    """One of stacked blocks."""
    one: Block = jax.tree.map(lambda a: a[i], blocks)
    return one


def _split(qkv: QKV, x: Float[Array, "M T F"], heads: int) -> tuple[Array, Array, Array]:
    """Queries, keys and values, each [M T h d]."""
    windows, tokens, features = x.shape
    parts = qkv(x.reshape(-1, features)).reshape(windows, tokens, 3, heads, features // heads)
    return parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]


def _direction(x: Float[Array, "M T h d"]) -> Float[Array, "M T h d"]:
    """Each head's numbers at length 1; zeros stay zeros."""
    x32 = x.astype(jnp.float32)
    length = jnp.sum(x32 * x32, axis=-1, keepdims=True)
    return (x32 * jax.lax.rsqrt(jnp.maximum(length, 1e-24))).astype(x.dtype)


def _scores(q: Float[Array, "M T h d"], k: Float[Array, "M T h d"]) -> Float32[Array, "M h T T"]:
    """Products in float32 whatever goes in: version 2 multiplies them by up to 100."""
    return jnp.einsum("mqhd,mkhd->mhqk", q, k, preferred_element_type=jnp.float32)


def _apart(parts: Int[Array, "M T"]) -> Float32[Array, "M T T"]:
    """What keeps apart tokens that are neighbours only because the map was rolled."""
    return jnp.where(parts[:, :, None] != parts[:, None], jnp.float32(-100), jnp.float32(0))


def _gathered(
    scores: Float32[Array, "M h T T"], v: Float[Array, "M T h d"], apart: Float32[Array, "M T T"] | None, out: Linear
) -> Float[Array, "M T F"]:
    scores = scores if apart is None else scores + apart[:, None]
    seen = gathered(scores, v.swapaxes(1, 2)).swapaxes(1, 2)
    windows, tokens, heads, numbers = v.shape
    return out(seen.reshape(-1, heads * numbers)).reshape(windows, tokens, -1)
