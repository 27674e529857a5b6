"""Augmentations: pure, bounded, and what their names say; against Pillow's own enhancers, SciPy and slow loops."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest
import scipy.ndimage
from PIL import ImageEnhance

from lookalike.core.errors import UsageError
from lookalike.data.sampling import generator
from lookalike.imaging.augment import (
    Background,
    Blur,
    Color,
    Crop,
    Erase,
    Flip,
    Gray,
    Jpeg,
    View,
    multi_crop,
)
from lookalike.imaging.randaugment import OPERATIONS, RandAugment

ALL = [Crop(24), Flip(), Erase(1.0), Color(cast=0.1), Gray(), Blur(1.0), Jpeg(1.0), RandAugment()]


def noise(height, width):
    pixels = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def smooth(height, width):
    return noise(5, 6).resize((width, height), PIL.Image.Resampling.BICUBIC)


def array(image):
    return np.asarray(image).astype(int)


@hypothesis.given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 1000))
@hypothesis.settings(max_examples=30, deadline=None)
def test_pure_and_of_the_right_size(height, width, seed):
    image = noise(height, width)
    before = array(image)
    for augment in ALL:
        out = augment(generator(seed, 0, 0), image)
        assert (out.size, out.mode) == ((24, 24) if isinstance(augment, Crop) else image.size, "RGB")
        assert np.array_equal(array(out), array(augment(generator(seed, 0, 0), image)))
        assert np.array_equal(array(image), before)


@pytest.mark.parametrize("kind", [Flip, Gray, Blur, Jpeg, Erase])
def test_as_often_as_they_say(kind):
    image = noise(5, 8)
    assert kind(0.0)(generator(0, 0, 0), image) is image
    changed = [kind(0.3)(generator(0, 0, item), image) is not image for item in range(600)]
    assert 600 * 0.3 - 5 * 11.2 < sum(changed) < 600 * 0.3 + 5 * 11.2  # five standard deviations


def test_crops_keep_to_area_and_ratio():
    """The corners of a cropped ramp tell where the crop lay."""
    y, x = np.mgrid[0:200, 0:250]
    image = PIL.Image.fromarray(np.stack([x, y, 0 * x], axis=2).astype(np.uint8))
    for item in range(200):
        out = array(Crop(64, area=(0.2, 0.5), ratio=(0.5, 2.0))(generator(0, 0, item), image))
        width = (out[:, -1, 0].mean() - out[:, 0, 0].mean()) * 64 / 63
        height = (out[-1, :, 1].mean() - out[0, :, 1].mean()) * 64 / 63
        assert 0.18 < width * height / (200 * 250) < 0.53
        assert 0.45 < width / height < 2.2


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_of_everything_is_a_resize(interpolation):
    image = noise(60, 60)
    out = Crop(20, (1.0, 1.0), (1.0, 1.0), interpolation)(generator(0, 0, 0), image)
    wanted = image.resize((20, 20), PIL.Image.Resampling[interpolation.upper()])
    assert np.array_equal(array(out), array(wanted))


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (1, 1), (2, 100)])
def test_crop_of_a_stripe(shape):
    assert Crop(16)(generator(0, 0, 0), noise(*shape)).size == (16, 16)


def test_flip():
    image = noise(5, 8)
    assert np.array_equal(array(Flip(1.0)(generator(0, 0, 0), image)), array(image)[:, ::-1])


def test_erase_takes_one_rectangle():
    image = PIL.Image.new("RGB", (120, 100))
    for item in range(50):
        hole = array(Erase(1.0, area=(0.05, 0.2))(generator(0, 0, item), image)).any(axis=2)
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        box = hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.mean() > 0.99  # noise is hardly ever black
        assert 0.045 < box.size / hole.size < 0.21


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
def test_colours_are_those_of_pillow(name, enhancer):
    image = noise(32, 32)
    color = Color(**{"brightness": 0.0, "contrast": 0.0, "saturation": 0.0} | {name: 0.5})
    draws = generator(0, 0, 7).uniform(-1, 1, 3)
    factor = 1 + 0.5 * draws[["brightness", "contrast", "saturation"].index(name)]
    wanted = array(enhancer(image).enhance(factor))
    assert np.abs(array(color(generator(0, 0, 7), image)) - wanted).max() <= 2


def test_all_colours_at_once_are_one_after_the_other():
    """As the docstring has it, pixel by pixel, where nothing is clipped on the way."""
    image = PIL.Image.fromarray((100 + array(noise(32, 32)) // 6).astype(np.uint8))
    rng = generator(0, 0, 3)
    brightness, contrast, saturation = 1 + 0.3 * rng.uniform(-1, 1, 3)
    gains = 1 + 0.2 * rng.uniform(-1, 1, 3)
    mean = np.mean([brightness * (0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in array(image).reshape(-1, 3)])
    changed = array(Color(0.3, 0.3, 0.3, 0.2)(generator(0, 0, 3), image)).reshape(-1, 3)
    for pixel, found in zip(array(image).reshape(-1, 3), changed, strict=True):
        pixel = mean + contrast * (pixel * brightness - mean)
        gray = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
        wanted = gains * (gray + saturation * (pixel - gray))
        assert np.abs(found - wanted.clip(0, 255)).max() <= 0.51


def test_no_colour_change_changes_nothing():
    image = noise(20, 30)
    assert np.array_equal(array(Color(0.0, 0.0, 0.0)(generator(0, 0, 0), image)), array(image))


def test_gray_is_luma():
    found = array(Gray(1.0)(generator(0, 0, 0), noise(9, 7)))
    wanted = array(noise(9, 7)) @ [0.299, 0.587, 0.114]
    assert np.abs(found - wanted[:, :, None]).max() <= 1


@pytest.mark.parametrize("sigma", [0.02, 0.05])
def test_blur_is_a_gaussian(sigma):
    image = noise(60, 80)
    found = array(Blur(1.0, (sigma, sigma))(generator(0, 0, 0), image))
    pixels = array(image).astype(float)
    wanted = scipy.ndimage.gaussian_filter(pixels, (60 * sigma, 60 * sigma, 0), mode="nearest")
    assert np.abs(found - wanted).mean() < 0.05 * np.abs(pixels - wanted).mean()


def test_jpeg_loses_more_at_a_lower_quality():
    image = smooth(64, 64)
    lost = [np.abs(array(Jpeg(1.0, (q, q))(generator(0, 0, 0), image)) - array(image)).mean() for q in (10, 50, 95)]
    assert 20 > lost[0] > 1.5 * lost[1] > 1.5 * lost[2] > 0
    found = [array(Jpeg(1.0, (30, 31))(generator(0, 0, item), image)) for item in range(20)]
    ends = [array(Jpeg(1.0, (q, q))(generator(0, 0, 0), image)) for q in (30, 31)]
    assert all(any(np.array_equal(one, end) for end in ends) for one in found)
    assert all(any(np.array_equal(one, end) for one in found) for end in ends)  # both ends are drawn


def test_background_adds_the_colours_of_another_image():
    image, other = smooth(40, 40), PIL.Image.new("RGB", (9, 70), (250, 10, 100))
    found = array(Background(1.0, (0.25, 0.25))(generator(0, 0, 0), image, other))
    assert np.abs(found - (0.75 * array(image) + 0.25 * np.array([250, 10, 100]))).max() <= 1
    assert Background(0.0)(generator(0, 0, 0), image, other) is image
    veil = array(Background(1.0, (1.0, 1.0))(generator(0, 0, 0), PIL.Image.new("RGB", (64, 64)), noise(64, 64)))
    assert np.abs(np.diff(veil, axis=0)).max() < 10  # no edge of it is left


def moved(image, matrix):
    """Bilinear, around the middle, gray outside: by SciPy."""
    pixels, (a, b, c, d, e, f) = array(image).astype(float), matrix
    y, x = np.mgrid[0 : image.height, 0 : image.width] + 0.5
    x, y = x - image.width / 2, y - image.height / 2
    where = [d * x + e * y + f + image.height / 2 - 0.5, a * x + b * y + c + image.width / 2 - 0.5]
    inside = (where[0] > 0) & (where[0] < image.height - 1) & (where[1] > 0) & (where[1] < image.width - 1)
    planes = [scipy.ndimage.map_coordinates(pixels[:, :, k], where, order=1) for k in range(3)]
    return np.stack(planes, axis=2), inside


COS, SIN = np.cos(np.pi / 12), np.sin(np.pi / 12)  # half of 30 degrees
MOVES = {
    "rotate": (COS, -SIN, 0, SIN, COS, 0),
    "shear_x": (1, 0.15, 0, 0, 1, 0),
    "shear_y": (1, 0, 0, 0.15, 1, 0),
    "translate_x": (1, 0, 40 * 75 / 331, 0, 1, 0),
    "translate_y": (1, 0, 0, 0, 1, 30 * 75 / 331),
}


@pytest.mark.parametrize("name", MOVES)
def test_randaugment_moves(name):
    image = smooth(30, 40)
    found = array(OPERATIONS[name](image, 0.5))
    wanted, inside = moved(image, MOVES[name])
    assert inside.mean() > 0.5
    assert np.abs(found - wanted)[inside].max() <= 2
    back = array(OPERATIONS[name](OPERATIONS[name](image, 0.3), -0.3))
    assert np.abs(back - array(image))[12:18, 16:24].max() <= 6
    assert (array(OPERATIONS[name](image, 1.0)) == 128).all(axis=2).any()


def equalized(channel):
    """The cumulative histogram, as Pillow steps it."""
    counts = np.bincount(channel.ravel(), minlength=256)
    step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
    table, total = [], step // 2
    for count in counts:
        table.append(min(255, total // step))
        total += count
    return np.array(table)[channel]


COLORS = {
    "identity": lambda x: x,
    "solarize": lambda x: np.where(x < 128, x, 255 - x),
    "posterize": lambda x: x // 4 * 4,
    "brightness": lambda x: 1.45 * x,
    "autocontrast": lambda x: (x - x.min((0, 1))) * 255 / (x.max((0, 1)) - x.min((0, 1))),
    "contrast": lambda x: (m := round((x @ [0.299, 0.587, 0.114]).mean())) + 1.45 * (x - m),
    "color": lambda x: (g := (x @ [0.299, 0.587, 0.114])[:, :, None]) + 1.45 * (x - g),
    "equalize": lambda x: np.stack([equalized(x[:, :, k]) for k in range(3)], axis=2),
    "sharpness": lambda x: (b := scipy.ndimage.convolve(x, SMOOTH, mode="nearest")) + 1.45 * (x - b),
}
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]])[:, :, None] / 13


@pytest.mark.parametrize("name", COLORS)
def test_randaugment_colours(name):
    image = smooth(30, 40)
    pixels = array(image).astype(float if name == "sharpness" else int)
    found, wanted = array(OPERATIONS[name](image, 0.5)), np.clip(COLORS[name](pixels), 0, 255)
    assert np.abs(found - wanted)[1:-1, 1:-1].max() <= (2 if name != "posterize" else 0)


def test_every_operation_is_tested_and_drawn_in_both_directions():
    assert set(OPERATIONS) == {*MOVES, *COLORS}
    image = smooth(20, 20)
    strengths = (1, -1)
    ends = {name: [array(OPERATIONS[name](image, 0.4 * by)).tobytes() for by in strengths] for name in OPERATIONS}
    drawn = {array(RandAugment(1, 0.4)(generator(0, 0, item), image)).tobytes() for item in range(400)}
    assert drawn == {end for pair in ends.values() for end in pair}


def test_a_view_goes_through_its_augments_and_is_square():
    image, other = noise(40, 80), noise(8, 8)
    augments = (Flip(), Crop(16), Background(1.0), Color())
    rng, wanted = generator(1, 2, 3), image
    for augment in augments:
        wanted = augment(rng, wanted, other) if isinstance(augment, Background) else augment(rng, wanted)
    assert np.array_equal(array(View(16, augments)(generator(1, 2, 3), image, other)), array(wanted))
    middle = PIL.Image.new("RGB", (80, 40))
    middle.paste((255, 255, 255), (20, 0, 60, 40))
    assert array(View(8)(generator(0, 0, 0), middle, other)).min() > 230


def test_a_view_needs_pixels_for_its_smallest_crop():
    assert View(224).at_least == 224
    assert View(100, (Crop(100, (0.25, 1.0), (1.0, 1.0)),)).at_least == 200
    tall = 0.75 * 0.1  # share of the shorter side, squared, of the narrowest crop of a tenth of the image
    assert View(32, (Flip(), Crop(32, (0.1, 1.0)))).at_least == np.ceil(32 / tall**0.5)


def test_multi_crop_is_two_large_views_and_many_small_ones():
    views = multi_crop(32, 12, 4, (Flip(),))
    assert [view.size for view in views] == [32, 32, 12, 12, 12, 12]
    y, x = np.mgrid[0:100, 0:100]
    ramp = PIL.Image.fromarray(np.stack([x, y, 0 * x], axis=2).astype(np.uint8))
    for number, view in enumerate(views):
        out = array(view(generator(0, 0, 0, number), ramp, ramp))
        n = view.size
        width, height = (np.ptp(out[:, :, k].mean(axis=k)) * n / (n - 1) for k in (0, 1))
        low, high = (0.14, 1.0) if n == 32 else (0.05, 0.14)
        assert 0.85 * low < width * height / 100**2 < 1.15 * high


def test_what_cannot_be_is_said():
    with pytest.raises(UsageError, match=r"`strength` of RandAugment is 2\.0; expected 0 to 1"):
        RandAugment(2, 2.0)
