"""BMP: any palette, any bit fields; what is packed by run lengths is Pillow's."""

import struct

import numpy as np
from jaxtyping import UInt8

from lookalike.core.errors import ImageError
from lookalike.imaging.codec import from_pillow, load, open_as
from lookalike.imaging.color import Color, chromatic
from lookalike.imaging.raster import Raster, Rows, check_size

_RGB, _FIELDS, _ALPHA_FIELDS = 0, 3, 6
_MASKS = {16: (0x7C00, 0x03E0, 0x001F, 0), 24: (0xFF0000, 0xFF00, 0xFF, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}


def read_bmp(data: bytes, _: int | None) -> Raster:
    """The image of a BMP with any header that Windows or OS/2 wrote."""
    start, size = struct.unpack_from("<II", data, 10)
    if size == 12:
        width, height, bits = struct.unpack_from("<HHxxH", data, 18)
        packing, used = _RGB, 0
    else:
        width, height, bits = struct.unpack_from("<iixxH", data, 18)
        packing = struct.unpack_from("<I", data, 30)[0] if size >= 20 else _RGB
        used = struct.unpack_from("<I", data, 46)[0] if size >= 40 else 0
    width, height, down = abs(width), abs(height), height < 0
    check_size(width, height, 4)
    fields = packing in (_FIELDS, _ALPHA_FIELDS) and size != 64  # OS/2 has its own meaning of 3
    if packing in (1, 2) and bits in (4, 8):
        return from_pillow(load(open_as("BMP", data)), _color(data, size))
    if not (packing == _RGB or fields) or bits not in (1, 2, 4, 8, 16, 24, 32) or (fields and bits < 16):
        raise ImageError(
            f"The BMP has {bits} bits a pixel in packing {packing}, which is not read: save it as PNG or as plain BMP."
        )
    length = -(-width * bits // 32) * 4
    if start + length * height > len(data) + 3:  # some leave out the padding of the last row
        raise ImageError(
            f"The BMP image is damaged or truncated: not all of its {width:,} x {height:,} pixels are there."
        )
    body = data[start : start + length * height].ljust(length * height, b"\0")
    lines = np.frombuffer(body, np.uint8).reshape(height, length)[:: 1 if down else -1]
    if bits <= 8:
        colors = _palette(data, size, bits, used, start)
        return Raster(
            width, height, lambda a, b: (colors[_indices(lines[a:b], bits)[:, :width]], None), _color(data, size)
        )
    masks = _MASKS[bits]
    if fields:
        many = 4 if size >= 56 or packing == _ALPHA_FIELDS else 3
        masks = (*struct.unpack_from(f"<{many}I", data, 54), 0)[:4]

    if masks[3] and not (np.frombuffer(body, f"<u{bits // 8}" if bits != 24 else np.uint8) & masks[3]).any():
        masks = (*masks[:3], 0)  # no alpha anywhere: it was not meant

    def rows(first: int, after: int) -> Rows:
        part = np.ascontiguousarray(lines[first:after, : width * bits // 8]).reshape(after - first, width, bits // 8)
        values = np.zeros(part.shape[:2], np.uint32)
        for i in range(bits // 8):
            values |= part[:, :, i].astype(np.uint32) << np.uint32(8 * i)
        pixels = np.stack([_field(values, mask) for mask in masks[:3]], axis=2)
        return pixels, _field(values, masks[3]) if masks[3] else None

    return Raster(width, height, rows, _color(data, size))


def _field(values: np.ndarray, mask: int) -> UInt8[np.ndarray, "n W"]:
    """The bits of `mask` as 0 to 255."""
    if not mask:
        return np.zeros(values.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    top = mask >> shift
    found = (values & np.uint32(mask)) >> np.uint32(shift)
    return ((found * np.uint64(255) + np.uint64(top // 2)) // np.uint64(top)).astype(np.uint8)


def _indices(lines: UInt8[np.ndarray, "n bytes"], bits: int) -> UInt8[np.ndarray, "n W"]:
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    return ((lines[:, :, None] >> shifts) & np.uint8(2**bits - 1)).reshape(len(lines), -1)


def _palette(data: bytes, size: int, bits: int, used: int, start: int) -> UInt8[np.ndarray, "K 3"]:
    """Colours by index; black where the file has fewer than it could."""
    step = 3 if size == 12 else 4
    first = 14 + size
    many = min(used or 2**bits, 2**bits, max(0, start - first) // step)
    stored = np.frombuffer(data, np.uint8, many * step, first).reshape(many, step)
    colors = np.zeros((2**bits, 3), np.uint8)
    colors[:many] = stored[:, 2::-1]
    return colors


def _color(data: bytes, size: int) -> Color | None:
    """The colour space that headers of 108 bytes and more may tell."""
    if size < 108:
        return None
    kind = data[70:74]
    if kind == b"DEBM" and size >= 124:  # a profile
        at, length = struct.unpack_from("<II", data, 126)
        return data[14 + at : 14 + at + length] or None
    if kind != bytes(4):
        return None
    red, green, blue = (struct.unpack_from("<3I", data, 74 + 12 * i) for i in range(3))
    gammas = struct.unpack_from("<3I", data, 110)
    if not all(gammas) or not all(sum(end) for end in (red, green, blue)):
        return None
    points = [(x / sum(end), y / sum(end)) for end in (red, green, blue) for x, y in [end[:2]]]
    white = np.sum([red, green, blue], axis=0) / np.sum([red, green, blue])
    return chromatic(gammas[1] / 65536, (*(v for point in points for v in point), float(white[0]), float(white[1])))
