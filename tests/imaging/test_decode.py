"""Images: every kind that is read, against Pillow or arithmetic; every kind that is refused, with its sentence."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest
from PIL import ImageCms, ImageOps

from lookalike.core.errors import ImageError
from lookalike.imaging import readers
from lookalike.imaging.decode import decode, encode_jpeg, store
from lookalike.imaging.resample import resize


def smooth(height, width):
    """A colourful image without hard edges: JPEG keeps it within a few gray levels."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 17 + y / 31), np.cos(x / 29 - y / 13), np.sin((x + y) / 23)]
    return (127 + 100 * np.stack(waves, axis=2)).astype(np.uint8)


def file(picture, kind, **options):
    """`image` (an array or a PIL image) as the bytes of a file."""
    if isinstance(picture, np.ndarray):
        picture = PIL.Image.fromarray(picture)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def difference(a, b):
    return np.abs(a.astype(int) - b.astype(int)).mean()


def png(width, height, header_only=False):
    """A PNG of any claimed size, gray, made by hand: the compressed zeros take next to nothing."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    rows = 0 if header_only else height
    body = b"".join(packer.compress(bytes(width + 1)) for _ in range(rows)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def picture():
    return smooth(90, 120)


# What is read


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_come_back_exactly(picture, kind):
    assert np.array_equal(decode(file(picture, kind)), picture)


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95}), ("AVIF", {"quality": 95})]
)
def test_lossy_formats_equal_pillow(picture, kind, options):
    data = file(picture, kind, **options)
    assert np.array_equal(decode(data), np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB")))
    assert difference(decode(data), picture) < 3


def test_result_can_be_written_to(picture):
    for kind in ("JPEG", "PNG"):
        image = decode(file(picture, kind))
        before = image.copy()
        image[0, 0] = 255 - before[0, 0]
        assert (image != before).any(axis=2).sum() == 1


def refuse(*_: object, **__: object) -> None:
    """Instead of the fast decoder, so that Pillow has to."""
    raise ValueError


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("gray", [False, True])
def test_fast_decoder_gives_the_pixels_of_pillow(monkeypatch, progressive, subsampling, gray):
    image = PIL.Image.fromarray(smooth(333, 515))
    data = file(image.convert("L") if gray else image, "JPEG", progressive=progressive, subsampling=subsampling)
    fast = [decode(data, at_least) for at_least in (None, 166, 80, 40, 10)]
    monkeypatch.setattr(readers.simplejpeg, "decode_jpeg", refuse)
    slow = [decode(data, at_least) for at_least in (None, 166, 80, 40, 10)]
    assert [f.shape[0] for f in fast] == [333, 167, 84, 42, 42]
    assert all(np.array_equal(f, s) for f, s in zip(fast, slow, strict=True))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_reduced_decoding_keeps_what_was_asked_for(picture, kind):
    data = file(np.tile(picture, (4, 4, 1)), kind, **({"quality": 95} if kind == "JPEG" else {}))
    image = decode(data, at_least=100)
    assert min(image.shape[:2]) >= 100
    assert image.shape[0] / image.shape[1] == pytest.approx(3 / 4, rel=0.01)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGBA", "PA", "P", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "F", "I"])
def test_every_mode_becomes_rgb(picture, mode):
    source = PIL.Image.fromarray(picture)
    gray = np.repeat(np.asarray(source.convert("L"))[:, :, None], 3, axis=2)
    if mode == "I;16":
        made = PIL.Image.fromarray(gray[:, :, 0].astype(np.uint16) * 257)
    elif mode in ("F", "I"):
        made = source.convert("L").convert(mode)
    else:
        made = source.convert("P").convert("PA") if mode == "PA" else source.convert(mode)
    kind = "PNG" if mode in ("L", "1", "LA", "RGBA", "P", "I;16") else "TIFF"
    if mode == "HSV":
        with pytest.raises(OSError):
            file(made, kind)  # no format of ours can hold it
        return
    image = decode(file(made, kind))
    wanted = gray if mode in ("L", "LA", "I;16", "F", "I") else picture
    if mode == "1":
        assert set(np.unique(image)) == {0, 255}
    else:
        assert difference(image, wanted) < (25 if mode in ("P", "PA") else 3)


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256 * 16).astype(np.uint16).reshape(16, 256)
    for kind in ("PNG", "TIFF"):
        image = decode(file(PIL.Image.fromarray(ramp), kind))
        assert np.array_equal(image[:, :, 0], np.round(ramp / 257).astype(np.uint8))
    assert store(file(PIL.Image.fromarray(ramp), "PNG"), 8).width == 256


def test_sixteen_bit_colour_png():
    """Pillow can't write one, so it is written by hand: 2 x 1 pixels."""
    raw = b"\0" + struct.pack(">6H", 65535, 32768, 0, 257, 514, 65535)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    assert decode(data).tolist() == [[[255, 128, 0], [1, 2, 255]]]


