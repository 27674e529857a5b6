"""MobileNetV2 (Sandler et al., 2018, arXiv 1801.04381), its batch norms in inference form."""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from lookalike.encoders.config import Bottleneck, Conv, MobileNetV2Config
from lookalike.towers.modules.layers import ConvNorm
from lookalike.towers.modules.pooling import Pooling, pool


class InvertedResidual(eqx.Module):
    """Expand with 1x1, filter each channel with 3x3, project with 1x1; add the input where the plan says so."""

    expand: ConvNorm | None
    depthwise: ConvNorm
    project: ConvNorm
    residual: bool = eqx.field(static=True)

    def __call__(self, x: Float[Array, "H W C"]) -> Float[Array, "H2 W2 O"]:
        """One map."""
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


class MobileNetV2(eqx.Module):
    """The tower: the stem, 17 bottlenecks, and a last 1x1 convolution."""

    stem: ConvNorm
    blocks: tuple[InvertedResidual, ...]
    last: ConvNorm
    config: MobileNetV2Config = eqx.field(static=True)

    @classmethod
    def of(cls, config: MobileNetV2Config, tensors: Mapping[str, Array]) -> "MobileNetV2":
        """From tensors named as `config.shapes()` names them."""
        first, *blocks, last = config.plan()

        def layer(plan: Conv) -> ConvNorm:
            return ConvNorm.of(plan, tensors, config.eps, "relu6")

        def block(plan: Bottleneck) -> InvertedResidual:
            *expand, depthwise, project = map(layer, plan.convs)
            return InvertedResidual(expand[0] if expand else None, depthwise, project, plan.residual)

        return cls(layer(first.convs[0]), tuple(map(block, blocks)), layer(last.convs[0]), config)

    def __call__(self, image: Float[Array, "S S 3"], pooling: Pooling) -> Float[Array, " F"]:
        """The features of one normalised image."""
        first, *rest = self.blocks
        # The first depthwise kernel reads float32: of published weights, bfloat16 before it costs most of the cosine.
        x = first(self.stem(image.astype(jnp.float32))).astype(image.dtype)
        for block in rest:
            x = block(x)
        x = self.last(x)
        return pool(x.reshape(-1, x.shape[-1]), pooling)
