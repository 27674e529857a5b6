"""TIFF of any storage, written by hand from known samples: the same pixels, or a refusal in words."""

import io
import itertools
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import PIL.Image
import pytest

from lookalike.core.errors import ImageError
from lookalike.imaging.decode import decode, store

TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 12: "d", 16: "Q"}


def card():
    y, x = np.mgrid[0:37, 0:53]
    return np.stack([x * 255 // 52, y * 255 // 36, 255 - x * 255 // 52], 2).astype(np.uint8)


def gray():
    return card()[:, :, :1] // 2 + card()[:, :, 1:2] // 2


def assemble(pages, order="<", big=False):
    """A TIFF of pages, each (tags {number: (type, values)}, segments); offsets and sizes of the segments are added."""
    wide, code = (8, "Q") if big else (4, "I")
    out = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42))
    out += struct.pack(order + "HHQ", 8, 0, 0) if big else bytes(4)
    link = 8 if big else 4
    for tags, segments in pages:
        offsets = []
        for segment in segments:
            offsets.append(len(out))
            out += segment
        where, sizes = (324, 325) if 322 in tags else (273, 279)
        tags = {where: (4, offsets), sizes: (4, [len(s) for s in segments]), **tags}
        entries = b""
        for tag, (kind, values) in sorted(tags.items()):
            values = values if isinstance(values, (list, tuple, bytes)) else [values]
            body = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{TYPES[kind]}", *values)
            head = struct.pack(order + "HH" + code, tag, kind, len(values))
            if len(body) > wide:
                entries += head + struct.pack(order + code, len(out))
                out += body
            else:
                entries += head + body.ljust(wide, b"\0")
        struct.pack_into(order + code, out, link, len(out))
        out += struct.pack(order + ("Q" if big else "H"), len(tags)) + entries
        link = len(out)
        out += bytes(wide)
    return bytes(out)


def packed(samples, bits, kind, order):
    """Rows [h, w * s] of samples as bytes."""
    if bits in (8, 16, 32, 64):
        return [row.astype(f"{order}{kind}{bits // 8}").tobytes() for row in samples]
    places = np.arange(bits - 1, -1, -1)
    return [np.packbits((row[:, None].astype(np.int64) >> places & 1).astype(np.uint8)).tobytes() for row in samples]


def tiff(values, bits=8, kind="u", *, order="<", big=False, planar=False, compression=1, photometric=None, rows=10,
         tile=0, predictor=1, more=None):  # fmt: skip
    """One page from [h w s]."""
    h, w, s = values.shape
    planes = [values[:, :, i : i + 1] for i in range(s)] if planar else [values]
    segments = []
    for plane in planes:
        each = plane.shape[2]
        if predictor == 2:
            first = plane.astype(np.int64)
            plane = np.concatenate([first[:, :1], np.diff(first, axis=1)], 1).astype(np.int64) % 2**bits
        if tile:
            whole = np.pad(plane, ((0, -h % tile), (0, -w % tile), (0, 0)))
            parts = [
                whole[y : y + tile, x : x + tile] for y, x in itertools.product(range(0, h, tile), range(0, w, tile))
            ]
        else:
            parts = [plane[y : y + rows] for y in range(0, h, rows)]
        for part in parts:
            lines = packed(part.reshape(len(part), -1), bits, "u" if predictor == 2 else kind, order)
            if predictor == 3:
                lines = [floating(part_row, bits, each) for part_row in part]
            body = b"".join(lines)
            segments.append({1: lambda b: b, 8: zlib.compress, 32773: packbits}[compression](body))
    photometric = (2 if s >= 3 else 1) if photometric is None else photometric
    tags = {256: (4, w), 257: (4, h), 258: (3, [bits] * s), 259: (3, compression), 262: (3, photometric)}
    tags |= {277: (3, s), 284: (3, 2 if planar else 1), 317: (3, predictor)}
    tags |= {339: (3, [{"u": 1, "i": 2, "f": 3}[kind]] * s)}
    tags |= {322: (4, tile), 323: (4, tile)} if tile else {278: (4, rows)}
    return assemble([({**tags, **(more or {})}, segments)], order, big)


def packbits(body):
    return b"".join(bytes([len(body[i : i + 128]) - 1]) + body[i : i + 128] for i in range(0, len(body), 128))


