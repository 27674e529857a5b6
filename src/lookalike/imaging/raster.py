"""What a reader makes of a file: rows of 8-bit pixels that are decoded or converted when they are wanted.

A worker's memory is a matter of bytes, not of pixels: rows of any depth, with alpha or a profile, become 8 bits a
few at a time, and what is far larger than wanted is averaged down on the way (`flat`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import UInt8

from lookalike.core.errors import ImageError
from lookalike.imaging.color import Color, to_srgb

MAX_SIDE = 32_768
"""Longest side in pixels that is read; phone panoramas have about 16,000."""

MAX_PIXELS = 2**27
"""Most pixels that are read: 134 million, 400 MB as RGB. The largest common photograph has 108 million."""

MAX_BYTES = 2**30
"""Most bytes that the samples of an image may take while it is decoded."""

_BLOCK = 2**21  # pixels of the rows that are converted at once
_LARGE = 2**24  # pixels from which on rows are averaged down as they come

Rows = tuple[UInt8[np.ndarray, "n W C"], UInt8[np.ndarray, "n W"] | None]


@dataclass(frozen=True)
class Raster:
    """An image as its file stores it: not turned, in its own colours."""

    width: int
    height: int
    rows: Callable[[int, int], Rows]
    """Rows from the first number to before the second: gray, RGB or CMYK (0 is no ink), and alpha if there is one."""
    color: Color | None = None
    """None: sRGB."""
    orientation: int = 1
    """As EXIF counts: 1 is upright."""
    scale: int = 1
    """By what the decoder reduced the rows already."""
    whole: bool = False
    """Whether all rows are in memory as they are, and cost nothing."""
    kept: bytes | None = None
    """A whole JPEG of these pixels, without metadata, where the file holds one."""

    @property
    def rows_there(self) -> tuple[int, int]:
        """Height and width of what `rows` gives."""
        return -(-self.height // self.scale), -(-self.width // self.scale)


def check_size(width: int, height: int, depth: int = 0) -> None:
    """Refuse what is too large, before a pixel is decoded; `depth`: bytes that a pixel takes meanwhile."""
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(
            f"The image is too large: {width:,} x {height:,} pixels, "
            f"and at most {MAX_SIDE:,} a side and {MAX_PIXELS:,} in all are read."
        )
    if width * height * depth > MAX_BYTES:
        raise ImageError(
            f"The image is too large: {width:,} x {height:,} pixels of {depth} bytes, "
            f"and at most {MAX_BYTES >> 20:,} MB are read."
        )
    if min(width, height) < 1:
        raise ImageError(f"The image has no pixels: {width} x {height}.")


def flat(raster: Raster, at_least: int | None) -> tuple[UInt8[np.ndarray, "h w C"], Color | None, int]:
    """All rows on white, the colour space they are in, and by what they are reduced in all.

    Alpha is laid on white in sRGB, as viewers do; without it the colours stay as they are: converting them is cheaper
    after resizing. An image of more than 16 million pixels is reduced by a whole number, its shorter side not below
    `at_least`; blocks at its right and lower edge that are not full repeat the last pixel.
    """
    height, width = raster.rows_there
    factor = max(1, min(width, height) // at_least) if at_least and width * height > _LARGE else 1
    step = height if raster.whole and factor == 1 else max(1, _BLOCK // (width * factor)) * factor
    made: UInt8[np.ndarray, "h w C"] | None = None
    color = raster.color
    for start in range(0, height, step):
        pixels, alpha = raster.rows(start, min(start + step, height))
        if alpha is not None:
            pixels, color = _on_white(to_srgb(pixels, raster.color), alpha), None
        if height <= step and factor == 1:
            return pixels, color, raster.scale
        if made is None:
            made = np.empty((-(-height // factor), -(-width // factor), pixels.shape[2]), np.uint8)
        made[start // factor : -(-min(start + step, height) // factor)] = _averaged(pixels, factor)
    return cast("np.ndarray", made), color, raster.scale * factor


def _on_white(pixels: UInt8[np.ndarray, "n W C"], alpha: UInt8[np.ndarray, "n W"]) -> UInt8[np.ndarray, "n W C"]:
    if alpha.min() == 255:
        return pixels
    share = alpha[:, :, None].astype(np.uint32)
    return np.asarray((pixels * share + 255 * (255 - share) + 127) // 255, np.uint8)


def _averaged(pixels: UInt8[np.ndarray, "n W C"], factor: int) -> UInt8[np.ndarray, "m w C"]:
    """Means of squares of `factor` pixels a side."""
    if factor == 1:
        return pixels
    height, width, channels = pixels.shape
    wide = np.pad(pixels, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge")
    columns = wide.reshape(-1, factor, wide.shape[1], channels).sum(axis=1, dtype=np.uint32)
    sums = columns.reshape(len(columns), -1, factor, channels).sum(axis=2, dtype=np.uint32)
    return np.asarray((sums + factor * factor // 2) // (factor * factor), np.uint8)
