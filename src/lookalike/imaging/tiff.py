"""TIFF: its page, its storage, its samples.

A TIFF may hold samples of any depth and sign, whole or plane by plane, in strips or tiles. libtiff unpacks what is
compressed, and Pillow knows some of the kinds; so here a page of any kind is presented to them as gray bytes, and
what these bytes mean is decided here: depth, format, predictor, planes, photometric interpretation, alpha. JPEG, fax
and subsampled YCbCr go to Pillow as they are. What is not understood is refused in words.
"""

import io
import re
import struct
from collections.abc import Iterator

import numpy as np
import PIL.Image
import PIL.ImageChops

from lookalike.core.errors import ImageError
from lookalike.imaging.codec import from_pillow, load, open_as
from lookalike.imaging.color import Color
from lookalike.imaging.raster import Raster, check_size
from lookalike.imaging.samples import INKS, Samples
from lookalike.imaging.tags import Directory, directory, exif_color, first

_PLAIN = {1: "none", 5: "LZW", 8: "deflate", 32773: "PackBits", 32946: "deflate", 34925: "LZMA", 50000: "Zstandard"}
_BY_PILLOW = {2: "fax", 3: "fax", 4: "fax", 6: "JPEG", 7: "JPEG", 32771: "fax", 50001: "WebP"}
_SENSOR = (32803, 34892)  # photometric: what a camera's sensor saw
_RAW = "It is a camera's RAW file, which is not read: develop it to JPEG or TIFF, or take the JPEG beside it."
_PAGES = 64  # pages that are looked at for one that is not a thumbnail


def read_tiff(data: bytes, _: int | None) -> Raster:
    """The first page that is no thumbnail."""
    page = _page(data)
    width, height = page.value(256, 0), page.value(257, 0)
    compression, photometric = page.value(259, 1), page.value(262, 1 if page.value(277, 1) < 3 else 2)
    color: Color | None = page.text(34675) or exif_color(data, page)
    subsampled = photometric == 6 and page.values(530) != (1, 1)
    if compression in _BY_PILLOW or (subsampled and compression in _PLAIN and compression != 1):
        check_size(width, height, 4)
        image = load(open_as("TIFF", _first_page(data, page)))
        if compression == 3:
            _check_fax(data, page, image)
        return from_pillow(image, color)  # turned by Pillow already
    if compression not in _PLAIN or photometric not in INKS or subsampled:
        raise ImageError(
            f"The TIFF has samples of a kind that is not read (compression {compression}, photometric {photometric}): "
            "save it as RGB or gray without compression, or as PNG."
        )
    samples = Samples(data, page, width, height, photometric)
    turned = page.value(274, 1)
    return Raster(width, height, samples.rows, color if photometric < 8 else None, turned if 1 <= turned <= 8 else 1)


def _page(data: bytes) -> Directory:
    if data[8:10] == b"CR":
        raise ImageError(_RAW)  # Canon's CR2
    pages = list(_pages(data))
    if any(page.value(262, 0) in _SENSOR or 50706 in page.tags for page in pages):
        raise ImageError(_RAW)
    full = [page for page in pages if not page.value(254, 0) & 5 and page.value(255, 1) != 2 and page.value(256, 0)]
    if not full:
        raise ImageError("The TIFF holds no page that is the image itself, only reduced copies, masks or nothing.")
    return full[0]


def _pages(data: bytes) -> Iterator[Directory]:
    """Pages in their order, those below a page behind it; until one is the image and none before it a thumbnail."""
    page, seen = first(data), set[int]()
    while page.tags and page.offset not in seen and len(seen) < _PAGES:
        seen.add(page.offset)
        yield page
        if not page.value(254, 0) & 1 or 330 in page.tags:
            yield from (directory(data, offset, page.order) for offset in page.values(330)[:_PAGES])
        page = directory(data, page.after, page.order) if page.after else Directory()


def _check_fax(data: bytes, page: Directory, image: PIL.Image.Image) -> None:
    """Refuse a Group 3 page with rows that are lost or torn, of which libtiff does not tell.

    A row has one code in Group 3, so a row that is whole is what its pixels are encoded to. Where most rows are not,
    the encoder had other habits.
    """
    lines, height = _fax_lines(data, page), page.value(257, 0)
    torn = height - len(lines) if lines else 0
    if torn <= 0 and not page.value(292, 0) & 1 and page.value(274, 1) == 1 and lines:
        counts = []
        for form in (image, PIL.ImageChops.invert(image)):
            again = io.BytesIO()
            form.save(again, "TIFF", compression="group3")
            wanted = _fax_lines(again.getvalue(), first(again.getvalue()))
            counts.append(sum(a != b for a, b in zip(lines, wanted, strict=False)))
        torn = min(counts) if 2 * min(counts) < height else 0
    if torn > 0:
        raise ImageError(f"The TIFF image is damaged or truncated: {torn:,} of its {height:,} rows are torn or lost.")


def _fax_lines(data: bytes, page: Directory) -> list[bytes]:
    """The codes of each row, as digits; none if nothing marks the ends of rows."""
    turned = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256)) if page.value(266, 1) == 2 else None
    lines: list[bytes] = []
    for start, count in zip(page.values(273), page.values(279), strict=False):
        packed = np.frombuffer(data[start : start + count].translate(turned), np.uint8)
        parts = re.split(b"0{11,}1", (np.unpackbits(packed) + 48).tobytes())
        lines += [part.rstrip(b"0") for part in parts if len(part) > 1] if len(parts) > 1 else []
    return lines


def _first_page(data: bytes, page: Directory) -> bytes:
    if page.offset == first(data).offset:
        return data
    big = data[2:4] in (b"+\0", b"\0+")
    head, code = (8, "Q") if big else (4, "I")
    return data[:head] + struct.pack(page.order + code, page.offset) + data[head + struct.calcsize(code) :]
