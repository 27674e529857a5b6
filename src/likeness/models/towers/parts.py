"""What the shapes of towers are made of: names of tensors, convolutions and the zeros around them."""

from dataclasses import dataclass

Shapes = dict[str, tuple[int, ...]]
"""Tensor name -> shape."""

NORM_PARTS = ("weight", "bias", "mean", "variance")
"""What a batch norm consists of."""


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
    relu6: bool = True
    """Whether min(max(x, 0), 6) follows the norm."""


@dataclass(frozen=True)
class Bottleneck:
    """Convolutions one behind the other; `residual` adds the input to the output."""

    convs: tuple[Conv, ...]
    residual: bool


def pads(length: int, kernel: int, stride: int, dilation: int, same: bool) -> tuple[int, int]:
    """Zeros before and after one side of a map that a convolution enters.

    Args:
        length: Of the side, in pixels.
        kernel: Side of the kernel, in taps.
        stride: Step, in pixels.
        dilation: Distance between taps, in pixels.
        same: As many as the published TensorFlow weights expect, the odd one at the end: the sum follows from the
            undilated kernel and is then dilated (transformers' `apply_tf_padding`). Else equally many, as in torch.
    """
    if not same:
        return ((kernel - 1) // 2 * dilation,) * 2
    spare = max(kernel - (length % stride or stride), 0)
    return spare // 2 * dilation, (spare - spare // 2) * dilation


def affine(name: str, shape: tuple[int, ...]) -> Shapes:
    """Scale and shift of a norm."""
    return {f"{name}.weight": shape, f"{name}.bias": shape}


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    """A matrix [inputs outputs] and its bias."""
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}
