"""EfficientNet, both versions (Tan and Le, arXiv 1905.11946 and 2104.00298)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from lookalike.core.errors import EncoderError
from lookalike.towers.ops import Conv, Ops, Padding, Pooling, Value
from lookalike.towers.parts import Bottleneck, divisible, run


@dataclass(frozen=True)
class Stage:
    """Blocks of one kind, one behind the other."""

    kind: Literal["plain", "fused", "depthwise"]
    """plain: one convolution. fused: one that widens, and one of 1x1 that narrows. depthwise: 1x1 that widens, a kernel
    for each channel, 1x1 that narrows."""
    repeats: int
    """How many blocks."""
    kernel: int
    """Side of the kernel that is not 1x1, in taps."""
    stride: int
    """Step of the first block, in pixels; the others have 1."""
    expansion: int
    """Channels inside a block, as a multiple of those that enter; depthwise blocks do not widen at 1."""
    channels: int
    """Channels that leave."""
    squeeze: float = 0.0
    """Channels in the middle of squeeze-and-excitation, as a share of those that enter the block; 0: there is none."""


@dataclass(frozen=True)
class EfficientNetConfig:
    """EfficientNet (Tan and Le, 2019; version 2: 2021) as a list of stages, with batch norms and swish."""

    stages: tuple[Stage, ...]
    """In order."""
    stem: int
    """Channels of the first convolution, which halves the image."""
    features: int
    """Channels of the last convolution: numbers in the pooled features (F)."""
    padding: Padding = "same"
    """Zeros around what enters a kernel with a stride; kernels without one have them on all sides."""
    symmetric: tuple[int, ...] = ()
    """Numbers of the blocks, counted from 0 through all stages, whose padding is symmetric whatever `padding` says."""
    first_residual: bool = True
    """Whether a stage's first block, too, adds its input where the shapes allow it."""
    eps: float = 1e-3
    """Added to the variance in every batch norm."""

    def __post_init__(self) -> None:
        counts = [self.stem, self.features]
        for stage in self.stages:
            counts += [stage.repeats, stage.kernel % 2, stage.stride, stage.expansion, stage.channels]
        if not self.stages or min(counts) < 1:
            raise EncoderError("An EfficientNet needs stages with blocks, channels, and kernels of an odd side.")

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        """What may make features of its tokens."""
        return ("mean", "gem")

    @property
    def only_size(self) -> int | None:
        """The one side of images that it takes, in pixels; None: any."""
        return None

    def plan(self) -> tuple[Bottleneck, ...]:
        """All convolutions in order: `stem`, `blocks.0` and so on through all stages, `last`."""
        stem = Conv("stem", 3, self.stem, kernel=3, stride=2, padding=self.padding)
        last = Conv("last", self.stages[-1].channels, self.features, kernel=1)
        return (Bottleneck((stem,), False), *self._blocks(), Bottleneck((last,), False))

    def places(self) -> tuple[tuple[int, int], ...]:
        """Stage of each block, and its place there, both counted from 0."""
        return tuple((i, j) for i, stage in enumerate(self.stages) for j in range(stage.repeats))

    def forward(self, ops: Ops, image: Value, pooling: Pooling) -> Value:
        """The features of one normalised image."""
        stem, first, *rest = self.plan()
        # The first depthwise kernel reads float32: of published weights, bfloat16 before it costs most of the cosine.
        x = ops.usual(run(ops, (stem, first), ops.full(image), "silu", self.eps))
        return ops.pool(run(ops, rest, x, "silu", self.eps), pooling)

    def _blocks(self) -> Iterator[Bottleneck]:
        inputs = self.stem
        for number, (i, j) in enumerate(self.places()):
            stage = self.stages[i]
            stride = stage.stride if j == 0 else 1
            padding: Padding = "symmetric" if stride == 1 or number in self.symmetric else self.padding
            convs = _convs(f"blocks.{number}", stage, inputs, stride, padding)
            residual = stride == 1 and inputs == stage.channels and (j > 0 or self.first_residual)
            squeeze = max(1, int(inputs * stage.squeeze)) if stage.squeeze else 0
            yield Bottleneck(convs, residual, squeeze)
            inputs = stage.channels