def floating(row, bits, each):
    """Adobe's predictor 3 (Technical Note 3): bytes by significance, then differences."""
    planes = row.reshape(-1).astype(f">f{bits // 8}").view(np.uint8).reshape(-1, bits // 8).T.reshape(-1).astype(int)
    return (np.concatenate([planes[:each], planes[each:] - planes[:-each]]) % 256).astype(np.uint8).tobytes()


def worst(data, wanted):
    return int(np.abs(decode(data).astype(int) - wanted).max())


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("storage", ["strips", "tiles", "deflate", "deflate tiles", "packbits", "big", "differences"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 16, 24, 32])
@pytest.mark.parametrize("colour", [False, True])
def test_whole_numbers_of_any_depth_in_any_storage(bits, order, storage, planar, colour):
    options = {
        "strips": {}, "tiles": {"tile": 16}, "deflate": {"compression": 8}, "packbits": {"compression": 32773},
        "deflate tiles": {"compression": 8, "tile": 32}, "big": {"big": True},
        "differences": {"compression": 8, "predictor": 2},
    }[storage]  # fmt: skip
    if storage == "differences" and bits not in (8, 16, 32):
        pytest.skip("TIFF has no such predictor")
    values = (card() if colour else gray()).astype(np.float64) / 255
    samples = np.round(values * (2**bits - 1)).astype(np.uint64)
    wanted = np.round(samples * (255 / (2**bits - 1)))
    assert worst(tiff(samples, bits, order=order, planar=planar, **options), wanted) <= 1


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"planar": True}, {"compression": 8, "predictor": 3}, {"tile": 16}])
@pytest.mark.parametrize("white", [1, 255])
def test_floats(bits, order, options, white):
    assert worst(tiff(card() / 255 * white, bits, "f", order=order, **options), card()) <= 1
    assert worst(tiff(gray() / 255 * white, bits, "f", order=order, **options), gray()) <= 1


@pytest.mark.parametrize(("bits", "kind"), [(1, "u"), (4, "u"), (8, "u"), (12, "u"), (16, "u"), (32, "f")])
@pytest.mark.parametrize("compression", [1, 8])
def test_white_may_be_zero(bits, kind, compression):
    top = 1 if kind == "f" else 2**bits - 1
    dark = 1 - gray() / 255
    samples = dark if kind == "f" else np.round(dark * top).astype(int)
    wanted = 255 - np.round(samples * (255 / top))
    assert worst(tiff(samples, bits, kind, photometric=0, compression=compression), wanted) <= 1


@pytest.mark.parametrize("associated", [True, False])
@pytest.mark.parametrize(("bits", "kind"), [(8, "u"), (16, "u"), (32, "f")])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("colour", [True, False])
def test_alpha_of_any_depth_is_laid_on_white(associated, bits, kind, planar, colour):
    source = (card() if colour else gray()) / 255
    alpha = np.linspace(0, 1, 53)[None, :, None].repeat(37, 0)
    stored = np.concatenate([source * alpha if associated else source, alpha], 2)
    stored = stored if kind == "f" else np.round(stored * (2**bits - 1)).astype(int)
    data = tiff(
        stored, bits, kind, planar=planar, more={338: (3, 1 if associated else 2)}, photometric=2 if colour else 1
    )
    assert worst(data, 255 * (source * alpha + 1 - alpha)) <= 3


def test_an_extra_sample_without_a_meaning_is_left_out():
    for extra in ({}, {338: (3, 0)}):
        assert worst(tiff(np.concatenate([card(), 0 * gray()], 2), more=extra), card()) == 0
        assert worst(tiff(np.concatenate([gray(), 0 * gray()], 2), photometric=1, more=extra), gray()) == 0


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
@pytest.mark.parametrize("scale", [1, 257])
def test_palettes(bits, scale):
    colors = np.random.default_rng(0).integers(1, 256, (3, 2**bits))
    indices = np.random.default_rng(1).integers(0, 2**bits, (37, 53, 1))
    data = tiff(indices, bits, photometric=3, more={320: (3, [int(v) for v in (colors * scale).reshape(-1)])})
    assert worst(data, colors.T[indices[:, :, 0]]) == 0


