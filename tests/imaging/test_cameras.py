"""HEIC, JPEG XL and RAW: written by their own libraries or by hand, and what they were made of."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pillow_heif
import pillow_jxl
import pytest
import rawpy
from PIL import ImageCms

from lookalike.core.errors import ImageError
from lookalike.imaging import raster
from lookalike.imaging.decode import decode, kind_of, store


def card(height=120, width=160):
    y, x = np.mgrid[0:height, 0:width]
    red, green = x * 255 // (width - 1), y * 255 // (height - 1)
    return np.stack([red, green, 255 - red], 2).astype(np.uint8)


def worst(got, wanted):
    assert got.shape == np.shape(wanted)
    return np.abs(got.astype(int) - np.asarray(wanted, int)).max()


def mean(got, wanted):
    assert got.shape == np.shape(wanted)
    return np.abs(got.astype(int) - np.asarray(wanted, int)).mean()


def exif(orientation):
    told = PIL.Image.Exif()
    told[0x0112] = orientation
    return told.tobytes()


def heic(image, **options):
    made = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    pillow_heif.from_pillow(made).save(buffer := io.BytesIO(), **{"quality": -1, "chroma": 444, **options})
    return buffer.getvalue()


def jxl(image, **options):
    made = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    made.save(buffer := io.BytesIO(), "JXL", **{"lossless": True, **options})
    return buffer.getvalue()


def jpeg(image, **options):
    PIL.Image.fromarray(image).save(buffer := io.BytesIO(), "JPEG", quality=95, **options)
    return buffer.getvalue()


# HEIC


def test_a_lossless_heic_comes_back():
    data = heic(card())
    assert kind_of(data[:64]) == "HEIC"
    assert worst(decode(data), card()) <= 2  # YCbCr in 8 bits


def test_a_gray_heic_and_one_of_ten_bits():
    gray = card()[:, :, 1]
    assert worst(decode(heic(gray)), np.stack([gray] * 3, 2)) <= 1
    deep = (card().astype("<u2") * 257).tobytes()
    pillow_heif.from_bytes("RGB;16", (160, 120), deep).save(buffer := io.BytesIO(), quality=-1, chroma=444)
    assert pillow_heif.open_heif(io.BytesIO(buffer.getvalue())).info["bit_depth"] == 10
    assert worst(decode(buffer.getvalue()), card()) <= 2


def test_the_alpha_of_a_heic_is_on_white():
    alpha = np.broadcast_to(np.linspace(0, 255, 160).astype(np.uint8), (120, 160))
    layer = PIL.Image.fromarray(np.dstack([card(), alpha]))
    white = PIL.Image.new("RGBA", layer.size, "white")
    wanted = PIL.Image.alpha_composite(white, layer).convert("RGB")
    assert worst(decode(heic(layer)), wanted) <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_that_its_library_turns_is_not_turned_again_for_exif(orientation):
    data = heic(card(), exif=exif(orientation))
    told = PIL.Image.Exif()
    told.load(pillow_heif.open_heif(io.BytesIO(data)).info["exif"])
    assert told[0x0112] == orientation  # both of them say so
    turned = PIL.Image.fromarray(card())
    turned.getexif()[0x0112] = orientation
    assert worst(decode(data), PIL.ImageOps.exif_transpose(turned)) <= 2
    kept = store(data, 50)
    assert (kept.width, kept.height) == ((120, 160) if orientation >= 5 else (160, 120))


def test_a_heic_that_exif_alone_says_is_turned_stays_as_it_lies():  # ISO/IEC 23008-12: properties turn, EXIF tells
    data = heic(card(), exif=exif(1))
    assert data.count(exif(1)) == 1
    assert worst(decode(data.replace(exif(1), exif(6))), card()) <= 2


def test_wide_gamut_of_a_heic_is_brought_to_srgb(display_p3):
    wide = PIL.Image.fromarray(card())
    profile = ImageCms.ImageCmsProfile(io.BytesIO(display_p3))
    wanted = ImageCms.profileToProfile(wide, profile, ImageCms.createProfile("sRGB"))
    wide.info["icc_profile"] = display_p3
    data = heic(wide)
    assert mean(decode(data), np.asarray(wanted)) < 2
    assert mean(decode(data), card()) > 3  # it matters


def test_codes_of_colour_of_a_heic_count_as_those_of_a_png():
    codes = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 1, "full_range_flag": 1}
    plain, coded = heic(card()), heic(card(), **codes)
    png = io.BytesIO()
    PIL.Image.fromarray(card()).save(png, "PNG")
    begin, rest = png.getvalue()[:33], png.getvalue()[33:]
    body = b"cICP" + bytes([12, 13, 0, 1])
    wanted = decode(begin + struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body)) + rest)
    assert mean(decode(plain), wanted) > 3
    assert mean(decode(coded), wanted) < 2


def test_a_heic_in_tiles_that_ends_early_is_refused():
    data = heic(card(400, 560), tile_size=128)
    assert worst(decode(data), card(400, 560)) <= 2
    for part in (0.99, 0.9, 0.5, 0.1):
        with pytest.raises(ImageError, match="damaged or truncated"):
            decode(data[: int(part * len(data))])


# JPEG XL


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("container", [False, True])
def test_a_lossless_jpeg_xl_comes_back_exactly(mode, container):
    picture = PIL.Image.fromarray(card()).convert(mode)
    data = jxl(picture, use_container=container)
    assert kind_of(data[:64]) == "JXL"
    assert np.array_equal(decode(data), np.asarray(picture.convert("RGB")))


def test_deep_grays_of_a_jpeg_xl_are_light_and_become_eight_bits():
    gray = card()[:, :, 0]

    def shown(light):  # IEC 61966-2-1
        codes = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
        return np.stack([np.round(codes * 255)] * 3, 2)

    dark = gray.astype(np.float32) / 255 / 8  # white is 1, whatever is in the image
    for values, light in (
        (gray.astype(np.uint16) * 257, gray / 255),
        (gray.astype(np.float32) / 255, gray / 255),
        (dark, dark),
    ):
        got = decode(jxl(PIL.Image.fromarray(values)))
        assert mean(got, shown(light)) < 3  # 8 bits of light are few where it is dark


SIZES = [(8, 8), (40, 24), (256, 256), (257, 257), (120, 160), (100, 150), (90, 160), (96, 120), (50, 100), (100, 120)]
SIZES += [(3, 700), (512, 1), (1000, 7), (9000, 3)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(monkeypatch, height, width):
    data = jxl(np.zeros((height, width), np.uint8))
    monkeypatch.setattr(raster, "MAX_PIXELS", 0)
    monkeypatch.setattr(pillow_jxl, "Decoder", None)
    with pytest.raises(ImageError, match=f"too large: {width:,} x {height:,} pixels"):
        decode(data)


def test_a_jpeg_in_a_jpeg_xl_is_that_jpeg(tmp_path, display_p3):
    (tmp_path / "a.jpg").write_bytes(plain := jpeg(card(), exif=exif(6), icc_profile=display_p3))
    with PIL.Image.open(tmp_path / "a.jpg") as picture:
        data = jxl(picture, lossless_jpeg=True)
    assert np.array_equal(decode(data), decode(plain))
    (tmp_path / "a.jpg").write_bytes(upright := jpeg(card()))
    with PIL.Image.open(tmp_path / "a.jpg") as picture:
        assert store(jxl(picture, lossless_jpeg=True), 200).data == upright  # its very bytes


def turned_jxl(picture, orientation):
    """The same image with another orientation in its codestream, bit by bit (ISO/IEC 18181-1, ImageMetadata)."""
    data = jxl(picture, lossless=False, quality=95)
    bits = "".join(f"{byte:08b}"[::-1] for byte in data[2:10])
    size = 1 + 5 + 3 if bits[0] == "1" else 1 + 2 + (9, 13, 18, 30)[int(bits[1:3][::-1], 2)] + 3
    assert bits[size : size + 2] == "11"  # all as usual: what follows is written out
    told = f"{orientation - 1:03b}"[::-1]
    usual = "0" + "1" + told + "000" + "0" + "00" + "1" + "00" + "1" + "1" + "1" + "00"
    head = bits[:size] + usual + "1"
    head = head.ljust(-(-len(head) // 8) * 8, "0")
    before = bytes(int(head[i : i + 8][::-1], 2) for i in range(0, len(head), 8))
    return data[:2] + before + data[2 + -(-(size + 2) // 8) :]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_xl_comes_upright(orientation):
    picture = PIL.Image.fromarray(card(120, 160))
    turned = PIL.Image.fromarray(card(120, 160))
    turned.getexif()[0x0112] = orientation
    got = decode(turned_jxl(picture, orientation))
    assert mean(got, PIL.ImageOps.exif_transpose(turned)) < 1


def test_a_jpeg_xl_that_ends_early_is_refused():
    for data in (jxl(card()), jxl(card(), use_container=True), jxl(card(), lossless=False)):
        for part in (0.99, 0.5, 0.1):
            with pytest.raises(ImageError, match="JPEG XL image is damaged or truncated"):
                decode(data[: int(part * len(data))])


# RAW

TYPES = {1: "B", 3: "H", 4: "I"}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def directory(tags, at):
    """A TIFF's directory as it stands at offset `at`; fractions of type 5 and 10 are written in tenthousandths."""
    table, body = struct.pack("<H", len(tags)), b""
    for tag, (kind, values) in sorted(tags.items()):
        if kind == 2:
            packed = values
        elif kind in TYPES:
            packed = struct.pack(f"<{len(values)}{TYPES[kind]}", *values)
        else:
            packed = b"".join(struct.pack("<ii", round(value * 10_000), 10_000) for value in values)
        table += struct.pack("<HHI", tag, kind, len(values))
        if len(packed) <= 4:
            table += packed.ljust(4, b"\0")
        else:
            table += struct.pack("<I", at + 2 + 12 * len(tags) + 4 + len(body))
            body += packed
    return table + bytes(4) + body


