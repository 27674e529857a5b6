"""Resampling: one set of filters and one way to weigh pixels, for images, for graphs and for positions of patches.

Along one side a resampled value is a weighted sum of pixels, so resampling is a matrix: `taps` gives its band, `matrix`
the whole of it, and `weights` states it as a program, for an image whose size only the program knows. `resize` is
Pillow's, the reference of the published image processors. `reduce` is the same filter in half of the time, for what is
stored: a block of neighbouring outputs is a small dense matrix times a window of inputs, which is what BLAS is fast at.
Its values are the nearest to the exact ones; of Pillow's, which rounds twice, 1 in 8 differs by 1. `sample` has no
antialiasing.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from PIL import Image as Pillow

from lookalike.core.shapes import Image

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos"]

_REACH = {"bilinear": 1, "bicubic": 2, "lanczos": 3}  # from where on a filter gives nothing, in the coarser image
_BITS = 2.0**22  # steps of a weight in Pillow's arithmetic of 8 bits
_BLOCK = 5  # outputs per product: times three colours they just fill a vector of 16, and wider means more zeros
_CACHE = 2**19  # numbers converted to float32 at once, so that they stay in the cache of a core
# OpenBLAS starts threads for products of more multiplications than this; prepare has a process per core already.
_SINGLE_THREAD = 2**18

_Blocks = tuple[list[int], Float32[np.ndarray, "blocks made taken"]]  # where each block's window starts, its weights


class Arithmetic(NamedTuple):
    """What filters and geometry need beside operators, of an array library or of a graph that is being made."""

    where: Callable[..., Any]
    sinc: Callable[[Any], Any]  # sin(pi x) / (pi x)
    round: Callable[[Any], Any]  # halves to the even number
    whole: Callable[[Any], Any]  # as int64
    real: Callable[[Any], Any]  # as float32 or finer
    double: Callable[[Any], Any]  # as float64


NUMPY = Arithmetic(np.where, np.sinc, np.round, np.int64, np.float64, np.float64)


def kernel(t: Any, interpolation: Filter, antialias: bool, xp: Arithmetic = NUMPY) -> Any:
    """The filter at distances `t` >= 0. Keys' cubic (1981) has a = -0.5 in Pillow, -0.75 in torch without antialias."""
    if interpolation == "bilinear":
        return xp.where(t < 1, 1 - t, 0.0)
    if interpolation == "lanczos":
        return xp.where(t < 3, xp.sinc(t) * xp.sinc(t / 3), 0.0)
    a = -0.5 if antialias else -0.75
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return xp.where(t < 1, near, xp.where(t < 2, far, 0.0))


