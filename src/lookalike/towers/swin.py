"""Both versions of the Swin transformer, and the constants of attention in windows that depend on sizes alone."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int

from lookalike.towers.ops import Ops, Pooling, Value, Windows, demand
from lookalike.towers.plans import AnySize

EPS_BETWEEN = 1e-5  # of the norms behind the patches and in the merging, which no published config can change


@dataclass(frozen=True)
class SwinConfig(AnySize):
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
    heads: tuple[int, ...]
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
        whole = len(lengths) == 1 and len(self.depths) > 0 and len(self.trained_windows) in {0, *lengths}
        demand(whole, "A Swin transformer needs a depth, heads, a window and a shift for every stage.")
        split = not any(width % heads for width, heads in zip(self.widths, self.heads, strict=True))
        demand(split, f"Swin widths {self.widths} can't be split among {self.heads} heads.")
        small = all(0 <= shift < window for shift, window in zip(self.shifts, self.windows, strict=True))
        demand(small, f"Swin shifts {self.shifts} must be smaller than the windows {self.windows}.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers in a token of each stage."""
        return tuple(self.width * 2**i for i in range(len(self.depths)))

    @property
    def features(self) -> int:
        """Numbers in the pooled features (F)."""
        return self.widths[-1]

    def sides(self, size: int) -> tuple[int, ...]:
        """Side of the map in each stage, in tokens, for images of `size` pixels; what is missing is padded."""
        sides = [-(-size // self.patch)]
        for _ in range(len(self.depths) - 1):
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

    def forward(self, ops: Ops, image: Value, pooling: Pooling) -> Value:
        """The features of one normalised image; what it lacks to a whole patch is filled with its mean."""
        x = ops.linear("patch", ops.cut(image, self.patch, pad=True), self.width)
        x = ops.norm("norm_patch", x, EPS_BETWEEN)
        for i, depth in enumerate(self.depths):
            side, shift = self.window(i, x.side)
            blocks = [partial(self._block, stage=i, side=side, shift=by) for by in (0, shift)]
            with ops.scope(f"stages.{i}"):
                x = ops.repeat("blocks", depth, blocks, ops.see(x))
                x = self._merge(ops, x) if i < len(self.depths) - 1 else x
        return ops.pool(ops.norm("norm_post", x, self.eps), pooling)

    def _block(self, ops: Ops, x: Value, stage: int, side: int, shift: int) -> Value:
        """Attention in windows, then the MLP, each added to its input, with a norm before (1) or behind it (2)."""
        first, trained = self.version == 1, self.trained_windows[stage] if self.trained_windows else side
        windows = Windows(self.heads[stage], side, shift, self.windows[stage] if first else 0, trained)
        y = ops.norm("norm1", x, self.eps) if first else x
        y = ops.linear("attention.out", ops.attend_windows("attention", y, windows), x.width)
        x = ops.apply("add", x, y if first else ops.norm("norm1", y, self.eps))
        y = ops.norm("norm2", x, self.eps) if first else x
        y = ops.apply("gelu", ops.linear("mlp.up", y, int(self.expansion * x.width)))
        y = ops.linear("mlp.down", y, x.width)
        return ops.see(ops.apply("add", x, y if first else ops.norm("norm2", y, self.eps)))

    def _merge(self, ops: Ops, x: Value) -> Value:
        """Four neighbours, down first, become one token: norm and matrix in version 1, matrix and norm in version 2."""
        x = ops.cut(x, 2, pad=True, down=True)
        if self.version == 1:
            return ops.linear("merge.reduction", ops.norm("merge.norm", x, EPS_BETWEEN), x.width // 2, bias=False)
        return ops.norm("merge.norm", ops.linear("merge.reduction", x, x.width // 2, bias=False), EPS_BETWEEN)


def pairs(window: int, reach: int) -> Int[np.ndarray, "T T"]:
    """For each two tokens of a window, where their offset stands in a table of all offsets below `reach`."""
    down, right = np.divmod(np.arange(window**2), window)
    rows = down[:, None] - down[None] + reach - 1
    return rows * (2 * reach - 1) + right[:, None] - right[None] + reach - 1


def log_offsets(window: int, trained: int) -> Float32[np.ndarray, "O 2"]:
    """All offsets (down, right) in a window, in the logarithmic scale of the second version's paper, section 3.3; the
    largest in the windows in which the position MLP was trained, of side `trained`, counts 1.
    """
    steps = np.arange(1 - window, window) * 8 / max(trained - 1, 1)
    steps = np.sign(steps) * np.log2(np.abs(steps) + 1) / 3
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)


def offset_table(ops: Ops, name: str, windows: Windows, xp: Any) -> Any:
    """What is added to the scores for each offset in a window, [O h], in NumPy or JAX (`xp`)."""
    if windows.table:
        return ops[f"{name}.table"]
    offsets = xp.asarray(log_offsets(windows.side, windows.trained))
    hidden = offsets @ ops[f"{name}.position.up.weight"] + ops[f"{name}.position.up.bias"][None]
    return 16 / (1 + xp.exp(-(xp.where(hidden > 0, hidden, 0) @ ops[f"{name}.position.down.weight"])))


def regions(side: int, window: int, shift: int) -> Int[np.ndarray, "M T"]:
    """Number of the part of a map that each token of each window comes from; only tokens of one part may attend. The
    padded map, of so many tokens a side, was rolled by `shift`, so that the last windows hold what was at both ends.
    """
    place = np.arange(side)
    part = (place >= side - window).astype(np.int64) + (place >= side - shift)
    cells = (3 * part[:, None] + part[None]).reshape(side // window, window, side // window, window)
    return cells.swapaxes(1, 2).reshape(-1, window**2)


def order(side: int, windows: Windows) -> Int[np.ndarray, " N"]:
    """The tokens of a map, window by window; a number behind the last token stands for padding."""
    map_ = np.pad(np.arange(side**2).reshape(side, side), (0, -side % windows.side), constant_values=side**2)
    down = len(map_) // windows.side
    rolled = np.roll(map_, (-windows.shift, -windows.shift), axis=(0, 1))
    return rolled.reshape(down, windows.side, down, windows.side).swapaxes(1, 2).ravel()