def test_twelve_bits_of_a_camera_are_not_black():
    """TIFF with 12 bits a sample (two samples in three bytes): white is 4095."""
    packed = bytes([0xFF, 0xFF, 0xFF, 0x80, 0x00, 0x00])  # 4095 4095 2048 0
    tags = [
        (256, 3, 4),
        (257, 3, 1),
        (258, 3, 12),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, 1),
        (279, 4, 6),
    ]
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags) + bytes(4)
    data = b"II*\0" + struct.pack("<I", 8 + 6) + packed + ifd
    assert decode(data)[0, :, 0].tolist() == [255, 255, 128, 0]


def test_alpha_is_laid_on_white():
    image = np.zeros((4, 6, 4), np.uint8)
    image[:, :, 0], image[:, :2, 3], image[:, 2:4, 3], image[:, 4:, 3] = 200, 255, 51, 0
    got = decode(file(PIL.Image.fromarray(image), "PNG"))
    assert got[0, ::2].tolist() == [[200, 0, 0], [244, 204, 204], [255, 255, 255]]  # 0.2 x colour + 0.8 x white
    half = np.array([[[100, 255], [100, 0]]], np.uint8)
    assert decode(file(PIL.Image.fromarray(half), "PNG"))[0, :, 0].tolist() == [100, 255]
    assert decode(store(file(PIL.Image.fromarray(image), "WEBP", lossless=True), 4).data)[0, 5].min() > 240


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_alpha_is_laid_on_white(kind):
    made = PIL.Image.new("P", (8, 4), 0)
    made.putpalette([255, 0, 0, 0, 0, 255])
    made.paste(1, (4, 0, 8, 4))
    transparency = bytes([255, 0]) if kind == "PNG" else 1
    image = decode(file(made, kind, transparency=transparency))
    assert image[0, 0].tolist() == [255, 0, 0]
    assert image[0, 7].tolist() == [255, 255, 255]