def dng(scene, preview=None, flip=1):
    """What a sensor with sRGB's primaries sees of the scene: red, green / green, blue; and a JPEG of it."""
    height, width, _ = scene.shape
    light = np.where(scene <= 10, scene / 255 / 12.92, ((scene / 255 + 0.055) / 1.055) ** 2.4)
    seen = light[:, :, 1].copy()
    seen[::2, ::2], seen[1::2, 1::2] = light[::2, ::2, 0], light[1::2, 1::2, 2]
    sensor = (seen * 65_535).astype("<u2").tobytes()
    camera = {274: (3, [flip]), 271: (2, b"Made\0"), 272: (2, b"By hand\0"), 50708: (2, b"Made by hand\0")}
    camera |= {50706: (1, [1, 4, 0, 0]), 50728: (5, [1, 1, 1]), 50778: (3, [21])}
    camera |= {50721: (10, np.linalg.inv(TO_XYZ).ravel())}
    main = {254: (4, [0]), 256: (4, [width]), 257: (4, [height]), 258: (3, [16]), 259: (3, [1]), 262: (3, [32_803])}
    main |= {277: (3, [1]), 278: (4, [height]), 279: (4, [len(sensor)]), 273: (4, [0]), 50717: (4, [65_535])}
    main |= {33421: (3, [2, 2]), 33422: (1, [0, 1, 1, 2])}
    if preview is None:
        main |= camera
        main[273] = (4, [8 + len(directory(main, 8))])
        return b"II*\0" + struct.pack("<I", 8) + directory(main, 8) + sensor
    across, down = PIL.Image.open(io.BytesIO(preview)).size
    first = {254: (4, [1]), 256: (4, [across]), 257: (4, [down]), 258: (3, [8, 8, 8]), 259: (3, [7]), 262: (3, [6])}
    first |= {277: (3, [3]), 278: (4, [down]), 279: (4, [len(preview)]), 273: (4, [0]), 330: (4, [0]), **camera}
    second = 8 + len(directory(first, 8))
    begin = second + len(directory(main, second))
    first[330], first[273], main[273] = (4, [second]), (4, [begin + len(sensor)]), (4, [begin])
    return b"II*\0" + struct.pack("<I", 8) + directory(first, 8) + directory(main, second) + sensor + preview


