"""JPEG: only the segments that hold pixels go to a decoder, so that no other one can refuse an image.

Pillow decodes, and simplejpeg whatever it decodes to the same pixels in less time. A JPEG that is much larger than
needed is decoded at 1/2, 1/4 or 1/8 by leaving out high frequencies, which is where the time of a large photograph
goes.
"""

import re
import struct
from collections.abc import Iterator

import numpy as np
import PIL.Image
import simplejpeg
from jaxtyping import UInt8

from lookalike.core.errors import ImageError
from lookalike.imaging.codec import load, open_as
from lookalike.imaging.color import Color
from lookalike.imaging.raster import Raster, check_size
from lookalike.imaging.tags import exif

_JFIF = b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_SOS, _EOI = 0xDA, 0xD9
_PIXELS = {*range(0xC0, 0xD0), 0xDB, 0xDD, _SOS}  # frames, tables, restarts
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


def read_jpeg(data: bytes, at_least: int | None) -> Raster:
    """The first image of `data`, at 1, 1/2, 1/4 or 1/8 of its size."""
    head, color, turned, start = _head(data)
    data = head + data[start:]
    image = open_as("JPEG", data)
    width, height = image.size
    check_size(width, height)
    scale = max(s for s in (1, 2, 4, 8) if s == 1 or (at_least and min(width, height) // s >= at_least))
    pixels = _turbo(image, data, scale)
    if pixels is None:
        if scale > 1:
            image.draft(None, (width // scale, height // scale))
        pixels = np.asarray(load(image))
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    kept = data[: _end(data, len(head))] if pixels.shape[2] < 4 else None
    return Raster(width, height, lambda a, b: (pixels[a:b], None), color, turned, scale, whole=True, kept=kept)


def _turbo(image: PIL.Image.Image, data: bytes, scale: int) -> UInt8[np.ndarray, "H W C"] | None:
    """The same pixels from simplejpeg, which spares a copy and Pillow's four bytes a pixel; None: Pillow has to.

    Strict: what libjpeg would only warn of goes to Pillow, so that both ways accept the same images.
    """
    if image.mode not in ("L", "RGB"):
        return None
    height, width = -(-image.height // scale), -(-image.width // scale)
    space = "GRAY" if image.mode == "L" else "RGB"
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            data, space, min_height=height, min_width=width, min_factor=1, strict=True
        )
    except ValueError:
        return None
    return pixels if pixels.shape[:2] == (height, width) else None


def _head(data: bytes) -> tuple[bytes, Color | None, int, int]:
    """The segments before the first scan that pixels need, the colour space, orientation, and where the scan starts."""
    parts, chapters = [b"\xff\xd8"], dict[int, bytes]()
    told: tuple[int, Color | None] = (1, None)
    for marker, place, body in _segments(data):
        if marker == _SOS:
            profile = b"".join(chapters[i] for i in sorted(chapters))
            return b"".join(parts), profile or told[1], told[0], place
        if marker == 0xE0 and body[:5] == b"JFIF\0" and len(body) >= 14 and _JFIF not in parts:
            parts.insert(1, _JFIF)
        elif marker in _PIXELS or (marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12):
            parts.append(b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body)
        elif marker == 0xE1 and body[:6] == b"Exif\0\0" and told == (1, None):
            told = exif(body)
        elif marker == 0xE2 and body[:12] == b"ICC_PROFILE\0" and len(body) > 14:
            chapters.setdefault(body[12], body[14:])
        if marker in _PIXELS - {0xC4, 0xC8, 0xCC} and marker < 0xD0 and body[:1] not in (b"\x08", b""):
            raise ImageError(
                f"The JPEG has {body[0]} bits a sample, which is not read: convert it to PNG or to 8 bits."
            )
    raise ImageError("The head of the JPEG image is damaged or truncated: no pixels follow it.")


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Marker, place and body of each segment; bytes between segments are skipped, as libjpeg does."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        marker = data[place + 1]
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _EOI:
            return
        if marker in (0x00, 0xFF) or marker in _ALONE:
            place += 1 if marker == 0xFF else 2
        elif length < 2:
            place += 2
        else:
            yield marker, place, data[place + 4 : place + 2 + length]
            place += 2 + length


def _end(data: bytes, place: int) -> int:
    """Where the image that has a scan at `place` ends: phones put films and other images behind it."""
    while (found := _MARKER.search(data, place)) is not None:
        if found[0][1] == _EOI:
            return found.end()
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return len(data)
