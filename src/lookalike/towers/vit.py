"""The shape of a vision transformer, with the options in which the published families differ."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np

from lookalike.core.config import option
from lookalike.towers.ops import Attention, Biases, Ops, Pooling, Positions, Value, demand

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu"]
"""As in `ops.Activation`. swiglu: silu(a) * b, where the MLP's first layer gives a and b (DINOv2 giant)."""

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
    layers: int
    heads: int
    hidden: int
    activation: Activation
    eps: float = 1e-5
    stride: int | None = None
    """Distance between patches, in pixels; below `patch` they overlap. None: `patch`."""
    patch_bias: bool = False
    class_token: bool = True
    registers: int = 0
    """Further learned tokens that belong to no patch (Darcet et al., 2023); TIPS uses one as a second class token."""
    positions: Positions = "all"
    """Which tokens a learned position is added to; all: class token and patches, never the registers."""
    resampling: Resampling = "bicubic"
    """How the family's reference brings learned positions to another grid; `weights.adapt` follows it."""
    rope: Literal["none", "centred", "counted", "scaled"] = "none"
    """Whether queries and keys of patches are turned by their place (rotary positions in two dimensions). centred:
    places run from -1 to 1 and turn by 2 pi (DINOv3). counted: places are 0, 1, 2..., or 1, 2... behind a class token
    (Perception Encoder). scaled: 0, 1, 2... of a grid of `rope_grid`, whatever the tower's own (EVA-02)."""
    rope_theta: float = 100.0
    """The base of the rotary frequencies."""
    qkv_bias: Biases = "all"
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
    rope_grid: int = option(default=0, added=True)
    """Side of the grid in which `scaled` rotary positions count, in patches."""
    norm_attention: bool = option(default=False, added=True)
    """Whether a norm stands before the last matrix of attention (EVA-02)."""
    norm_mlp: bool = option(default=False, added=True)
    """Whether a norm stands before the last matrix of the MLP (EVA-02)."""

    def __post_init__(self) -> None:
        cut = f"A ViT input of {self.size} px can't be cut into patches of {self.patch} px, {self.step} px apart."
        demand(0 < self.step <= self.patch <= self.size, cut)
        for heads in (self.heads, self.pool_heads or 1):
            demand(self.width % heads == 0, f"A ViT of width {self.width} can't be split among {heads} heads.")
        own = self.width // self.heads
        demand(self.rope == "none" or own % 4 == 0, f"Rotary positions need heads of a multiple of 4, not {own}.")
        grid = "Scaled rotary positions, and no others, need the side of the grid that they count in."
        demand((self.rope == "scaled") == (self.rope_grid > 0), grid)
        places = "A ViT without a class token has positions for `patches` or `none`, not `all`."
        demand(self.class_token or self.positions != "all", places)
        before = "Attention pooling asks tokens that are normalised; its norm can't be behind it."
        demand(not (self.norm_pooled and self.pool_heads), before)
        demand(bool(self.head) or not self.head_bias, "A ViT without a projection can't have its bias.")
        plain = not (self.pool_heads and self.activation == "swiglu")
        demand(plain, "Attention pooling has no MLP with SwiGLU.")

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
    def poolings(self) -> tuple[Pooling, ...]:
        """Not gem: tokens leave a norm with either sign, and the generalised mean takes positive numbers."""
        first: tuple[Pooling, ...] = ("class", "mean") if self.class_token else ("mean",)
        return (*first, "attention") if self.pool_heads else first

    @property
    def only_size(self) -> int | None:
        """The one side of images that it takes, in pixels; None: any."""
        return self.size

    @property
    def features(self) -> int:
        """Numbers in the pooled features (F)."""
        return self.head or self.width

    def forward(self, ops: Ops, image: Value, pooling: Pooling) -> Value:
        """The features of one normalised image."""
        x = ops.linear("patch", ops.cut(image, self.patch, self.step), self.width, self.patch_bias)
        x = ops.tokens(x, self.class_token, self.registers, self.positions)
        x = ops.see(ops.norm("norm_pre", x, self.eps) if self.norm_pre else x)
        # Behind the last block only the class token is looked at, where it alone makes the features.
        last = partial(self._block, first=True) if pooling == "class" else None
        x = ops.repeat("blocks", self.layers, [self._block], x, last)
        if pooling == "mean":
            x = ops.part(x, self.prefix, self.tokens)
        if pooling == "attention":
            x = self._attention_pool(ops, ops.norm("norm_post", x, self.eps))
        elif self.norm_pooled:
            x = ops.norm("norm_post", ops.pool(x, pooling), self.eps)
        else:
            x = ops.pool(ops.norm("norm_post", ops.part(x, 0, 1) if pooling == "class" else x, self.eps), pooling)
        return ops.linear("head", x, self.head, self.head_bias) if self.head else x

    def _block(self, ops: Ops, x: Value, first: bool = False) -> Value:
        scale1, scale2 = ("scale1", "scale2") if self.layer_scale else ("", "")
        how = Attention(self.heads, self.qkv_bias, self._rotations, first=first)
        y = ops.attend("attention", ops.norm("norm1", x, self.eps), how)
        y = ops.norm("attention.norm", y, self.eps) if self.norm_attention else y
        y = ops.linear("attention.out", y, self.width, scale=scale1)
        x = ops.apply("add", ops.part(x, 0, 1) if first else x, y)
        return ops.see(ops.apply("add", x, self._mlp(ops, ops.norm("norm2", x, self.eps), self.hidden, scale2)))

    def _mlp(self, ops: Ops, x: Value, hidden: int, scale: str = "") -> Value:
        if self.activation == "swiglu":
            y = ops.gated("mlp.up", x, hidden)
        else:
            y = ops.apply(self.activation, ops.linear("mlp.up", x, hidden))
        y = ops.norm("mlp.norm", y, self.eps) if self.norm_mlp else y
        return ops.linear("mlp.down", y, self.width, scale=scale)

    def _attention_pool(self, ops: Ops, x: Value) -> Value:
        """A learned probe asks all tokens, and an MLP is added to the answer (Zhai et al., 2022; SigLIP)."""
        with ops.scope("pool"):
            y = ops.attend("attention", x, Attention(self.pool_heads or 1, probe="probe"))
            x = ops.linear("attention.out", y, self.width)
            return ops.apply("add", x, self._mlp(ops, ops.norm("norm", x, self.eps), self.pool_hidden or self.hidden))

    @cached_property
    def _rotations(self) -> tuple[np.ndarray, np.ndarray] | None:
        """See `Attention.rotations`. The first half of a head's angles belongs to the row, the second to the column;
        tokens before the patches stay as they are.
        """
        if self.rope == "none":
            return None
        places = np.arange(self.grid, dtype=np.float64)
        if self.rope == "centred":
            places = 2 * np.pi * (2 * (places + 0.5) / self.grid - 1)
        elif self.rope == "scaled":
            places = places * (self.rope_grid / self.grid)
        else:
            places = places + self.class_token
        quarter = self.width // self.heads // 4
        along = places[:, None] * self.rope_theta ** -(np.arange(quarter) / quarter)
        patches = [np.repeat(along, self.grid, axis=0), np.tile(along, (self.grid, 1))]
        angles = np.concatenate([np.zeros((self.prefix, 2 * quarter)), np.concatenate(patches, axis=1)])
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
