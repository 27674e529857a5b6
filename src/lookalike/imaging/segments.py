"""The bytes of a TIFF's rows, whatever they are stored in: strips or tiles, compressed or not.

libtiff unpacks any compression that loses nothing, if the page is presented to it as gray bytes.
"""

import io
import struct
from collections.abc import Callable

import numpy as np
import PIL.TiffImagePlugin
from jaxtyping import UInt8

from lookalike.core.errors import ImageError
from lookalike.imaging.codec import load
from lookalike.imaging.tags import Directory

Lines = Callable[[int, int], UInt8[np.ndarray, "n across bytes"]]


def lines_of(data: bytes, page: Directory, plane: int, planes: int, bits: int) -> Lines:
    """The bytes of the rows of a plane, from one to before another; of a tiled page those of each tile in a row."""
    width, height = page.value(256, 0), page.value(257, 0)
    count = page.value(277, 1) if planes == 1 else 1
    tiled = 322 in page.tags
    segment_width, segment_height = (
        (page.value(322, 0), page.value(323, 0)) if tiled else (width, page.value(278, height))
    )
    segment_height = segment_height if tiled else min(segment_height, height)
    if min(segment_width, segment_height) < 1 or (tiled and segment_width * count * bits % 8):
        raise ImageError(f"The TIFF has segments of {segment_width} x {segment_height} pixels, which can't be.")
    across, down = -(-width // segment_width), -(-height // segment_height)
    length = -(-segment_width * count * bits // 8)
    many = across * down
    starts = page.values(324 if tiled else 273)[plane * many : (plane + 1) * many]
    if len(starts) < many:
        raise ImageError(f"The TIFF image is damaged or truncated: it has {len(starts)} of its {many} segments.")
    compression = page.value(259, 1)
    counts = page.values(325 if tiled else 279)[plane * many : (plane + 1) * many]
    rows = [segment_height if tiled else min(segment_height, height - i * segment_height) for i in range(down)]
    if compression == 1:
        counts = tuple(rows[i // across] * length for i in range(many))
    elif len(counts) < many or not all(counts):
        counts = tuple(later - start for start, later in zip(starts, (*starts[1:], len(data)), strict=True))
    if any(start + count > len(data) or count < 0 for start, count in zip(starts, counts, strict=True)):
        raise ImageError(
            f"The TIFF image is damaged or truncated: not all of its {width:,} x {height:,} pixels are there."
        )
    if compression == 1:
        lines = _stored(data, page, starts, (down, across, segment_height, length), height)
        return lambda start, stop: lines[start:stop]
    each, kind = (4, 5) if length % 4 == 0 else (1, 1)  # as inks there are fewer pixels, of which Pillow has a limit
    tags = {256: across * length // each, 257: height, 258: 8, 259: compression, 262: kind, 277: each}
    tags |= {322: length // each, 323: segment_height} if tiled else {278: segment_height}
    tags[266] = page.value(266, 1)
    parts = [data[start : start + count] for start, count in zip(starts, counts, strict=True)]
    image = load(PIL.TiffImagePlugin.TiffImageFile(io.BytesIO(_file(tags, parts))))
    return lambda start, stop: np.asarray(image.crop((0, start, image.width, stop))).reshape(-1, across, length)


def _stored(
    data: bytes, page: Directory, starts: tuple[int, ...], form: tuple[int, int, int, int], height: int
) -> UInt8[np.ndarray, "h across bytes"]:
    """The rows of segments without compression."""
    down, across, high, length = form
    last = height - (down - 1) * high if 322 not in page.tags else high
    sizes = [(last if i // across == down - 1 else high) * length for i in range(len(starts))]
    if across == 1 and all(a + n == b for a, n, b in zip(starts, sizes, starts[1:], strict=False)):
        lines = np.frombuffer(data, np.uint8, sum(sizes), starts[0]).reshape(-1, 1, length)
    else:
        parts = [
            np.frombuffer(data, np.uint8, n, at).reshape(-1, 1, length) for at, n in zip(starts, sizes, strict=True)
        ]
        lines = np.concatenate([np.concatenate(parts[i : i + across], axis=1) for i in range(0, len(parts), across)])
    return (_REVERSED[lines] if page.value(266, 1) == 2 else lines)[:height]


_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


def _file(tags: dict[int, int], parts: list[bytes]) -> bytes:
    """A TIFF of one page with these tags and segments."""
    begin = 8 + sum(map(len, parts))
    starts = [8]
    for part in parts[:-1]:
        starts.append(starts[-1] + len(part))
    where, sizes = (324, 325) if 322 in tags else (273, 279)
    arrays_of = {where: tuple(starts), sizes: tuple(map(len, parts))}
    entries_of = sorted({**{tag: (value,) for tag, value in tags.items()}, **arrays_of}.items())
    after = begin + 2 + 12 * len(entries_of) + 4
    entries, arrays = b"", b""
    for tag, values in entries_of:
        body = struct.pack(f"<{len(values)}I", *values)
        entries += struct.pack("<HHI", tag, 4, len(values))
        entries += body if len(body) == 4 else struct.pack("<I", after + len(arrays))
        arrays += body if len(body) > 4 else b""
    head = b"II*\0" + struct.pack("<I", begin)
    return b"".join([head, *parts, struct.pack("<H", len(entries_of)), entries, bytes(4), arrays])
