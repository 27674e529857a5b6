"""Plans of inverted bottlenecks, which are wider inside: MobileNetV2, MobileNetV4 and EfficientNet."""

from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from lookalike.towers.ops import Conv, Padding, demand
from lookalike.towers.plans import Bottleneck, Plan


@dataclass(frozen=True)
class Stage:
    """Blocks of one kind, one behind the other."""

    kind: Literal["plain", "fused", "depthwise"]
    """plain: one convolution. fused: one that widens, and one of 1x1 that narrows. depthwise: 1x1 that widens, a kernel
    for each channel, 1x1 that narrows."""
    repeats: int
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
class Universal:
    """Blocks of a MobileNetV4; what is not said here is as in `Stage`."""

    kind: Literal["plain", "fused", "universal"]
    """universal: a kernel for each channel, 1x1 that widens, a kernel for each channel, 1x1 that narrows."""
    repeats: int
    start: int
    """Side of the kernel before the widening, in taps; 0: there is none."""
    kernel: int
    """Side of the kernel behind the widening, or of the only one, in taps; 0: there is none."""
    stride: int
    expansion: int
    channels: int


def divisible(channels: float | int, divisor: int = 8, minimum: int | None = None) -> int:
    """The multiple of `divisor` nearest to `channels` that is not more than a tenth below it."""
    near = max(minimum or divisor, int(channels + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * channels else near


def _convs(
    name: str, stage: Stage | Universal, inputs: int, inside: int, stride: int, padding: Padding = "symmetric"
) -> tuple[Conv, ...]:
    outputs, kernel, start = stage.channels, stage.kernel, stage.start if isinstance(stage, Universal) else 0
    if stage.kind == "plain":
        return (Conv(f"{name}.expand", inputs, outputs, kernel, stride, padding=padding),)
    project = Conv(f"{name}.project", inside, outputs, 1, active=False)
    if stage.kind == "fused":
        return Conv(f"{name}.expand", inputs, inside, kernel, stride, padding=padding), project
    convs = []
    if start:
        early = 1 if kernel else stride
        convs.append(Conv(f"{name}.start", inputs, inputs, start, early, depthwise=True, active=False))
    if stage.kind == "universal" or stage.expansion > 1:
        convs.append(Conv(f"{name}.expand", inputs, inside, 1))
    if kernel:
        convs.append(Conv(f"{name}.depthwise", inside, inside, kernel, stride, depthwise=True, padding=padding))
    return *convs, project


@dataclass(frozen=True)
class MobileNetV2Config(Plan):
    """MobileNetV2 (Sandler et al., 2018, arXiv 1801.04381) with every choice of its published checkpoints."""

    activation = "relu6"
    full = 2  # the first depthwise kernel too: of published weights, bfloat16 before it costs most of the cosine

    multiplier: float = 1.0
    """Scales all channel counts (called depth multiplier in the checkpoints)."""
    divisor: int = 8
    """Channel counts are rounded to a multiple of this."""
    minimum: int = 8
    """No layer has fewer channels."""
    expansion: float = 6.0
    """Channels inside a bottleneck, as a multiple of those that enter."""
    output_stride: int = 32
    """Input side over the side of the last map; below 32, later strides become dilations."""
    fine_output: bool = True
    """Keep 1280 output channels although `multiplier` is below 1."""
    first_is_expansion: bool = True
    """The stem's first convolution takes the place of the first bottleneck's expansion."""
    same_padding: bool = False
    """TensorFlow's padding, which depends on the size and puts the odd pixel at the end; else symmetric."""
    eps: float = 1e-3

    @property
    def features(self) -> int:
        """Numbers in the pooled features (F)."""
        return 1280 if self.fine_output and self.multiplier < 1 else self._channels(1280)

    def plan(self) -> tuple[Bottleneck, ...]:
        """All convolutions in order: `stem`, `blocks.0` to `blocks.16`, `last`."""
        channels = [16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320]  # table 2 of the paper
        strides = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
        padding: Padding = "same" if self.same_padding else "symmetric"
        inputs, reached, dilation = self._channels(32), 2, 1
        blocks = [Bottleneck((Conv("stem", 3, inputs, 3, 2, padding=padding),))]
        for i, (wanted, stride) in enumerate(zip(channels, strides, strict=True)):
            at, outputs = dilation, self._channels(wanted)
            if reached == self.output_stride:  # the map must not shrink further: look wider from the next block on
                dilation, stride = dilation * stride, 1
            else:
                at, reached = 1, reached * stride
            inside = divisible(round(inputs * self.expansion), self.divisor, self.minimum) if i else inputs
            expansion = 1 if i == 0 and self.first_is_expansion else 2  # at 1 nothing widens
            stage = Stage("depthwise", 1, 3, stride, expansion, outputs)
            convs = _convs(f"blocks.{i}", stage, inputs, inside, stride, padding)
            convs = tuple(replace(conv, dilation=at) if conv.depthwise else conv for conv in convs)
            blocks.append(Bottleneck(convs, residual=i > 0 and stride == 1 and inputs == outputs))
            inputs = outputs
        return (*blocks, Bottleneck((Conv("last", inputs, self.features, 1),)))

    def _channels(self, count: int) -> int:
        return divisible(round(count * self.multiplier), self.divisor, self.minimum)


@dataclass(frozen=True)
class EfficientNetConfig(Plan):
    """EfficientNet (Tan and Le, 2019; version 2: 2021) as a list of stages, with batch norms and swish."""

    activation = "silu"
    full = 2  # as in MobileNetV2

    stages: tuple[Stage, ...]
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

    def __post_init__(self) -> None:
        counts = [self.stem, self.features]
        for stage in self.stages:
            counts += [stage.repeats, stage.kernel % 2, stage.stride, stage.expansion, stage.channels]
        good = len(self.stages) > 0 and min(counts) > 0
        demand(good, "An EfficientNet needs stages with blocks, channels, and kernels of an odd side.")

    def plan(self) -> tuple[Bottleneck, ...]:
        """All convolutions in order: `stem`, `blocks.0` and so on through all stages, `last`."""
        blocks, inputs = [Bottleneck((Conv("stem", 3, self.stem, 3, 2, padding=self.padding),))], self.stem
        for number, (stage, j) in enumerate((s, j) for s in self.stages for j in range(s.repeats)):
            stride = 1 if j else stage.stride
            padding: Padding = "symmetric" if stride == 1 or number in self.symmetric else self.padding
            convs = _convs(f"blocks.{number}", stage, inputs, inputs * stage.expansion, stride, padding)
            residual = stride == 1 and inputs == stage.channels and (j > 0 or self.first_residual)
            blocks.append(Bottleneck(convs, residual, max(1, int(inputs * stage.squeeze)) if stage.squeeze else 0))
            inputs = stage.channels
        return (*blocks, Bottleneck((Conv("last", inputs, self.features, 1),)))


@dataclass(frozen=True)
class MobileNetV4Config(Plan):
    """MobileNetV4 without attention (Qin et al., 2024): universal inverted bottlenecks with batch norms and ReLU; a
    last layer widens the pooled map.
    """

    behind = 1

    stages: tuple[Universal, ...]
    stem: int
    """Channels of the first convolution, which halves the image."""
    features: int = 1280
    """Channels of the layer behind the pooling: numbers in the features (F)."""
    eps: float = 1e-5

    def __post_init__(self) -> None:
        least = min((self.stem, self.features, *(min(s.repeats, s.channels) for s in self.stages)))
        demand(len(self.stages) > 0 and least > 0, "A MobileNetV4 needs stages with blocks and channels.")
        sides = [side for stage in self.stages for side in (stage.start, stage.kernel)]
        demand(all(side % 2 or not side for side in sides), "A MobileNetV4's kernels have an odd side.")

    def plan(self) -> tuple[Bottleneck, ...]:
        """All convolutions in order: `stem`, `blocks.0` and so on through all stages, `last`."""
        blocks, inputs = [Bottleneck((Conv("stem", 3, self.stem, 3, 2),))], self.stem
        for stage, j in [(s, j) for s in self.stages for j in range(s.repeats)]:
            stride = 1 if j else stage.stride
            convs = _convs(f"blocks.{len(blocks) - 1}", stage, inputs, divisible(inputs * stage.expansion), stride)
            residual = stage.kind != "plain" and stride == 1 and inputs == stage.channels
            blocks.append(Bottleneck(convs, residual))
            inputs = stage.channels
        return (*blocks, Bottleneck((Conv("last", inputs, self.features, 1),)))


_B = tuple(  # table 1 of Tan and Le, 2019 (arXiv 1905.11946): repeats, kernel, stride, expansion, channels
    Stage("depthwise", *row, squeeze=0.25)
    for row in (
        *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
        *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
    )
)
_FACTORS = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1))


