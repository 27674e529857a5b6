"""MobileNetV4 without attention (Qin et al., 2024, arXiv 2404.10518): small, medium and large."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from lookalike.core.errors import EncoderError
from lookalike.towers.ops import Conv, Ops, Pooling, Value
from lookalike.towers.parts import Bottleneck, divisible, run


@dataclass(frozen=True)
class Universal:
    """Blocks of one kind, one behind the other."""

    kind: Literal["plain", "fused", "universal"]
    """plain: one convolution. fused: one that widens, and one of 1x1 that narrows. universal: a kernel for each
    channel, 1x1 that widens, a kernel for each channel, 1x1 that narrows, the kernels where they have a side."""
    repeats: int
    """How many blocks."""
    start: int
    """Side of the kernel before the widening, in taps; 0: there is none."""
    kernel: int
    """Side of the kernel behind the widening, or of the only one, in taps; 0: there is none."""
    stride: int
    """Step of the first block, in pixels; the others have 1."""
    expansion: int
    """Channels inside a block, as a multiple of those that enter."""
    channels: int
    """Channels that leave."""


@dataclass(frozen=True)
class MobileNetV4Config:
    """Universal inverted bottlenecks with batch norms and ReLU; a last layer widens the pooled map."""

    stages: tuple[Universal, ...]
    """In order."""
    stem: int
    """Channels of the first convolution, which halves the image."""
    features: int = 1280
    """Channels of the layer behind the pooling: numbers in the features (F)."""
    eps: float = 1e-5
    """Added to the variance in every batch norm."""

    def __post_init__(self) -> None:
        if not self.stages or min(self.stem, self.features, *(min(s.repeats, s.channels) for s in self.stages)) < 1:
            raise EncoderError("A MobileNetV4 needs stages with blocks and channels.")
        if any(side % 2 == 0 and side for stage in self.stages for side in (stage.start, stage.kernel)):
            raise EncoderError("A MobileNetV4's kernels have an odd side.")

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
        stem = Conv("stem", 3, self.stem, kernel=3, stride=2)
        last = Conv("last", self.stages[-1].channels, self.features, kernel=1)
        return (Bottleneck((stem,), False), *self._blocks(), Bottleneck((last,), False))

    def forward(self, ops: Ops, image: Value, pooling: Pooling) -> Value:
        """The features of one normalised image."""
        *blocks, last = self.plan()
        pooled = ops.pool(run(ops, blocks, image, "relu", self.eps), pooling)
        return run(ops, (last,), pooled, "relu", self.eps)

    def _blocks(self) -> Iterator[Bottleneck]:
        inputs, number = self.stem, 0
        for stage in self.stages:
            for j in range(stage.repeats):
                stride = stage.stride if j == 0 else 1
                residual = stage.kind != "plain" and stride == 1 and inputs == stage.channels
                yield Bottleneck(tuple(_convs(f"blocks.{number}", stage, inputs, stride)), residual)
                inputs, number = stage.channels, number + 1


def _convs(name: str, stage: Universal, inputs: int, stride: int) -> Iterator[Conv]:
    """The convolutions of one block."""
    if stage.kind == "plain":
        yield Conv(f"{name}.expand", inputs, stage.channels, stage.kernel, stride)
        return
    inside = divisible(inputs * stage.expansion)
    if stage.kind == "fused":
        yield Conv(f"{name}.expand", inputs, inside, stage.kernel, stride)
    else:
        if stage.start:
            early = 1 if stage.kernel else stride
            yield Conv(f"{name}.start", inputs, inputs, stage.start, early, depthwise=True, active=False)
        yield Conv(f"{name}.expand", inputs, inside, 1)
        if stage.kernel:
            yield Conv(f"{name}.depthwise", inside, inside, stage.kernel, stride, depthwise=True)
    yield Conv(f"{name}.project", inside, stage.channels, 1, active=False)


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
"""The published shapes (tables 11 to 13 of the paper)."""
