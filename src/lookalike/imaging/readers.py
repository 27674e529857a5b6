"""JPEG, PNG, WebP, GIF, AVIF, PPM and BMP: what is around the pixels is read here, the pixels are mostly Pillow's.

A decoder gets the segments and chunks that hold pixels and no others: text, animation and metadata that are wrong
refuse nothing. What the container says about colour, crop and canvas is made up for, where Pillow leaves it undone.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import simplejpeg
from jaxtyping import UInt8

from lookalike.core.errors import ImageError
from lookalike.imaging.color import Color, chromatic, cicp
from lookalike.imaging.raster import Raster, Rows, check_size, from_pillow, incomplete, load, open_as, shaded
from lookalike.imaging.tiff import exif, unpacked

# ---------------------------------------------------------------------- JPEG

_JFIF = b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_SOS, _EOI = 0xDA, 0xD9
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PIXELS = {*range(0xC0, 0xD0), 0xDB, 0xDD}  # frames, tables, restarts
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


def read_jpeg(data: bytes, at_least: int | None) -> Raster:
    """The first image, at 1, 1/2, 1/4 or 1/8 of its size: leaving out high frequencies spares most of the time."""
    head, (width, height, channels), color, turned, scan = _jpeg_head(data)
    check_size(width, height, 4)
    data = head + data[scan:]
    scale = max(s for s in (1, 2, 4, 8) if s == 1 or (at_least and min(width, height) // s >= at_least))
    high, wide = -(-height // scale), -(-width // scale)
    pixels: np.ndarray = np.empty(0, np.uint8)
    if channels in (1, 3):  # simplejpeg spares a copy and Pillow's four bytes a pixel
        space, least = "GRAY" if channels == 1 else "RGB", {"min_height": high, "min_width": wide, "min_factor": 1}
        with suppress(ValueError):  # strict: what libjpeg would only warn of goes to Pillow, which decides
            pixels = simplejpeg.decode_jpeg(data, space, strict=True, **least)
    if pixels.shape[:2] != (high, wide):
        image = open_as("JPEG", data)
        if scale > 1:
            image.draft(None, (width // scale, height // scale))
        pixels = np.asarray(load(image)).reshape(image.height, image.width, -1)

    def kept() -> bytes:  # phones put films and other images behind the first one
        ends = (place + 2 for marker, place, _ in _segments(data, len(head)) if marker == _EOI)
        return data[: next(ends, len(data))]

    plain = kept if pixels.shape[2] < 4 else None
    return Raster(width, height, lambda a, b: (pixels[a:b], None), color, turned, scale, whole=True, kept=plain)


def _segments(data: bytes, place: int) -> Iterator[tuple[int, int, bytes]]:
    """Marker, place and body of each segment from `place` on; bytes between are skipped, as libjpeg does."""
    while (found := _MARKER.search(data, place)) is not None:
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        place = found.end() + (length if length >= 2 else 0)
        yield found[0][1], found.start(), data[found.end() + 2 : place]


def _jpeg_head(data: bytes) -> tuple[bytes, tuple[int, int, int], Color | None, int, int]:
    """What precedes the first scan: the segments that pixels need, width, height and channels, the colour space,
    orientation, and where the scan starts.
    """
    parts, chapters, size = [b"\xff\xd8"], dict[int, bytes](), (0, 0, 0)
    told: tuple[int, Color | None] = (1, None)
    for marker, place, body in _segments(data, 2):
        if marker == _EOI or (marker == _SOS and not size[2]):
            break
        if marker == _SOS:
            return b"".join(parts), size, b"".join(chapters[i] for i in sorted(chapters)) or told[1], told[0], place
        if marker == 0xE0 and body[:5] == b"JFIF\0" and len(body) >= 14 and _JFIF not in parts:
            parts.insert(1, _JFIF)
        elif marker in _PIXELS or (marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12):
            parts.append(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body)
        elif marker == 0xE1 and body[:6] == b"Exif\0\0" and told == (1, None):
            told = exif(body)
        elif marker == 0xE2 and body[:12] == b"ICC_PROFILE\0" and len(body) > 14:
            chapters.setdefault(body[12], body[14:])
        if marker in _FRAMES and len(body) >= 6:
            bits, height, width, channels = struct.unpack_from(">BHHB", body)
            if bits != 8:
                raise ImageError(f"The JPEG has {bits} bits a sample, which is not read: convert it to 8 bits.")
            size = width, height, channels
    raise ImageError("The head of the JPEG image is damaged or truncated: no pixels follow it.")


# ---------------------------------------------------------------------- PNG, WebP and GIF


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Name, body and the whole of each chunk of a PNG or a RIFF file; the last may be cut off."""
    view, png = memoryview(data), data[:1] == b"\x89"
    place, name = (8 if png else 12), b""
    while place + 8 <= len(data) and name != b"IEND":
        if png:
            length, name = struct.unpack_from(">I4s", data, place)
        else:
            name, length = struct.unpack_from("<4sI", data, place)
        after = place + 8 + length + (4 if png else length % 2)
        yield name, view[place + 8 : place + 8 + length], view[place:after]
        place = after


