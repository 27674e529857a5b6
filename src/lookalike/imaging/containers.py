"""PNG, WebP, GIF, AVIF and PPM: their chunks and boxes are read here, their pixels are Pillow's.

A decoder gets the chunks that hold pixels and no others: text, animation and metadata that are wrong refuse nothing.
What the container says about colour, crop and canvas is made up for, where Pillow leaves it undone.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from lookalike.core.errors import ImageError
from lookalike.imaging.codec import from_pillow, load, open_as
from lookalike.imaging.color import Color, chromatic, cicp
from lookalike.imaging.raster import Raster, Rows, check_size
from lookalike.imaging.tags import exif

_PROFILE_MOST = 2**24  # bytes of a profile, unpacked

# ---------------------------------------------------------------------- PNG


def read_png(data: bytes, _: int | None) -> Raster:
    """The default image of a PNG, which in an animation browsers show when they can't move it."""
    chunks = list(_png_chunks(data))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) < 13:
        raise ImageError("The head of the PNG image is damaged or truncated: it does not begin with IHDR.")
    width, height, bits, kind = struct.unpack_from(">IIBB", chunks[0][1])
    told = {name: body for name, body, fine in reversed(chunks) if fine}
    key = told.get(b"tRNS", b"") if kind in (0, 2) else b""
    check_size(width, height, 8 if key and bits == 16 else 4)
    wanted = {b"IHDR", b"PLTE", b"IDAT", b"IEND"} | ({b"tRNS"} if kind == 3 and b"tRNS" in told else set())
    data = data[:8] + b"".join(whole for name, _, whole in _png_pieces(data) if name in wanted)
    color, turned = _png_color(told), exif(told.get(b"eXIf", b""))
    if len(key) < (2 if kind == 0 else 6):
        return from_pillow(load(open_as("PNG", data)), color or turned[1], turned[0])
    return _keyed(data, struct.unpack_from(">H" if kind == 0 else ">3H", key), bits, color or turned[1], turned[0])


