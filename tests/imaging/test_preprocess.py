"""Preprocessing against the published image processors, pixel for pixel, and slow transcriptions of the others."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lookalike.core.errors import EncoderError
from lookalike.imaging.preprocess import Preprocess

SIZES = [
    (30, 700),
    (700, 30),
    (31, 64),
    (223, 224),
    (224, 224),
    (225, 333),
    (333, 225),
    (480, 641),
    (1500, 2000),
    (1, 9),
]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coarse structure with noise on top, so that both a shift and a wrong filter show."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return np.clip(large + rng.integers(-30, 31, large.shape), 0, 255).astype(np.uint8)


def crop(size: int, resize: int, interpolation: Any, **more: Any) -> Preprocess:
    return Preprocess(size, "crop", resize, interpolation, MEAN, STD, **more)


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(
    ("kind", "options", "ours"),
    [
        ("CLIP", {"size": {"shortest_edge": 224}, "crop_size": 224, "resample": 3}, crop(224, 224, "bicubic")),
        ("MobileNetV2", {"size": {"shortest_edge": 256}, "crop_size": 224, "resample": 2}, crop(224, 256, "bilinear")),
        ("MobileNetV2", {"size": {"shortest_edge": 100}, "crop_size": 131, "resample": 1}, crop(131, 100, "lanczos")),
        (
            "CLIP",
            {"size": {"height": 90, "width": 90}, "do_center_crop": False, "resample": 3},
            Preprocess(90, "squash", 90, "bicubic", MEAN, STD),
        ),
    ],
)
def test_equals_the_image_processors(kind: str, options: dict[str, Any], ours: Preprocess, height: int, width: int):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil

    processor = {"CLIP": CLIPImageProcessorPil, "MobileNetV2": MobileNetV2ImageProcessorPil}[kind](
        **options, do_normalize=False, do_rescale=False
    )
    image = picture(height, width)
    theirs = processor(Image.fromarray(image), return_tensors="np")["pixel_values"][0]
    assert np.array_equal(ours(image), theirs.transpose(1, 2, 0))


def transformers_crop(image: np.ndarray, size: int, resize: int) -> np.ndarray:
    """Resize to a shortest edge and `center_crop` of transformers 5, written out with Pillow."""
    height, width = image.shape[:2]
    if width <= height:
        new = (resize, int(resize * height / width))
    else:
        new = (int(resize * width / height), resize)
    resized = np.asarray(Image.fromarray(image).resize(new, Image.Resampling.BICUBIC))
    sides = []
    for length in resized.shape[:2]:
        first, room = (length - size) // 2, max(size, length)
        ahead = -(-(room - length) // 2)
        sides.append((ahead, room, first + ahead))
    padded = np.zeros((sides[0][1], sides[1][1], 3), np.uint8)
    padded[sides[0][0] :, sides[1][0] :][: resized.shape[0], : resized.shape[1]] = resized
    return padded[sides[0][2] :, sides[1][2] :][:size, :size]


def torchvision_crop(image: np.ndarray, size: int, resize: int) -> np.ndarray:
    """Resize(resize) and CenterCrop(size) of torchvision 0.2x, written out with Pillow."""
    height, width = image.shape[:2]
    if width <= height:
        new = (resize, int(resize * height / width))
    else:
        new = (int(resize * width / height), resize)
    resized = np.asarray(Image.fromarray(image).resize(new, Image.Resampling.BICUBIC))
    height, width = resized.shape[:2]
    if height < size or width < size:
        pads = [((size - n) // 2, (size - n + 1) // 2) if n < size else (0, 0) for n in (height, width)]
        resized = np.pad(resized, (*pads, (0, 0)))
        height, width = resized.shape[:2]
    top, left = round((height - size) / 2.0), round((width - size) / 2.0)
    return resized[top : top + size, left : left + size]


def open_clip_longest(image: np.ndarray, size: int, fill: int) -> np.ndarray:
    """OpenCLIP's ResizeKeepRatio(longest=1) and CenterCropOrPad, written out with Pillow."""
    height, width = image.shape[:2]
    ratio = max(height / size, width / size)
    height, width = round(height / ratio), round(width / ratio)
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    top, left = (size - height) // 2, (size - width) // 2
    square = np.full((size, size, 3), fill, np.uint8)
    square[top : top + height, left : left + width] = resized
    return square


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("size", "resize"), [(224, 224), (97, 140), (65, 50)])
def test_rounding_even_is_torchvisions(height: int, width: int, size: int, resize: int):
    image = picture(height, width)
    assert np.array_equal(crop(size, resize, "bicubic", rounding="even")(image), torchvision_crop(image, size, resize))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("size", "resize"), [(224, 224), (97, 140), (65, 50), (64, 50)])
def test_rounding_floor_is_transformers(height: int, width: int, size: int, resize: int):
    image = picture(height, width)
    assert np.array_equal(crop(size, resize, "bicubic")(image), transformers_crop(image, size, resize))


