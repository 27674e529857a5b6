"""TFRecord files and Examples, written byte by byte."""

import struct

from lookalike.data.sources.tfrecord import masked


def framed(*data: bytes) -> bytes:
    """A TFRecord file of these records."""
    heads = (struct.pack("<Q", len(one)) for one in data)
    return b"".join(
        head + struct.pack("<I", masked(head)) + one + struct.pack("<I", masked(one))
        for head, one in zip(heads, data, strict=True)
    )


def field(number: int, data: bytes) -> bytes:
    """A field of a message that holds bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def entry(key: str, feature: bytes) -> bytes:
    return field(1, field(1, key.encode()) + field(2, feature))
