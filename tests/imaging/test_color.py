"""Colour told by profiles, by codes, by EXIF and by chunks: against LittleCMS or the formulas of the standards."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from PIL import ImageCms

from lookalike.imaging.color import PRIMARIES, cicp, to_srgb
from lookalike.imaging.decode import decode, store


def card():
    y, x = np.mgrid[0:40, 0:56]
    return np.stack([x * 255 // 55, y * 255 // 39, 255 - x * 255 // 55], 2).astype(np.uint8)


def file(pixels, kind, **options):
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def linear(v):
    v = np.asarray(v) / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def coded(light):
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def bytes_of(values):
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def icc(name, space, gamma):
    """A profile with the primaries of sRGB, or gray, and a power as its curve (ICC.1:2001-04)."""

    def s15(*values):
        return b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    text = name.encode() + b"\0"
    curve = b"curv\0\0\0\0" + (struct.pack(">I", 0) if gamma == 1 else struct.pack(">IH", 1, round(gamma * 256)))
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)}
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + s15(0.9642, 1, 0.8249)
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        columns = {
            b"rXYZ": (0.4361, 0.2225, 0.0139),
            b"gXYZ": (0.3851, 0.7169, 0.0971),
            b"bXYZ": (0.1431, 0.0606, 0.7141),
        }
        tags |= {tag: b"XYZ \0\0\0\0" + s15(*values) for tag, values in columns.items()}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acspAPPL" + bytes(24) + s15(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + table + body


def off(data, wanted):
    return np.abs(decode(data).astype(int) - wanted).mean()


@pytest.mark.parametrize("name", ["GIMP built-in Linear sRGB", "sRGB IEC61966-2.1", "something"])
@pytest.mark.parametrize("gamma", [1.0, 1.8])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_profile_is_applied_whatever_its_name(name, gamma, kind):
    profile = icc(name, b"RGB ", gamma)
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 98}}.get(
        kind, {}
    )
    data = file(card(), kind, icc_profile=profile, **options)
    pixels = PIL.Image.open(io.BytesIO(data)).convert("RGB")
    wanted = ImageCms.profileToProfile(pixels, io.BytesIO(profile), ImageCms.createProfile("sRGB"))
    assert off(data, np.asarray(wanted).astype(int)) < 0.1
    assert off(store(data, 100).data, np.asarray(wanted).astype(int)) < 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("space", [b"GRAY", b"RGB "])
def test_gray_has_profiles_too_and_stays_gray(kind, space):
    gray = PIL.Image.fromarray(card()).convert("L")
    data = file(gray, kind, icc_profile=icc("gray", space, 1.0), **({"quality": 98} if kind == "JPEG" else {}))
    wanted = bytes_of(coded(np.asarray(PIL.Image.open(io.BytesIO(data))) / 255)).astype(int)[:, :, None]
    assert np.abs(decode(data).astype(int) - wanted).max() <= 2
    kept = PIL.Image.open(io.BytesIO(store(data, 100).data))
    assert kept.mode == "L"


def test_profiles_of_other_pixels_and_broken_ones_are_left_alone():
    for profile in (icc("gray", b"GRAY", 1.0), b"none", icc("x", b"RGB ", 1.0)[:150], bytes(2**21)):
        assert np.array_equal(decode(file(card(), "PNG", icc_profile=profile)), card())


def test_alpha_is_laid_on_white_behind_the_profile():
    layer = np.dstack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 128, np.uint8)])
    assert set(decode(file(layer, "PNG", icc_profile=icc("x", b"RGB ", 1.0))).reshape(-1)) == {127}


# by codes


def pq(nits):
    """SMPTE ST 2084, light to code."""
    y = (np.maximum(nits, 0) / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hlg(light, to_xyz):
    """BT.2100: display light, 1 at 203 of 1,000 cd/m2, to code."""
    display = light * 203 / 1000
    luminance = np.maximum(display @ to_xyz[1], 1e-9)[..., None]
    scene = np.maximum(display * luminance ** (1 / 1.2 - 1), 0)
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )


SRGB_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
P3_XYZ = np.array([[0.4865709, 0.2656677, 0.1982173], [0.2289746, 0.6917385, 0.0792869], [0, 0.0451134, 1.0439444]])
BT2020_XYZ = np.array([[0.6369580, 0.1446169, 0.1688810], [0.2627002, 0.6779981, 0.0593017], [0, 0.0280727, 1.0609851]])
ADOBE_XYZ = np.array(
    [[0.5767309, 0.1855540, 0.1881852], [0.2973769, 0.6273491, 0.0752741], [0.0270343, 0.0706872, 0.9911085]]
)


def light_in(to_xyz):
    return np.maximum(linear(card()) @ (np.linalg.inv(to_xyz) @ SRGB_XYZ).T, 0)


CODES = {
    "sRGB": (1, 13, lambda: card() / 255),
    "television": (1, 1, lambda: card() / 255),
    "unspecified": (2, 2, lambda: card() / 255),
    "linear": (1, 8, lambda: linear(card())),
    "gamma 2.2": (1, 4, lambda: linear(card()) ** (1 / 2.2)),
    "P3": (12, 13, lambda: coded(light_in(P3_XYZ))),
    "Rec. 2020": (9, 14, lambda: coded(light_in(BT2020_XYZ))),
    "PQ": (9, 16, lambda: pq(light_in(BT2020_XYZ) * 203)),
    "P3 PQ": (12, 16, lambda: pq(light_in(P3_XYZ) * 203)),
    "HLG": (9, 18, lambda: hlg(light_in(BT2020_XYZ), BT2020_XYZ)),
}


def avif(pixels, primaries, transfer):
    data = bytearray(file(pixels, "AVIF", quality=98, subsampling="4:4:4"))
    at = data.index(b"colrnclx") + 8
    data[at : at + 4] = struct.pack(">HH", primaries, transfer)
    return bytes(data)


def with_chunks(data, *chunks):
    made = b""
    for name, body in chunks:
        made += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return data[:33] + made + data[33:]


@pytest.mark.parametrize("name", CODES)
def test_codes_of_avif_and_png(name):
    primaries, transfer, values = CODES[name]
    pixels = bytes_of(values())
    limit = 5 if transfer in (16, 8) else 2.5  # 8 bits of PQ and of linear light are coarse
    assert off(avif(pixels, primaries, transfer), card()) < limit
    assert off(with_chunks(file(pixels, "PNG"), (b"cICP", bytes([primaries, transfer, 0, 1]))), card()) < limit
    assert off(store(avif(pixels, primaries, transfer), 100).data, card()) < limit + 1.5


def test_brighter_than_paper_is_white_and_white_is_white():
    code = bytes_of(pq(np.array([203.0, 1000.0, 10_000.0])))[None, :, None].repeat(3, 2)
    assert to_srgb(code, cicp(9, 16)).min() >= 252
    for primaries in PRIMARIES:
        assert to_srgb(np.full((1, 1, 3), 255, np.uint8), cicp(primaries, 13)).min() >= 254


def test_chunks_of_png_in_their_order():
    light = file(bytes_of(linear(card())), "PNG")
    plain = file(card(), "PNG")
    gamma = (b"gAMA", struct.pack(">I", 100_000))
    usual = (b"gAMA", struct.pack(">I", 45_455))
    p3 = (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
    assert off(with_chunks(light, gamma), card()) < 2.5
    assert off(with_chunks(light, (b"sRGB", b"\0"), gamma), bytes_of(linear(card()))) == 0
    assert off(with_chunks(plain, usual), card()) == 0
    wide = file(bytes_of(coded(light_in(P3_XYZ))), "PNG")
    assert off(with_chunks(wide, usual, p3), card()) < 1.5
    assert off(with_chunks(plain, (b"cICP", b"\1\x0d\0\1"), gamma, p3), card()) == 0
    for odd in ((b"gAMA", b""), (b"gAMA", bytes(4)), (b"cHRM", bytes(32)), (b"cHRM", b"x"), (b"cICP", b"\1")):
        assert off(with_chunks(plain, odd), card()) == 0


def exif_of(space, index, order="<"):
    s = struct
    made = (b"II*\0" if order == "<" else b"MM\0*") + s.pack(order + "I", 8)
    made += s.pack(order + "HHHII", 1, 0x8769, 4, 1, 26) + bytes(4)
    made += s.pack(order + "HHHIHHHHII", 2, 0xA001, 3, 1, space, 0, 0xA005, 4, 1, 56) + bytes(4)
    return b"Exif\0\0" + made + s.pack(order + "HHHI4sI", 1, 1, 2, 4, index, 0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("space", "index", "wide"), [(65535, b"R03\0", True), (2, b"R98\0", True), (1, b"R98\0", False)]
)
def test_a_cameras_adobe_rgb(order, kind, space, index, wide):
    pixels = bytes_of(light_in(ADOBE_XYZ) ** (256 / 563))
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = file(pixels, kind, exif=exif_of(space, index, order), **options)
    assert off(data, card() if wide else pixels) < 1.5
    assert off(store(data, 100).data, card() if wide else pixels) < 3


def test_a_profile_is_believed_before_exif():
    data = file(
        card(),
        "PNG",
        exif=exif_of(65535, b"R03\0"),
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    )
    assert np.array_equal(decode(data), card())