def _convs(name: str, stage: Stage, inputs: int, stride: int, padding: Padding) -> tuple[Conv, ...]:
    """The convolutions of one block: one, two, or three."""
    inside = inputs * stage.expansion
    if stage.kind == "plain":
        return (Conv(f"{name}.expand", inputs, stage.channels, stage.kernel, stride, padding=padding),)
    project = Conv(f"{name}.project", inside, stage.channels, kernel=1, active=False)
    if stage.kind == "fused":
        return Conv(f"{name}.expand", inputs, inside, stage.kernel, stride, padding=padding), project
    expand = (Conv(f"{name}.expand", inputs, inside, kernel=1),) if stage.expansion > 1 else ()
    depthwise = Conv(f"{name}.depthwise", inside, inside, stage.kernel, stride, depthwise=True, padding=padding)
    return *expand, depthwise, project


_B = tuple(  # table 1 of Tan and Le, 2019: repeats, kernel, stride, expansion, channels
    Stage("depthwise", *row, squeeze=0.25)
    for row in (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
)


def version_1(width: float, depth: float) -> EfficientNetConfig:
    """The first version, from the factors of its channels and of its blocks: (1, 1) is B0, (2, 3.1) is B7."""
    rows = ((s, ceil(depth * s.repeats), divisible(width * s.channels)) for s in _B)
    stages = tuple(replace(s, repeats=repeats, channels=channels) for s, repeats, channels in rows)
    return EfficientNetConfig(stages, divisible(width * 32), divisible(width * 1280))


def version_2(*rows: tuple[int, int, int, int]) -> EfficientNetConfig:
    """The second version, from (repeats, stride, expansion, channels) of each stage.

    The first stage is plain, the next two are fused, the others depthwise with a squeeze of a quarter (table 4 of Tan
    and Le, 2021); all kernels are 3x3, the stem is as wide as the first stage.
    """
    kinds: tuple[Literal["plain", "fused"], ...] = ("plain", "fused", "fused")
    first = [Stage(kind, n, 3, s, e, c) for kind, (n, s, e, c) in zip(kinds, rows, strict=False)]
    rest = [Stage("depthwise", n, 3, s, e, c, 0.25) for n, s, e, c in rows[len(kinds) :]]
    return EfficientNetConfig((*first, *rest), rows[0][3], 1280)


EFFICIENTNETS: dict[str, EfficientNetConfig] = {
    "b0": version_1(1.0, 1.0),
    "b1": version_1(1.0, 1.1),
    "b2": version_1(1.1, 1.2),
    "b3": version_1(1.2, 1.4),
    "b4": version_1(1.4, 1.8),
    "b5": version_1(1.6, 2.2),
    "b6": version_1(1.8, 2.6),
    "b7": version_1(2.0, 3.1),
    "v2_s": version_2((2, 1, 1, 24), (4, 2, 4, 48), (4, 2, 4, 64), (6, 2, 4, 128), (9, 1, 6, 160), (15, 2, 6, 256)),
    "v2_m": version_2(
        (3, 1, 1, 24), (5, 2, 4, 48), (5, 2, 4, 80), (7, 2, 4, 160), (14, 1, 6, 176), (18, 2, 6, 304), (5, 1, 6, 512)
    ),
    "v2_l": version_2(
        (4, 1, 1, 32), (7, 2, 4, 64), (7, 2, 4, 96), (10, 2, 4, 192), (19, 1, 6, 224), (25, 2, 6, 384), (7, 1, 6, 640)
    ),
}
"""The published shapes, with TensorFlow's padding and eps."""