def version_1(width: float, depth: float) -> EfficientNetConfig:
    """The first version, from the factors of its channels and of its blocks: (1, 1) is B0, (2, 3.1) is B7."""
    stages = (replace(s, repeats=ceil(depth * s.repeats), channels=divisible(width * s.channels)) for s in _B)
    return EfficientNetConfig(tuple(stages), divisible(width * 32), divisible(width * 1280))


def version_2(*rows: tuple[int, int, int, int]) -> EfficientNetConfig:
    """The second version, from (repeats, stride, expansion, channels) of each stage.

    The first stage is plain, the next two are fused, the others depthwise with a squeeze of a quarter (table 4 of Tan
    and Le, 2021, arXiv 2104.00298); all kernels are 3x3, the stem is as wide as the first stage.
    """
    kinds: dict[int, Literal["plain", "fused", "depthwise"]] = {0: "plain", 1: "fused", 2: "fused"}
    shapes = ((kinds.get(i, "depthwise"), n, 3, s, e, c, 0.25 * (i > 2)) for i, (n, s, e, c) in enumerate(rows))
    return EfficientNetConfig(tuple(Stage(*shape) for shape in shapes), rows[0][3], 1280)


EFFICIENTNETS: dict[str, EfficientNetConfig] = {
    **{f"b{i}": version_1(*factors) for i, factors in enumerate(_FACTORS)},
    "v2_s": version_2((2, 1, 1, 24), (4, 2, 4, 48), (4, 2, 4, 64), (6, 2, 4, 128), (9, 1, 6, 160), (15, 2, 6, 256)),
    "v2_m": version_2(
        (3, 1, 1, 24), (5, 2, 4, 48), (5, 2, 4, 80), (7, 2, 4, 160), (14, 1, 6, 176), (18, 2, 6, 304), (5, 1, 6, 512)
    ),
    "v2_l": version_2(
        (4, 1, 1, 32), (7, 2, 4, 64), (7, 2, 4, 96), (10, 2, 4, 192), (19, 1, 6, 224), (25, 2, 6, 384), (7, 1, 6, 640)
    ),
}
"""The published shapes, with TensorFlow's padding and eps."""


