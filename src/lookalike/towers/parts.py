"""What the shapes of towers are made of: names of tensors, convolutions and the zeros around them."""

from dataclasses import dataclass
from typing import Literal

Shapes = dict[str, tuple[int, ...]]
"""Tensor name -> shape."""

NORM_PARTS = ("weight", "bias", "mean", "variance")
"""What a batch norm consists of."""

Padding = Literal["symmetric", "same", "late"]
"""Which zeros surround a map that a convolution enters; see `pads`."""


@dataclass(frozen=True)
class Conv:
    """One convolution of a plan, with the norm behind it."""

    name: str
    """Its tensors are `<name>.conv.weight` and `<name>.norm.*`."""
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False
    """Each channel has its own kernel, [kernel, kernel, 1, outputs]."""
    padding: Padding = "symmetric"
    """Zeros around what enters."""
    active: bool = True
    """Whether the tower's activation follows the norm."""


@dataclass(frozen=True)
class Bottleneck:
    """Convolutions one behind the other; `residual` adds the input to the output."""

    convs: tuple[Conv, ...]
    residual: bool
    squeeze: int = 0
    """Channels in the middle of a squeeze-and-excitation before the last convolution; 0: there is none."""


def pads(length: int, kernel: int, stride: int, dilation: int, padding: Padding) -> tuple[int, int]:
    """Zeros before and after one side of a map that a convolution enters.

    Args:
        length: Of the side, in pixels.
        kernel: Side of the kernel, in taps.
        stride: Step, in pixels.
        dilation: Distance between taps, in pixels.
        padding: symmetric: equally many, as in torch. same: as many as the published TensorFlow weights expect, the
            odd one at the end: the sum follows from the undilated kernel and is then dilated (transformers'
            `apply_tf_padding`). late: one less before than after, whatever the length; with stride 2 the same as
            "same" for even lengths.
    """
    if padding == "symmetric":
        return ((kernel - 1) // 2 * dilation,) * 2
    if padding == "late":
        return (kernel // 2 - 1) * dilation, kernel // 2 * dilation
    spare = max(kernel - (length % stride or stride), 0)
    return spare // 2 * dilation, (spare - spare // 2) * dilation


def affine(name: str, shape: tuple[int, ...]) -> Shapes:
    """Scale and shift of a norm."""
    return {f"{name}.weight": shape, f"{name}.bias": shape}


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    """A matrix [inputs outputs] and its bias."""
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}
