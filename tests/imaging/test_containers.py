"""PNG, JPEG, WebP, GIF, AVIF, PPM and BMP as others write them: odd canvas, depth, fields, broken metadata, memory."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import PIL.Image
import pytest

from lookalike.core.errors import ImageError
from lookalike.imaging.decode import FORMATS, decode, kind_of, store


def card():
    y, x = np.mgrid[0:40, 0:56]
    return np.stack([x * 255 // 55, y * 255 // 39, 255 - x * 255 // 55], 2).astype(np.uint8)


def file(pixels, kind, **options):
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, body, wrong=0):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ wrong)


def png(w, h, bits, colour, rows, *chunks):
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_gray_of_any_depth(bits):
    values = (
        np.arange(2**bits, dtype=np.uint64) if bits < 16 else np.array([0, 255, 256, 257, 258, 513, 65535], np.uint64)
    )
    key = int(values[len(values) // 2])
    digits = "".join(f"{int(v):0{bits}b}" for v in values)
    row = int(digits.ljust(-(-len(digits) // 8) * 8, "0"), 2).to_bytes(-(-len(digits) // 8), "big")
    got = decode(png(len(values), 1, bits, 0, [row], chunk(b"tRNS", struct.pack(">H", key))))[0, :, 0]
    wanted = np.where(values == key, 255, np.round(values * (255 / (2**bits - 1))))
    assert np.abs(got - wanted).max() <= 1
    assert got[len(values) // 2] == 255


def test_a_transparent_colour_of_sixteen_bits_is_compared_whole():
    row = struct.pack(">9H", 0x7000, 0x8001, 0x9002, 0x7000, 0x8002, 0x9002, 0, 0, 0)
    got = decode(png(3, 1, 16, 2, [row], chunk(b"tRNS", struct.pack(">3H", 0x7000, 0x8001, 0x9002))))
    assert got.tolist() == [[[255, 255, 255], [0x70, 0x80, 0x90], [0, 0, 0]]]


def test_chunks_that_hold_no_pixels_refuse_nothing():
    plain = file(card(), "PNG")
    control = struct.pack(">II", 2, 0)
    for extra in (
        chunk(b"tEXt", b"Comment\0hello", wrong=1),
        chunk(b"iTXt", b"x"),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**22))),
        chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**22))),
        chunk(b"iCCP", b"no"),
        chunk(b"pHYs", b"x"),
        chunk(b"tIME", b""),
        chunk(b"acTL", control),
        chunk(b"acTL", b"") + chunk(b"fcTL", b"x"),
        chunk(b"acTL", control) + chunk(b"fdAT", b""),
        chunk(b"eXIf", b"broken"),
        chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
        chunk(b"tRNS", b"\0"),
        chunk(b"prVt", bytes(9)),
        chunk(b"bKGD", b""),
        chunk(b"sBIT", b"\xff"),
        chunk(b"hIST", b"1"),
        chunk(b"cHRM", b"") + chunk(b"gAMA", b"\0"),
    ):
        assert np.array_equal(decode(plain[:33] + extra + plain[33:]), card())
    assert np.array_equal(decode(plain[:-12]), card())  # without IEND


def test_segments_that_hold_no_pixels_refuse_nothing():
    data = file(card(), "JPEG", quality=95, subsampling=0)
    wanted = decode(data)

    def segment(marker, body):
        return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body

    for extra in (
        b"\0",
        b"\xff\xff\xff",
        b"\0\0junk",
        segment(0xE0, b"JFIF\0"),
        segment(0xEE, b"Adobe"),
        segment(0xE1, b""),
        segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0"),
        segment(0xFE, b""),
        segment(0xE8, bytes(60_000)),
        segment(0xE2, b"ICC_PROFILE\0\2\1abc"),
    ):
        assert np.array_equal(decode(data[:20] + extra + data[20:]), wanted)
        assert np.array_equal(decode(store(data[:20] + extra + data[20:], 100).data), wanted)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_broken_exif_of_any_container_refuses_nothing(kind):
    plain = decode(file(card(), kind))
    data = file(card(), kind, exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x00\x01\x03\0\x01\0\0\0\x01\0\0\0\0\0\0\0")
    place = data.rindex(b"II*\0\x08\0\0\0\x01")
    for spoil in (b"XX", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"):
        assert np.array_equal(decode(data[:place] + spoil + data[place + len(spoil) :]), plain)


def gif(canvas, frame, index, transparent=None):
    """A frame of one colour: 3 bits a code, none compressed."""
    (w, h), (left, top, fw, fh) = canvas, frame
    out = b"GIF89a" + struct.pack("<HHBBB", w, h, 0xF1, 0, 0) + bytes([255, 0, 0, 0, 0, 255, 0, 255, 0, 0, 0, 0])
    out += b"!\xf9\x04" + bytes([1 if transparent is not None else 0, 0, 0, transparent or 0, 0])
    out += b"," + struct.pack("<HHHHB", left, top, fw, fh, 0) + b"\x02"
    bits = n = 0
    for code in [c for i in range(fw * fh) for c in ([4, index] if i % 2 == 0 else [index])] + [5]:
        bits, n = bits | code << n, n + 3
    data = bits.to_bytes((n + 7) // 8, "little")
    return (
        out + b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255)) + b"\0;"
    )


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("transparent", [None, 0])
def test_what_a_frame_of_gif_leaves_free_is_white(index, transparent):
    got = decode(gif((30, 20), (5, 6, 10, 8), index, transparent))
    wanted = np.full((20, 30, 3), 255)
    if index != transparent:
        wanted[6:14, 5:15] = [(255, 0, 0), (0, 0, 255)][index]
    assert np.array_equal(got, wanted)


def test_what_a_frame_of_webp_leaves_free_is_white():
    blue = PIL.Image.new("RGB", (16, 8), (0, 0, 255))
    frame = file(blue, "WEBP", lossless=True)[12:]

    def riff(name, body):
        return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)

    def u24(*values):
        return b"".join(v.to_bytes(3, "little") for v in values)

    for anim in (bytes(6), b"\0\0\xff\xff\0\0"):  # the background's colour is only a hint
        moving = riff(b"VP8X", b"\x02\0\0\0" + u24(31, 23)) + riff(b"ANIM", anim)
        moving += riff(b"ANMF", u24(2, 3, 15, 7, 100) + b"\0" + frame)
        for tail in (riff(b"ANMF", u24(0, 0, 15, 7, 100) + b"\0broken"), riff(b"EXIF", b"broken"), riff(b"ICCP", b"x")):
            body = b"WEBP" + moving + tail
            got = decode(b"RIFF" + struct.pack("<I", len(body)) + body)
            wanted = np.full((24, 32, 3), 255)
            wanted[6:14, 4:20] = (0, 0, 255)
            assert np.array_equal(got, wanted)


def boxes(kind, body):
    return struct.pack(">I", 8 + len(body)) + kind + body


def with_property(data, kind, body):
    """`data`, an AVIF of Pillow, with one more property of its first item; offsets of the pixels move along."""
    added = boxes(kind, body)
    data = bytearray(data)
    at = data.index(b"ipco") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    count, place = 0, at + 8
    while place < at + size:
        place += int.from_bytes(data[place : place + 4], "big")
        count += 1
    data[at + size : at + size] = added
    ipma = data.index(b"ipma") + 4
    data[ipma + 10] += 1  # version and flags, count of entries, item; then how many properties
    first = ipma + 11
    data[first + data[ipma + 10] - 1 : first + data[ipma + 10] - 1] = bytes([0x80 | (count + 1)])
    grown = len(added) + 1
    for name, more in ((b"ipco", len(added)), (b"ipma", 1), (b"iprp", grown), (b"meta", grown)):
        place = data.index(name) - 4
        data[place : place + 4] = struct.pack(">I", int.from_bytes(data[place : place + 4], "big") + more)
    iloc = data.index(b"iloc") + 4
    assert data[iloc + 4 : iloc + 6] == b"\x44\0"
    offset = iloc + 4 + 2 + 2 + 2 + 2 + 2
    data[offset : offset + 4] = struct.pack(">I", int.from_bytes(data[offset : offset + 4], "big") + grown)
    return bytes(data)


def test_turn_mirror_and_crop_of_avif():
    plain = file(card(), "AVIF", quality=98, subsampling="4:4:4")
    upright = decode(plain)
    assert np.array_equal(decode(with_property(plain, b"irot", b"\1")), np.rot90(upright))
    assert np.array_equal(decode(with_property(plain, b"imir", b"\1")), upright[:, ::-1])
    assert np.array_equal(decode(with_property(plain, b"imir", b"\0")), upright[::-1])
    clap = struct.pack(">IIIIiIiI", 20, 1, 10, 1, -8, 1, 5, 1)  # the middle is (28 - 8, 20 + 5)
    assert np.array_equal(decode(with_property(plain, b"clap", clap)), upright[20:30, 10:30])
    kept = store(with_property(plain, b"clap", clap), 100)
    assert (kept.width, kept.height) == (20, 10)
    nonsense = struct.pack(">IIIIiIiI", 9999, 1, 10, 0, -8, 1, 5, 1)
    assert np.array_equal(decode(with_property(plain, b"clap", nonsense)), upright)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b"P2\n3 1\n1023\n0 512 1023\n", [0, 128, 255]),
        (b"P5\n3 1\n65535\n" + struct.pack(">3H", 0, 200, 257), [0, 1, 1]),
        (b"P5 3 1 1023\n" + struct.pack(">3H", 0, 512, 1023), [0, 128, 255]),
        (b"P1\n3 1\n0 1 0\n", [255, 0, 255]),
        (b"Pf\n3 1\n-1.0\n" + struct.pack("<3f", 0, 0.5, 1), [0, 128, 255]),
        (b"P6\n# words\n1 1\n65535\n" + struct.pack(">3H", 0, 32896, 65535), [[0, 128, 255]]),
    ],
)
def test_portable_maps_of_any_depth(text, values):
    got = decode(text)[0]
    assert np.abs(got.astype(int) - np.array(values).reshape(len(values), -1)).max() <= 1


def bmp(pixels, bits, masks=None, *, header=108, down=False, alpha=0, palette=None, space=b"BGRs", tail=b""):
    """[h w 3] in fields, or [h w] of palette indices."""
    h, w = pixels.shape[:2]
    value = np.zeros((h, w), np.uint64) if masks else pixels.astype(np.uint64)
    for c, mask in enumerate(masks or ()):
        shift = (mask & -mask).bit_length() - 1
        value |= ((pixels[..., c].astype(np.uint64) * (mask >> shift) + 127) // 255) << np.uint64(shift)
    places = np.arange(bits - 1, -1, -1, dtype=np.uint64)
    if bits < 8:
        rows = [np.packbits((row[:, None] >> places & np.uint64(1)).astype(np.uint8)).tobytes() for row in value]
    else:
        rows = [b"".join(int(v).to_bytes(bits // 8, "little") for v in row) for row in value]
    rows = [row.ljust(-(-w * bits // 32) * 4, b"\0") for row in rows]
    data = b"".join(rows if down else rows[::-1])
    if header == 12:
        info = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        info = struct.pack(
            "<IiiHHIIiiII", header, w, -h if down else h, 1, bits, 3 if masks else 0, len(data), 0, 0, 0, 0
        )
        fields = struct.pack("<4I", *(masks or (0, 0, 0)), alpha)
        info = (info + fields + space).ljust(header, b"\0") if header > 52 else info + (fields[:12] if masks else b"")
    colors = b"".join(
        bytes(c[::-1]) + (b"" if header == 12 else b"\0") for c in (palette if palette is not None else [])
    )
    start = 14 + len(info) + len(colors)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + colors + data + tail


@pytest.mark.parametrize("header", [40, 108, 124])
@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize(
    ("bits", "masks", "limit"),
    [
        (16, (0xF800, 0x07E0, 0x001F), 5),
        (16, (0x7C00, 0x03E0, 0x001F), 5),
        (16, (0x0F00, 0x00F0, 0x000F), 9),
        (32, (0x0FF00000, 0x000FF000, 0x00000FF0), 0),
        (32, (0xFF, 0xFF00, 0xFF0000), 0),
        (32, (0x3FF00000, 0xFFC00, 0x3FF), 0),
        (32, (0xFF000000, 0xFF0000, 0xFF00), 0),
        (32, (0xE0, 0x1C, 0x3), 45),
    ],
)
def test_bit_fields(header, down, bits, masks, limit):
    got = decode(bmp(card(), bits, masks, header=header, down=down))
    assert np.abs(got.astype(int) - card()).max() <= limit


def test_fields_of_alpha():
    pixels = np.dstack([card(), np.full(card().shape[:2], 128, np.uint8)])
    value = bmp(pixels[:, :, :3], 32, (0xFF0000, 0xFF00, 0xFF), alpha=0xFF000000)
    body = bytearray(value)
    start = 14 + 108
    opaque = decode(bytes(body))  # no alpha anywhere: it was not meant
    assert np.array_equal(opaque, card())
    body[start + 3 :: 4] = bytes([128]) * len(body[start + 3 :: 4])
    wanted = np.round(card() * (128 / 255) + 127)
    assert np.abs(decode(bytes(body)).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("header", [12, 40, 108])
@pytest.mark.parametrize("down", [False, True])
def test_palettes_of_bmp(bits, header, down):
    palette = np.random.default_rng(0).integers(0, 256, (2**bits, 3), dtype=np.uint8)
    indices = np.random.default_rng(1).integers(0, 2**bits, (7, 13))
    got = decode(bmp(indices, bits, header=header, down=down and header > 12, palette=palette.tolist()))
    assert np.array_equal(got, palette[indices])


@pytest.mark.parametrize("bits", [24, 32])
def test_plain_bmp(bits):
    packed = (card().astype(np.uint32) * np.array([65536, 256, 1], np.uint32)).sum(axis=2)
    assert np.array_equal(decode(bmp(packed, bits, header=40)), card())


def test_content_decides_what_is_an_image():
    kinds = {name: file(card(), name) for name in FORMATS if name in PIL.Image.SAVE and name != "JXL"}
    kinds["TIFF"] = file(card(), "TIFF", big_tiff=True)
    assert {name: kind_of(data[:64]) for name, data in kinds.items()} == {name: name for name in kinds}
    moving = file(card(), "AVIF", save_all=True, append_images=[PIL.Image.fromarray(card()[::-1].copy())])
    assert kind_of(moving) == "AVIF"
    for text in (
        b"BM and other words of a text",
        b"P5 is a note",
        b"Pferd",
        b"II. Chapter",
        b"RIFF....WAVE",
        b"GIF",
        b"",
    ):
        assert kind_of(text) in (None, "PPM") and (kind_of(text) is None or text == b"P5 is a note")  # noqa: PT018


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"8BPS\0\1" + bytes(20), "Photoshop"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    ],
)
def test_what_is_known_but_not_read_is_refused_with_the_remedy(head, words):
    with pytest.raises(ImageError, match=words):
        decode(head + bytes(100))


BOMB = """
import resource, struct, sys, zlib
from lookalike.imaging.decode import store
bits, colour, size = map(int, sys.argv[1:])
def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
row = b"\\0" + bytes(range(1, {0: 1, 2: 3, 6: 4}[colour] * bits // 8 + 1)) * size
packer = zlib.compressobj(6)
body = b"".join(packer.compress(row) for _ in range(size)) + packer.flush()
head = chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, bits, colour, 0, 0, 0))
data = b"\\x89PNG\\r\\n\\x1a\\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")
def peak():  # not ru_maxrss, in which a child begins with what its parent has
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = peak()
store(data, 256)
print((peak() - before) * 1024)
"""


@pytest.mark.parametrize(("bits", "colour"), [(16, 0), (8, 6), (16, 6)])
def test_memory_of_a_worker_is_a_few_bytes_a_pixel(bits, colour):
    size = 6000
    command = [sys.executable, "-c", BOMB, str(bits), str(colour), str(size)]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert taken < 4 * size * size + 160 * 2**20  # Pillow's four bytes, and blocks of rows
