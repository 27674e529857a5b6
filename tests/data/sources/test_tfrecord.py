import os
from pathlib import Path

import pytest

from lookalike.core.errors import SourceError
from lookalike.data.sources import Place
from lookalike.data.sources.tfrecord import Feature, crc32c, example, records

from .datasets.tfrecords import entry, field, framed, varint


def read(path: Path, data: bytes) -> list[tuple[int, bytes]]:
    path.write_bytes(data)
    return [(at, bytes(one)) for at, one in records(Place(str(path), ""))]


def bit_by_bit(data: bytes) -> int:
    """CRC32C as it is defined."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        # RFC 3720, appendix B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_checksums(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@pytest.mark.parametrize("size", [1, 63, 64, 65, 4095, 4096, 4097, 32 * 4096, 32 * 4096 + 1, 300_001])
def test_checksums_of_any_length(size: int) -> None:
    data = os.urandom(size)
    assert crc32c(data) == bit_by_bit(data)
    assert crc32c(bytes(size)) == bit_by_bit(bytes(size))


def test_records_lie_where_they_are_said_to(tmp_path: Path) -> None:
    data = framed(b"", b"one", b"x" * 5000)
    assert read(tmp_path / "a", data) == [(12, b""), (28, b"one"), (47, b"x" * 5000)]
    assert read(tmp_path / "b", b"") == []
    (tmp_path / "c").write_bytes(b"before" + data + b"behind")
    inside = records(Place(str(tmp_path / "c"), "", 6, len(data)))
    assert [(at, bytes(one)) for at, one in inside] == [(18, b""), (34, b"one"), (53, b"x" * 5000)]


def test_damage_is_told_with_its_place(tmp_path: Path) -> None:
    whole = framed(b"first", b"second")
    for name, data, words in (
        ("cut", whole[:-1], "record 1 at byte 21: the file ends in it"),
        ("cut in the head", whole[:25], "record 1 at byte 21: the file ends in it"),
        ("a bit", whole[:35] + bytes([whole[35] ^ 1]) + whole[36:], "record 1 .*: the checksum of its data is wrong"),
        ("a length", whole[:21] + b"\x07" + whole[22:], "record 1 .*: its length is wrong"),
        ("a picture", b"\xff\xd8\xff\xe0" + bytes(100), "is no TFRecord file"),
        ("gzip", b"\x1f\x8b" + bytes(100), "is compressed"),
    ):
        with pytest.raises(SourceError, match=words):
            read(tmp_path / name, data)
    with pytest.raises(SourceError, match="made smaller"):
        list(records(Place(str(tmp_path / "cut"), "", 0, 10, deflated=True)))


def test_features_of_every_kind() -> None:
    numbers, packed = field(1, b"\x01\x02\x03\x04"), varint(3) + varint(-2) + varint(2**40)
    data = field(
        1,
        entry("image", field(1, field(1, b"one") + field(1, b"two")))
        + entry("packed", field(3, field(1, packed)))
        + entry("single", field(3, varint(1 << 3) + varint(300)))
        + entry("floats", field(2, numbers))
        + entry("empty", b""),
    )
    found = example(memoryview(data))
    assert [bytes(data[begin:end]) for begin, end in found["image"].texts] == [b"one", b"two"]
    assert found["packed"].integers == (3, -2, 2**40)
    assert found["single"].integers == (300,)
    assert found["floats"] == found["empty"] == Feature()


@pytest.mark.parametrize("data", [b"\x0a\x05abc", b"\x0b", b"\xff" * 12, b"\x0a"])
def test_what_is_no_example(data: bytes) -> None:
    with pytest.raises(ValueError):
        example(memoryview(data))
