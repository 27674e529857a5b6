"""Bytes of an image -> uint8 [H W 3], upright sRGB; and what a collection stores of it.

The file's first bytes decide its format, never its name. Its reader makes a `Raster` of it, which is resized, brought
to sRGB, turned and stored here. Nothing of Pillow's global state is changed.

A new format is one reader, `bytes -> Raster`, and one line in `FORMATS`.
"""

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from lookalike.core.errors import ImageError
from lookalike.core.shapes import Image
from lookalike.imaging.cameras import read_heic, read_jxl, read_raw, read_tagged
from lookalike.imaging.color import to_srgb
from lookalike.imaging.phash import phash
from lookalike.imaging.raster import MOST, Raster, flat, reason
from lookalike.imaging.readers import read_avif, read_bmp, read_gif, read_jpeg, read_png, read_ppm, read_webp
from lookalike.imaging.resample import reduce

FORMATS: dict[str, tuple[bytes, Callable[[bytes, int | None], Raster] | str]] = {
    "JPEG": (rb"\xff\xd8\xff", read_jpeg),  # MPO, the JPEG of stereo cameras and many phones, included
    "PNG": (rb"\x89PNG\r\n\x1a\n", read_png),
    "GIF": (rb"GIF8[79]a", read_gif),
    "WEBP": (rb"RIFF....WEBP", read_webp),
    "RAW": (
        rb"II\*\0....CR|II\x1a\0\0\0HEAPCCDR|IIRO|IIRS|MMOR|IIU\0|FUJIFILMCCD-RAW|FOVb|\0MRM|....ftypcrx",
        read_raw,
    ),
    "TIFF": (rb"II[*+]\0|MM\0[*+]", read_tagged),  # and RAW files that begin so
    "BMP": (rb"BM.{4}.{8}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", read_bmp),
    "AVIF": (rb"....ftyp(?:avi[fs]|.{4}.{4}(?:.{4})*?avi[fs])", read_avif),
    "HEIC": (rb"....ftyp(?:he[iv][cxms]|mif1|msf1)", read_heic),
    "PPM": (rb"P[1-6f][\s#]", read_ppm),
    "JXL": (rb"\xff\x0a|\0\0\0\x0cJXL \r\n", read_jxl),
    "JP2": (
        rb"\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51",
        "JPEG 2000: convert it to PNG or JPEG (`opj_decompress -i IN.jp2 -o OUT.png`)",
    ),
    "PSD": (rb"8BPS\0[\1\2]", "Photoshop's own format: export it as PNG or JPEG"),
    "EXR": (rb"\x76\x2f\x31\x01", "OpenEXR: convert it to PNG or TIFF"),
}
"""Name -> how a file begins, and its reader, or what is said of it. The first that fits counts.

The formats that cameras, phones and shops give are read; Pillow's rarer readers stay closed to strangers.
"""

OTHERS = {
    "PDF": (rb"%PDF-", "PDF: draw its first page (`pdftoppm -r 150 -f 1 -l 1 -png IN.pdf OUT`)"),
    "video": (
        rb"....ftyp|....(?:moov|mdat)|\x1a\x45\xdf\xa3|RIFF....AVI |\0\0\x01\xba",
        "video: take a frame of it (`ffmpeg -i IN.mp4 -frames:v 1 OUT.jpg`)",
    ),
}
"""As `FORMATS`, of what is no image and has some in it: a folder of images leaves it out, and refuses nothing."""

HEAD = 64  # first bytes of a file that are enough to know it

# An image is decoded at no less than this many times the wanted size: 1024x768 at 1/2 for 256, 12 megapixels at 1/4.
# Its MobileNetV2 features then have cosine .9996 with those of a full decode reduced by Pillow (40 images of 1024x768,
# sensor noise included). Storing costs twenty times that: .99231 for what is stored, .99232 at full size.
_GAP = 1.5
# Of what is stored, by the cosine of those features with the features of the uncompressed image: 4:4:4 at 90 has .990
# in 7.1 kB; 4:2:0 has .983 in 6.1 kB and needs 95 and 8.2 kB to reach .991 (60 images of 112 px, whose chroma is as
# sharp as that of a reduced photograph). 4:4:4 at 95 has .995, for a third more bytes.
QUALITY = 90


class Stored(NamedTuple):
    """An image as a collection keeps it: a JPEG, upright, sRGB or gray, without metadata; and the original's size."""

    data: bytes
    width: int  # of the upright original, in pixels
    height: int
    pixels: bytes  # 16, which only an image has whose pixels at this size are the same
    phash: int  # see `phash`


