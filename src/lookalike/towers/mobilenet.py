"""MobileNetV2 (Sandler et al., 2018, arXiv 1801.04381)."""

from collections.abc import Iterator
from dataclasses import dataclass

from lookalike.towers.ops import Conv, Ops, Padding, Pooling, Value
from lookalike.towers.parts import Bottleneck, divisible, run


@dataclass(frozen=True)
class MobileNetV2Config:
    """MobileNetV2 (Sandler et al., 2018) with every choice of its published checkpoints."""

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
    """Added to the variance in every batch norm."""

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
        return 1280 if self.fine_output and self.multiplier < 1 else self._channels(1280)

    def plan(self) -> tuple[Bottleneck, ...]:
        """All convolutions in order: `stem`, `blocks.0` to `blocks.16`, `last`."""
        stem = Conv("stem", 3, self._channels(32), kernel=3, stride=2, padding=self._padding)
        last = Conv("last", self._channels(320), self.features, kernel=1)
        return (Bottleneck((stem,), False), *self._bottlenecks(), Bottleneck((last,), False))

    def forward(self, ops: Ops, image: Value, pooling: Pooling) -> Value:
        """The features of one normalised image."""
        stem, first, *rest = self.plan()
        # The first depthwise kernel reads float32: of published weights, bfloat16 before it costs most of the cosine.
        x = ops.usual(run(ops, (stem, first), ops.full(image), "relu6", self.eps))
        return ops.pool(run(ops, rest, x, "relu6", self.eps), pooling)

    def _bottlenecks(self) -> Iterator[Bottleneck]:
        outputs = [16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320]  # table 2 of the paper
        strides = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
        inputs, reached, dilation = self._channels(32), 2, 1
        for i, (wanted, stride) in enumerate(zip(outputs, strides, strict=True)):
            at = dilation
            if reached == self.output_stride:  # the map must not shrink further: look wider from the next block on
                dilation, stride = dilation * stride, 1
            else:
                at, reached = 1, reached * stride
            yield self._bottleneck(f"blocks.{i}", inputs, self._channels(wanted), stride, at, first=i == 0)
            inputs = self._channels(wanted)

    def _bottleneck(self, name: str, inputs: int, outputs: int, stride: int, dilation: int, first: bool) -> Bottleneck:
        inside = inputs if first else divisible(round(inputs * self.expansion), self.divisor, self.minimum)
        expand = (Conv(f"{name}.expand", inputs, inside, kernel=1),) if not (first and self.first_is_expansion) else ()
        return Bottleneck(
            (
                *expand,
                Conv(f"{name}.depthwise", inside, inside, 3, stride, dilation, depthwise=True, padding=self._padding),
                Conv(f"{name}.project", inside, outputs, kernel=1, active=False),
            ),
            residual=not first and stride == 1 and inputs == outputs,
        )

    @property
    def _padding(self) -> Padding:
        return "same" if self.same_padding else "symmetric"

    def _channels(self, count: int) -> int:
        return divisible(round(count * self.multiplier), self.divisor, self.minimum)
