"""TIFF: its tags, which are EXIF's too, its storage, and what its samples mean.

libtiff unpacks what is compressed, and Pillow knows some kinds of samples; so a page of any kind is presented to them
as gray bytes, and what these mean is decided here: depth, format, predictor, planes, photometric interpretation, alpha.
JPEG, fax and subsampled YCbCr go to Pillow as they are. What is not understood is refused in words.
"""

import io
import re
import struct
from collections.abc import Callable, Iterator
from itertools import accumulate

import numpy as np
import PIL.Image
from jaxtyping import Shaped, UInt8

from lookalike.core.errors import ImageError
from lookalike.imaging.color import ADOBE_RGB, Color, Light
from lookalike.imaging.raster import Raster, Rows, check_size, from_pillow, incomplete, load, measured, open_as, shaded

_PLAIN = (1, 5, 8, 32773, 32946, 34925, 50000)  # compression: none, LZW, deflate, PackBits, deflate, LZMA, Zstandard
_BY_PILLOW = (2, 3, 4, 6, 7, 32771, 50001)  # fax, of three kinds; JPEG, of two; fax, WebP
_INKS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}  # photometric -> samples of a colour
_LAB = (8, 9, 10)
_SENSOR = (32803, 34892)  # photometric: what a camera's sensor saw
_PAGES = 64  # pages that are looked at for one that is not a thumbnail
_TURNED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))