def test_colour_key_of_png_is_transparent():
    made = PIL.Image.new("RGB", (2, 1), (10, 20, 30))
    made.putpixel((1, 0), (1, 2, 3))
    assert decode(file(made, "PNG", transparency=(1, 2, 3))).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk_plain_and_inverted():
    """Adobe writes CMYK JPEGs inverted, marked by an APP14 segment; other CMYK files are not."""
    red = PIL.Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    jpeg = file(red, "JPEG", quality=95)  # Pillow writes them inverted, with the mark
    assert b"Adobe" in jpeg
    for data in (jpeg, file(red, "TIFF"), store(jpeg, 32).data, store(file(red, "TIFF"), 32).data):
        assert difference(decode(data), np.array([255, 0, 0])) < 6


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(picture, kind):
    frames = [PIL.Image.fromarray(picture), PIL.Image.new("RGB", (120, 90), "black")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = file(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert PIL.Image.open(io.BytesIO(data)).n_frames == 2
    assert difference(decode(data), picture) < (25 if kind == "GIF" else 0.001)


def test_mpo_gives_its_first_image(picture):
    data = file(PIL.Image.fromarray(picture), "MPO", save_all=True, append_images=[PIL.Image.new("RGB", (120, 90))])
    assert PIL.Image.open(io.BytesIO(data)).format == "MPO"
    assert difference(decode(data), picture) < 3
    kept = store(data, 256)
    assert kept.data != data
    assert (kept.width, kept.height) == (120, 90)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_come_upright(picture, kind, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = file(picture, kind, exif=exif)
    wanted = np.asarray(ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(decode(data), wanted)
    # The size that is compared with and reported is that of the upright image.
    for size in (90, 45):
        kept = store(data, size)
        assert (kept.width, kept.height) == (wanted.shape[1], wanted.shape[0])
        small = decode(kept.data)
        assert min(small.shape[:2]) == size
        assert difference(small, resize(wanted, *small.shape[:2])) < 3
        assert PIL.Image.open(io.BytesIO(kept.data)).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0MM\0*\0\0\0\x08\0\xff" + b"\x01\x12" * 40,
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0six\0\0\0\0\0",  # the orientation is a word
        b"Exif\0\0",
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_is_ignored(picture, exif, kind):
    data = file(picture, kind, exif=exif)
    assert decode(data).shape == picture.shape
    assert store(data, 50).width == 120


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_nonsense_orientation_is_upright(picture, value):
    exif = PIL.Image.Exif()
    exif[0x0112] = value
    assert decode(file(picture, "JPEG", exif=exif)).shape == picture.shape


def test_wide_gamut_is_brought_to_srgb(picture, display_p3):
    data = file(picture, "JPEG", quality=95, icc_profile=display_p3)
    plain = file(picture, "JPEG", quality=95)
    wanted = ImageCms.profileToProfile(
        PIL.Image.open(io.BytesIO(plain)),
        ImageCms.ImageCmsProfile(io.BytesIO(display_p3)),
        ImageCms.createProfile("sRGB"),
    )
    assert np.array_equal(decode(data), np.asarray(wanted))
    assert difference(decode(data), decode(plain)) > 3  # it matters
    kept = store(data, 90)
    assert kept.data != data
    assert PIL.Image.open(io.BytesIO(kept.data)).info.get("icc_profile") is None
    assert difference(decode(kept.data), decode(data)) < 2


def test_srgb_and_broken_profiles_change_nothing(picture):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = file(picture, "JPEG")
    for profile in (srgb, b"no profile at all", srgb[:200]):
        data = file(picture, "JPEG", icc_profile=profile)
        assert np.array_equal(decode(data), decode(plain))
        assert store(data, 90).data == plain  # the profile goes, the pixels stay as they are coded


def test_wrong_extension_and_huge_metadata(picture):
    """Content decides the format: there is no name to look at. Megabytes of metadata are not kept."""
    data = file(picture, "JPEG", exif=b"Exif\0\0" + bytes(60_000), comment=b"x" * 60_000)
    assert decode(data).shape == picture.shape
    assert store(data, 90).data == file(picture, "JPEG")
    text = PIL.PngImagePlugin.PngInfo()
    text.add_text("story", "x" * 900_000, zip=True)
    assert np.array_equal(decode(file(picture, "PNG", pnginfo=text)), picture)


# What is stored


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"quality": 98}])
def test_small_jpegs_keep_every_bit_of_their_pixels_and_nothing_else(picture, options):
    exif = PIL.Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"  # where it was taken
    said = {"comment": b"hello", "exif": exif, "dpi": (300, 300), "xmp": b"<x:xmpmeta/>"}
    for made in (PIL.Image.fromarray(picture), PIL.Image.fromarray(picture).convert("L")):
        plain = file(made, "JPEG", **options)
        for data in (plain, file(made, "JPEG", **options, **said), plain + b"a film of a telephone" * 1000):
            kept = store(data, 90)
            assert kept.data == plain
            assert (kept.width, kept.height) == (120, 90)


def test_everything_else_becomes_a_plain_jpeg(picture):
    for data in (
        file(picture, "PNG"),
        file(PIL.Image.fromarray(picture).convert("CMYK"), "JPEG"),
        file(picture, "JPEG"),
    ):
        kept = PIL.Image.open(io.BytesIO(store(data, 80).data))
        assert (kept.format, kept.mode, kept.size) == ("JPEG", "RGB", (107, 80))
        assert not {"exif", "icc_profile", "comment"} & kept.info.keys()


def test_gray_stays_gray():
    data = file(PIL.Image.fromarray(smooth(300, 300)).convert("L"), "PNG")
    assert PIL.Image.open(io.BytesIO(store(data, 64).data)).mode == "L"


def test_images_are_never_enlarged():
    for shape in ((1, 1), (3, 500), (40, 30)):
        kept = store(file(smooth(*shape), "PNG"), 256)
        assert decode(kept.data).shape[:2] == shape
        assert (kept.height, kept.width) == shape


@hypothesis.given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 128))
@hypothesis.settings(max_examples=40, deadline=None)
def test_stored_size(height, width, size):
    kept = store(file(np.zeros((height, width, 3), np.uint8), "JPEG", quality=50), size)
    small = decode(kept.data).shape
    assert min(small[:2]) == min(height, width, size)
    scale = min(small[:2]) / min(height, width)
    assert abs(small[0] - height * scale) <= 0.5
    assert abs(small[1] - width * scale) <= 0.5