def kind_of(head: bytes) -> str | None:
    """The format of a file that begins so, read or refused by name; None if it is no image that is known here."""
    return next((kind for kind, (start, _) in FORMATS.items() if re.match(start, head[:HEAD], re.DOTALL)), None)


def _read(data: bytes, at_least: int | None) -> Raster:
    if not data:
        raise ImageError("The file is empty (0 bytes).")
    if (kind := kind_of(data)) is None:
        if other := next((words for start, words in OTHERS.values() if re.match(start, data, re.DOTALL)), None):
            raise ImageError(f"A file of a kind that is not read, {other}.")
        raise ImageError(
            f"Not an image of a known format: the file has {len(data):,} bytes and begins with {data[:8]!r}."
        )
    read = FORMATS[kind][1]
    if isinstance(read, str):
        raise ImageError(f"A file of a kind that is not read, {read}.")
    return read(data, at_least)


def decode(data: bytes, at_least: int | None = None) -> Image:
    """The first frame of the image, upright, as sRGB on white: uint8 [H W 3].

    Where a shorter side of `at_least` pixels suffices, a larger JPEG may come at 1/2, 1/4 or 1/8 of its size, and any
    image of more than 16 million pixels reduced by a whole number.

    Raises:
        ImageError: The image is empty, unknown, damaged, truncated, too large, or of a kind that is not read.
    """
    with _refused():
        return upright(_read(data, at_least), at_least)


def upright(raster: Raster, at_least: int | None = None) -> Image:
    """The pixels of a raster as `decode` gives them, which are nobody else's."""
    pixels, color, _ = flat(raster, at_least)
    pixels = _turned(to_srgb(pixels, color), raster.orientation)
    if pixels.shape[2] == 3 and pixels.flags.writeable:
        return pixels
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C")


def store(data: bytes, size: int, quality: int = QUALITY, border: int = 0) -> Stored:
    """The image as a JPEG whose shorter side is at most `size` pixels, never enlarged; ImageError as `decode`.

    Without its `border`, which is cut off at each side and is not counted as its width and height either.
    A JPEG that is small enough, upright, sRGB or gray, and whole, is not encoded again: only its metadata goes.
    """
    with _refused():
        raster = _read(data, int(_GAP * size))
        width, height, turned, kept = raster.width, raster.height, raster.orientation, raster.kept
        pixels, color, scale = flat(raster, int(_GAP * size))
        if border:
            cut = -(-border // scale) + (scale > 1)  # the last pixel of a reduced image may be a part of one
            width, height, kept = width - 2 * cut * scale, height - 2 * cut * scale, None
            if min(width, height) < 1:
                raise ImageError(f"The image is nothing but its border of {border} pixels.")
            pixels = np.ascontiguousarray(pixels[cut:-cut, cut:-cut])
        upright = (height, width) if turned >= 5 else (width, height)
        if min(width, height) > size:
            new_width, new_height = (max(1, round(side * (size / min(width, height)))) for side in (width, height))
            # A reduced image is rounded up to whole pixels: the box is the part of it that is image.
            pixels = reduce(pixels, new_height, new_width, (height / scale, width / scale))
        small = to_srgb(pixels, color)
        unchanged = small is pixels and turned == 1 and min(width, height) <= size
        shown = np.ascontiguousarray(_turned(small, turned))
        seen = (
            hashlib.blake2b(shown.data, digest_size=16, person=repr(shown.shape).encode()[:16]).digest(),
            phash(shown),
        )
        if kept and unchanged and len(plain := kept()) <= 3 * width * height + 4096:
            return Stored(plain, *upright, *seen)
        return Stored(encode_jpeg(shown, quality), *upright, *seen)


def encode_jpeg(image: UInt8[np.ndarray, "H W C"], quality: int = QUALITY) -> bytes:
    """Gray or RGB as a baseline JPEG without metadata, in 4:4:4; `quality` is libjpeg's, 1 (worst) to 95."""
    buffer = io.BytesIO()
    made = PIL.Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    made.save(buffer, "JPEG", quality=quality, subsampling="4:4:4")
    return buffer.getvalue()


@contextmanager
def _refused() -> Iterator[None]:
    """Whatever a decoder, or we, raise for an image is about that image."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("There is not enough memory to decode it.") from error
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(f"The image is too large: {MOST}.") from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError("The head of the image is damaged or truncated.") from error
    except Exception as error:
        raise ImageError(f"The image is damaged or truncated ({type(error).__name__}: {reason(error)}).") from error


def _turned(pixels: UInt8[np.ndarray, "H W C"], orientation: int) -> UInt8[np.ndarray, "... C"]:
    """Upright, from an EXIF orientation: 5 to 8 swap the sides, then rows or columns are mirrored."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if rows else 1, :: -1 if columns else 1])