def read_png(data: bytes, _: int | None) -> Raster:
    """The default image of a PNG, which in an animation browsers show when they can't move it."""
    chunks = list(_chunks(data))
    _, _, bits, kind = struct.unpack_from(">IIBB", chunks[0][1])
    told = {
        name: bytes(body)
        for name, body, whole in reversed(chunks)
        if name != b"IDAT" and zlib.crc32(whole[4 : 8 + len(body)]).to_bytes(4, "big") == whole[8 + len(body) :]
    }
    clear = len(told.get(b"tRNS", b"")) >= {0: 2, 2: 6, 3: 1}.get(kind, 2**32)
    wanted = {b"IHDR", b"PLTE", b"IDAT", b"IEND"} | ({b"tRNS"} if clear else set())
    data = data[:8] + b"".join(whole for name, _, whole in chunks if name in wanted)
    image = open_as("PNG", data, 8 if clear and bits == 16 else 4)
    orientation, light = exif(told.get(b"eXIf", b""))
    raster = from_pillow(load(image), _png_color(told) or light, orientation)
    key: Any = image.info.get("transparency")
    if clear and kind == 0 and bits < 8:  # Pillow spreads the pixels over eight
        image.info["transparency"] = key * 255 // (2**bits - 1)
    if not clear or kind != 2 or bits < 16:
        return raster
    low = open_as("PNG", data)  # of 16 bits Pillow gives the upper eight; read as if turned round, the lower ones
    low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]  # type: ignore[attr-defined]
    lower = from_pillow(load(low))
    image.info["transparency"], low.info["transparency"] = (tuple(v >> by & 255 for v in key) for by in (8, 0))

    def rows(start: int, stop: int) -> Rows:
        (pixels, above), (_, below) = raster.rows(start, stop), lower.rows(start, stop)
        return pixels, np.maximum(np.asarray(above), np.asarray(below))

    return replace(raster, rows=rows)


def _png_color(told: dict[bytes, bytes]) -> Color | None:
    """The colour space, in the order that PNG (third edition) gives: cICP, iCCP, sRGB, gAMA and cHRM."""
    if len(told.get(b"cICP", b"")) >= 4:
        return cicp(*told[b"cICP"][:2])
    _, _, packed = told.get(b"iCCP", b"").partition(b"\0")
    try:
        profile = zlib.decompressobj().decompress(packed[1:], 2**24)
    except zlib.error:
        profile = b""
    if profile or b"sRGB" in told:
        return profile or None
    gamma = int.from_bytes(told.get(b"gAMA", b"")[:4], "big")
    points = told.get(b"cHRM", b"")
    white = [v / 100_000 for v in struct.unpack(">8I", points)] if len(points) == 32 else []
    primaries = (*white[2:], *white[:2]) if white and all(white[1::2]) else None
    return chromatic(100_000 / gamma if gamma else None, primaries) if gamma or primaries else None


def read_webp(data: bytes, _: int | None) -> Raster:
    """The first frame of a WebP; where it is smaller than the canvas, the rest is transparent."""
    told: dict[bytes, bytes] = {}
    if data[12:16] == b"VP8X":
        kept = b""
        for name, body, whole in _chunks(data):
            piece = bytes(whole)
            if name == b"VP8X":  # no metadata; an animation has alpha, so that what its frame leaves free shows
                flags = body[0] & 0x12
                piece = piece[:8] + bytes([flags | 0x10 if flags & 0x02 else flags]) + piece[9:]
            if name not in told and name in (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"):
                kept += piece
            told.setdefault(name, bytes(body))
        data = b"RIFF" + struct.pack("<I", 4 + len(kept)) + b"WEBP" + kept
    orientation, light = exif(told.get(b"EXIF", b""))
    image = load(open_as("WEBP", data, 16))  # its library keeps two canvases
    return from_pillow(image, told.get(b"ICCP") or light, orientation)


def read_gif(data: bytes, _: int | None) -> Raster:
    """The first frame of a GIF; where it is smaller than the canvas, the rest is transparent."""
    image = open_as("GIF", data, 8)
    frame = image.tile[0].extents if image.tile else None  # type: ignore[attr-defined]
    load(image)
    if frame and frame != (0, 0, *image.size):
        part, image = image.crop(frame).convert("RGBA"), PIL.Image.new("RGBA", image.size)
        image.paste(part, frame)
    return from_pillow(image)


# ---------------------------------------------------------------------- AVIF

_HOLDERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"stsd": 8}
_HOLDERS |= {b"av01": 78}
"""Boxes in which there are boxes, and how many bytes stand before those."""