def test_stored_is_as_good_as_what_a_plain_loop_stores():
    """Below three times the size every pixel is decoded, and what is stored differs from Pillow's way by rounding."""
    data = file(smooth(480, 640), "JPEG", quality=92)
    loop = PIL.Image.open(io.BytesIO(data)).resize((267, 200), PIL.Image.Resampling.BICUBIC)
    pixels, theirs = np.asarray(loop), decode(file(loop, "JPEG", quality=90, subsampling="4:4:4"))
    assert difference(decode(store(data, 200).data), pixels) <= 1.01 * difference(theirs, pixels)


def test_large_photographs_lose_nothing_that_is_seen():
    data = file(smooth(1200, 1603), "JPEG", quality=92)
    whole = resize(decode(data), 100, 134)
    plain = decode(encode_jpeg(whole))
    lost = difference(plain, whole)  # by JPEG itself, at full size
    assert difference(decode(store(data, 100).data), whole) < 1.05 * lost


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("shape", [(25, 31), (41, 97), (127, 63)])
def test_odd_sizes_are_not_shifted(shape, size):
    """A JPEG that is reduced while decoding is rounded up to whole pixels; the image must not move by that."""
    ramp = np.repeat(np.linspace(0, 255, shape[1])[None, :, None], shape[0], axis=0).repeat(3, axis=2).astype(np.uint8)
    data = file(ramp, "JPEG", quality=95)
    small = decode(store(data, size).data)
    assert difference(small, resize(ramp, *small.shape[:2])) < 4


def test_encode_jpeg(picture):
    made = PIL.Image.open(io.BytesIO(encode_jpeg(picture)))
    assert made.format == "JPEG"
    assert PIL.JpegImagePlugin.get_sampling(made) == 0
    assert difference(decode(encode_jpeg(picture)), picture) < 2
    assert len(encode_jpeg(picture, 50)) < len(encode_jpeg(picture, 90))


