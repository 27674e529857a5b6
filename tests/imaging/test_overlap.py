"""Which images show the same pixels: against a slow loop, and by copies of drawn images."""

import io
import math

import numpy as np
import PIL.Image
import PIL.ImageFilter
import pytest

from lookalike.imaging.overlap import SAME, SIDE, _inside, overlap, small


def drawn(seed: int) -> np.ndarray:
    """Blurred blobs of color, so that neighbouring pixels are alike as in a photograph."""
    noise = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    return np.asarray(PIL.Image.fromarray(noise).resize((320, 240), PIL.Image.Resampling.BICUBIC))


def encoded(image: np.ndarray, quality: int = 40) -> np.ndarray:
    data = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(image)).save(data, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(data))


COPIES = {
    "encoded anew": lambda image: image,
    "a tenth cut off": lambda image: image[12:228, 16:304],
    "cut at one corner": lambda image: image[:200, 50:],
    "mirrored": lambda image: image[:, ::-1],
    "mirrored and cut": lambda image: image[10:, 20:300][:, ::-1],
    "half the size": lambda image: np.asarray(PIL.Image.fromarray(image).resize((160, 120))),
    "darker": lambda image: (image * 0.6).astype(np.uint8),
}


@pytest.mark.parametrize("change", COPIES)
@pytest.mark.parametrize("seed", range(5))
def test_copies_reach_the_bar(seed: int, change: str) -> None:
    image = drawn(seed)
    copy = encoded(COPIES[change](image))
    assert overlap(small(image), small(copy)) >= SAME
    assert overlap(small(copy), small(image)) >= SAME


def test_other_images_do_not() -> None:
    images = [small(drawn(seed)) for seed in range(12)]
    found = [overlap(a, b) for i, a in enumerate(images) for b in images[:i]]
    assert max(found) < SAME - 0.1


def test_of_a_blank_image_nothing_is_known() -> None:
    blank = small(np.full((50, 60, 1), 200, np.uint8))
    assert overlap(blank, blank) == 0
    assert overlap(blank, small(drawn(0))) == 0


def test_equals_a_slow_loop() -> None:
    """Lewis' formula, window by window."""
    part, whole = small(drawn(1)), small(drawn(2))
    best = 0.0
    for height in range(26, 33):
        for width in range(26, 33):
            shrunk = np.asarray(
                PIL.Image.fromarray(part).resize((width, height), PIL.Image.Resampling.BILINEAR), np.float64
            )
            for y in range(SIDE - height + 1):
                for x in range(SIDE - width + 1):
                    window = whole[y : y + height, x : x + width].astype(np.float64)
                    a, b = shrunk - shrunk.mean(), window - window.mean()
                    best = max(best, float((a * b).sum()) / math.sqrt(float((a * a).sum() * (b * b).sum())))
    assert _inside(part, whole) == pytest.approx(best, abs=1e-4)
