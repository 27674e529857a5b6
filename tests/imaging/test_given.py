"""Images in memory against the same images as files."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

from lookalike.core.errors import ImageError, SourceError
from lookalike.imaging.decode import decode
from lookalike.imaging.given import is_one, pixels_of


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 256, shape, np.uint8)


def file(image: PIL.Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


RGB = pixels(8, 10, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pillow_of_any_mode_is_what_its_file_is(mode: str, tmp_path: Path) -> None:
    if mode == "I;16":
        image = PIL.Image.fromarray(np.arange(80, dtype=np.uint16).reshape(8, 10) * 800)
    else:
        image = PIL.Image.fromarray(pixels(8, 10, 4), "RGBA").convert(mode if mode != "LA" else "LA")
    kind = "TIFF" if mode == "CMYK" else "PNG"
    np.testing.assert_array_equal(pixels_of(image), decode(file(image, kind)))


def test_pillow_is_turned_upright_and_its_profile_counts() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("LAB")).tobytes()
    data = file(PIL.Image.fromarray(RGB), "PNG", exif=exif)
    np.testing.assert_array_equal(pixels_of(PIL.Image.open(io.BytesIO(data))), np.rot90(RGB, -1))
    assert len(profile) > 100  # a profile of another kind of colour is no profile of these
    linear = PIL.Image.fromarray(RGB)
    linear.info["icc_profile"] = b"rubbish"
    np.testing.assert_array_equal(pixels_of(linear), RGB)


def test_arrays_of_any_form() -> None:
    gray, alpha = pixels(8, 10), pixels(8, 10, 4)
    for form in (gray, gray[:, :, None]):
        np.testing.assert_array_equal(pixels_of(form), np.stack([gray] * 3, axis=2))
    np.testing.assert_array_equal(pixels_of(RGB), RGB)
    np.testing.assert_array_equal(pixels_of(RGB[::-1, :, ::-1]), RGB[::-1, :, ::-1])
    for kind in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(pixels_of((RGB / 255).astype(kind)), RGB)
    np.testing.assert_array_equal(pixels_of(alpha), decode(file(PIL.Image.fromarray(alpha, "RGBA"))))
    before = RGB.copy()
    pixels_of(RGB)[:] = 0  # what is given back is nobody else's
    np.testing.assert_array_equal(RGB, before)


def test_bytes_and_files(tmp_path: Path) -> None:
    data = file(PIL.Image.fromarray(RGB))
    (tmp_path / "a.png").write_bytes(data)
    with (tmp_path / "a.png").open("rb") as opened:
        for item in (data, bytearray(data), memoryview(data), io.BytesIO(data), opened, tmp_path / "a.png"):
            np.testing.assert_array_equal(pixels_of(item), RGB)


@pytest.mark.parametrize(
    ("item", "words", "hint"),
    [
        (np.zeros((3, 8, 10), np.uint8), r"uint8 \[3, 8, 10\]; expected \[H W\]", "moveaxis"),
        (np.zeros((2, 8, 10, 3), np.uint8), r"\[2, 8, 10, 3\]; expected", "one image an item"),
        (np.zeros((0, 10, 3), np.uint8), r"\[0, 10, 3\]; expected", ""),
        (np.full((8, 10, 3), 200.0), "values from 200 to 200; expected 0 to 1", "x / 255"),
        (np.full((8, 10, 3), np.nan), "values from nan to nan", "x / 255"),
        (np.zeros((8, 10, 3), np.int64), "is int64; expected uint8", "astype"),
        ([1, 2], r"is a builtins\.list; expected a path", ""),
        (None, r"is a builtins\.NoneType", ""),
        (PIL.Image.new("RGB", (0, 4)), "has no pixels: 0 x 4", ""),
        ("https://example.org/a.jpg", "is an address", "download it first"),
        (b"rubbish", "`7 bytes`: Not an image", ""),
    ],
)
def test_what_is_no_image_is_said(item: object, words: str, hint: str) -> None:
    with pytest.raises((ImageError, SourceError), match=words) as caught:
        pixels_of(item)
    assert hint in caught.value.hint


def test_pillow_that_ends_early() -> None:
    data = file(PIL.Image.fromarray(pixels(64, 64, 3)))
    with pytest.raises(ImageError, match="can't be loaded"):
        pixels_of(PIL.Image.open(io.BytesIO(data[: len(data) // 2])))


def test_one_or_several() -> None:
    for one in ("a.jpg", Path("a"), b"", RGB, RGB[:, :, 0], PIL.Image.new("L", (2, 2)), io.BytesIO()):
        assert is_one(one)
    for several in ([RGB], (), RGB[None], iter([RGB]), {"a.jpg"}):
        assert not is_one(several)
