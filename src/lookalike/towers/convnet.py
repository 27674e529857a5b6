"""A small convolutional tower for training from scratch on a laptop's CPU.

Plain kernels, because XLA on a CPU runs them near matrix speed; one large kernel first, because a second layer at full
resolution costs as much as all the rest; group norms, because they need neither running statistics nor large batches.
"""

from dataclasses import dataclass

from lookalike.core.errors import EncoderError
from lookalike.towers.ops import Conv, Ops, Pooling, Value
from lookalike.towers.parts import Bottleneck, run


@dataclass(frozen=True)
class ConvNetConfig:
    """A small convolutional tower that learns from scratch on a laptop: plain 3x3 kernels and group norms.

    The first stage shrinks the image with one large kernel, each later one halves the map; stage i then refines it
    in `depths[i]` residual blocks.
    """

    widths: tuple[int, ...] = (48, 96, 192)
    """Channels of each stage; multiples of `groups`."""
    depths: tuple[int, ...] = (0, 1, 1)
    """Residual blocks of each stage."""
    stem_kernel: int = 7
    """Side of the first kernel, in pixels; odd."""
    stem_stride: int = 4
    """Step of the first kernel, in pixels."""
    groups: int = 8
    """Channel groups of a norm."""
    eps: float = 1e-5
    """Added to the variance in every norm."""

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths) or not self.widths:
            raise EncoderError(f"A ConvNet needs a width and a depth per stage, not {self.widths} and {self.depths}.")
        if any(width % self.groups for width in self.widths):
            raise EncoderError(f"ConvNet widths {self.widths} can't be split into {self.groups} groups.")

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        """What may make features of its tokens."""
        return ("mean", "gem")

    @property
    def only_size(self) -> int | None:
        """The one side of images that it takes, in pixels; None: any."""
        return None

    @property
    def features(self) -> int:
        """Numbers in the pooled features (F)."""
        return self.widths[-1]

    def plan(self) -> tuple[Bottleneck, ...]:
        """All convolutions in order, one in each block: `stages.i.down`, then every `stages.i.blocks.j`."""
        blocks: list[Bottleneck] = []
        for i, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            kernel, stride, inputs = (3, 2, self.widths[i - 1]) if i else (self.stem_kernel, self.stem_stride, 3)
            down = Conv(f"stages.{i}.down", inputs, width, kernel, stride, active=False)
            blocks.append(Bottleneck((down,), residual=False, active=True))
            for j in range(depth):
                conv = Conv(f"stages.{i}.blocks.{j}", width, width, 3, active=False)
                blocks.append(Bottleneck((conv,), residual=True, active=True))
        return tuple(blocks)

    def forward(self, ops: Ops, image: Value, pooling: Pooling) -> Value:
        """The features of one normalised image."""
        return ops.pool(run(ops, self.plan(), image, "relu", self.eps, self.groups), pooling)
