"""Bytes of an image -> uint8 [H W 3], upright sRGB; and what a collection stores of it.

`formats` reads any file as a `Raster`; here it is resized, brought to sRGB, turned and stored. The file's content
decides its format, never its name. Nothing of Pillow's global state is changed.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from lookalike.core.errors import ImageError
from lookalike.core.shapes import Image
from lookalike.imaging.codec import reason
from lookalike.imaging.color import is_srgb, to_srgb
from lookalike.imaging.formats import read_image
from lookalike.imaging.raster import flat
from lookalike.imaging.resample import reduce

# An image is decoded at no less than this many times the wanted size: a 12-megapixel photograph at 1/4, for 256. Its
# MobileNetV2 features then have cosine .9998 with those of a full decode (lowest .9996), and most of the time left is
# entropy coding, which every scale pays; 1/2 would give .9999 for a third more time.
_GAP = 2.75
# Quality and subsampling of what is stored, by the cosine of those features with the features of the uncompressed
# image: 4:4:4 at 90 has .990 in 7.1 kB; 4:2:0 has .983 in 6.1 kB and needs 95 and 8.2 kB to reach .991 (60 images
# of 112 px, whose chroma is as sharp as that of a reduced photograph). 4:4:4 at 95 has .995, for a third more bytes.
_QUALITY = 90


@dataclass(frozen=True)
class Stored:
    """An image as a collection keeps it."""

    data: bytes
    """JPEG, upright, sRGB or gray, without metadata."""
    width: int
    """Of the upright original, in pixels."""
    height: int
    """Of the upright original, in pixels."""


def decode(data: bytes, at_least: int | None = None) -> Image:
    """The first frame of the image, upright, as sRGB: uint8 [H W 3].

    Alpha is laid on white, any depth becomes 8 bits, a colour profile or the codes of one are applied.

    Args:
        data: A file of one of `formats.READERS`.
        at_least: Shorter side in pixels that suffices: a larger JPEG may then come at 1/2, 1/4 or 1/8 of its size,
            and any image of more than 16 million pixels reduced by a whole number.

    Raises:
        ImageError: The image is empty, unknown, damaged, truncated, too large, or of a kind that is not read.
    """
    with _refused():
        raster = read_image(data, at_least)
        pixels, color, _ = flat(raster, at_least)
        pixels = _turned(to_srgb(pixels, color), raster.orientation)
        if pixels.shape[2] == 3 and pixels.flags.writeable:
            return pixels
        return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C")


def store(data: bytes, size: int) -> Stored:
    """The image as a JPEG whose shorter side is at most `size` pixels; never enlarged.

    A JPEG that is small enough, upright, sRGB or gray, and whole, is not encoded again: only its metadata goes.

    Raises:
        ImageError: As `decode`.
    """
    with _refused():
        raster = read_image(data, int(_GAP * size))
        width, height = raster.width, raster.height
        pixels, color, scale = flat(raster, int(_GAP * size))
        upright = (height, width) if raster.orientation >= 5 else (width, height)
        if min(width, height) > size:
            new_width, new_height = _shorter_to(width, height, size)
            # A reduced image is rounded up to whole pixels: the box is the part of it that is image.
            pixels = reduce(pixels, new_height, new_width, (height / scale, width / scale))
        elif (
            raster.kept
            and raster.orientation == 1
            and is_srgb(color, pixels.shape[2])
            and _is_ordinary(raster.kept, pixels)
        ):
            return Stored(raster.kept, *upright)
        small = _turned(to_srgb(pixels, color), raster.orientation)
        return Stored(_jpeg(PIL.Image.fromarray(small[:, :, 0] if small.shape[2] == 1 else small), _QUALITY), *upright)


def resize_shorter(image: Image, size: int) -> UInt8[np.ndarray, "h w 3"]:
    """`image` with its shorter side reduced to `size` pixels, or as it is if it is not larger."""
    height, width = image.shape[:2]
    if min(height, width) <= size:
        return image
    new_width, new_height = _shorter_to(width, height, size)
    return reduce(image, new_height, new_width, (float(height), float(width)))


def encode_jpeg(image: Image, quality: int = 90) -> bytes:
    """`image` as a baseline JPEG without metadata, in 4:4:4.

    Args:
        image: uint8 [H W 3].
        quality: 1 (worst) to 95, the scale of libjpeg.
    """
    return _jpeg(PIL.Image.fromarray(image), quality)


@contextmanager
def _refused() -> Iterator[None]:
    """Whatever a decoder, or we, raise for an image is about that image."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("There is not enough memory to decode it.") from error
    except Exception as error:
        raise ImageError(f"The image is damaged or truncated ({type(error).__name__}: {reason(error)}).") from error


def _turned(pixels: UInt8[np.ndarray, "H W C"], orientation: int) -> UInt8[np.ndarray, "... C"]:
    """Upright, from an EXIF orientation: 5 to 8 swap the sides, then rows or columns are mirrored."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if rows else 1, :: -1 if columns else 1])


def _is_ordinary(data: bytes, pixels: UInt8[np.ndarray, "H W C"]) -> bool:
    """Whether a JPEG is not larger than its pixels."""
    return len(data) <= 3 * int(pixels.shape[0]) * int(pixels.shape[1]) + 4096


def _shorter_to(width: int, height: int, size: int) -> tuple[int, int]:
    scale = size / min(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _jpeg(image: PIL.Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:4:4")
    return buffer.getvalue()