def _stages(channels: int, *rows: tuple[int, int, int, int, int]) -> tuple[Universal, ...]:
    """From (repeats, start, kernel, stride, expansion)."""
    return tuple(Universal("universal", *row, channels) for row in rows)


def scaled(config: MobileNetV4Config, multiplier: float) -> MobileNetV4Config:
    """The same with so many times as many channels; a stem is not made narrower, nor is the last layer."""
    stages = tuple(replace(stage, channels=divisible(stage.channels * multiplier)) for stage in config.stages)
    return replace(config, stages=stages, stem=config.stem if multiplier < 1 else divisible(config.stem * multiplier))


_LAST = Universal("plain", 1, 0, 1, 1, 1, 960)
_FIRST = Universal("fused", 1, 0, 3, 2, 4, 48)

MOBILENETS_V4: dict[str, MobileNetV4Config] = {
    "small": MobileNetV4Config(
        (
            *(Universal("plain", 1, 0, kernel, stride, 1, n) for kernel, stride, n in ((3, 2, 32), (1, 1, 32))),
            *(Universal("plain", 1, 0, kernel, stride, 1, n) for kernel, stride, n in ((3, 2, 96), (1, 1, 64))),
            *_stages(96, (1, 5, 5, 2, 3), (4, 0, 3, 1, 2), (1, 3, 0, 1, 4)),
            *_stages(128, (1, 3, 3, 2, 6), (1, 5, 5, 1, 4), (1, 0, 5, 1, 4), (1, 0, 5, 1, 3), (2, 0, 3, 1, 4)),
            _LAST,
        ),
        stem=32,
    ),
    "medium": MobileNetV4Config(
        (
            _FIRST,
            *_stages(80, (1, 3, 5, 2, 4), (1, 3, 3, 1, 2)),
            *_stages(160, (1, 3, 5, 2, 6), (2, 3, 3, 1, 4), (1, 3, 5, 1, 4), (1, 3, 3, 1, 4), (1, 3, 0, 1, 4)),
            *_stages(160, (1, 0, 0, 1, 2), (1, 3, 0, 1, 4)),
            *_stages(256, (1, 5, 5, 2, 6), (1, 5, 5, 1, 4), (2, 3, 5, 1, 4), (1, 0, 0, 1, 4), (1, 3, 0, 1, 4)),
            *_stages(256, (1, 3, 5, 1, 2), (1, 5, 5, 1, 4), (2, 0, 0, 1, 4), (1, 5, 0, 1, 2)),
            _LAST,
        ),
        stem=32,
    ),
    "large": MobileNetV4Config(
        (
            _FIRST,
            *_stages(96, (1, 3, 5, 2, 4), (1, 3, 3, 1, 4)),
            *_stages(192, (1, 3, 5, 2, 4), (3, 3, 3, 1, 4), (1, 3, 5, 1, 4), (5, 5, 3, 1, 4), (1, 3, 0, 1, 4)),
            *_stages(512, (1, 5, 5, 2, 4), (3, 5, 5, 1, 4), (1, 5, 0, 1, 4), (1, 5, 3, 1, 4), (2, 5, 0, 1, 4)),
            *_stages(512, (1, 5, 3, 1, 4), (1, 5, 5, 1, 4), (3, 5, 0, 1, 4)),
            _LAST,
        ),
        stem=24,
    ),
}
"""The published shapes (tables 11 to 13 of the paper, arXiv 2404.10518)."""