@pytest.mark.parametrize(("height", "width"), [s for s in SIZES if min(s) > 9])
def test_pad_is_open_clips(height: int, width: int):
    ours = Preprocess(99, "pad", 99, "bicubic", MEAN, STD, rounding="even", fill=(77, 77, 77))
    image = picture(height, width)
    assert np.array_equal(ours(image), open_clip_longest(image, 99, 77))


@pytest.mark.reference("torch")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(100, 100), (37, 91), (300, 200)])
def test_without_antialias_is_torchs_interpolate(interpolation: Any, height: int, width: int):
    import torch

    image = picture(height, width)
    ours = Preprocess(64, "squash", 64, interpolation, MEAN, STD, antialias=False)(image)
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()[None]
    theirs = torch.nn.functional.interpolate(pixels, (64, 64), mode=interpolation, align_corners=False)
    theirs = theirs.clip(0, 255).round()[0].permute(1, 2, 0).numpy()
    assert np.abs(ours.astype(int) - theirs).max() <= 1  # a half rounds either way
    assert (ours == theirs).mean() > 0.999


def interpolated(image: np.ndarray, size: int, a: float | None) -> np.ndarray:
    """`upsample_bilinear2d` (no `a`) and `upsample_bicubic2d` of torch without antialiasing, pixel by pixel."""

    def share(t: float) -> float:
        t = abs(t)
        if a is None:
            return max(0.0, 1 - t)
        if t <= 1:
            return ((a + 2) * t - (a + 3)) * t * t + 1
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a if t < 2 else 0.0

    made = np.zeros((size, size, 3))
    for y, x in np.ndindex(size, size):
        cy, cx = ((at + 0.5) * length / size - 0.5 for at, length in zip((y, x), image.shape, strict=False))
        for j in range(int(np.floor(cy)) - 1, int(np.floor(cy)) + 3):
            for i in range(int(np.floor(cx)) - 1, int(np.floor(cx)) + 3):
                pixel = image[min(max(j, 0), image.shape[0] - 1), min(max(i, 0), image.shape[1] - 1)]
                made[y, x] += share(j - cy) * share(i - cx) * pixel.astype(float)
    return np.clip(made, 0, 255)


@pytest.mark.parametrize(("interpolation", "a"), [("bilinear", None), ("bicubic", -0.75)])
@pytest.mark.parametrize(("height", "width"), [(17, 40), (5, 9), (60, 31)])
def test_without_antialias_pixel_by_pixel(interpolation: Any, a: float | None, height: int, width: int):
    image = picture(height, width)
    ours = Preprocess(24, "squash", 24, interpolation, MEAN, STD, antialias=False)(image)
    assert np.abs(ours - interpolated(image, 24, a)).max() <= 0.5 + 1e-3


def test_the_window_of_a_strip_is_what_resizing_all_of_it_gives():
    image = picture(3, 400)
    whole = Image.fromarray(image).resize((int(20 * 400 / 3), 20), Image.Resampling.BICUBIC)
    left = (whole.width - 16) // 2
    expected = np.asarray(whole)[2:18, left : left + 16]
    assert np.abs(crop(16, 20, "bicubic")(image).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1)])
@pytest.mark.parametrize("mode", ["crop", "pad", "squash"])
def test_a_strip_needs_no_more_memory_than_its_window(shape: tuple[int, int], mode: Any):
    image = np.full((*shape, 3), 200, np.uint8)
    made = Preprocess(224, mode, 224, "bicubic", MEAN, STD)(image)  # the whole strip resized would take 9 GB
    assert made.shape == (224, 224, 3)
    assert made.max() == 200


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.integers(1, 40),
    resize=st.integers(1, 60),
    more=st.integers(0, 20),
    mode=st.sampled_from(["crop", "squash", "pad"]),
    rounding=st.sampled_from(["floor", "even"]),
    antialias=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_picture_gives_a_square_and_one_color_stays(
    height: int, width: int, size: int, resize: int, more: int, mode: Any, rounding: Any, antialias: bool
):
    resize = resize if mode == "crop" else size + more
    options: dict[str, Any] = {"antialias": antialias, "rounding": rounding, "fill": (90, 90, 90)}
    ours = Preprocess(size, mode, resize, "bicubic", MEAN, STD, **options)
    made = ours(np.full((height, width, 3), 90, np.uint8))
    assert made.shape == (size, size, 3)
    assert made.dtype == np.uint8
    assert set(np.unique(made)) <= ({90, 0} if mode == "crop" and resize < size else {90})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 0, "resize": 0}, "not possible"),
        ({"mode": "squash", "resize": 30}, "only from as many"),
        ({"antialias": False, "interpolation": "lanczos"}, "antialiasing"),
        ({"antialias": False, "interpolation": "nearest"}, "antialiasing"),
        ({"std": (1.0, 0.0, 1.0)}, "positive"),
    ],
)
def test_nonsense_is_refused(change: dict[str, Any], words: str):
    good: dict[str, Any] = {"size": 32, "mode": "crop", "resize": 40, "interpolation": "bilinear"}
    with pytest.raises(EncoderError, match=words):
        Preprocess(**{**good, "mean": MEAN, "std": STD, **change})