def _keyed(data: bytes, key: tuple[int, ...], bits: int, color: Color | None, orientation: int) -> Raster:
    """A PNG one colour of which is transparent, at any depth; `key`: that colour as the file has it."""
    image = load(open_as("PNG", data))
    base = from_pillow(image, color, orientation)
    low = None
    if bits == 16 and len(key) == 3:  # Pillow gives the upper eight bits; read as if turned round, the lower ones
        low = open_as("PNG", data)
        low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]  # type: ignore[attr-defined]
        load(low)
    if bits < 8:  # Pillow spreads them over eight
        key = tuple(value * 255 // (2**bits - 1) for value in key)

    def rows(start: int, stop: int) -> Rows:
        box = (0, start, base.width, stop)
        found = np.asarray(image.crop(box)).astype(np.uint16)
        found = found * np.uint16(255) if image.mode == "1" else found
        if low is not None:
            found = found << np.uint16(8) | np.asarray(low.crop(box))
        same = (found.reshape(stop - start, base.width, -1) == np.array(key, np.uint16)).all(axis=2)
        return base.rows(start, stop)[0], np.where(same, 0, 255).astype(np.uint8)

    return Raster(base.width, base.height, rows, color, orientation)


def _png_pieces(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, body and the whole of each chunk; the last may be cut off."""
    place = 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        name = data[place + 4 : place + 8]
        yield name, data[place + 8 : place + 8 + length], data[place : place + 12 + length]
        if name == b"IEND":
            return
        place += 12 + length


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Name and body of each chunk but the pixels, and whether its checksum holds."""
    for name, body, whole in _png_pieces(data):
        if name != b"IDAT":
            yield name, body, zlib.crc32(name + body).to_bytes(4, "big") == whole[8 + len(body) :]


def _png_color(told: dict[bytes, bytes]) -> Color | None:
    """The colour space, in the order that PNG (third edition) gives: cICP, iCCP, sRGB, gAMA and cHRM."""
    if len(told.get(b"cICP", b"")) >= 4:
        return cicp(*told[b"cICP"][:2])
    if b"iCCP" in told:
        _, _, packed = told[b"iCCP"].partition(b"\0")
        try:
            profile = zlib.decompressobj().decompress(packed[1:], _PROFILE_MOST)
        except zlib.error:
            profile = b""
        if profile:
            return profile
    if b"sRGB" in told:
        return None
    gamma = int.from_bytes(told.get(b"gAMA", b"")[:4], "big")
    points = told.get(b"cHRM", b"")
    white = struct.unpack(">8I", points) if len(points) == 32 else ()
    primaries = tuple(v / 100_000 for v in (*white[2:], *white[:2])) if all(white[1::2]) and white else None
    return chromatic(100_000 / gamma if gamma else None, primaries)


# ---------------------------------------------------------------------- WebP and GIF


def read_webp(data: bytes, _: int | None) -> Raster:
    """The first frame of a WebP; where it is smaller than the canvas, the rest is transparent."""
    told: dict[bytes, bytes] = {}
    if data[12:16] == b"VP8X":
        kept = []
        for name, body, whole in _riff_chunks(data):
            first = name not in told
            told.setdefault(name, body)
            if name == b"VP8X":  # no metadata; an animation has alpha, so that what its frame leaves free shows
                flags = body[0] & 0x12
                whole = whole[:8] + bytes([flags | 0x10 if flags & 0x02 else flags]) + whole[9:]
            if first and name in (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"):
                kept.append(whole)
        body = b"WEBP" + b"".join(kept)
        data = b"RIFF" + struct.pack("<I", len(body)) + body
        width, height = (1 + int.from_bytes(told[b"VP8X"][at : at + 3], "little") for at in (4, 7))
        check_size(width, height, 16)
    image = open_as("WEBP", data)
    check_size(image.width, image.height, 16)  # its library keeps two canvases
    turned = exif(told.get(b"EXIF", b""))
    return from_pillow(load(image), told.get(b"ICCP") or turned[1], turned[0])


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, body and the whole of each chunk of a RIFF file."""
    place = 12
    while place + 8 <= len(data):
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        after = place + 8 + length + length % 2
        yield data[place : place + 4], data[place + 8 : place + 8 + length], data[place:after]
        place = after


def read_gif(data: bytes, _: int | None) -> Raster:
    """The first frame of a GIF; where it is smaller than the canvas, the rest is transparent."""
    width, height = struct.unpack_from("<HH", data, 6)
    check_size(width, height, 4)
    image = open_as("GIF", data)
    check_size(image.width, image.height, 4)
    frame = image.tile[0].extents if image.tile else None  # type: ignore[attr-defined]
    return from_pillow(load(image), frame=frame)


# ---------------------------------------------------------------------- AVIF and PPM


def read_avif(data: bytes, _: int | None) -> Raster:
    """The primary image of an AVIF, or the first frame of a sequence: cropped, with its colour space.

    Pillow gives turns and mirrors of the container as orientation, and leaves crop and codes of colour undone.
    """
    data, properties = _avif_head(data)
    image = open_as("AVIF", data)
    check_size(image.width, image.height, 10)
    turned = exif(image.info.get("exif", b""))[0]
    color: Color | None = image.info.get("icc_profile")
    codes = next((body for name, body in properties if name == b"colr" and body[:4] == b"nclx" and len(body) >= 8), b"")
    if not color and codes:
        color = cicp(*struct.unpack_from(">HH", codes, 4))
    load(image)
    for name, body in properties:
        if name == b"clap" and len(body) >= 32 and (box := _crop(body, *image.size)) is not None:
            return from_pillow(image.crop(box), color, turned)
    return from_pillow(image, color, turned)


def _avif_head(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """`data` without EXIF, which may be broken, and the properties of the primary image or the first track."""
    boxes = {name: (start, stop) for name, start, stop in reversed(list(_boxes(data, 0, len(data))))}
    found: list[tuple[bytes, bytes]] = []
    if b"meta" in boxes:
        start, stop = boxes[b"meta"]
        inside = {name: place for name, *place in _boxes(data, start + 4, stop)}
        found = _properties(data, inside)
        if b"iinf" in inside:
            a, b = inside[b"iinf"]
            data = data[:a] + data[a:b].replace(b"Exif", b"skip") + data[b:]
    if data[8:12] == b"avis" and b"moov" in boxes:
        place = boxes[b"moov"]
        for name, skip in ((b"trak", 0), (b"mdia", 0), (b"minf", 0), (b"stbl", 0), (b"stsd", 8), (b"av01", 78)):
            below = {kind: (a, b) for kind, a, b in reversed(list(_boxes(data, *place)))}
            if name not in below:
                return data, found
            place = (below[name][0] + skip, below[name][1])
        found = [(name, data[a:b]) for name, a, b in _boxes(data, *place)] or found
    return data, found


def _boxes(data: bytes, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the body of each box between `place` and `end` (ISO/IEC 14496-12)."""
    while place + 8 <= end:
        length, head = int.from_bytes(data[place : place + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        length = length or end - place
        if length < head:
            return
        yield data[place + 4 : place + 8], place + head, min(place + length, end)
        place += length


def _properties(data: bytes, meta: dict[bytes, list[int]]) -> list[tuple[bytes, bytes]]:
    """Kind and body of each property of the primary item, in its order (ISO/IEC 23008-12)."""
    if not meta.keys() >= {b"pitm", b"iprp"}:
        return []
    inside = {name: place for name, *place in _boxes(data, *meta[b"iprp"])}
    if not inside.keys() >= {b"ipco", b"ipma"}:
        return []
    stock = [(name, data[a:b]) for name, a, b in _boxes(data, *inside[b"ipco"])]
    at = meta[b"pitm"][0]
    primary = int.from_bytes(data[at + 4 : at + (8 if data[at] else 6)], "big")
    at, end = inside[b"ipma"]
    wide, long, left = (
        (4 if data[at] else 2),
        (2 if data[at + 3] & 1 else 1),
        int.from_bytes(data[at + 4 : at + 8], "big"),
    )
    at += 8
    while left and at < end:
        item, many = int.from_bytes(data[at : at + wide], "big"), data[at + wide]
        at += wide + 1
        numbers = [
            int.from_bytes(data[i : i + long], "big") & (0x7FFF if long == 2 else 0x7F)
            for i in range(at, at + many * long, long)
        ]
        if item == primary:
            return [stock[i - 1] for i in numbers if 1 <= i <= len(stock)]
        at, left = at + many * long, left - 1
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


def read_ppm(data: bytes, _: int | None) -> Raster:
    """PBM, PGM, PPM; PFM in gray."""
    image = open_as("PPM", data)
    check_size(image.width, image.height, 4)
    return from_pillow(load(image), white=65_535.0 if image.mode == "I" else None)
