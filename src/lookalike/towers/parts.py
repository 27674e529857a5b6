"""Towers of convolutions: a plan of blocks, and the one forward of all plans."""

from collections.abc import Iterable
from dataclasses import dataclass

from lookalike.towers.ops import Activation, Conv, Ops, Value

NORM_PARTS = ("weight", "bias", "mean", "variance")
"""What a batch norm consists of."""


@dataclass(frozen=True)
class Bottleneck:
    """Convolutions one behind the other; `residual` adds the input to the output."""

    convs: tuple[Conv, ...]
    residual: bool
    squeeze: int = 0
    """Channels in the middle of a squeeze-and-excitation before the last convolution; 0: there is none."""
    shortcut: Conv | None = None
    """What the input passes before it is added."""
    active: bool = False
    """Whether the tower's activation follows the sum."""


def run(ops: Ops, plan: Iterable[Bottleneck], x: Value, activation: Activation, eps: float, groups: int = 0) -> Value:
    """A map through the blocks of a plan; with batch norms, or group norms of so many groups."""

    def layer(conv: Conv, x: Value) -> Value:
        x = ops.conv(conv, x)
        name = f"{conv.name}.norm"
        x = ops.group_norm(name, x, groups, eps) if groups else ops.batch_norm(name, x, eps)
        return ops.activate(x, activation) if conv.active else x

    for block in plan:
        y = x
        for conv in block.convs:
            if block.squeeze and conv is block.convs[-1]:
                y = _squeezed(ops, squeeze_name(block), y, block.squeeze)
            y = layer(conv, y)
        if block.residual:
            y = ops.add(x if block.shortcut is None else layer(block.shortcut, x), y)
        x = ops.see(ops.activate(y, activation) if block.active else y)
    return x


def _squeezed(ops: Ops, name: str, x: Value, inside: int) -> Value:
    """Squeeze-and-excitation: every channel times a number that the whole map decides (Hu et al., 2018)."""
    gate = ops.activate(ops.linear(f"{name}.reduce", ops.pool(x, "mean"), inside), "silu")
    return ops.multiply(x, ops.activate(ops.linear(f"{name}.expand", gate, x.width), "sigmoid"))


def squeeze_name(block: Bottleneck) -> str:
    """What the names of a block's squeeze-and-excitation start with."""
    return f"{block.convs[0].name.rpartition('.')[0]}.squeeze"


def divisible(channels: float | int, divisor: int = 8, minimum: int | None = None) -> int:
    """The multiple of `divisor` nearest to `channels` that is not more than a tenth below it."""
    near = max(minimum or divisor, int(channels + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * channels else near
