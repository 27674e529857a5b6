"""Augmentations: pure, bounded, and what their names say; colours against Pillow's own enhancers."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest
from PIL import ImageEnhance

from lookalike.data.sampling import generator
from lookalike.imaging.augment import Color, Crop, Erase, Flip

ALL = [Crop(24), Flip(), Erase(chance=1.0), Color()]


def noise(height, width):
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(height, width):
    """Red tells the column, green the row."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x, y, 0 * x], axis=2).astype(np.uint8)


@hypothesis.given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 1000))
@hypothesis.settings(max_examples=60, deadline=None)
def test_pure_and_of_the_right_size(height, width, seed):
    image = noise(height, width)
    before = image.copy()
    for augment in ALL:
        out = augment(generator(seed, 0, 0), image)
        assert out.shape == ((24, 24, 3) if isinstance(augment, Crop) else image.shape)
        assert np.array_equal(out, augment(generator(seed, 0, 0), image))
        assert np.array_equal(image, before)


def test_crops_keep_to_area_and_ratio():
    """The corners of a cropped ramp tell where the crop lay."""
    image = ramp(200, 250)
    for item in range(200):
        out = Crop(64, area=(0.2, 0.5), ratio=(0.5, 2.0))(generator(0, 0, item), image).astype(float)
        width = (out[:, -1, 0].mean() - out[:, 0, 0].mean()) * 64 / 63
        height = (out[-1, :, 1].mean() - out[0, :, 1].mean()) * 64 / 63
        assert 0.18 < width * height / (200 * 250) < 0.53
        assert 0.45 < width / height < 2.2


def test_crop_of_everything_is_a_resize():
    image = noise(60, 60)
    out = Crop(20, area=(1.0, 1.0), ratio=(1.0, 1.0))(generator(0, 0, 0), image)
    wanted = PIL.Image.fromarray(image).resize((20, 20), PIL.Image.Resampling.BICUBIC)
    assert np.array_equal(out, np.asarray(wanted))


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (1, 1), (2, 100)])
def test_crop_of_a_stripe(shape):
    assert Crop(16)(generator(0, 0, 0), noise(*shape)).shape == (16, 16, 3)


def test_flip():
    image = noise(5, 8)
    assert np.array_equal(Flip(1.0)(generator(0, 0, 0), image), image[:, ::-1])
    assert Flip(0.0)(generator(0, 0, 0), image) is image
    flipped = [not np.array_equal(Flip(0.3)(generator(0, 0, item), image), image) for item in range(1000)]
    assert 250 < sum(flipped) < 350


def test_erase_takes_one_rectangle():
    image = np.zeros((100, 120, 3), np.uint8)
    for item in range(50):
        hole = Erase(1.0, area=(0.05, 0.2))(generator(0, 0, item), image).any(axis=2)
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        box = hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.mean() > 0.99  # noise is hardly ever black
        assert 0.045 < box.size / hole.size < 0.21
    assert Erase(0.0)(generator(0, 0, 0), image) is image


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
def test_colours_are_those_of_pillow(name, enhancer):
    image = noise(20, 30)
    color = Color(**{"brightness": 0.0, "contrast": 0.0, "saturation": 0.0} | {name: 0.5})
    draws = generator(0, 0, 7).uniform(-1, 1, 3)
    factor = 1 + 0.5 * draws[["brightness", "contrast", "saturation"].index(name)]
    wanted = np.asarray(enhancer(PIL.Image.fromarray(image)).enhance(factor)).astype(int)
    assert np.abs(color(generator(0, 0, 7), image).astype(int) - wanted).max() <= 2


def test_no_colour_change_changes_nothing():
    image = noise(20, 30)
    assert np.abs(Color(0.0, 0.0, 0.0)(generator(0, 0, 0), image).astype(int) - image).max() <= 1


def test_a_cast_scales_each_channel_by_itself() -> None:
    image = np.full((4, 5, 3), 100, np.uint8)
    changed = Color(0.0, 0.0, 0.0, cast=0.5)(np.random.default_rng(3), image)
    rng = np.random.default_rng(3)
    rng.random(3)  # brightness, contrast, saturation
    expected = [round(100 * (1 + 0.5 * rng.uniform(-1, 1))) for _ in range(3)]
    assert len(set(expected)) == 3
    np.testing.assert_allclose(changed, np.broadcast_to(expected, (4, 5, 3)), atol=1)
