"""Whether two images show the same pixels, or nearly so: encoded anew, cut at the sides, mirrored. No model.

The largest normalized cross-correlation of one image with any part of the other (Lewis, 1995, "Fast Normalized
Cross-Correlation", eq. 2), for many pairs at once. An image made smaller is R A S', with a matrix each for the height
and the width; its product with a part of B is the sum of (R A)' B_part over what S picks. So the parts of all widths,
from the left and mirrored, are one matrix product; means and lengths of parts are differences of integral images, of
whole numbers, which lose nothing.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import PIL.Image
import simplejpeg
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8

from lookalike.imaging.decode import decode

SIDE = 32  # pixels to which an image is brought, whatever its shape
SAME = 0.93
"""Least overlap of an image with a copy. Of 150 photographs cut by up to 15 % of each side, a third of them mirrored,
and encoded anew at quality 40, none had less than .955; of the 57 pairs whose vectors (ViT-Tiny) were nearest among
3,349 different ones 46 had less."""
ROUGHLY = 0.8
"""Least overlap of a copy in half as many pixels a side, where it takes a tenth of the time. Of 2,461 pairs that reach
`SAME`, copies and others, none had less than .85; of 43,158 pairs of near vectors a tenth has as much."""
_LEAST = 26 / 32  # what a cut may have left of a side: four fifths
_ENOUGH = 2 * SIDE  # pixels of the shorter side from which an image is brought there: a JPEG may come at 1/8
_COARSE_STEP, _STEP = 512, 64  # pairs at a time: what they need fits the cache

Small = UInt8[np.ndarray, "32 32"]
Pieces = UInt8[np.ndarray, "M 32 32"]
Pairs = Int64[np.ndarray, "P 2"]


def small(image: UInt8[np.ndarray, "H W C"]) -> Small:
    """The image as gray pixels for `overlaps`."""
    return _brought(PIL.Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("L"))


def small_stored(data: bytes) -> Small:
    """The same of a stored image, of which a JPEG decoder gives the gray alone and at a part of its size: in half the
    time. ImageError as `decode`.
    """
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=True)
        scale = max(s for s in (1, 2, 4, 8) if s == 1 or min(height, width) // s >= _ENOUGH)
        least = {"min_height": -(-height // scale), "min_width": -(-width // scale), "min_factor": 1}
        return _brought(PIL.Image.fromarray(simplejpeg.decode_jpeg(data, "GRAY", strict=True, **least)[:, :, 0]))
    except ValueError:  # damaged, or of a kind that another decoder reads
        return small(decode(data, _ENOUGH))


def _brought(gray: PIL.Image.Image) -> Small:
    return np.asarray(gray.resize((SIDE, SIDE), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0))


def are_copies(pieces: Pieces, pairs: Pairs) -> Bool[np.ndarray, "P"]:
    """Of which pairs of images the overlap is `SAME` or more; what is far below it in 16 x 16 pixels is told at once.

    At 16 x 16 both directions are searched, at 32 x 32 those that came near. Memory: some 20 MiB.
    """
    halves = pieces.reshape(len(pieces), SIDE // 2, 2, SIDE // 2, 2).sum(axis=(2, 4), dtype=np.int32)
    both = np.stack([pairs, pairs[:, ::-1]], axis=1).reshape(-1, 2)  # side by side: an image's sums serve both
    likely = np.flatnonzero(_largest(halves, both, _COARSE_STEP) >= ROUGHLY)
    same = np.zeros(len(both), bool)
    same[likely] = _largest(pieces, both[likely], _STEP) >= SAME
    return np.asarray(same.reshape(-1, 2).any(axis=1))


def overlaps(pieces: Pieces, pairs: Pairs) -> Float32[np.ndarray, "P"]:
    """The largest correlation of one image of each pair with a part of the other, or with a part of its mirror image:
    1 if that part is the image, about 0 of two images that have nothing in common; 0 where one is blank.

    A part has four fifths of each side at least.
    """
    found = np.stack([_largest(pieces, ends, _STEP) for ends in (pairs, pairs[:, ::-1])])
    return np.asarray(found.max(axis=0), np.float32)


def _largest(images: Shaped[np.ndarray, "M S S"], pairs: Pairs, step: int) -> Float32[np.ndarray, "P"]:
    """The largest correlation of the first of each pair, made smaller, with what lies below it anywhere in the second;
    as it is, or mirrored.
    """
    found = np.zeros(len(pairs), np.float32)
    for start in range(0, len(pairs), step):
        rows, ends = np.unique(pairs[start : start + step], return_inverse=True)
        one, other = ends.reshape(-1, 2).T
        some = images[rows].astype(np.float32)
        some -= some.mean(axis=(1, 2), keepdims=True)
        parts, windows = _parts(some), _windows(images[rows])
        found[start : start + step] = _search(some, parts, windows, one, other)
    return found


class _Grid(NamedTuple):
    """The sizes that a part may have, in one direction, and where it may lie."""

    sizes: list[int]
    size: Int64[np.ndarray, "K"]  # of each place: its size, as a position in `sizes`; its start, its end
    start: Int64[np.ndarray, "K"]
    end: Int64[np.ndarray, "K"]
    shrink: list[np.ndarray]  # for each size the matrix [size S] that makes S pixels as many
    picks: Float32[np.ndarray, "SS 2K"]  # what of (R A)' B a place adds up: as it is, and mirrored


@cache
def _grid(side: int) -> _Grid:
    sizes = list(range(side, round(_LEAST * side) - 1, -1))
    ones = PIL.Image.fromarray(np.eye(side, dtype=np.float32))
    shrink = [np.asarray(ones.resize((side, size), PIL.Image.Resampling.BILINEAR)) for size in sizes]
    places = [(i, start, start + size) for i, size in enumerate(sizes) for start in range(side - size + 1)]
    picks = np.zeros((2, len(places), side, side), np.float32)
    for place, (i, start, end) in enumerate(places):
        picks[0, place, :, start:end] = shrink[i].T
        picks[1, place, :, start:end] = shrink[i].T[::-1]
    size, start, end = np.array(places).T
    return _Grid(sizes, size, start, end, shrink, np.ascontiguousarray(picks.reshape(2 * len(places), -1).T))


class _Sums(NamedTuple):
    """Of what is compared, for each image and each height and width: the sum, and the length about the mean."""

    total: Float32[np.ndarray, "M K K"]
    length: Float32[np.ndarray, "M K K"]


def _parts(images: Float32[np.ndarray, "M S S"]) -> _Sums:
    """Of the images made smaller, for each place of such a part; `images` have mean 0."""
    grid = _grid(images.shape[1])
    ones = np.stack([matrix.sum(axis=0) for matrix in grid.shrink])
    total = ones @ images @ ones.T
    # |R A S'|^2 is the sum of R'R over A S'S A'.
    squares = np.stack([matrix.T @ matrix for matrix in grid.shrink])
    across = (images[:, None] @ squares @ images[:, None].swapaxes(2, 3)).reshape(len(images), len(squares), -1)
    square = (across @ squares.reshape(len(squares), -1).T).swapaxes(1, 2)
    length = np.sqrt(np.maximum(square - total**2 / np.outer(grid.sizes, grid.sizes), 0))
    at = np.ix_(np.arange(len(images)), grid.size, grid.size)
    return _Sums(total[at], length[at])


def _windows(images: Shaped[np.ndarray, "M S S"]) -> _Sums:
    """Of the parts of images of whole numbers, from integral images; the sum without the mean of the image."""
    grid, whole = _grid(images.shape[1]), images.astype(np.int64)

    def inside(values: np.ndarray) -> np.ndarray:
        table = np.zeros((len(values), values.shape[1] + 1, values.shape[1] + 1), np.int64)
        values.cumsum(axis=1).cumsum(axis=2, out=table[:, 1:, 1:])
        rows = table[:, grid.end] - table[:, grid.start]
        return np.asarray(rows[:, :, grid.end] - rows[:, :, grid.start])

    pixels = np.outer(grid.end - grid.start, grid.end - grid.start)
    total, square = inside(whole), inside(whole * whole)
    length = np.sqrt((pixels * square - total * total) / pixels)
    mean = whole.mean(axis=(1, 2))[:, None, None]
    return _Sums((total - pixels * mean).astype(np.float32), length.astype(np.float32))


def _search(images: np.ndarray, parts: _Sums, windows: _Sums, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The largest correlation for each pair of images, of which the first is made smaller; `images` have mean 0."""
    side, whole = images.shape[1], images[other]
    grid = _grid(side)
    count = len(grid.size)
    products = np.empty((len(one), count, side, side), np.float32)  # of columns of both, over the rows of each place
    for first, matrix in _firsts(grid):
        rows = (matrix @ images)[one].swapaxes(1, 2)[:, None]
        below = np.lib.stride_tricks.sliding_window_view(whole, len(matrix), axis=1).swapaxes(2, 3)
        np.matmul(rows, below, out=products[:, first : first + below.shape[1]])
    sums = (products.reshape(len(one) * count, -1) @ grid.picks).reshape(len(one), count, 2, count)
    pixels = np.outer(grid.end - grid.start, grid.end - grid.start)
    sums -= (parts.total[one] * windows.total[other] / pixels)[:, :, None].astype(np.float32)
    length = parts.length[one] * windows.length[other]
    sums *= np.divide(1, length, out=np.zeros_like(length), where=length > 1)[:, :, None]
    return np.asarray(sums.max(axis=(1, 2, 3), initial=0))


def _firsts(grid: _Grid) -> Iterator[tuple[int, np.ndarray]]:
    """The first place of each size, and its matrix."""
    for i, matrix in enumerate(grid.shrink):
        yield int(np.searchsorted(grid.size, i)), matrix
