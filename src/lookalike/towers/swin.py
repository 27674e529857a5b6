"""The shape of both versions of the Swin transformer, and what in its windows depends on sizes alone."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int

from lookalike.core.errors import EncoderError
from lookalike.towers.parts import Shapes, affine, linear

POSITION_WIDTH = 512
"""Width inside the MLP that makes the second version's position bias; the same in every published model."""

EPS_BETWEEN = 1e-5
"""Added to the variance in the norms behind the patches and in the merging, which no published config can change."""


@dataclass(frozen=True)
class SwinConfig:
    """Swin transformer, version 1 (Liu et al., 2021) or 2 (Liu et al., 2022).

    Tokens attend to those in the same window of a map; every second block moves the windows. Between two stages, four
    neighbouring tokens become one of twice the width.

    Version 1 has a norm before every part and learns a bias for each offset in a window. Version 2 has the norm behind
    every part, compares directions (cosines) instead of products, and computes the bias from the offset with a small
    MLP, so that its windows may have another size than those in which it was trained.
    """

    version: Literal[1, 2]
    width: int
    """Numbers in a token of the first stage; each later stage doubles it."""
    depths: tuple[int, ...]
    """Blocks of each stage."""
    heads: tuple[int, ...]
    """Attention heads of each stage."""
    windows: tuple[int, ...]
    """Side of a window in each stage, in tokens."""
    shifts: tuple[int, ...]
    """By how many tokens every second block of a stage moves its windows; 0: it doesn't."""
    trained_windows: tuple[int, ...] = ()
    """Version 2: side of the windows in each stage when the position MLP was trained, where that differs."""
    patch: int = 4
    """Side of a patch, in pixels."""
    expansion: float = 4.0
    """Width inside the MLP, as a multiple of the tokens' width."""
    eps: float = 1e-5
    """Added to the variance in the norms of the blocks and in the last one."""

    def __post_init__(self) -> None:
        lengths = {len(self.depths), len(self.heads), len(self.windows), len(self.shifts)}
        if lengths != {self.stages} or not self.stages or len(self.trained_windows) not in (0, self.stages):
            raise EncoderError("A Swin transformer needs a depth, heads, a window and a shift for every stage.")
        if any(self.widths[i] % heads for i, heads in enumerate(self.heads)):
            raise EncoderError(f"Swin widths {self.widths} can't be split among {self.heads} heads.")
        if any(not 0 <= shift < window for shift, window in zip(self.shifts, self.windows, strict=True)):
            raise EncoderError(f"Swin shifts {self.shifts} must be smaller than the windows {self.windows}.")

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self.depths)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers in a token of each stage."""
        return tuple(self.width * 2**i for i in range(self.stages))

    @property
    def poolings(self) -> tuple[str, ...]:
        """What may make features of its tokens."""
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
        """Side of the map in each stage, in tokens, for images of `size` pixels; what is missing is padded."""
        sides = [-(-size // self.patch)]
        for _ in range(self.stages - 1):
            sides.append(-(-sides[-1] // 2))
        return tuple(sides)

    def window(self, stage: int, side: int) -> tuple[int, int]:
        """(side of a window, shift) on a map of that side.

        Version 1 shrinks the window to a map that is smaller, and a window that sees the whole map does not move.
        Version 2 keeps what it was built with, as transformers has it; the map is padded.
        """
        if self.version == 1 and side <= self.windows[stage]:
            return side, 0
        return self.windows[stage], self.shifts[stage]

    def shapes(self) -> Shapes:
        """Every tensor; those of a stage's blocks are stacked over its depth."""
        shapes: Shapes = {**linear("patch", 3 * self.patch**2, self.width), **affine("norm_patch", (self.width,))}
        for i, width in enumerate(self.widths):
            for name, shape in self._block(i).items():
                shapes[f"stages.{i}.blocks.{name}"] = (self.depths[i], *shape)
            if i < self.stages - 1:
                shapes |= affine(f"stages.{i}.merge.norm", (4 * width if self.version == 1 else 2 * width,))
                shapes[f"stages.{i}.merge.reduction.weight"] = (4 * width, 2 * width)
        return shapes | affine("norm_post", (self.features,))

    def _block(self, stage: int) -> Shapes:
        width, heads, hidden = self.widths[stage], self.heads[stage], int(self.expansion * self.widths[stage])
        offsets = (2 * self.windows[stage] - 1) ** 2
        own: Shapes = {
            "attention.qkv.bias": (2 * width,),  # keys have none
            "attention.logit_scale": (heads,),
            **linear("attention.position.up", 2, POSITION_WIDTH),
            "attention.position.down.weight": (POSITION_WIDTH, heads),
        }
        if self.version == 1:
            own = {"attention.qkv.bias": (3 * width,), "attention.table": (offsets, heads)}
        return {
            **affine("norm1", (width,)),
            "attention.qkv.weight": (width, 3 * width),
            **own,
            **linear("attention.out", width, width),
            **affine("norm2", (width,)),
            **linear("mlp.up", width, hidden),
            **linear("mlp.down", hidden, width),
        }


def pairs(window: int, reach: int) -> Int[np.ndarray, "T T"]:
    """For each two tokens of a window, where their offset stands in a table of all offsets below `reach`."""
    down, right = np.divmod(np.arange(window**2), window)
    rows = down[:, None] - down[None] + reach - 1
    return rows * (2 * reach - 1) + right[:, None] - right[None] + reach - 1


def log_offsets(window: int, trained: int) -> Float32[np.ndarray, "O 2"]:
    """All offsets (down, right) in a window, in the logarithmic scale of the second version's paper, section 3.3.

    Args:
        window: Its side, in tokens.
        trained: Side of the windows in which the position MLP was trained, in tokens; their largest offset counts 1.
    """
    steps = np.arange(1 - window, window) * 8 / max(trained - 1, 1)
    steps = np.sign(steps) * np.log2(np.abs(steps) + 1) / 3
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)


def regions(side: int, window: int, shift: int) -> Int[np.ndarray, "M T"]:
    """Number of the part of the map that each token of each window comes from; only tokens of one part may attend.

    Args:
        side: Of the padded map, in tokens; a multiple of `window`.
        window: Its side, in tokens.
        shift: By how many tokens the map was rolled, so that the last windows hold what was at both ends.
    """
    place = np.arange(side)
    part = (place >= side - window).astype(np.int64) + (place >= side - shift) if shift else np.zeros_like(place)
    cells = (3 * part[:, None] + part[None]).reshape(side // window, window, side // window, window)
    return cells.swapaxes(1, 2).reshape(-1, window**2)
