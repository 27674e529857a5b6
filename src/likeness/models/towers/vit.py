"""The shape of a vision transformer."""

from dataclasses import dataclass
from typing import Literal

from likeness.core.errors import EncoderError
from likeness.models.towers.parts import Shapes, affine, linear


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
    def poolings(self) -> tuple[str, ...]:
        """What may make features of its tokens."""
        return ("class", "mean")

    @property
    def only_size(self) -> int | None:
        """The one side of pictures that it takes, in pixels; None: any."""
        return self.size

    @property
    def features(self) -> int:
        """Numbers in the pooled features (F)."""
        return self.head or self.width

    def shapes(self) -> Shapes:
        """Every tensor; those below `blocks.` are stacked over the layers."""
        layers, width = self.layers, self.width
        block = {
            **affine("norm1", (width,)),
            **linear("attention.qkv", width, 3 * width),
            **linear("attention.out", width, width),
            **affine("norm2", (width,)),
            **linear("mlp.up", width, self.hidden),
            **linear("mlp.down", self.hidden, width),
        }
        return {
            "patch.weight": (3 * self.patch**2, width),
            **({"patch.bias": (width,)} if self.patch_bias else {}),
            "class_token": (width,),
            "position": (self.tokens, width),
            **(affine("norm_pre", (width,)) if self.norm_pre else {}),
            **{f"blocks.{name}": (layers, *shape) for name, shape in block.items()},
            **affine("norm_post", (width,)),
            **({"head.weight": (width, self.head)} if self.head else {}),
        }
