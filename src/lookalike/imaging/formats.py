"""What a file is by its first bytes, and the reader of each format; the suffix says nothing.

A new format is one reader, `bytes -> Raster`, and one line in `READERS`.
"""

import re
from collections.abc import Callable

from lookalike.core.errors import ImageError
from lookalike.imaging.bmp import read_bmp
from lookalike.imaging.containers import read_avif, read_gif, read_png, read_ppm, read_webp
from lookalike.imaging.jpeg import read_jpeg
from lookalike.imaging.raster import Raster
from lookalike.imaging.tiff import read_tiff

READERS: dict[str, Callable[[bytes, int | None], Raster]] = {
    "JPEG": read_jpeg,  # MPO, the JPEG of stereo cameras and many phones, included
    "PNG": read_png,
    "GIF": read_gif,
    "WEBP": read_webp,
    "BMP": read_bmp,
    "TIFF": read_tiff,
    "AVIF": read_avif,
    "PPM": read_ppm,
}
"""What is read: the formats that cameras, phones and shops give. Pillow's rarer readers stay closed to strangers."""

_RAW = "is a camera's RAW file, which is not read: develop it to JPEG or TIFF, or take the JPEG beside it"
_REFUSED = {
    "HEIC": "is HEIC, which is not read: convert it to JPEG (`heif-convert IN.heic OUT.jpg`)",
    "JXL": "is JPEG XL, which is not read: convert it to PNG (`djxl IN.jxl OUT.png`)",
    "JP2": "is JPEG 2000, which is not read: convert it to PNG or JPEG (`opj_decompress -i IN.jp2 -o OUT.png`)",
    "PSD": "is Photoshop's own format, which is not read: export it as PNG or JPEG",
    "EXR": "is OpenEXR, which is not read: convert it to PNG or TIFF",
    "RAW": _RAW,
}
"""Images that are known but not read: what is said of them, and the remedy."""

_STARTS = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("RAW", re.compile(rb"II\*\0....CR|IIRO|IIRS|MMOR|IIU\0|FUJIFILMCCD-RAW|FOVb|\0MRM|....ftypcrx", re.DOTALL)),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]")),
    ("BMP", re.compile(rb"BM.{4}.{8}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)),
    ("AVIF", re.compile(rb"....ftyp(?:avi[fs]|.{4}.{4}(?:.{4})*?avi[fs])", re.DOTALL)),
    ("HEIC", re.compile(rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL)),
    ("PPM", re.compile(rb"P[1-6f][\s#]")),
    ("JXL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n")),
    ("JP2", re.compile(rb"\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51")),
    ("PSD", re.compile(rb"8BPS\0[\1\2]")),
    ("EXR", re.compile(rb"\x76\x2f\x31\x01")),
)

HEAD = 64
"""First bytes of a file that are enough to know it."""


def kind_of(head: bytes) -> str | None:
    """The format of a file that begins so, read or refused by name; None if it is no image that is known here."""
    return next((kind for kind, start in _STARTS if start.match(head[:HEAD])), None)


def read_image(data: bytes, at_least: int | None = None) -> Raster:
    """The image in `data`; a JPEG may come reduced, its shorter side not below `at_least` pixels.

    Raises:
        ImageError: The image is empty, unknown, damaged, truncated, too large, or of a kind that is not read.
    """
    if not data:
        raise ImageError("The file is empty (0 bytes).")
    kind = kind_of(data)
    if kind in _REFUSED:
        raise ImageError(f"The file {_REFUSED[kind]}.")
    if kind is None:
        raise ImageError(
            f"Not an image of a known format: the file has {len(data):,} bytes and begins with {data[:8]!r}."
        )
    return READERS[kind](data, at_least)