def test_inks_at_sixteen_bits_equal_pillow_at_eight():
    inks = np.concatenate([card(), gray() // 3], 2)
    wanted = np.asarray(PIL.Image.fromarray(inks, "CMYK").convert("RGB")).astype(int)
    assert worst(tiff(inks, photometric=5), wanted) == 0
    assert worst(tiff(inks.astype(int) * 257, 16, photometric=5, planar=True), wanted) == 0


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [8, 9])
def test_lab_equals_lcms(bits, photometric):
    from PIL import ImageCms

    lab = np.concatenate([gray(), card()[:, :, :2] // 4 + 96], 2)  # as Pillow has it: a and b from 0, neutral at 128
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    image = PIL.Image.merge("LAB", [PIL.Image.fromarray(lab[:, :, i]) for i in range(3)])
    wanted = np.asarray(ImageCms.applyTransform(image, transform)).astype(int)
    samples = lab.astype(int)
    if bits == 16:
        samples = np.concatenate(
            [np.round(samples[:, :, :1] / 255 * (65535 if photometric == 8 else 65280)), samples[:, :, 1:] * 256], 2
        )
    if photometric == 8:  # a and b have signs
        samples[:, :, 1:] = (samples[:, :, 1:] - 128 * (1 if bits == 8 else 256)) % 2**bits
    off = np.abs(decode(tiff(samples.astype(int), bits, photometric=photometric)).astype(int) - wanted)
    assert off[(wanted > 24).all(axis=2)].max() <= 8  # at the edge of sRGB its tables are coarser than our formula
    assert off.mean() < 1


def test_measurements_are_shaded_from_least_to_greatest():
    heights = (gray().astype(np.int64) * 9 - 400).astype(np.int64)
    span = heights.max() - heights.min()
    wanted = (heights - heights.min()) * (255 / span)
    assert worst(tiff(heights, 16, "i"), wanted) <= 1
    assert worst(tiff(heights.astype(float), 32, "f"), wanted) <= 1
    holes = heights.copy()
    holes[:5] = -32768
    got = decode(tiff(holes, 16, "i", more={42113: (2, b"-32768\0")}))
    assert np.abs(got[5:, :, 0] - wanted[5:, :, 0]).max() <= 1 + 255 * 5 / 36
    assert got[:5].max() == 0
    assert worst(tiff(gray() / 255 * np.where(np.arange(53) == 7, np.nan, 1)[None, :, None], 32, "f"),
                 gray() * (np.arange(53) != 7)[None, :, None]) <= 1  # fmt: skip


def test_a_page_of_more_bytes_than_pillow_takes_for_pixels(monkeypatch):
    samples = np.round(np.concatenate([card(), gray()], 2) / 255 * 65535).astype(int)
    data = tiff(samples, 16, compression=8, more={338: (3, 0)})
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 37 * 53)
    assert worst(data, card()) <= 1


def test_bytes_may_be_turned_round():
    turned = np.packbits(np.unpackbits(gray(), axis=2)[:, :, ::-1], axis=2)
    assert worst(tiff(turned, more={266: (3, 2)}), gray()) == 0


def page(values, **tags):
    h, w, s = values.shape
    known = {256: (4, w), 257: (4, h), 258: (3, [8] * s), 259: (3, 1), 262: (3, 2), 277: (3, s), 278: (4, h)}
    return {**known, **{int(k[1:]): v for k, v in tags.items()}}, [values.tobytes()]


def test_the_first_page_that_is_no_thumbnail_is_the_image():
    small = card()[::6, ::6]
    mask = page(card(), _254=(4, 4))
    for thumb in (page(small, _254=(4, 1)), page(small, _255=(3, 2)), mask):
        assert worst(assemble([thumb, page(card())]), card()) == 0
        assert worst(assemble([thumb, page(card())], big=True), card()) == 0
        with pytest.raises(ImageError, match="no page that is the image itself"):
            decode(assemble([thumb]))


@pytest.mark.parametrize("tag", [{"_50706": (1, [1, 4, 0, 0])}, {"_262": (3, 32803)}, {"_262": (3, 34892)}])
def test_raw_files_are_refused_with_the_remedy(tag):
    small = page(card()[::6, ::6], _254=(4, 1))
    with pytest.raises(ImageError, match=r"RAW file.*JPEG"):
        decode(assemble([small, page(card(), **tag)]))
    with pytest.raises(ImageError, match=r"RAW file.*JPEG"):
        decode(assemble([page(card(), **tag)]))


@pytest.mark.parametrize("kind", ["tiff_lzw", "tiff_adobe_deflate", "jpeg", "lzma", "zstd", "packbits"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_what_pillow_writes_is_what_pillow_reads(kind, orientation):
    buffer = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(card()).save(buffer, "TIFF", compression=kind, exif=exif)
    wanted = PIL.ImageOps.exif_transpose(PIL.Image.open(buffer)).convert("RGB")
    assert np.array_equal(decode(buffer.getvalue()), np.asarray(wanted))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_in_a_tiff_comes_upright(orientation):
    buffer = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(card()).save(buffer, "TIFF", compression="jpeg", exif=exif)
    wanted = PIL.ImageOps.exif_transpose(PIL.Image.open(buffer)).convert("RGB")
    assert np.array_equal(decode(buffer.getvalue()), np.asarray(wanted))
    kept = store(buffer.getvalue(), 100)
    assert (kept.width, kept.height) == wanted.size


def fax():
    return PIL.Image.fromarray(
        (np.kron(np.random.default_rng(0).integers(0, 2, (30, 40)), np.ones((8, 8))) * 255).astype(np.uint8)
    ).convert("1")


@pytest.mark.parametrize("kind", ["group3", "group4", "tiff_ccitt"])
def test_a_whole_fax_is_read(kind):
    buffer = io.BytesIO()
    fax().save(buffer, "TIFF", compression=kind)
    assert np.array_equal(decode(buffer.getvalue())[:, :, 0], np.asarray(fax()) * np.uint8(255))


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("options", [0, 4])
def test_group_three_of_either_polarity_with_fill_bits(photometric, options):
    buffer = io.BytesIO()
    fax().save(buffer, "TIFF", compression="group3", tiffinfo={292: options})
    data = bytearray(buffer.getvalue())
    place = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    polarity = data[place] == photometric
    data[place] = photometric
    wanted = np.asarray(fax()) * np.uint8(255)
    assert np.array_equal(decode(bytes(data))[:, :, 0], wanted if polarity else 255 - wanted)


SPOIL = """
import sys
from lookalike.core.errors import ImageError
from lookalike.imaging.decode import decode
data = sys.stdin.buffer.read()
try:
    decode(data)
    print("read")
except ImageError as error:
    print(error.message)
sys.stderr.write("words of ours\\n")
"""


@pytest.mark.parametrize("kind", ["group3", "group4"])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_a_torn_fax_is_refused_and_libtiff_is_silent(kind, share):
    buffer = io.BytesIO()
    fax().save(buffer, "TIFF", compression=kind)
    image, data = PIL.Image.open(buffer), bytearray(buffer.getvalue())
    begin = image.tag_v2[273][0] + int(image.tag_v2[279][0] * share)
    for i in range(begin, begin + 12):
        data[i] ^= 0x5A
    command = [sys.executable, "-c", SPOIL]
    done = subprocess.run(command, input=bytes(data), capture_output=True, check=True, env=dict(os.environ))
    assert b"damaged or truncated" in done.stdout
    assert done.stderr == b"words of ours\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"values": np.zeros((8, 8, 3)), "bits": 8, "photometric": 32844}, "photometric 32844"),
        ({"values": np.zeros((8, 8, 4)), "bits": 8, "photometric": 5, "more": {332: (3, 2)}}, "not read"),
        ({"values": np.zeros((8, 8, 3)), "bits": 8, "more": {258: (3, [5, 6, 5])}}, "not read"),
        ({"values": np.zeros((8, 8, 3)), "bits": 8, "more": {339: (3, [5, 5, 5])}}, "not read"),
        ({"values": np.zeros((8, 8, 3)), "bits": 8, "more": {259: (3, 34713)}}, "not read"),
        ({"values": np.zeros((8, 8, 3)), "bits": 8, "more": {257: (4, 9999)}}, "damaged or truncated"),
        ({"values": np.zeros((8, 8, 1)), "bits": 8, "photometric": 3}, "not read"),
        ({"values": np.zeros((8, 8, 3)), "bits": 8, "photometric": 6}, "not read"),
    ],
)
def test_what_is_not_understood_is_refused_in_words(options, words):
    data = tiff(options["values"], options["bits"], photometric=options.get("photometric"), more=options.get("more"))
    with pytest.raises(ImageError, match=words):
        decode(data)
