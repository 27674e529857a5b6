"""Constants of attention in windows that depend on sizes alone."""

from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from lookalike.towers.ops import Ops, Windows


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
