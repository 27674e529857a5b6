"""EfficientNet, both versions (Tan and Le, arXiv 1905.11946 and 2104.00298), its batch norms in inference form."""

from collections.abc import Iterator, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lookalike.encoders.config import Bottleneck, Conv, EfficientNetConfig
from lookalike.towers.efficientnet import squeeze_name
from lookalike.towers.modules.layers import ConvNorm, Linear
from lookalike.towers.modules.pooling import Pooling, pool


class Squeeze(eqx.Module):
    """Squeeze-and-excitation: every channel times a number that the whole map decides (Hu et al., 2018)."""

    reduce: Linear
    expand: Linear

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        """The whole map at once."""
        mean = x.astype(jnp.float32).mean(axis=(0, 1)).astype(x.dtype)
        return x * jax.nn.sigmoid(self.expand(jax.nn.silu(self.reduce(mean[None]))))[None]


class Block(eqx.Module):
    """Expand, filter each channel, squeeze, project, each where the plan has it; add the input where it says so."""

    expand: ConvNorm | None
    depthwise: ConvNorm | None
    squeeze: Squeeze | None
    project: ConvNorm | None
    residual: bool = eqx.field(static=True)

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H2 W2 O"]:
        """One map."""
        y = x
        for part in (self.expand, self.depthwise, self.squeeze, self.project):
            y = y if part is None else part(y)
        return x + y if self.residual else y


class EfficientNet(eqx.Module):
    """The tower: the stem, the blocks of all stages, and a last 1x1 convolution."""

    stem: ConvNorm
    blocks: tuple[Block, ...]
    last: ConvNorm
    config: EfficientNetConfig = eqx.field(static=True)

    @classmethod
    def of(cls, config: EfficientNetConfig, tensors: Mapping[str, Array]) -> "EfficientNet":
        """From tensors named as `config.shapes()` names them."""
        first, *blocks, last = config.plan()

        def layer(plan: Conv) -> ConvNorm:
            return ConvNorm.of(plan, tensors, config.eps, "silu")

        def linear(name: str) -> Linear:
            return Linear(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

        def block(plan: Bottleneck) -> Block:
            convs = {conv.name.rpartition(".")[2]: layer(conv) for conv in plan.convs}
            name = squeeze_name(plan)
            squeeze = Squeeze(linear(f"{name}.reduce"), linear(f"{name}.expand")) if plan.squeeze else None
            return Block(convs.get("expand"), convs.get("depthwise"), squeeze, convs.get("project"), plan.residual)

        return cls(layer(first.convs[0]), tuple(map(block, blocks)), layer(last.convs[0]), config)

    def __call__(self, image: Float[Array, "S S 3"], pooling: Pooling) -> Float[Array, " F"]:
        """The features of one normalised image."""
        *_, x = self.maps(image)
        return pool(x.reshape(-1, x.shape[-1]), pooling)

    def maps(self, image: Float[Array, "S S 3"]) -> Iterator[Float[Array, "H W C"]]:
        """What leaves the stem, every block, and the last convolution."""
        first, *rest = self.blocks
        x = self.stem(image.astype(jnp.float32))  # float32 for the first depthwise kernel, as in MobileNetV2
        yield x
        x = first(x).astype(image.dtype)
        yield x
        parts: tuple[ConvNorm | Block, ...] = (*rest, self.last)
        for part in parts:
            x = part(x)
            yield x
