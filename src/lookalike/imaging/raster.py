"""What a reader makes of a file: rows of 8-bit pixels that are decoded or converted when they are wanted.

A worker's memory is a matter of bytes: rows of any depth, with alpha or a profile, become 8 bits a few at a time, and
what is far larger than wanted is averaged down on the way (`flat`). What Pillow decodes is whole, or refused.
"""

import io
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import cast

import numpy as np
import PIL.Image
from jaxtyping import Shaped, UInt8

from lookalike.core.errors import ImageError
from lookalike.imaging.color import Color, to_srgb

MAX_SIDE = 32_768  # pixels; phone panoramas have about 16,000
MAX_PIXELS = 2**27  # 134 million, 400 MB as RGB; the largest common photograph has 108 million
MAX_BYTES = 2**30  # of the samples of an image while it is decoded
MOST = f"at most {MAX_SIDE:,} pixels a side, {MAX_PIXELS:,} in all and {MAX_BYTES >> 20:,} MB are read"

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
    color: Color | None = None  # None: sRGB
    orientation: int = 1  # as EXIF counts: 1 is upright
    scale: int = 1  # by what the decoder reduced the rows already
    whole: bool = False  # whether all rows are in memory as they are, and cost nothing
    kept: Callable[[], bytes] | None = None  # a whole JPEG of these pixels, without metadata, where the file holds one


