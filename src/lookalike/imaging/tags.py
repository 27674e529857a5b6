"""Tags of a TIFF, and of EXIF, which is a TIFF without pixels: read here, since nothing of them may refuse an image."""

import struct
from dataclasses import dataclass, field
from typing import Literal

from lookalike.imaging.color import ADOBE_RGB, Light

_CODES = {1: "B", 2: "c", 3: "H", 4: "I", 6: "b", 7: "c", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"}
_CODES |= {16: "Q", 17: "q", 18: "Q"}  # of BigTIFF
_MOST = 2**16  # entries of a directory; a damaged count may say anything

HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF, in both byte orders."""


@dataclass(frozen=True)
class Directory:
    """The tags of one page; those that can't be read are not there."""

    order: Literal["<", ">"] = "<"
    offset: int = 0
    """Where it stands in the file."""
    after: int = 0
    """Where the next one stands; 0: this is the last."""
    tags: dict[int, tuple[object, ...] | bytes] = field(default_factory=dict)

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


def first(data: bytes) -> Directory:
    """The first directory of a TIFF; an empty one if there is none."""
    if data[:4] not in HEADS:
        return Directory()
    order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
    offset = _number(data, 8, order, 8) if _is_big(data) else _number(data, 4, order, 4)
    return directory(data, offset, order)


def directory(data: bytes, offset: int, order: Literal["<", ">"]) -> Directory:
    """The directory at `offset`."""
    big = _is_big(data)
    wide, step, start = (8, 20, 8) if big else (4, 12, 2)
    count = min(_number(data, offset, order, start), _MOST)
    tags: dict[int, tuple[object, ...] | bytes] = {}
    for place in range(offset + start, offset + start + count * step, step):
        if place + step > len(data) or offset <= 0:
            break
        tag, kind = struct.unpack_from(f"{order}HH", data, place)
        many = _number(data, place + 4, order, wide)
        code = _CODES.get(kind)
        if code is None or many > len(data):
            continue
        size = many * struct.calcsize(f"={code}")
        at = place + 4 + wide if size <= wide else _number(data, place + 4 + wide, order, wide)
        if at + size <= len(data):
            tags[tag] = data[at : at + size] if code == "c" else struct.unpack_from(f"{order}{many}{code}", data, at)
    return Directory(order, offset, _number(data, offset + start + count * step, order, wide), tags)


def exif(data: bytes) -> tuple[int, Light | None]:
    """Orientation, 1 (upright) to 8, and Adobe RGB where a camera says so; broken EXIF says nothing.

    A camera's Adobe RGB is ColorSpace `uncalibrated` with interoperability index R03 (DCF 2.0); some write 2.
    """
    data = data.removeprefix(b"Exif\0\0")
    head = first(data)
    turned = head.value(0x0112, 1)
    return (turned if 1 <= turned <= 8 else 1), exif_color(data, head)


def exif_color(data: bytes, head: Directory) -> Light | None:
    """Adobe RGB where the EXIF below `head` says so."""
    photo = directory(data, head.value(0x8769, 0), head.order)
    space = photo.value(0xA001, 65535)
    index = directory(data, photo.value(0xA005, 0), head.order).text(1)
    return ADOBE_RGB if space == 2 or (space == 65535 and index[:3] == b"R03") else None


def _is_big(data: bytes) -> bool:
    return data[2:4] in (b"+\0", b"\0+")


def _number(data: bytes, place: int, order: str, size: int) -> int:
    return int.from_bytes(data[place : place + size], "little" if order == "<" else "big") if place >= 0 else 0
