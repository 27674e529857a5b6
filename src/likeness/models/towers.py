"""The shape of each tower, as frozen values that know every tensor's name and shape. No JAX here.

A tower turns a normalised square picture into tokens: patches of a ViT, positions of the last map of a convolutional
one. Weights are [in, out] (`x @ W`), convolution kernels [height, width, in, out].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from likeness.core.errors import EncoderError

Shapes = dict[str, tuple[int, ...]]
"""Tensor name -> shape."""

NORM_PARTS = ("weight", "bias", "mean", "variance")
"""What a batch norm consists of."""


@dataclass(frozen=True)
class ViTConfig:
    """Vision transformer (Dosovitskiy et al., 2021) in the form that CLIP gave it: norm before every part."""

    size: int
    """Side of the input, in pixels; a multiple of `patch`."""
    patch: int
    """Side of a patch, in pixels."""
    width: int
    """Numbers in a token."""
    layers: int
    """Blocks."""
    heads: int
    """Attention heads; divides `width`."""
    hidden: int
    """Width inside the MLP."""
    activation: Literal["gelu", "quick_gelu"]
    """gelu: the exact one, x * Phi(x). quick_gelu: x * sigmoid(1.702 x), as OpenAI's CLIP was trained."""
    eps: float = 1e-5
    """Added to the variance in every norm."""
    patch_bias: bool = False
    """Whether the patch projection has a bias."""
    norm_pre: bool = True
    """Whether tokens are normalised before the first block, as in CLIP."""
    head: int | None = None
    """Size of CLIP's image projection behind the last norm; None leaves it out."""

    def __post_init__(self) -> None:
        if self.size % self.patch:
            raise EncoderError(f"A ViT input of {self.size} px can't be cut into patches of {self.patch} px.")
        if self.width % self.heads:
            raise EncoderError(f"A ViT of width {self.width} can't be split among {self.heads} heads.")

    @property
    def tokens(self) -> int:
        """Tokens of a picture, class token included (P)."""
        return (self.size // self.patch) ** 2 + 1

    @property
    def features(self) -> int:
        """Numbers in the pooled features (F)."""
        return self.head or self.width

    def shapes(self) -> Shapes:
        """Every tensor; those below `blocks.` are stacked over the layers."""
        layers, width = self.layers, self.width
        block = {
            **_affine("norm1", (width,)),
            **_linear("attention.qkv", width, 3 * width),
            **_linear("attention.out", width, width),
            **_affine("norm2", (width,)),
            **_linear("mlp.up", width, self.hidden),
            **_linear("mlp.down", self.hidden, width),
        }
        return {
            "patch.weight": (3 * self.patch**2, width),
            **({"patch.bias": (width,)} if self.patch_bias else {}),
            "class_token": (width,),
            "position": (self.tokens, width),
            **(_affine("norm_pre", (width,)) if self.norm_pre else {}),
            **{f"blocks.{name}": (layers, *shape) for name, shape in block.items()},
            **_affine("norm_post", (width,)),
            **({"head.weight": (width, self.head)} if self.head else {}),
        }


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
    def features(self) -> int:
        """Numbers in the pooled features (F)."""
        return 1280 if self.fine_output and self.multiplier < 1 else self._channels(1280)

    def plan(self) -> tuple[Bottleneck, ...]:
        """All convolutions in order: `stem`, `blocks.0` to `blocks.16`, `last`."""
        stem = Conv("stem", 3, self._channels(32), kernel=3, stride=2)
        last = Conv("last", self._channels(320), self.features, kernel=1)
        return (Bottleneck((stem,), False), *self._bottlenecks(), Bottleneck((last,), False))

    def shapes(self) -> Shapes:
        """Every tensor."""
        shapes: Shapes = {}
        for conv in (conv for block in self.plan() for conv in block.convs):
            inputs = 1 if conv.depthwise else conv.inputs
            shapes[f"{conv.name}.conv.weight"] = (conv.kernel, conv.kernel, inputs, conv.outputs)
            shapes |= {f"{conv.name}.norm.{part}": (conv.outputs,) for part in NORM_PARTS}
        return shapes

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
        inside = inputs if first else self._divisible(round(inputs * self.expansion))
        expand = (Conv(f"{name}.expand", inputs, inside, kernel=1),) if not (first and self.first_is_expansion) else ()
        return Bottleneck(
            (
                *expand,
                Conv(f"{name}.depthwise", inside, inside, 3, stride, dilation, depthwise=True),
                Conv(f"{name}.project", inside, outputs, kernel=1, relu6=False),
            ),
            residual=not first and stride == 1 and inputs == outputs,
        )

    def _channels(self, count: int) -> int:
        return self._divisible(round(count * self.multiplier))

    def _divisible(self, count: int) -> int:
        """The nearest multiple of `divisor` that is not more than a tenth below `count`."""
        near = max(self.minimum, int(count + self.divisor / 2) // self.divisor * self.divisor)
        return near + self.divisor if near < 0.9 * count else near


@dataclass(frozen=True)
class ConvNetConfig:
    """A small convolutional tower that learns from nothing on a laptop: plain 3x3 kernels and group norms.

    The first stage shrinks the picture with one large kernel, each later one halves the map; stage i then refines it
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
    def features(self) -> int:
        """Numbers in the pooled features (F)."""
        return self.widths[-1]

    def plan(self) -> tuple[Bottleneck, ...]:
        """All convolutions in order, one in each block: `stages.i.down`, then every `stages.i.blocks.j`."""
        blocks: list[Bottleneck] = []
        for i, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            kernel, stride, inputs = (3, 2, self.widths[i - 1]) if i else (self.stem_kernel, self.stem_stride, 3)
            blocks.append(
                Bottleneck((Conv(f"stages.{i}.down", inputs, width, kernel, stride, relu6=False),), residual=False)
            )
            for j in range(depth):
                blocks.append(
                    Bottleneck((Conv(f"stages.{i}.blocks.{j}", width, width, 3, relu6=False),), residual=True)
                )
        return tuple(blocks)

    def shapes(self) -> Shapes:
        """Every tensor: a kernel and a norm for each convolution."""
        shapes: Shapes = {}
        for conv in (conv for block in self.plan() for conv in block.convs):
            shapes[f"{conv.name}.conv.weight"] = (conv.kernel, conv.kernel, conv.inputs, conv.outputs)
            shapes |= _affine(f"{conv.name}.norm", (conv.outputs,))
        return shapes


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


Tower = ViTConfig | MobileNetV2Config | ConvNetConfig
"""The kinds of tower: this union is the table."""


def _affine(name: str, shape: tuple[int, ...]) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape}


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}