def taps(
    length: int,
    resized: int,
    interpolation: Filter = "bicubic",
    antialias: bool = True,
    span: float | None = None,
    window: tuple[int, int] | None = None,
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n taps"]]:
    """For each output along a side: the first pixel it looks at, and what this and the next ones give.

    `length` pixels become `resized`, or only the first `span` of them; `window`: the outputs that are wanted, as a
    range. Antialiased as in Pillow (`precompute_coeffs`): the filter widens where the image shrinks, is cut at the
    border and brought to sum 1. Without, as in torch: pixels beyond the border are to have its colour.
    """
    scale = (length if span is None else span) / resized
    stretch = max(scale, 1.0) if antialias else 1.0
    center = (np.arange(*(window or (0, resized))) + 0.5) * scale
    if not antialias and interpolation == "bilinear":
        center = np.maximum(center, 0.5)  # exact at the border
    reach = _REACH[interpolation] * stretch
    first, last = (np.floor(center + side * reach + 0.5).astype(np.int64) for side in (-1, 1))
    if antialias:
        first, last = np.maximum(first, 0), np.minimum(last, length)
    pixels = first[:, None] + np.arange(int((last - first).max()))
    shares = kernel(np.abs((pixels - center[:, None] + 0.5) / stretch), interpolation, antialias)
    shares = shares * (pixels < last[:, None])
    return first, shares / shares.sum(axis=1, keepdims=True) if antialias else shares


def matrix(length: int, resized: int, interpolation: Filter, antialias: bool) -> Float64[np.ndarray, "resized length"]:
    """What each of `length` places along a side gives to each of `resized`."""
    first, shares = taps(length, resized, interpolation, antialias)
    dense = np.zeros((resized, length))
    pixels = np.clip(first[:, None] + np.arange(shares.shape[1]), 0, length - 1)
    np.add.at(dense, (np.arange(resized)[:, None], pixels), shares)
    return dense


def magnifier(side: int, share: float) -> Float32[np.ndarray, "side side"]:
    """A central part of `side` places, so large a share of them, enlarged to all: what each gives to each."""
    part = max(1, round(side * share))
    start = (side - part) // 2
    dense = np.zeros((side, side), np.float32)
    dense[:, start : start + part] = matrix(part, side, "bilinear", antialias=False)
    return dense


def weights(
    place: Any, pixels: Any, length: Any, resized: Any, interpolation: Filter, antialias: bool, xp: Arithmetic
) -> tuple[Any, Any]:
    """What each of an image's `pixels` [1 L] gives to each output `place` [S 1], [S L]; which places are inside, [S 1].

    Positions are whole numbers until one division, so that single precision is enough. Weights have Pillow's 22 bits,
    and are 0 for places outside of the resized image.
    """
    inside = xp.real((place >= 0) & (place < resized))
    ours = (2 * place + 1) * length
    if interpolation == "nearest":
        return xp.real(pixels == ours // (2 * resized)) * inside, inside
    coarser = xp.where(length < resized, resized, length) if antialias else resized

    def shares(pixels: Any) -> Any:
        apart = xp.real((2 * pixels + 1) * resized - ours)
        return kernel(abs(apart / xp.real(2 * coarser)), interpolation, antialias, xp)

    found = shares(pixels)
    if antialias:
        total = xp.where(inside == 0, 1.0, found.sum(axis=1, keepdims=True))
        found = xp.round(found / total * _BITS) / _BITS
    else:  # what the filter sees beyond an edge has the edge's colour
        for edge, beyond in ((0, -1), (0, -2), (length - 1, length), (length - 1, length + 1)):
            found = found + xp.where(pixels == edge, shares(beyond), 0.0)
    return found * inside, inside


def resize(
    image: Image,
    height: int,
    width: int,
    box: tuple[float, float, float, float] | None = None,
    interpolation: Filter = "bicubic",
) -> UInt8[np.ndarray, "height width 3"]:
    """`image`, or the part inside `box` (left, top, right, bottom; pixels), resampled by Pillow with antialias."""
    kind = Pillow.Resampling[interpolation.upper()]
    return np.asarray(Pillow.fromarray(image).resize((width, height), kind, box=box), np.uint8)


def sample(
    image: Image, whole: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int], interpolation: Filter
) -> UInt8[np.ndarray, "h w 3"]:
    """The window of `image` resized to `whole` (height, width) as by torch's `interpolate(align_corners=False)`."""
    at, by = [], []
    for length, resized, window in zip(image.shape, whole, (rows, columns), strict=False):
        first, shares = taps(length, resized, interpolation, antialias=False, window=window)
        at.append(np.clip(first[:, None] + np.arange(shares.shape[1]), 0, length - 1))
        by.append(shares.astype(np.float32))
    lines = np.einsum("htwc,ht->hwc", image[at[0]].astype(np.float32), by[0])
    pixels = np.einsum("hwtc,wt->hwc", lines[:, at[1]], by[1])
    return np.asarray(np.clip(np.round(pixels), 0, 255), np.uint8)


def reduce(
    image: UInt8[np.ndarray, "H W C"], height: int, width: int, box: tuple[float, float]
) -> UInt8[np.ndarray, "height width C"]:
    """`image`, of which the upper left `box` (height, width; pixels) is used, by the bicubic filter, antialiased.

    Columns are filtered first: their matrices hold no zeros for other colours, which lie interleaved since moving them
    apart costs more. It is rounded once, at the end, where Pillow rounds after each direction.
    """
    rows, columns, channels = image.shape
    (starts, weights), across = _blocks(rows, height, box[0], 1), _blocks(columns, width, box[1], channels)
    flat, (blocks, made, taken) = image.reshape(rows, columns * channels), weights.shape
    short = np.empty((blocks * made, columns * channels), np.float32)
    many = max(1, _CACHE // (columns * channels) * blocks // rows)
    for block in range(0, blocks, many):
        places = starts[block : block + many]
        part = flat[places[0] : places[-1] + taken].astype(np.float32)
        there = [start - places[0] for start in places]
        _filter(part, (there, weights[block : block + many]), short[block * made : (block + many) * made])
    small = np.empty((height, across[1].shape[0] * across[1].shape[1]), np.float32)
    _filter(short[:height].T, across, small.T)
    return _bytes(small)[:, : width * channels].reshape(height, width, channels)


def _filter(lines: Float32[np.ndarray, "A n"], blocks: _Blocks, out: Float32[np.ndarray, "B n"]) -> None:
    _, made, taken = blocks[1].shape
    chunk = max(1, _SINGLE_THREAD // (taken * made))
    for left in range(0, lines.shape[1], chunk):
        part, filtered = lines[:, left : left + chunk], out[:, left : left + chunk]
        for block, (start, weights) in enumerate(zip(*blocks, strict=True)):
            np.matmul(weights, part[start : start + taken], out=filtered[block * made : (block + 1) * made])


def _bytes(values: Float32[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Rounded half up, as Pillow does; `values` is used up."""
    values += np.float32(0.5)
    np.clip(values, 0, 255, out=values)
    return values.astype(np.uint8)


@lru_cache(maxsize=16)
def _blocks(size: int, new_size: int, length: float, channels: int) -> _Blocks:
    """The band matrix [new_size size] cut into blocks of outputs; each weight is a diagonal over the channels."""
    first, shares = taps(size, new_size, span=length)
    outputs, ticks = np.nonzero(shares)
    blocks, pixels, block = -(-new_size // _BLOCK), first[outputs] + ticks, outputs // _BLOCK
    starts = first[::_BLOCK]
    taken = int((pixels - starts[block]).max()) + 1
    starts = np.minimum(starts, size - taken)
    weights = np.zeros((blocks, taken, _BLOCK), np.float32)  # turned as BLAS takes them fastest
    weights[block, pixels - starts[block], outputs % _BLOCK] = shares[outputs, ticks]
    spread = np.kron(weights, np.eye(channels, dtype=np.float32)[None])
    return (starts * channels).tolist(), spread.transpose(0, 2, 1)
