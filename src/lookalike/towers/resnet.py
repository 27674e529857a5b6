"""ResNet (He et al., 2016, arXiv 1512.03385), as it is trained today: the stride in the 3x3 kernel ("v1.5")."""

from collections.abc import Iterator
from dataclasses import dataclass

from lookalike.core.errors import EncoderError
from lookalike.towers.ops import Conv, Ops, Pooling, Value
from lookalike.towers.parts import Bottleneck, run

NARROWING = 4
"""How many times as many channels leave a bottleneck as are inside; the same in every published model."""


@dataclass(frozen=True)
class ResNetConfig:
    """A large kernel, a maximum, then stages of residual blocks with batch norms; each but the first halves the map."""

    depths: tuple[int, ...]
    """Blocks of each stage."""
    widths: tuple[int, ...]
    """Channels that leave each stage."""
    bottleneck: bool
    """Whether a block is 1x1, 3x3, 1x1, narrow inside, and not two of 3x3."""
    stem: int = 64
    """Channels of the first convolution."""
    stride_first: bool = False
    """Whether a bottleneck's stride is in its first 1x1, as in the paper."""
    eps: float = 1e-5
    """Added to the variance in every batch norm."""

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths) or not self.widths or min(*self.depths, *self.widths) < 1:
            raise EncoderError(f"A ResNet needs a width and a depth per stage, not {self.widths} and {self.depths}.")
        if self.bottleneck and any(width % NARROWING for width in self.widths):
            raise EncoderError(f"ResNet widths {self.widths} can't be divided by {NARROWING} inside bottlenecks.")

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
        """All convolutions in order: `stem`, then every `stages.i.blocks.j`."""
        return (Bottleneck((Conv("stem", 3, self.stem, 7, 2),), residual=False), *self._blocks())

    def forward(self, ops: Ops, image: Value, pooling: Pooling) -> Value:
        """The features of one normalised image."""
        stem, *blocks = self.plan()
        x = ops.max_pool(run(ops, (stem,), image, "relu", self.eps), 3, 2)
        return ops.pool(run(ops, blocks, x, "relu", self.eps), pooling)

    def _blocks(self) -> Iterator[Bottleneck]:
        inputs = self.stem
        for i, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            for j in range(depth):
                stride = 2 if i and not j else 1
                yield self._block(f"stages.{i}.blocks.{j}", inputs, width, stride)
                inputs = width

    def _block(self, name: str, inputs: int, outputs: int, stride: int) -> Bottleneck:
        plain = stride == 1 and inputs == outputs
        shortcut = None if plain else Conv(f"{name}.shortcut", inputs, outputs, 1, stride, active=False)
        if self.bottleneck:
            inside, early = outputs // NARROWING, stride if self.stride_first else 1
            convs: tuple[Conv, ...] = (
                Conv(f"{name}.first", inputs, inside, 1, early),
                Conv(f"{name}.second", inside, inside, 3, stride // early),
                Conv(f"{name}.third", inside, outputs, 1, active=False),
            )
        else:
            second = Conv(f"{name}.second", outputs, outputs, 3, active=False)
            convs = (Conv(f"{name}.first", inputs, outputs, 3, stride), second)
        return Bottleneck(convs, residual=True, shortcut=shortcut, active=True)


RESNETS: dict[str, ResNetConfig] = {
    "18": ResNetConfig((2, 2, 2, 2), (64, 128, 256, 512), bottleneck=False),
    "34": ResNetConfig((3, 4, 6, 3), (64, 128, 256, 512), bottleneck=False),
    "50": ResNetConfig((3, 4, 6, 3), (256, 512, 1024, 2048), bottleneck=True),
    "101": ResNetConfig((3, 4, 23, 3), (256, 512, 1024, 2048), bottleneck=True),
    "152": ResNetConfig((3, 8, 36, 3), (256, 512, 1024, 2048), bottleneck=True),
}
"""The published shapes (table 1 of the paper)."""