def read_avif(data: bytes, _: int | None) -> Raster:
    """The primary image of an AVIF, or the first frame of a sequence; Pillow leaves crop and codes of colour undone."""
    found = list(boxes(data, 0, len(data)))
    properties = _properties(data, found)
    if (place := dict(reversed(found)).get(b"meta/iinf")) is not None:  # EXIF, which may be broken
        data = data[: place.start] + data[place].replace(b"Exif", b"skip") + data[place.stop :]
    image = open_as("AVIF", data, 10)
    color: Color | None = image.info.get("icc_profile")
    codes = next((body for name, body in properties if name == b"colr" and body[:4] == b"nclx" and len(body) >= 8), b"")
    if not color and codes:
        color = cicp(*struct.unpack_from(">HH", codes, 4))
    orientation, _light = exif(image.info.get("exif", b""))
    load(image)
    crops = (_crop(body, *image.size) for name, body in properties if name == b"clap" and len(body) >= 32)
    box = next(filter(None, crops), None)
    return from_pillow(image.crop(box) if box else image, color, orientation)


def boxes(data: bytes, place: int, end: int, path: bytes = b"") -> Iterator[tuple[bytes, slice]]:
    """The path of each box between `place` and `end`, and where its body is (ISO/IEC 14496-12); boxes in it follow."""
    while place + 8 <= end:
        length, head = int.from_bytes(data[place : place + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        length = length or end - place
        if length < head:
            return
        kind, start, stop = data[place + 4 : place + 8], place + head, min(place + length, end)
        yield path + kind, slice(start, stop)
        if kind in _HOLDERS:
            yield from boxes(data, start + _HOLDERS[kind], stop, path + kind + b"/")
        place += length


def _properties(data: bytes, boxes: list[tuple[bytes, slice]]) -> list[tuple[bytes, bytes]]:
    """Kind and body of each property of a sequence's tracks, or of the primary item (ISO/IEC 23008-12), in order."""

    def below(holder: bytes) -> list[tuple[bytes, bytes]]:
        return [(path[-4:], data[place]) for path, place in boxes if path[:-4] == holder]

    tracks = below(b"moov/trak/mdia/minf/stbl/stsd/av01/") if data[8:12] == b"avis" else []
    told, stock = dict(reversed(below(b"meta/") + below(b"meta/iprp/"))), below(b"meta/iprp/ipco/")
    if tracks or not told.keys() >= {b"pitm", b"ipma"}:
        return tracks
    primary, stream = told[b"pitm"], io.BytesIO(told[b"ipma"])

    def number(size: int) -> int:
        return int.from_bytes(stream.read(size), "big")

    wanted = int.from_bytes(primary[4 : 8 if primary[0] else 6], "big")
    wide, long = 4 if number(1) else 2, 2 if number(3) & 1 else 1
    for _ in range(min(number(4), len(told[b"ipma"]))):
        item, many = number(wide), number(1)
        numbers = [number(long) & (0x7FFF if long == 2 else 0x7F) for _ in range(many)]
        if item == wanted:
            return [stock[i - 1] for i in numbers if 1 <= i <= len(stock)]
    return []


def _crop(clap: bytes, width: int, height: int) -> tuple[int, int, int, int] | None:
    """The clean aperture as left, top, right, bottom; None if it is not inside the image."""
    across, a, down, b, right, c, below, d = struct.unpack_from(">IIIIiIiI", clap)
    if not (a and b and c and d):
        return None
    wide, high = round(across / a), round(down / b)
    left = round((width - wide) / 2 + right / c)
    top = round((height - high) / 2 + below / d)
    fits = 0 <= left < left + wide <= width and 0 <= top < top + high <= height
    return (left, top, left + wide, top + high) if fits else None


# ---------------------------------------------------------------------- PPM and BMP


def read_ppm(data: bytes, _: int | None) -> Raster:
    """PBM, PGM, PPM; PFM in gray."""
    return from_pillow(load(open_as("PPM", data)))


_MASKS = {16: (0x7C00, 0x03E0, 0x001F, 0), 24: (0xFF0000, 0xFF00, 0xFF, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}


def read_bmp(data: bytes, _: int | None) -> Raster:
    """A BMP with any header that Windows or OS/2 wrote, any palette, any bit fields; run lengths are Pillow's."""
    start, size = struct.unpack_from("<II", data, 10)
    head = data[18 : 14 + size].ljust(36, b"\0")
    width, height, bits, packing, used = struct.unpack_from("<iixxHI12xI", head)
    if size == 12:
        (width, height, bits), packing, used = struct.unpack_from("<HHxxH", head), 0, 0
    down, width, height, color = height < 0, abs(width), abs(height), _bmp_color(data, size)
    if packing in (1, 2) and bits in (4, 8):
        return from_pillow(load(open_as("BMP", data)), color)
    check_size(width, height, 4)
    fields = packing in (3, 6) and size != 64  # OS/2 has its own meaning of 3
    if not (packing == 0 or fields) or bits not in (1, 2, 4, 8, 16, 24, 32) or (fields and bits < 16):
        raise ImageError(f"The BMP has {bits} bits a pixel in packing {packing}, which is not read: save it as PNG.")
    length = -(-width * bits // 32) * 4
    if start + length * height > len(data) + 3:  # some leave out the padding of the last row
        raise incomplete("BMP", width, height)
    body = data[start : start + length * height].ljust(length * height, b"\0")
    lines = np.frombuffer(body, np.uint8).reshape(height, length)[:: 1 if down else -1]
    if bits <= 8:
        colors = np.zeros((2**bits, 3), np.uint8)  # black where the file has fewer than it could
        each = 3 if size == 12 else 4
        many = min(used or 2**bits, 2**bits, max(0, start - 14 - size) // each)
        colors[:many] = np.frombuffer(data, np.uint8, many * each, 14 + size).reshape(many, each)[:, 2::-1]
        return Raster(width, height, lambda a, b: (colors[unpacked(lines[a:b], bits)[:, :width]], None), color)
    many = 4 if size >= 56 or packing == 6 else 3
    masks = (*struct.unpack_from(f"<{many}I", data, 54), 0) if fields else _MASKS[bits]

    def values(first: int, after: int) -> np.ndarray:
        wide = np.zeros((after - first, width, 4), np.uint8)
        wide[:, :, : bits // 8] = lines[first:after, : width * bits // 8].reshape(after - first, width, -1)
        return wide.view("<u4")[:, :, 0]

    clear = masks[3] and any((values(i, min(i + 64, height)) & masks[3]).any() for i in range(0, height, 64))

    def rows(first: int, after: int) -> Rows:
        found = values(first, after)
        pixels = np.stack([_field(found, mask) for mask in masks[:3]], axis=2)
        return pixels, _field(found, masks[3]) if clear else None  # no alpha anywhere: it was not meant

    return Raster(width, height, rows, color)


def _field(values: np.ndarray, mask: int) -> UInt8[np.ndarray, "n W"]:
    """The bits of `mask` as 0 to 255."""
    shift = max(0, (mask & -mask).bit_length() - 1)
    top = mask >> shift
    found = values >> np.uint32(shift) & np.uint32(top)
    return shaded(found.astype(np.uint8) if top == 255 else found, (0.0, float(max(top, 1)), np.nan))


def _bmp_color(data: bytes, size: int) -> Color | None:
    """The colour space that headers of 108 bytes and more may tell."""
    if size >= 124 and data[70:74] == b"DEBM":  # a profile
        at, length = struct.unpack_from("<II", data, 126)
        return data[14 + at : 14 + at + length] or None
    if size < 108 or data[70:74] != bytes(4):
        return None
    ends, gammas = np.array(struct.unpack_from("<9I", data, 74)).reshape(3, 3), struct.unpack_from("<3I", data, 110)
    if not all(gammas) or not ends.sum(axis=1).all():
        return None
    points = np.vstack([ends, ends.sum(axis=0)])  # white is all three
    return chromatic(gammas[1] / 65536, tuple((points[:, :2] / points.sum(axis=1, keepdims=True)).ravel().tolist()))
