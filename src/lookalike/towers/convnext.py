"""The shape of ConvNeXt."""

from dataclasses import dataclass

from lookalike.core.errors import EncoderError
from lookalike.towers.parts import Shapes, affine, linear

EXPANSION = 4
"""Width inside a block, as a multiple of the map's; the same in every published model."""


@dataclass(frozen=True)
class ConvNeXtConfig:
    """ConvNeXt (Liu et al., 2022), also as DINOv3 trained it: patches, stages of blocks, a norm of the mean token."""

    widths: tuple[int, ...]
    """Channels of each stage."""
    depths: tuple[int, ...]
    """Blocks of each stage."""
    patch: int = 4
    """Side of a patch, in pixels; what the image has beyond whole patches is not looked at."""
    kernel: int = 7
    """Side of the depthwise kernels; odd."""
    layer_scale: bool = True
    """Whether what a block adds is scaled by a learned number for each channel."""
    eps: float = 1e-6
    """Added to the variance in all norms but the last."""
    last_eps: float = 1e-6
    """Added to the variance in the norm behind the pooling."""

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths) or not self.widths or min(*self.depths, *self.widths) < 1:
            raise EncoderError(f"A ConvNeXt needs a width and a depth per stage, not {self.widths} and {self.depths}.")
        if self.kernel % 2 == 0:
            raise EncoderError(f"A ConvNeXt's kernels have an odd side, not {self.kernel}.")

    @property
    def poolings(self) -> tuple[str, ...]:
        """What may make features of its tokens: the last norm is made for their mean."""
        return ("mean",)

    @property
    def only_size(self) -> int | None:
        """The one side of images that it takes, in pixels; None: any."""
        return None

    @property
    def features(self) -> int:
        """Numbers in the pooled features (F)."""
        return self.widths[-1]

    def sides(self, size: int) -> tuple[int, ...]:
        """Side of the map in each stage, in tokens, for images of `size` pixels."""
        return tuple(size // self.patch // 2**i for i in range(len(self.widths)))

    def shapes(self) -> Shapes:
        """Every tensor; those below `blocks.` are stacked over the blocks of a stage."""
        shapes: Shapes = {}
        for i, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            # The first stage norms its patches, the others what becomes their patches of 2 x 2.
            inputs, normed = (3 * self.patch**2, width) if i == 0 else (4 * self.widths[i - 1], self.widths[i - 1])
            shapes |= {**linear(f"stages.{i}.patch", inputs, width), **affine(f"stages.{i}.norm", (normed,))}
            block = {
                "depthwise.conv.weight": (self.kernel, self.kernel, 1, width),
                "depthwise.bias": (width,),
                **affine("norm", (width,)),
                **linear("mlp.up", width, EXPANSION * width),
                **linear("mlp.down", EXPANSION * width, width),
                **({"scale": (width,)} if self.layer_scale else {}),
            }
            shapes |= {f"stages.{i}.blocks.{name}": (depth, *shape) for name, shape in block.items()}
        return shapes | affine("norm_post", (self.features,))