_CODES = {1: "B", 2: "c", 3: "H", 4: "I", 6: "b", 7: "c", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"}
_CODES |= {16: "Q", 17: "q", 18: "Q"}  # of BigTIFF
_MOST = 2**16  # entries of a directory; a damaged count may say anything


class Directory:
    """The tags of one page of a TIFF; those that can't be read are not there."""

    def __init__(self, data: bytes, offset: int | None = None) -> None:
        self.data, self.order, self.big = data, "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
        self.tags: dict[int, tuple[object, ...] | bytes] = {}
        wide, step, start = (8, 20, 8) if self.big else (4, 12, 2)
        if offset is None:
            offset = self._number(wide, wide) if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") else 0
        self.offset, self.after = offset, 0
        if offset <= 0:
            return
        end = offset + start + step * min(self._number(offset, start), _MOST)
        self.after = self._number(end, wide)
        for place in range(offset + start, min(end, len(data) - step + 1), step):
            tag, kind, many = self._number(place, 2), self._number(place + 2, 2), self._number(place + 4, wide)
            if kind not in _CODES or many > len(data):
                continue
            code = _CODES[kind]
            size = many * struct.calcsize(f"={code}")
            at = place + 4 + wide if size <= wide else self._number(place + 4 + wide, wide)
            body = data[at : at + size]
            if len(body) == size:
                self.tags[tag] = body if code == "c" else struct.unpack(f"{self.order}{many}{code}", body)

    def _number(self, place: int, size: int) -> int:
        return int.from_bytes(self.data[place : place + size], "little" if self.order == "<" else "big")

    def values(self, tag: int) -> tuple[int, ...]:
        """The integers of `tag`; none if it is missing or of another type."""
        found = self.tags.get(tag, ())
        return () if isinstance(found, bytes) else tuple(v for v in found if isinstance(v, int))

    def value(self, tag: int, default: int) -> int:
        """The first integer of `tag`."""
        return (*self.values(tag), default)[0]

    def text(self, tag: int) -> bytes:
        """The bytes of `tag`; none if it is missing or of another type."""
        found = self.tags.get(tag, b"")
        return found if isinstance(found, bytes) else bytes(v for v in self.values(tag) if 0 <= v < 256)


def exif(data: bytes | Directory) -> tuple[int, Light | None]:
    """Orientation, 1 (upright) to 8, and Adobe RGB where a camera says so; broken EXIF says nothing.

    A camera's Adobe RGB is ColorSpace `uncalibrated` with interoperability index R03 (DCF 2.0); some write 2.
    """
    head = Directory(data.removeprefix(b"Exif\0\0")) if isinstance(data, bytes) else data
    turned, photo = head.value(0x0112, 1), Directory(head.data, head.value(0x8769, 0))
    space, index = photo.value(0xA001, 65535), Directory(head.data, photo.value(0xA005, 0)).text(1)
    wide = space == 2 or (space == 65535 and index[:3] == b"R03")
    return (turned if 1 <= turned <= 8 else 1), ADOBE_RGB if wide else None


def is_raw(data: bytes) -> bool:
    """Whether a page is what a sensor saw, or the file a DNG: no page of it is to be taken for the image."""
    return any(page.value(262, 0) in _SENSOR or 50706 in page.tags for page in _pages(data))


def read_tiff(data: bytes, _: int | None) -> Raster:
    """The first page that is no thumbnail."""
    full = [
        page for page in _pages(data) if not page.value(254, 0) & 5 and page.value(255, 1) != 2 and page.value(256, 0)
    ]
    if not full:
        raise ImageError("The TIFF holds no page that is the image itself, only reduced copies, masks or nothing.")
    page = full[0]
    width, height = page.value(256, 0), page.value(257, 0)
    compression, photometric = page.value(259, 1), page.value(262, 1 if page.value(277, 1) < 3 else 2)
    turned, light = exif(page)
    color: Color | None = page.text(34675) or light
    subsampled = photometric == 6 and page.values(530) != (1, 1)
    if compression in _BY_PILLOW or (subsampled and compression in _PLAIN and compression != 1):
        head, code = (8, "Q") if page.big else (4, "I")
        link = struct.pack(page.order + code, page.offset)  # makes it the first page
        image = load(open_as("TIFF", data[:head] + link + data[head + len(link) :]))
        if compression == 3:
            _check_fax(page, image)
        return from_pillow(image, color)  # turned by Pillow already
    if compression not in _PLAIN or photometric not in _INKS or subsampled:
        raise ImageError(
            f"The TIFF has samples of a kind that is not read (compression {compression}, photometric {photometric}): "
            "save it as RGB or gray without compression, or as PNG."
        )
    if photometric in _LAB:
        from PIL import ImageCms  # as below: few files need it

        color = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    return Raster(width, height, _Samples(page, width, height, photometric).rows, color, turned)


def _pages(data: bytes) -> Iterator[Directory]:
    """Pages in their order, those below a page behind it; until one is the image and none before it a thumbnail."""
    page, seen = Directory(data), set[int]()
    while page.tags and page.offset not in seen and len(seen) < _PAGES:
        seen.add(page.offset)
        yield page
        if not page.value(254, 0) & 1 or 330 in page.tags:
            yield from (Directory(data, offset) for offset in page.values(330)[:_PAGES])
        page = Directory(data, page.after)


def _check_fax(page: Directory, image: PIL.Image.Image) -> None:
    """Refuse a Group 3 page with rows that are lost or torn, of which libtiff does not tell.

    A row that is whole is what its pixels are encoded to. Where most rows are not, the encoder had other habits.
    """
    from PIL import ImageChops

    lines, height = _fax_lines(page), page.value(257, 0)
    torn = height - len(lines) if lines else 0
    if lines and torn <= 0 and not page.value(292, 0) & 1 and page.value(274, 1) == 1:
        counts = []
        for form in (image, ImageChops.invert(image)):
            form.save(again := io.BytesIO(), "TIFF", compression="group3")
            wanted = _fax_lines(Directory(again.getvalue()))
            counts.append(sum(a != b for a, b in zip(lines, wanted, strict=False)))
        torn = min(counts) if 2 * min(counts) < height else 0
    if torn > 0:
        raise ImageError(f"The TIFF image is damaged or truncated: {torn:,} of its {height:,} rows are torn or lost.")


def _fax_lines(page: Directory) -> list[bytes]:
    """The codes of each row, as digits; none if nothing marks the ends of rows."""
    lines: list[bytes] = []
    for start, count in zip(page.values(273), page.values(279), strict=False):
        packed = page.data[start : start + count]
        packed = packed.translate(_TURNED) if page.value(266, 1) == 2 else packed
        parts = re.split(b"0{11,}1", (np.unpackbits(np.frombuffer(packed, np.uint8)) + 48).tobytes())
        lines += [part.rstrip(b"0") for part in parts if len(part) > 1] if len(parts) > 1 else []
    return lines


_Lines = Callable[[int, int], UInt8[np.ndarray, "n across bytes"]]


def _lines_of(page: Directory, plane: int, each: int, bits: int) -> _Lines:
    """The bytes of the rows of a plane, from one to before another; of a tiled page those of each tile in a row."""
    from PIL.TiffImagePlugin import TiffImageFile  # reading its tables of tags takes longer than a search

    data, width, height, tiled = page.data, page.value(256, 0), page.value(257, 0), 322 in page.tags
    if tiled:
        wide, high, where = page.value(322, 0), page.value(323, 0), (324, 325)
    else:
        wide, high, where = width, min(page.value(278, height), height), (273, 279)
    if min(wide, high) < 1 or (tiled and wide * each * bits % 8):
        raise ImageError(f"The TIFF has segments of {wide} x {high} pixels, which can't be.")
    across, down, length = -(-width // wide), -(-height // high), -(-wide * each * bits // 8)
    many, compression, mirrored = across * down, page.value(259, 1), page.value(266, 1) == 2
    starts, counts = (page.values(tag)[plane * many : (plane + 1) * many] for tag in where)
    if compression == 1:
        last = high if tiled else height - (down - 1) * high
        counts = tuple((last if i // across == down - 1 else high) * length for i in range(len(starts)))
    elif len(counts) < many or not all(counts):
        counts = tuple(later - start for start, later in zip(starts, (*starts[1:], len(data)), strict=True))
    ends = [start + count for start, count in zip(starts, counts, strict=True)]
    if len(starts) < many or max(ends) > len(data) or min(counts) < 0:
        raise incomplete("TIFF", width, height)
    if compression == 1 and across == 1 and not mirrored and ends[:-1] == list(starts[1:]):
        lines = np.frombuffer(data, np.uint8, sum(counts), starts[0]).reshape(-1, 1, length)[:height]
        return lambda start, stop: lines[start:stop]
    inks, kind = (4, 5) if length % 4 == 0 else (1, 1)  # as inks there are fewer pixels, of which Pillow has a limit
    tags = {256: across * length // inks, 257: height, 258: 8, 259: compression, 262: kind, 277: inks}
    tags |= {322: length // inks, 323: high} if tiled else {278: high}
    parts = [data[start:end] for start, end in zip(starts, ends, strict=True)]
    file = _file(tags, [part.translate(_TURNED) for part in parts] if mirrored else parts)
    rows = from_pillow(load(TiffImageFile(io.BytesIO(file)))).rows
    return lambda start, stop: rows(start, stop)[0].reshape(-1, across, length)


def _file(tags: dict[int, int], parts: list[bytes]) -> bytes:
    """A TIFF of one page with these tags and segments."""
    sizes = [len(part) for part in parts]
    *starts, begin = accumulate(sizes, initial=8)
    where = {324: starts, 325: sizes} if 322 in tags else {273: starts, 279: sizes}
    entries = sorted({**{tag: [value] for tag, value in tags.items()}, **where}.items())
    after, table, arrays = begin + 2 + 12 * len(entries) + 4, b"", b""
    for tag, values in entries:
        body = struct.pack(f"<{len(values)}I", *values)
        table += struct.pack("<HHI", tag, 4, len(values))
        table += body if len(body) == 4 else struct.pack("<I", after + len(arrays))
        arrays += body if len(body) > 4 else b""
    head = b"II*\0" + struct.pack("<I", begin)
    return b"".join([head, *parts, struct.pack("<H", len(entries)), table, bytes(4), arrays])


def unpacked(lines: UInt8[np.ndarray, "*n bytes"], bits: int) -> Shaped[np.ndarray, "*n samples"]:
    """Samples of 1 to 32 bits, the first one in the highest bits."""
    count = lines.shape[-1] * 8 // bits
    split = np.unpackbits(lines, axis=-1)[..., : count * bits].reshape(*lines.shape[:-1], count, bits)
    return np.asarray(split @ (1 << np.arange(bits - 1, -1, -1, dtype=np.uint32)), np.uint32)


class _Samples:
    def __init__(self, page: Directory, width: int, height: int, photometric: int) -> None:
        count, extra, inks = page.value(277, 1), page.value(338, 0), _INKS[photometric]
        depths, forms = (set(page.values(tag)[:count] or (1,)) for tag in (258, 339))
        bits, form = max(depths), max(forms) if max(forms) != 4 else 1
        if (
            max(len(depths), len(forms)) > 1
            or bits not in {1: range(1, 33), 2: (8, 16, 32), 3: (16, 32, 64)}.get(form, ())
            or (photometric == 3 and (bits > 16 or len(page.values(320)) < 3 << bits))
            or (photometric in _LAB and (bits not in (8, 16) or form == 3))
            or page.value(332, 1) != 1  # inks of other colours
            or count < inks
        ):
            raise ImageError(
                f"The TIFF has {count} samples a pixel of {sorted(depths)} bits, format {sorted(forms)}, "
                f"photometric {photometric}, which is not read: save it as 8 or 16 bits."
            )
        check_size(width, height, -(-count * bits // 8))
        self._page, self._width, self._photometric = page, width, photometric
        self._bits, self._form, self._inks = bits, form, inks
        self._alpha = extra if extra in (1, 2) and count > inks else 0
        planes = count if page.value(284, 1) == 2 else 1
        self._each = count // planes
        wanted = range(min(planes, inks + (self._alpha > 0)))
        self._planes = [_lines_of(page, plane, self._each, bits) for plane in wanted]
        self._levels = (0.0, 2.0**bits - 1, np.nan)
        if (form != 1 or bits > 24) and photometric not in (3, *_LAB):  # the file does not say where white is
            try:
                void = float(page.text(42113).split(b"\0")[0] or "nan")  # GDAL
            except ValueError:
                void = np.nan
            steps = range(0, height, 256)
            self._levels = measured((self._values(i, min(i + 256, height))[:, :, :inks] for i in steps), void)

    def rows(self, start: int, stop: int) -> Rows:
        """Rows of 8-bit pixels, and alpha if there is one."""
        values = self._values(start, stop)
        pixels, alpha = self._pixels(values[:, :, : self._inks]), None
        if self._alpha:
            alpha = shaded(values[:, :, self._inks], self._levels)
            if self._alpha == 1:  # multiplied by it already
                share = np.maximum(alpha, 1)[:, :, None].astype(np.uint32)
                pixels = np.minimum((pixels * np.uint32(255) + share // 2) // share, 255).astype(np.uint8)
        return pixels, alpha

    def _pixels(self, values: Shaped[np.ndarray, "n W I"]) -> UInt8[np.ndarray, "n W C"]:
        if self._photometric == 3:
            colors = np.array(self._page.values(320)[: 3 << self._bits]).reshape(3, -1)
            colors = (colors if colors.max() < 256 else colors >> 8).astype(np.uint8).T
            return np.take(colors, values[:, :, 0], axis=0)
        if self._photometric in _LAB:  # for Pillow as TIFF's own, with signs; ICC's have an offset of half
            lab = (values >> (self._bits - 8)).astype(np.uint8)
            return lab if self._photometric == 8 else lab ^ np.array([0, 128, 128], np.uint8)
        light = shaded(values, self._levels)
        if self._photometric == 6:
            return np.asarray(PIL.Image.frombytes("YCbCr", light.shape[1::-1], light.tobytes()).convert("RGB"))
        return 255 - light if self._photometric == 0 else light

    def _values(self, start: int, stop: int) -> Shaped[np.ndarray, "n W S"]:
        parts = [self._unpacked(plane(start, stop)) for plane in self._planes]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _unpacked(self, lines: UInt8[np.ndarray, "n across bytes"]) -> Shaped[np.ndarray, "n W S"]:
        bits, each, order = self._bits, self._each, self._page.order
        predictor = self._page.value(317, 1) if self._page.value(259, 1) != 1 else 1
        rows, across, _ = lines.shape
        if predictor == 3:
            sums = np.cumsum(lines.reshape(rows, across, -1, each), axis=2, dtype=np.uint8)
            lines = sums.reshape(rows, across, bits // 8, -1).swapaxes(2, 3).reshape(lines.shape)
            order = ">"
        if bits in (8, 16, 32, 64):
            kind = {1: "u", 2: "i", 3: "f"}[self._form]
            values = np.ascontiguousarray(lines).view(f"{order}{kind}{bits // 8}")
            values = values.astype(values.dtype.newbyteorder("="))
        else:
            values = unpacked(lines, bits)
        values = values[:, :, : values.shape[2] // each * each].reshape(rows, across, -1, each)
        if predictor == 2:
            values = np.cumsum(values, axis=2, dtype=values.dtype)
        return values.reshape(rows, -1, each)[:, : self._width]
