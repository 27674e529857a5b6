"""TFRecord files without TensorFlow: the stretches in which records lie, checked, and what an Example in one says.

A record is its length (8 bytes, little end first), a checksum of these, the data, and a checksum of the data. A
checksum is a CRC32C, turned by 15 bits, plus a constant. Each is checked: a core does about 100 MB/s.
"""

import shlex
import struct
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8, UInt32

from lookalike.core.errors import SourceError
from lookalike.data.sources import MAX_BYTES, Place
from lookalike.data.sources.store import located

_MASK = 0xA282EAD8
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits mirrored
_BLOCK, _PIECE = 64, 4096  # bytes: 64 KB of tables for the places in a block, 256 KB for the blocks in a piece
_MOST = 32 * _PIECE  # bytes that are looked at at once: an index of 8 bytes is made for each


def records(place: Place) -> Iterator[tuple[int, memoryview]]:
    """Offset in the file, and data, of each record at `place`; SourceError if it is damaged or of another kind."""
    name, at = place.path, place.offset
    if place.deflated:
        raise SourceError(
            f"`{name}` holds TFRecord files that were made smaller.",
            hint=f"unzip {shlex.quote(name)}, and give the folder",
        )
    end = at + place.size if place.size is not None else located(name).stat().st_size
    with located(name).open("rb") as file:
        file.seek(at)
        for number in range(2**63):
            head = file.read(min(12, end - at))
            if not head:
                return
            if number == 0 and head[:2] == b"\x1f\x8b":
                raise SourceError(
                    f"`{name}` is compressed.", hint=f"unpack it: gunzip -c {shlex.quote(name)} > FILE.tfrec"
                )
            size, told = struct.unpack("<QI", head) if len(head) == 12 else (0, None)
            if told != masked(head[:8]):
                if number == 0 and told is not None:
                    raise SourceError(
                        f"`{name}` is no TFRecord file: the checksum of its first length is wrong.",
                        hint="a TFRecord file begins with the length of a record and its CRC32C",
                    )
                raise _damaged(name, number, at, "its length is wrong" if told is not None else "the file ends in it")
            if at + 16 + size > end:
                raise _damaged(name, number, at, "the file ends in it")
            if size > MAX_BYTES:
                raise SourceError(f"`{name}`, record {number}: it is larger than {MAX_BYTES >> 20} MB.")
            data = file.read(size + 4)
            if len(data) < size + 4:
                raise _damaged(name, number, at, "the file ends in it")
            if struct.unpack("<I", data[-4:])[0] != masked(data[:-4]):
                raise _damaged(name, number, at, "the checksum of its data is wrong")
            yield at + 12, memoryview(data)[:-4]
            at += 16 + size


def _damaged(name: str, number: int, at: int, what: str) -> SourceError:
    return SourceError(f"`{name}`, record {number} at byte {at:,}: {what}.", hint="download the file again")


class Feature(NamedTuple):
    """What an Example says of a key: whole numbers, or stretches of its bytes (begin, end)."""

    texts: tuple[tuple[int, int], ...] = ()
    integers: tuple[int, ...] = ()


def example(data: memoryview) -> dict[str, Feature]:
    """The features of a tf.train.Example by their keys; ValueError if it is none. Fractions are passed over.

    Example {1: Features {1: several of {1: key, 2: Feature {1: BytesList, 3: Int64List}}}}; lists have all in field 1.
    """
    found = {}
    for features in _inside(data, (0, len(data)), 1):
        for entry in _inside(data, features, 1):
            key = b"".join(bytes(data[slice(*text)]) for text in _inside(data, entry, 1)).decode()
            texts, integers = list[tuple[int, int]](), list[int]()
            for feature in _inside(data, entry, 2):
                texts += [text for some in _inside(data, feature, 1) for text in _inside(data, some, 1)]
                integers += [n for some in _inside(data, feature, 3) for n in _integers(data, some)]
            found[key] = Feature(tuple(texts), tuple(integers))
    return found


def _inside(data: memoryview, part: tuple[int, int], wanted: int) -> list[tuple[int, int]]:
    """The stretches of `part`, a message, that are field `wanted`."""
    return [(begin, end) for number, kind, begin, end in _fields(data, part) if number == wanted and kind == 2]