def silent():
    told = PIL.Image.Exif()
    told[0x010F] = "Made"
    return told.tobytes()


def other():
    return np.ascontiguousarray(card()[::-1, ::-1])


def test_libraw_opens_what_is_written_here_by_hand():
    with rawpy.imread(io.BytesIO(dng(card()))) as raw:
        assert (raw.sizes.width, raw.sizes.height) == (160, 120)
    with rawpy.imread(io.BytesIO(dng(card(), jpeg(other())))) as raw:
        shown = PIL.Image.open(io.BytesIO(raw.extract_thumb().data))
    assert np.array_equal(np.asarray(shown), np.asarray(PIL.Image.open(io.BytesIO(jpeg(other())))))


def test_a_raw_file_without_preview_is_developed():
    got = decode(dng(card()))
    assert mean(got[8:-8, 8:-8], card()[8:-8, 8:-8]) < 6  # LibRaw also makes it a little brighter, by the histogram
    assert mean(got, other()) > 50


@pytest.mark.parametrize(("flip", "turn"), [(1, None), (3, 3), (6, 6), (8, 8)])
def test_a_developed_raw_file_comes_upright_at_any_size(flip, turn):
    upright = PIL.Image.fromarray(card())
    if turn:
        upright.getexif()[0x0112] = turn
        upright = PIL.ImageOps.exif_transpose(upright)
    data = dng(card(), flip=flip)
    assert mean(decode(data), np.asarray(upright)) < 6
    half = decode(data, at_least=50)  # LibRaw takes four samples as a pixel
    assert mean(half, np.asarray(upright.reduce(2))) < 6
    kept = store(data, 40)
    assert (kept.width, kept.height) == upright.size