def check_size(width: int, height: int, depth: int) -> None:
    """Refuse what is too large, before a pixel is decoded; `depth`: bytes that a pixel takes meanwhile."""
    if min(width, height) < 1:
        raise ImageError(f"The image has no pixels: {width} x {height}.")
    if max(width, height) > MAX_SIDE or width * height > min(MAX_PIXELS, MAX_BYTES // depth):
        raise ImageError(f"The image is too large: {width:,} x {height:,} pixels of {depth} bytes; {MOST}.")


def incomplete(kind: str | None, width: int, height: int, why: str = "") -> ImageError:
    """What is said of an image that ends early."""
    pixels = f"not all of its {width:,} x {height:,} pixels could be decoded{why}"
    return ImageError(f"The {kind} image is damaged or truncated: {pixels}.")


def flat(raster: Raster, at_least: int | None) -> tuple[UInt8[np.ndarray, "h w C"], Color | None, int]:
    """All rows on white, the colour space they are in, and by what they are reduced in all.

    Alpha is laid on white in sRGB, as viewers do; without it the colours stay as they are: converting them is cheaper
    after resizing. An image of more than 16 million pixels is reduced by a whole number, not below `at_least`.
    """
    height, width = -(-raster.height // raster.scale), -(-raster.width // raster.scale)
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
    image = PIL.Image.frombytes({1: "L", 3: "RGB", 4: "CMYK"}[channels], (width, height), pixels.tobytes())
    return np.asarray(image.reduce(factor)).reshape(-1, -(-width // factor), channels)


Levels = tuple[float, float, float]
"""The samples that are black and white, and the one that means nothing, if not NaN; it becomes black."""
_WHITES = (1.0, 255.0, 65_535.0, 2.0**31 - 1, 2.0**32 - 1)


def shaded(values: Shaped[np.ndarray, "*n"], levels: Levels) -> UInt8[np.ndarray, "*n"]:
    """Samples -> 0 (black) to 255."""
    if values.dtype == np.uint8:
        return values
    black, white, void = levels
    if values.dtype.kind == "u" and white < 2**16 and void != void:
        table = ((np.arange(white + 1) * 510 + white) // (2 * white)).astype(np.uint8)
        return np.take(table, values)
    light = np.where(np.isfinite(values) & (values != void), values, black).astype(np.float64)
    return np.asarray(((light - black) * (255.0 / (white - black))).clip(0, 255) + 0.5).astype(np.uint8)


def measured(parts: Iterable[np.ndarray], void: float = np.nan) -> Levels:
    """The levels of samples that do not say what white is: from 0 to the usual white that the greatest comes near to.

    Otherwise from the least to the greatest value: elevations, temperatures and depths are shown as shades.
    """
    least, most = np.inf, -np.inf
    for values in parts:
        there = values[np.isfinite(values) & (values != void)]
        if there.size:
            least, most = min(least, float(there.min())), max(most, float(there.max()))
    if least > most:
        return 0.0, 1.0, void
    near = [white for white in _WHITES if white / 4 < most <= white]
    if least >= 0 and near:
        return 0.0, near[0], void
    least = least if least < 0 or void == void else 0.0
    return least, most if most > least else least + 1.0, void


# Python keeps warning filters per process, and so is stderr; without the lock, threads could leave each other's behind.
_shared = threading.RLock()
_TORN = re.compile(rb"^Fax\w*Decode")  # libtiff goes on after these, with rows that are torn
_LIBTIFF = re.compile(
    rb"^(tempfile\.tif|MissingRequired|EstimateStrip\w*|_?TIFF\w*|\w*(Fax|LZW|ZIP|JPEG|Pack|LZMA|ZSTD|WebP)\w*): "
)
_LIBRAW = re.compile(rb"^unknown file: ")


def open_as(kind: str, data: bytes, depth: int = 4) -> PIL.Image.Image:
    """The header of `data`, a file of this format that takes `depth` bytes a pixel while it is decoded."""
    with _quiet():
        image = PIL.Image.open(io.BytesIO(data), formats=[kind])
    check_size(*image.size, depth)
    return image


def load(image: PIL.Image.Image) -> PIL.Image.Image:
    """Decode the first frame; an image that ends early is refused, not filled up with gray."""
    width, height = image.size  # before a draft is carried out this is already the reduced size
    said: list[bytes] = []
    try:
        if image.format == "JPEG":  # the usual one, and its library is silent
            image.load()
        else:
            with _quiet(), _stderr_of_c(said, _LIBTIFF) if image.format == "TIFF" else nullcontext():
                image.load()
        words = next((line.decode("ascii", "replace") for line in said if _TORN.match(line)), "")
    except Exception as error:  # noqa: BLE001  whatever it is, the image is refused
        words = reason(error)
    if words:
        raise incomplete(image.format, width, height, f" ({words[:120]})")
    return image


def from_pillow(image: PIL.Image.Image, color: Color | None = None, orientation: int = 1) -> Raster:
    """A decoded image of any mode."""
    deep, gray = image.mode.startswith(("I", "F")), image.mode in ("1", "L", "LA")
    mode = image.mode if image.mode == "CMYK" else ("L" if gray else "RGB") + "A" * image.has_transparency_data
    levels = measured([np.asarray(image)]) if image.mode == "F" else (0.0, 65_535.0, np.nan)
    key = image.info.get("transparency")

    def rows(start: int, stop: int) -> Rows:
        # A copy of all rows would take a tenth of the time of decoding them.
        part = image if stop - start == image.height else image.crop((0, start, image.width, stop))
        if deep:
            values = np.asarray(part)
            alpha = None if key is None else np.where(values == key, 0, 255).astype(np.uint8)
            return shaded(values, levels)[:, :, None], alpha
        pixels = np.asarray(part if part.mode == mode else part.convert(mode)).reshape(stop - start, image.width, -1)
        return (pixels[:, :, :-1], pixels[:, :, -1]) if mode.endswith("A") else (pixels, None)

    return Raster(*image.size, rows, color, orientation)


def reason(error: BaseException) -> str:
    """The codec's own words on one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back Pillow's warnings on strange metadata: the image is read or refused, and that is said once."""
    with _shared, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def without_words() -> Iterator[None]:
    """Hold back what LibRaw writes to stderr: what is wrong it also tells by its errors."""
    with _quiet(), _stderr_of_c([], _LIBRAW):
        yield


@contextmanager
def _stderr_of_c(said: list[bytes], theirs: re.Pattern[bytes]) -> Iterator[None]:
    """Put the lines on stderr that `theirs` fits into `said`; those of others go on to stderr."""
    try:
        before = os.dup(2)
    except OSError:  # closed
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            for line in file.read().splitlines(keepends=True):
                if theirs.match(line):
                    said.append(line.strip())
                else:
                    os.write(2, line)
