"""The shape of a vision transformer, with the options in which the published families differ."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from lookalike.core.errors import EncoderError
from lookalike.towers.parts import Shapes, affine, linear

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu"]
"""gelu: the exact one, x * Phi(x). gelu_tanh: its approximation by tanh (SigLIP). quick_gelu: x * sigmoid(1.702 x)
(OpenAI's CLIP). swiglu: silu(a) * b, where the MLP's first layer gives a and b (DINOv2 giant)."""

Resampling = Literal["bicubic", "bicubic_antialias", "bilinear", "bilinear_antialias"]
"""A filter as `torch.nn.functional.interpolate` has it, with `align_corners=False`."""


@dataclass(frozen=True)
class ViTConfig:
    """Vision transformer (Dosovitskiy et al., 2021), norm before every part; families are settings of its options.

    Tokens stand in the order class token, registers, patches (rows from the top, in a row from the left).
    """

    size: int
    """Side of the input, in pixels; what is left over at the right and at the bottom is not seen."""
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
    activation: Activation
    """Inside the MLP."""
    eps: float = 1e-5
    """Added to the variance in every norm."""
    stride: int | None = None
    """Distance between patches, in pixels; below `patch` they overlap. None: `patch`."""
    patch_bias: bool = False
    """Whether the patch projection has a bias."""
    class_token: bool = True
    """Whether a class token stands before the patches."""
    registers: int = 0
    """Further learned tokens that belong to no patch (Darcet et al., 2023); TIPS uses one as a second class token."""
    positions: Literal["all", "patches", "none"] = "all"
    """Which tokens a learned position is added to; all: class token and patches, never the registers."""
    resampling: Resampling = "bicubic"
    """How the family's reference brings learned positions to another grid; `weights.adapt` follows it."""
    rope: Literal["none", "centred", "counted"] = "none"
    """Whether queries and keys of patches are turned by their place (rotary positions in two dimensions). centred:
    places run from -1 to 1 and turn by 2 pi (DINOv3). counted: places are 0, 1, 2..., or 1, 2... behind a class token
    (Perception Encoder)."""
    rope_theta: float = 100.0
    """The base of the rotary frequencies."""
    qkv_bias: Literal["all", "query_value", "none"] = "all"
    """Which of query, key and value have a bias."""
    layer_scale: bool = False
    """Whether the output of attention and MLP is scaled by a learned number for each channel (Touvron et al., 2021)."""
    norm_pre: bool = True
    """Whether tokens are normalised before the first block, as in CLIP."""
    norm_pooled: bool = False
    """Whether the last norm is behind the pooling, and not before it (CLIPA; timm's towers that take the mean)."""
    pool_heads: int | None = None
    """Heads of the attention pooling, in which a learned probe asks all tokens; None: there is none."""
    pool_hidden: int | None = None
    """Width inside the MLP of the attention pooling; None: `hidden`."""
    head: int | None = None
    """Size of the projection behind the pooling, as in CLIP; None leaves it out."""
    head_bias: bool = False
    """Whether the projection has a bias, as in timm's files."""

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.patch <= self.size:
            raise EncoderError(
                f"A ViT input of {self.size} px can't be cut into patches of {self.patch} px, {self.step} px apart."
            )
        for heads in (self.heads, self.pool_heads or 1):
            if self.width % heads:
                raise EncoderError(f"A ViT of width {self.width} can't be split among {heads} heads.")
        if self.rope != "none" and self.width // self.heads % 4:
            raise EncoderError(f"Rotary positions need heads of a multiple of 4, not {self.width // self.heads}.")
        if self.positions == "all" and not self.class_token:
            raise EncoderError("A ViT without a class token has positions for `patches` or `none`, not `all`.")
        if self.norm_pooled and self.pool_heads:
            raise EncoderError("Attention pooling asks tokens that are normalised; its norm can't be behind it.")
        if self.head_bias and not self.head:
            raise EncoderError("A ViT without a projection can't have its bias.")
        if self.pool_heads and self.activation == "swiglu":
            raise EncoderError("Attention pooling has no MLP with SwiGLU.")

    @property
    def step(self) -> int:
        """Distance between patches, in pixels."""
        return self.patch if self.stride is None else self.stride

    @property
    def grid(self) -> int:
        """Patches along a side of the image."""
        return (self.size - self.patch) // self.step + 1

    @property
    def prefix(self) -> int:
        """Tokens before the patches."""
        return int(self.class_token) + self.registers

    @property
    def tokens(self) -> int:
        """Tokens of an image (P)."""
        return self.prefix + self.grid**2

    @property
    def poolings(self) -> tuple[str, ...]:
        """What may make features of its tokens. Not gem: tokens leave a norm with either sign, and the generalised
        mean takes positive numbers.
        """
        return (
            *(("class",) if self.class_token else ()),
            "mean",
            *(("attention",) if self.pool_heads else ()),
        )

    @property
    def only_size(self) -> int | None:
        """The one side of images that it takes, in pixels; None: any."""
        return self.size

    @property
    def features(self) -> int:
        """Numbers in the pooled features (F)."""
        return self.head or self.width

    def shapes(self) -> Shapes:
        """Every tensor; those below `blocks.` are stacked over the layers."""
        layers, width = self.layers, self.width
        positions = {"all": self.grid**2 + 1, "patches": self.grid**2, "none": 0}[self.positions]
        return {
            "patch.weight": (3 * self.patch**2, width),
            **({"patch.bias": (width,)} if self.patch_bias else {}),
            **({"class_token": (width,)} if self.class_token else {}),
            **({"registers": (self.registers, width)} if self.registers else {}),
            **({"position": (positions, width)} if positions else {}),
            **(affine("norm_pre", (width,)) if self.norm_pre else {}),
            **{f"blocks.{name}": (layers, *shape) for name, shape in self._block().items()},
            **affine("norm_post", (width,)),
            **(self._pool() if self.pool_heads else {}),
            **({"head.weight": (width, self.head)} if self.head else {}),
            **({"head.bias": (self.head,)} if self.head and self.head_bias else {}),
        }

    def rotations(self) -> tuple[Float32[np.ndarray, "P d"], Float32[np.ndarray, "P d"]]:
        """(cosine, sine) of the angles by which rotary positions turn each token, [P, width / heads / 2].

        Number i of a head turns with number i + width / heads / 2. The first half of the angles belongs to the row, the
        second to the column; tokens before the patches stay as they are.
        """
        quarter = self.width // self.heads // 4
        speeds = self.rope_theta ** -(np.arange(quarter) / quarter)
        places = np.arange(self.grid, dtype=np.float64)
        if self.rope == "centred":
            places = 2 * np.pi * (2 * (places + 0.5) / self.grid - 1)
        elif self.class_token:
            places = places + 1
        along = places[:, None] * speeds
        rows, columns = np.repeat(along, self.grid, axis=0), np.tile(along, (self.grid, 1))
        angles = np.concatenate([np.zeros((self.prefix, 2 * quarter)), np.concatenate([rows, columns], axis=1)])
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def _block(self) -> Shapes:
        width = self.width
        biases = {"all": 3, "query_value": 2, "none": 0}[self.qkv_bias]
        return {
            **affine("norm1", (width,)),
            "attention.qkv.weight": (width, 3 * width),
            **({"attention.qkv.bias": (biases * width,)} if biases else {}),
            **linear("attention.out", width, width),
            **({"scale1": (width,)} if self.layer_scale else {}),
            **affine("norm2", (width,)),
            **linear("mlp.up", width, self.hidden * (2 if self.activation == "swiglu" else 1)),
            **linear("mlp.down", self.hidden, width),
            **({"scale2": (width,)} if self.layer_scale else {}),
        }

    def _pool(self) -> Shapes:
        width, hidden = self.width, self.pool_hidden or self.hidden
        return {
            "pool.probe": (width,),
            **linear("pool.attention.qkv", width, 3 * width),
            **linear("pool.attention.out", width, width),
            **affine("pool.norm", (width,)),
            **linear("pool.mlp.up", width, hidden),
            **linear("pool.mlp.down", hidden, width),
        }
