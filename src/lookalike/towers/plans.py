"""Towers of convolutions: plans and the one forward of all of them, plain and residual blocks."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from lookalike.towers.ops import Activation, Conv, Ops, Pooling, Value, demand


class AnySize:
    """A tower for images of any size, whose last norm is made for the mean of its tokens."""

    poolings: tuple[Pooling, ...] = ("mean",)  # what may make features of its tokens; the last uses every tensor
    only_size: int | None = None  # the one side of images that it takes, in pixels; None: any


class Staged(AnySize):
    """A tower of stages, of which each has a width and a depth."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    least = 1  # blocks that a stage must have

    def __post_init__(self) -> None:
        good = len(self.widths) == len(self.depths) > 0 and min(self.widths) > 0 and min(self.depths) >= self.least
        name, sizes = type(self).__name__.removesuffix("Config"), f"{self.widths} and {self.depths}"
        demand(good, f"A {name} needs a width and a depth per stage, not {sizes}.")

    @property
    def features(self) -> int:
        """Numbers in the pooled features (F)."""
        return self.widths[-1]


@dataclass(frozen=True)
class Bottleneck:
    """Convolutions one behind the other."""

    convs: tuple[Conv, ...]
    residual: bool = False  # whether the input is added to the output
    squeeze: int = 0  # channels in the middle of a squeeze-and-excitation before the last convolution; 0: there is none
    shortcut: Conv | None = None  # what the input passes before it is added
    active: bool = False  # whether the tower's activation follows the sum


class Plan(AnySize, ABC):
    """A tower that is a plan of convolutions, with batch norms or group norms."""

    poolings = ("mean", "gem")
    activation: Activation = "relu"
    eps: float
    groups: int = 0  # channel groups of a norm; 0: they are batch norms
    full: int = 0  # how many blocks compute in float32 whatever the others do
    max_pool: bool = False  # whether a maximum behind the first block halves the map
    behind: int = 0  # how many blocks stand behind the pooling

    @abstractmethod
    def plan(self) -> tuple[Bottleneck, ...]:
        """All blocks in order."""

    def forward(self, ops: Ops, image: Value, pooling: Pooling) -> Value:
        """The features of one normalised image."""
        x, blocks = ops.cast(image, full=True) if self.full else image, self.plan()
        for i, block in enumerate(blocks):
            x = ops.pool(x, pooling) if i == len(blocks) - self.behind else x
            x = self.step(ops, block, x)
            x = ops.max_pool(x, 3, 2) if self.max_pool and i == 0 else x
            x = ops.cast(x, full=False) if i + 1 == self.full else x
        return x if self.behind else ops.pool(x, pooling)

    def step(self, ops: Ops, block: Bottleneck, x: Value) -> Value:
        """What leaves a block."""
        y = x
        for conv in block.convs:
            if block.squeeze and conv is block.convs[-1]:  # every channel times what the map decides (Hu et al., 2018)
                name = f"{conv.name.rpartition('.')[0]}.squeeze"
                gate = ops.linear(f"{name}.reduce", ops.pool(y, "mean"), block.squeeze)
                gate = ops.linear(f"{name}.expand", ops.apply("silu", gate), y.width)
                y = ops.apply("multiply", y, ops.apply("sigmoid", gate))
            y = self._layer(ops, conv, y)
        if block.residual:
            y = ops.apply("add", x if block.shortcut is None else self._layer(ops, block.shortcut, x), y)
        return ops.see(ops.apply(self.activation, y) if block.active else y)

    def _layer(self, ops: Ops, conv: Conv, x: Value) -> Value:
        x = ops.conv(conv, x, None if self.groups else self.eps)
        x = ops.norm(f"{conv.name}.norm", x, self.eps, self.groups) if self.groups else x
        return ops.apply(self.activation, x) if conv.active else x


@dataclass(frozen=True)
class ConvNetConfig(Staged, Plan):
    """A small convolutional tower that learns from scratch on a laptop: plain 3x3 kernels and group norms.

    The first stage shrinks the image with one large kernel, each later one halves the map; stage i then refines it
    in `depths[i]` residual blocks.
    """

    # XLA on a CPU runs plain kernels near matrix speed, and a second layer at full resolution would cost as much as all
    # the rest. Group norms need neither running statistics nor large batches.

    least = 0

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
        super().__post_init__()
        fits = not any(width % self.groups for width in self.widths)
        demand(fits, f"ConvNet widths {self.widths} can't be split into {self.groups} groups.")

    def plan(self) -> tuple[Bottleneck, ...]:
        """All convolutions in order, one in each block: `stages.i.down`, then every `stages.i.blocks.j`."""
        blocks: list[Bottleneck] = []
        for i, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            kernel, stride, inputs = (3, 2, self.widths[i - 1]) if i else (self.stem_kernel, self.stem_stride, 3)
            down = Conv(f"stages.{i}.down", inputs, width, kernel, stride, active=False)
            convs = (Conv(f"stages.{i}.blocks.{j}", width, width, 3, active=False) for j in range(depth))
            blocks += [Bottleneck((down,), active=True), *(Bottleneck((conv,), True, active=True) for conv in convs)]
        return tuple(blocks)


NARROWING = 4  # how many times as many channels leave a bottleneck of a ResNet as are inside, in every published model


@dataclass(frozen=True)
class ResNetConfig(Staged, Plan):
    """ResNet (He et al., 2016): a large kernel, a maximum, then stages of residual blocks with batch norms; each but
    the first halves the map.
    """

    max_pool = True

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    """Channels that leave each stage."""
    bottleneck: bool
    """Whether a block is 1x1, 3x3, 1x1, narrow inside, and not two of 3x3."""
    stem: int = 64
    stride_first: bool = False
    """Whether a bottleneck's stride is in its first 1x1, as in the paper, and not in its 3x3, as is usual today."""
    eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = not (self.bottleneck and any(width % NARROWING for width in self.widths))
        demand(fits, f"ResNet widths {self.widths} can't be divided by {NARROWING} inside bottlenecks.")

    def plan(self) -> tuple[Bottleneck, ...]:
        """All convolutions in order: `stem`, then every `stages.i.blocks.j`."""
        blocks, inputs = [Bottleneck((Conv("stem", 3, self.stem, 7, 2),))], self.stem
        for i, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            for j in range(depth):
                blocks.append(self._block(f"stages.{i}.blocks.{j}", inputs, width, 2 if i and not j else 1))
                inputs = width
        return tuple(blocks)

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
"""The published shapes (table 1 of the paper, arXiv 1512.03385)."""
