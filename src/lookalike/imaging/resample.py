"""Bicubic reduction with antialias, as matrix products: the pixels of Pillow's `resize`, in about 60 % of its time.

Resampling is the largest part of preparing an image of a megapixel, and Pillow does it one multiplication at a
time. Each output pixel is a weighted sum of a few neighbouring input pixels, so a block of neighbouring outputs is a
small dense matrix times a window of inputs, which is what BLAS is fast at. As in Pillow, rows are filtered first and
rounded to 8 bits in between; 1 value in 10,000 then differs, by 1. (Where the scales of the two sides differ much,
Pillow may begin with columns: then rounding differs more.) Pure: no file, no codec.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64, UInt8

_BLOCK = 5  # outputs per product: times three colours they just fill a vector of 16, and wider means more zeros
_CACHE = 2**19  # numbers converted to float32 at once, so that they stay in the cache of a core
# OpenBLAS starts threads for products of more multiplications than this; prepare has a process per core already.
_SINGLE_THREAD = 2**18

_Blocks = tuple[list[int], Float32[np.ndarray, "blocks A B"]]


def reduce(
    image: UInt8[np.ndarray, "H W C"], height: int, width: int, box: tuple[float, float]
) -> UInt8[np.ndarray, "height width C"]:
    """`image` resampled to [height width C], bicubic (a = -0.5), antialiased (Pillow's `precompute_coeffs`).

    Args:
        image: uint8 [H W C], any number of channels.
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        box: Height and width, in pixels from the upper left corner, of the part of `image` that is used.
    """
    rows, columns, channels = image.shape
    flat = image.reshape(rows, columns * channels)
    narrow = np.empty((rows, width * channels), np.uint8)
    blocks = _column_blocks(columns, width, box[1], channels)
    # Two buffers for all parts: fresh memory costs the system as much as the arithmetic of a part.
    many = max(1, min(rows, _CACHE // (columns * channels)))
    floats = np.empty((many, columns * channels), np.float32)
    filtered = np.empty((many, blocks[1].shape[0] * blocks[1].shape[2]), np.float32)
    for start in range(0, rows, many):
        part = flat[start : start + many]
        np.copyto(floats[: len(part)], part)
        _filter_columns(floats[: len(part)], blocks, channels, filtered[: len(part)])
        narrow[start : start + many] = _bytes(filtered[: len(part)])[:, : width * channels]
    return _bytes(_filter_rows(narrow.astype(np.float32), height, box[0])).reshape(height, width, channels)


def _filter_columns(flat: Float32[np.ndarray, "R WC"], blocks: _Blocks, channels: int, out: np.ndarray) -> None:
    """Along the row; colours stay interleaved, since moving them apart costs more than the zeros in the matrices."""
    rows = flat.shape[0]
    starts, weights = blocks
    _, taken, made = weights.shape
    chunk = max(1, _SINGLE_THREAD // (taken * made))
    full = rows // chunk * chunk
    for block, start in enumerate(starts):
        window = flat[:, start * channels : start * channels + taken]
        result = out[:, block * made : (block + 1) * made]
        if full:
            stacked = window[:full].reshape(-1, chunk, taken)
            np.matmul(stacked, weights[block], out=result[:full].reshape(-1, chunk, made))
        if full < rows:
            np.matmul(window[full:], weights[block], out=result[full:])


def _filter_rows(flat: Float32[np.ndarray, "R WC"], height: int, length: float) -> Float32[np.ndarray, "height WC"]:
    """Down the columns."""
    across = flat.shape[1]
    starts, weights = _blocks(flat.shape[0], height, length)
    _, made, taken = weights.shape
    out = np.empty((len(starts) * made, across), np.float32)
    chunk = max(1, _SINGLE_THREAD // (taken * made))
    for block, start in enumerate(starts):
        for left in range(0, across, chunk):
            part = slice(left, left + chunk)
            np.matmul(
                weights[block], flat[start : start + taken, part], out=out[block * made : (block + 1) * made, part]
            )
    return out[:height]


def _bytes(values: Float32[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Rounded half up, as Pillow does; `values` is used up."""
    values += np.float32(0.5)
    np.clip(values, 0, 255, out=values)
    return values.astype(np.uint8)


@lru_cache(maxsize=8)
def _blocks(size: int, new_size: int, length: float) -> _Blocks:
    """The band matrix [new_size size] cut into blocks of outputs: where each block's window starts, its weights."""
    first, last, taps = _taps(size, new_size, length)
    blocks = -(-new_size // _BLOCK)
    heads = np.arange(blocks) * _BLOCK
    tails = np.minimum(heads + _BLOCK, new_size) - 1
    taken = int((last[tails] - first[heads]).max())
    starts = np.minimum(first[heads], size - taken)
    weights = np.zeros((blocks * _BLOCK, taken), np.float32)
    rows, ticks = np.nonzero(np.arange(taps.shape[1]) < (last - first)[:, None])
    weights[rows, first[rows] - starts[rows // _BLOCK] + ticks] = taps[rows, ticks]
    return starts.tolist(), weights.reshape(blocks, _BLOCK, taken)


@lru_cache(maxsize=8)
def _column_blocks(size: int, new_size: int, length: float, channels: int) -> _Blocks:
    """`_blocks` for interleaved channels, transposed: each weight becomes a diagonal over the channels."""
    starts, weights = _blocks(size, new_size, length)
    blocks, made, taken = weights.shape
    spread = np.zeros((blocks, taken, channels, made, channels), np.float32)
    for channel in range(channels):
        spread[:, :, channel, :, channel] = weights.transpose(0, 2, 1)
    return starts, spread.reshape(blocks, taken * channels, made * channels)


def _taps(
    size: int, new_size: int, length: float
) -> tuple[np.ndarray, np.ndarray, Float64[np.ndarray, "new_size taps"]]:
    """For each output: the first input it uses, one past the last, and the weights, which sum to 1."""
    scale = max(length / new_size, 1.0)
    center = (np.arange(new_size) + 0.5) * (length / new_size)
    first = np.maximum((center - 2 * scale + 0.5).astype(np.int64), 0)
    last = np.minimum((center + 2 * scale + 0.5).astype(np.int64), size)
    position = first[:, None] + np.arange(int((last - first).max()))
    weights = _cubic((position - center[:, None] + 0.5) / scale) * (position < last[:, None])
    return first, last, weights / weights.sum(axis=1, keepdims=True)


def _cubic(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Keys' cubic convolution kernel (1981) with a = -0.5."""
    x = np.abs(x)
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0.0))
