"""A small convolutional tower for training from scratch on a laptop's CPU.

Plain kernels, because XLA on a CPU runs them near matrix speed; one large kernel first, because a second layer at full
resolution costs as much as all the rest; group norms, because they need neither running statistics nor large batches.
"""

from collections.abc import Mapping

import equinox as eqx
import jax
from jaxtyping import Array, Float

from lookalike.encoders.config import ConvNetConfig
from lookalike.towers.modules.layers import GroupNorm, Kernel
from lookalike.towers.modules.pooling import Pooling, pool


class ConvGroup(eqx.Module):
    """A convolution and its group norm; `residual` adds the input to that; ReLU last."""

    conv: Kernel
    norm: GroupNorm
    stride: int = eqx.field(static=True)
    residual: bool = eqx.field(static=True)

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H2 W2 O"]:
        """One map."""
        y = self.norm(self.conv(x, self.stride))
        return jax.nn.relu(x + y if self.residual else y)


class Stage(eqx.Module):
    """Halve the map, then refine it."""

    down: ConvGroup
    blocks: tuple[ConvGroup, ...]

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H2 W2 O"]:
        """One map."""
        x = self.down(x)
        for block in self.blocks:
            x = block(x)
        return x


class ConvNet(eqx.Module):
    """The tower: stages one behind the other."""

    stages: tuple[Stage, ...]
    config: ConvNetConfig = eqx.field(static=True)

    @classmethod
    def of(cls, config: ConvNetConfig, tensors: Mapping[str, Array]) -> "ConvNet":
        """From tensors named as `config.shapes()` names them."""
        plan = {block.convs[0].name: block for block in config.plan()}

        def layer(name: str) -> ConvGroup:
            norm = GroupNorm(tensors[f"{name}.norm.weight"], tensors[f"{name}.norm.bias"], config.groups, config.eps)
            block = plan[name]
            return ConvGroup(Kernel(tensors[f"{name}.conv.weight"]), norm, block.convs[0].stride, block.residual)

        stages = (
            Stage(layer(f"stages.{i}.down"), tuple(layer(f"stages.{i}.blocks.{j}") for j in range(depth)))
            for i, depth in enumerate(config.depths)
        )
        return cls(tuple(stages), config)

    def __call__(self, image: Float[Array, "S S 3"], pooling: Pooling) -> Float[Array, " F"]:
        """The features of one normalised image."""
        x = image
        for stage in self.stages:
            x = stage(x)
        return pool(x.reshape(-1, x.shape[-1]), pooling)