# What is refused


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty (0 bytes)"),
        (b"hello, I am a text", "begins with b'hello, I'"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "Not an image of a known format"),
        (bytes(1000), "the file has 1,000 bytes"),
        (b"\xff\xd8\xff", "damaged or truncated: no pixels follow"),
        (file(smooth(4, 4), "ICO"), "Not an image of a known format"),
        (file(smooth(10, 60_000), "JPEG"), "too large: 60,000 x 10 pixels"),
        (file(smooth(60_000, 2), "PNG"), "too large: 2 x 60,000 pixels"),
        (png(12_000, 12_000), "too large: 12,000 x 12,000 pixels"),
        (png(30_000, 30_000, header_only=True), "134,217,728 in all"),
        (png(2**31 - 1, 2**31 - 1, header_only=True), "134,217,728 in all"),
        (png(0, 5, header_only=True), "image"),
        (png(500, 500, header_only=True), "damaged or truncated: not all of its 500 x 500 pixels"),
    ],
)  # fmt: skip
def test_refused_in_one_sentence(data, words):
    for read in (decode, lambda data: store(data, 64)):
        with pytest.raises(ImageError) as caught:
            read(data)
        assert words in caught.value.message
        assert caught.value.message.count("\n") == 0
        assert caught.value.message.endswith(".")
        assert len(caught.value.message) < 250


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.98])
@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM"])
def test_truncated_images_are_refused(monkeypatch, kind, share, fast):
    if not fast:
        monkeypatch.setattr(readers.simplejpeg, "decode_jpeg", refuse)
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    data = file(
        noise,
        *(("JPEG",) if kind == "progressive" else (kind,)),
        **({"progressive": True} if kind == "progressive" else {}),
    )
    for read in (
        decode,
        lambda data: decode(data, at_least=50),
        lambda data: store(data, 256),
        lambda data: store(data, 30),
    ):
        with pytest.raises(ImageError, match=r"damaged or truncated|Not an image"):
            read(data[: int(len(data) * share)])


def test_nothing_but_image_errors_for_spoilt_bytes(picture):
    """Thousands of images with wrong bytes: read or refused, never a traceback, never a warning."""
    rng = np.random.default_rng(1)
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "an image"
    small = PIL.Image.fromarray(picture[:24, :32])
    sources = [
        file(small, kind, **options)
        for kind, options in [
            ("JPEG", {"exif": exif}),
            ("PNG", {"exif": exif}),
            ("GIF", {}),
            ("WEBP", {"exif": exif}),
            ("BMP", {}),
            ("TIFF", {"exif": exif}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("PPM", {}),
            ("AVIF", {}),
        ]
    ]
    refused = 0
    for round_ in range(900):
        data = bytearray(sources[round_ % len(sources)])
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
        try:
            store(bytes(data), 16)
        except ImageError:
            refused += 1
    assert 100 < refused < 900


def test_nothing_global_is_left_changed(picture):
    def state():
        return (
            PIL.Image.MAX_IMAGE_PIXELS,
            PIL.ImageFile.LOAD_TRUNCATED_IMAGES,
            PIL.ImageFile.MAXBLOCK,
            PIL.Image.WARN_POSSIBLE_FORMATS,
            list(warnings.filters),
        )

    before = state()
    broken = file(picture, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff" + b"\x01\x12" * 40)
    wide = png(30_000, 3_500, header_only=True)  # 105 million pixels: Pillow would warn of a bomb

    def read(data):
        try:
            return decode(data).shape
        except ImageError as error:
            return error.message

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(read, [broken, wide, b"", file(picture, "PNG")] * 50))
    assert picture.shape in found
    assert len(found) == 3
    assert state() == before


@pytest.mark.parametrize(("height", "width", "size"), [(40, 60, 256), (300, 400, 100), (1501, 1203, 64)])
def test_a_border_is_cut_off(height, width, size):
    framed = np.full((height, width, 3), (255, 0, 0), np.uint8)
    framed[8:-8, 8:-8] = 90  # JPEG mixes colours of neighbours: the gray ones beside the red are cut off too
    stored = store(file(framed, "JPEG", quality=95), size, border=16)
    assert np.abs(decode(stored.data).astype(int) - 90).max() < 6
    assert abs(stored.width - (width - 32)) < 20
    assert abs(stored.height - (height - 32)) < 20
    with pytest.raises(ImageError, match="nothing but its border"):
        store(file(framed, "PNG"), size, border=(min(height, width) + 1) // 2)