@pytest.mark.parametrize("flip", [1, 3, 6, 8])
def test_a_preview_of_full_size_is_what_the_camera_made_of_it(flip):
    turned = PIL.Image.fromarray(other())
    turned.getexif()[0x0112] = flip
    wanted = PIL.ImageOps.exif_transpose(turned)
    assert mean(decode(dng(card(), jpeg(other()), flip)), np.asarray(wanted)) < 2  # as the sensor lies
    assert mean(decode(dng(card(), jpeg(other(), exif=exif(flip)), flip)), np.asarray(wanted)) < 2  # says it itself
    assert mean(decode(dng(card(), jpeg(other(), exif=silent()), flip)), np.asarray(wanted)) < 2  # says nothing
    if flip in (6, 8):
        assert mean(decode(dng(card(), jpeg(np.asarray(wanted)), flip)), np.asarray(wanted)) < 2  # turned already


def test_a_small_or_broken_preview_is_never_taken_for_the_image():
    small, whole = jpeg(np.ascontiguousarray(other()[::2, ::2])), jpeg(other())
    for preview in (small, whole[: len(whole) // 2] + bytes(len(whole) // 2)):
        assert mean(decode(dng(card(), preview)), card()) < 6


def test_a_raw_file_that_ends_early_is_refused_without_a_word_on_stderr(capfd):
    data = dng(card())
    for part in (0.99, 0.5, 0.1):
        with pytest.raises(ImageError, match="RAW image is damaged or truncated"):
            decode(data[: int(part * len(data))])
    assert capfd.readouterr() == ("", "")


def test_a_raw_file_that_libraw_does_not_know_is_refused_with_the_remedy():
    for head in (
        b"FUJIFILMCCD-RAW 0201",
        b"II*\0\x10\0\0\0CR\2\0",
        b"\0\0\0\x18ftypcrx \0\0\0\1",
        b"II\x1a\0\0\0HEAPCCDR",
    ):
        assert kind_of(head) == "RAW"
        with pytest.raises(ImageError, match=r"RAW.*(take the JPEG beside it|damaged or truncated)"):
            decode(head + bytes(300))


# All of them


@pytest.mark.parametrize("make", [heic, dng])
def test_what_is_too_large_is_refused_before_it_is_decoded(monkeypatch, make):
    data = make(card())
    monkeypatch.setattr(raster, "MAX_PIXELS", 160 * 120 - 1)
    monkeypatch.setattr(pillow_heif.HeifImage, "to_pillow", None)
    with pytest.raises(ImageError, match="too large: 160 x 120 pixels"):
        decode(data)


@pytest.mark.parametrize(
    ("make", "library", "words"),
    [(heic, "pillow_heif", "HEIC"), (jxl, "pillow_jxl", "JPEG XL"), (dng, "rawpy", "RAW file")],
)
def test_without_its_library_a_format_is_refused_with_what_installs_it(monkeypatch, make, library, words):
    data = make(card())
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImageError, match=rf"{words} is not read before `pip install 'lookalike\[formats\]'`"):
        decode(data)


ALONE = """
import io, sys
import PIL.Image
for name in ("pillow_heif", "pillow_jxl", "rawpy"):
    sys.modules[name] = None
from lookalike.imaging.decode import decode
buffer = io.BytesIO()
PIL.Image.new("RGB", (40, 30), (250, 10, 10)).save(buffer, "AVIF")
assert abs(decode(buffer.getvalue()).astype(int) - (250, 10, 10)).max() < 6
"""

UNCHANGED = """
import sys
import PIL.Image
PIL.Image.init()
before = [dict(table) for table in (PIL.Image.OPEN, PIL.Image.SAVE, PIL.Image.EXTENSION, PIL.Image.MIME)]
from lookalike.imaging.decode import decode
for path in sys.argv[1:]:
    assert decode(open(path, "rb").read()).shape == (120, 160, 3)
assert before == [PIL.Image.OPEN, PIL.Image.SAVE, PIL.Image.EXTENSION, PIL.Image.MIME]
"""


def test_avif_is_read_without_them():
    subprocess.run([sys.executable, "-c", ALONE], check=True)


def test_reading_heic_and_raw_changes_nothing_of_pillow(tmp_path):
    for name, data in (("a.heic", heic(card())), ("b.dng", dng(card()))):
        (tmp_path / name).write_bytes(data)
    subprocess.run([sys.executable, "-c", UNCHANGED, tmp_path / "a.heic", tmp_path / "b.dng"], check=True)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"%PDF-1.7\n", r"PDF.*pdftoppm -r 150"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", r"video.*ffmpeg -i IN\.mp4 -frames:v 1 OUT\.jpg"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "video"),
        (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\1", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
    ],
)
def test_documents_and_films_are_no_images_and_the_refusal_says_how_to_take_one(head, words):
    assert kind_of(head) is None  # a folder of photographs leaves them out
    with pytest.raises(ImageError, match=words):
        decode(head + bytes(100))
