"""Constants that towers need and that depend on sizes alone: rotations of positions, windows of a map."""

import numpy as np
from jaxtyping import Float32, Int

from lookalike.towers.ops import Rope, Windows


def rotations(rope: Rope, size: int) -> tuple[Float32[np.ndarray, "P d"], Float32[np.ndarray, "P d"]]:
    """(cosine, sine) of the angles by which rotary positions turn each token, [P, size / 2].

    Number i of a head turns with number i + size / 2. The first half of the angles belongs to the row, the second to
    the column; tokens before the patches stay as they are.

    Args:
        rope: The positions.
        size: Numbers in a head.
    """
    quarter = size // 4
    speeds = rope.theta ** -(np.arange(quarter) / quarter)
    places = np.arange(rope.grid, dtype=np.float64)
    if rope.kind == "centred":
        places = 2 * np.pi * (2 * (places + 0.5) / rope.grid - 1)
    else:
        places = (places + rope.start) * (rope.shared / rope.grid if rope.shared else 1)
    along = places[:, None] * speeds
    rows, columns = np.repeat(along, rope.grid, axis=0), np.tile(along, (rope.grid, 1))
    angles = np.concatenate([np.zeros((rope.prefix, 2 * quarter)), np.concatenate([rows, columns], axis=1)])
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


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


def order(side: int, windows: Windows) -> Int[np.ndarray, " N"]:
    """The tokens of a map, window by window; a number behind the last token stands for padding."""
    map_ = np.pad(np.arange(side**2).reshape(side, side), (0, -side % windows.side), constant_values=side**2)
    down = len(map_) // windows.side
    rolled = np.roll(map_, (-windows.shift, -windows.shift), axis=(0, 1))
    return rolled.reshape(down, windows.side, down, windows.side).swapaxes(1, 2).ravel()
