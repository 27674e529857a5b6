"""ConvNeXt (Liu et al., 2022, arXiv 2201.03545), the blocks of a stage stacked and scanned."""

from collections.abc import Iterator, Mapping

import equinox as eqx
import jax
from jaxtyping import Array, Float

from lookalike.encoders.config import ConvNeXtConfig
from lookalike.towers.modules.attention import MLP
from lookalike.towers.modules.layers import Kernel, LayerNorm, Linear
from lookalike.towers.modules.pooling import Pooling, pool


class Depthwise(eqx.Module):
    """A kernel and a bias for each channel."""

    conv: Kernel
    bias: Float[Array, "*L C"]

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        """One map."""
        return self.conv(x) + self.bias.astype(x.dtype)[None, None]


class Block(eqx.Module):
    """Look around, norm, two linear layers, scale; added to the input."""

    depthwise: Depthwise
    norm: LayerNorm
    mlp: MLP
    scale: Float[Array, "*L C"] | None

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        """One map."""
        y = self.mlp(self.norm(self.depthwise(x).reshape(-1, x.shape[2])))
        y = y if self.scale is None else y * self.scale.astype(y.dtype)[None]
        return x + y.reshape(x.shape)


class Stage(eqx.Module):
    """Patches of the map before, then blocks."""

    patch: Linear
    norm: LayerNorm
    """Behind the patches of the image, before those of maps."""
    blocks: Block
    """All blocks in one: every array has a leading axis of layers."""

    def __call__(self, x: Float[Array, "H W C"], patch: int, first: bool, remat: bool) -> Float[Array, "H2 W2 C2"]:
        """One map; `patch` is the side of a patch, `first` whether `x` is the image. For `remat` see `ConvNeXt`."""
        height, width = (length // patch for length in x.shape[:2])
        if not first:
            x = self.norm(x.reshape(-1, x.shape[2])).reshape(x.shape)
        tiles = x[: height * patch, : width * patch].reshape(height, patch, width, patch, x.shape[2]).swapaxes(1, 2)
        rows = self.patch(tiles.reshape(height * width, -1))
        rows = self.norm(rows) if first else rows

        def one(x: Float[Array, "H W C"], block: Block) -> tuple[Float[Array, "H W C"], None]:
            return block(x), None

        y, _ = jax.lax.scan(jax.checkpoint(one) if remat else one, rows.reshape(height, width, -1), self.blocks)
        return y


class ConvNeXt(eqx.Module):
    """The tower: stages, and a norm of the mean of the last map."""

    stages: tuple[Stage, ...]
    norm_post: LayerNorm
    config: ConvNeXtConfig = eqx.field(static=True)
    remat: bool = eqx.field(static=True)
    """Whether the backward pass computes each block again instead of keeping what is inside it."""

    @classmethod
    def of(cls, config: ConvNeXtConfig, tensors: Mapping[str, Array], remat: bool = False) -> "ConvNeXt":
        """From tensors named as `config.shapes()` names them."""

        def linear(name: str) -> Linear:
            return Linear(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

        def norm(name: str, eps: float) -> LayerNorm:
            return LayerNorm(tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps)

        def blocks(name: str) -> Block:
            return Block(
                depthwise=Depthwise(
                    Kernel(tensors[f"{name}.depthwise.conv.weight"]), tensors[f"{name}.depthwise.bias"]
                ),
                norm=norm(f"{name}.norm", config.eps),
                mlp=MLP(linear(f"{name}.mlp.up"), linear(f"{name}.mlp.down"), "gelu"),
                scale=tensors.get(f"{name}.scale"),
            )

        stages = (
            Stage(linear(f"stages.{i}.patch"), norm(f"stages.{i}.norm", config.eps), blocks(f"stages.{i}.blocks"))
            for i in range(len(config.widths))
        )
        return cls(tuple(stages), norm("norm_post", config.last_eps), config, remat)

    def __call__(self, image: Float[Array, "S S 3"], pooling: Pooling) -> Float[Array, " F"]:
        """The features of one normalised image."""
        *_, x = self.maps(image)
        return self.norm_post(pool(x.reshape(-1, x.shape[2]), pooling)[None])[0]

    def maps(self, image: Float[Array, "S S 3"]) -> Iterator[Float[Array, "H W C"]]:
        """What leaves each stage."""
        x = image
        for i, stage in enumerate(self.stages):
            x = stage(x, self.config.patch if i == 0 else 2, i == 0, self.remat)
            yield x