def _integers(data: memoryview, part: tuple[int, int]) -> Iterator[int]:
    """Field 1 of an Int64List: one number, or packed, many."""
    for number, kind, begin, end in _fields(data, part):
        while number == 1 and kind in (0, 2) and begin < end:
            value, begin = _varint(data, begin, end)
            yield value - 2**64 if value >= 2**63 else value


def _fields(data: memoryview, part: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Number, kind, begin and end of the value of each field of a message."""
    at, end = part
    while at < end:
        key, at = _varint(data, at, end)
        kind = key & 7
        if kind == 2:
            size, at = _varint(data, at, end)
        elif kind == 0:
            size = _varint(data, at, end)[1] - at
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at + size > end:
            raise ValueError("a field that ends behind its message")
        yield key >> 3, kind, at, at + size
        at += size


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """A number in 7 bits a byte, the lowest first, and where the next begins."""
    value = 0
    for i, byte in enumerate(data[at : min(end, at + 10)]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    raise ValueError("a number without an end")


def masked(data: bytes) -> int:
    """The checksum of `data` as TFRecord files have it."""
    found = crc32c(data)
    return ((found >> 15 | found << 17) + _MASK) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC32C (RFC 3720, appendix B.4).

    A checksum of bits is linear: that of a block is the XOR of those of its bytes, each by its place; that of a piece
    is the XOR of those of its blocks, each moved on by what is behind it. Zeros in front change nothing.
    """
    single = _tables().single
    if len(data) < _BLOCK:
        state = 0xFFFFFFFF
        for byte in data:
            state = single[(state ^ byte) & 255] ^ (state >> 8)
        return state ^ 0xFFFFFFFF
    padded = np.zeros(-(-len(data) // _PIECE) * _PIECE, np.uint8)
    padded[len(padded) - len(data) :] = np.frombuffer(data, np.uint8)
    padded[len(padded) - len(data) :][:4] ^= 255  # as if the checksum had begun with ones
    state = 0
    for begin in range(0, len(padded), _MOST):
        state = _moved_on(state, padded[begin : begin + _MOST])
    return state ^ 0xFFFFFFFF


def _moved_on(state: int, data: UInt8[np.ndarray, "n"]) -> int:
    """The checksum behind whole pieces."""
    tables = _tables()
    blocks = np.bitwise_xor.reduce(tables.byte.take(data.reshape(-1, _BLOCK) + tables.block_starts), axis=1)
    told = blocks.astype("<u4").view(np.uint8).reshape(-1, 4 * _PIECE // _BLOCK)
    pieces = np.bitwise_xor.reduce(tables.block.take(told + tables.piece_starts), axis=1)
    a, b, c, d = tables.piece
    for piece in pieces.tolist():
        state = a[state & 255] ^ b[state >> 8 & 255] ^ c[state >> 16 & 255] ^ d[state >> 24] ^ piece
    return state


class _Tables(NamedTuple):
    single: list[int]  # byte -> its checksum
    byte: UInt32[np.ndarray, "n"]  # place in a block and byte -> checksum
    block_starts: Int64[np.ndarray, "n"]  # of each place
    block: UInt32[np.ndarray, "m"]  # place of a block in a piece, byte of its checksum and its value -> checksum
    piece_starts: Int64[np.ndarray, "m"]
    piece: list[list[int]]  # byte of a checksum and its value -> what it becomes behind a piece of zeros


@cache
def _tables() -> _Tables:
    single = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        single = np.where(single & 1, single >> 1 ^ np.uint32(_POLYNOMIAL), single >> 1)
    byte = [single]
    for _ in range(_BLOCK - 1):
        byte.insert(0, single[byte[0] & 255] ^ byte[0] >> 8)
    block = [np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)]
    for _ in range(_PIECE // _BLOCK):
        moved = block[0]
        for _ in range(_BLOCK):
            moved = single[moved & 255] ^ moved >> 8
        block.insert(0, moved)
    piece, places = block.pop(0).tolist(), 4 * _PIECE // _BLOCK
    starts = np.arange(_BLOCK) * 256, np.arange(places) * 256
    return _Tables(single.tolist(), np.concatenate(byte), starts[0], np.concatenate(block, axis=None), starts[1], piece)
