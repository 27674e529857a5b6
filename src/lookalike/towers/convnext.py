"""ConvNeXt, which has stages and is no plan of convolutions."""

from dataclasses import dataclass

from lookalike.towers.ops import Conv, Ops, Pooling, Value, demand
from lookalike.towers.plans import Staged

EXPANSION = 4  # width inside a block, as a multiple of the map's; the same in every published model


@dataclass(frozen=True)
class ConvNeXtConfig(Staged):
    """ConvNeXt (Liu et al., 2022), also as DINOv3 trained it: patches, stages of blocks, a norm of the mean token."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    patch: int = 4
    """Side of a patch, in pixels; what the image has beyond whole patches is not looked at."""
    kernel: int = 7
    """Side of the depthwise kernels; odd."""
    layer_scale: bool = True
    """Whether what a block adds is scaled by a learned number for each channel."""
    eps: float = 1e-6
    """Added to the variance in all norms but the last."""
    last_eps: float = 1e-6
    """Added to the variance in the norm behind the pooling."""

    def __post_init__(self) -> None:
        super().__post_init__()
        demand(self.kernel % 2 == 1, f"A ConvNeXt's kernels have an odd side, not {self.kernel}.")

    def forward(self, ops: Ops, image: Value, pooling: Pooling) -> Value:
        """The features of one normalised image."""
        x = image
        for i, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            with ops.scope(f"stages.{i}"):
                if i == 0:
                    x = ops.norm("norm", ops.linear("patch", ops.cut(x, self.patch), width), self.eps)
                else:
                    x = ops.linear("patch", ops.cut(ops.norm("norm", x, self.eps), 2), width)
                x = ops.see(ops.repeat("blocks", depth, [self._block], x))
        return ops.norm("norm_post", ops.pool(x, pooling), self.last_eps)

    def _block(self, ops: Ops, x: Value) -> Value:
        y = ops.conv(Conv("depthwise", x.width, x.width, self.kernel, depthwise=True, bias=True), x)
        y = ops.apply("gelu", ops.linear("mlp.up", ops.norm("norm", y, self.eps), EXPANSION * x.width))
        return ops.apply("add", x, ops.linear("mlp.down", y, x.width, scale="scale" if self.layer_scale else ""))
