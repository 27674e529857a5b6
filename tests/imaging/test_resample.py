"""Weights against loops over their definitions, and reduction by matrix products against Pillow and such a loop."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest

from lookalike.imaging.resample import NUMPY, matrix, reduce, weights


def pillow(image, height, width, box):
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[image.shape[2]]  # RGBA would be weighted by its alpha
    picture = PIL.Image.frombytes(mode, image.shape[1::-1], image.tobytes())
    small = picture.resize((width, height), PIL.Image.Resampling.BICUBIC, box=(0, 0, box[1], box[0]))
    return np.asarray(small).reshape(height, width, -1)


def noise(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@hypothesis.given(st.integers(1, 300), st.integers(1, 300), st.floats(0.01, 1), st.sampled_from([1, 3, 4]))
@hypothesis.settings(max_examples=40, deadline=None)
def test_pixels_are_the_nearest_to_the_filter(height, width, share, channels):
    image = noise(height, width, channels)
    new_height, new_width = max(1, round(height * share)), max(1, round(width * share))
    down, across = transcribed(height, new_height, "bicubic", True), transcribed(width, new_width, "bicubic", True)
    wanted = np.einsum("yh,hwc,xw->yxc", down, image.astype(np.float64), across, optimize=True)
    got = reduce(image, new_height, new_width, (float(height), float(width)))
    assert np.abs(got - wanted.clip(0, 255)).max() < 0.501


def test_a_photograph_as_pillow_reduces_it():
    y, x = np.mgrid[:480, :640] / 40
    image = np.stack([np.sin(x * y), np.cos(x), np.sin(x + y)], axis=2)
    image = (127 + 100 * image).astype(np.uint8)
    for box in ((480.0, 640.0), (477.5, 633.25), (250.0, 300.0)):
        assert np.abs(reduce(image, 200, 267, box).astype(int) - pillow(image, 200, 267, box)).max() <= 1


def keys(t, a):
    """The cubic of Keys (1981), equation 15, for any a."""
    t = abs(t)
    if t < 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def sinc(t):
    return math.sin(math.pi * t) / (math.pi * t) if t else 1.0


def transcribed(length, resized, interpolation, antialias):
    """Pillow's `precompute_coeffs` and torch's `interpolate`, one weight at a time."""
    scale = length / resized
    stretch = max(scale, 1) if antialias else 1
    kernel, reach = {
        "bilinear": (lambda t: max(0.0, 1 - abs(t)), 1),
        "bicubic": (lambda t: keys(t, -0.5 if antialias else -0.75), 2),
        "lanczos": (lambda t: sinc(t) * sinc(t / 3) if abs(t) < 3 else 0.0, 3),
    }[interpolation]
    rows = np.zeros((resized, length))
    for i in range(resized):
        center = (i + 0.5) * scale - 0.5
        for j in range(math.floor(center - reach * stretch), math.ceil(center + reach * stretch) + 1):
            if antialias and not 0 <= j < length:
                continue
            rows[i, min(max(j, 0), length - 1)] += kernel((j - center) / stretch)
    return rows / rows.sum(axis=1, keepdims=True)


FILTERS = [
    ("bilinear", True),
    ("bicubic", True),
    ("lanczos", True),
    ("bilinear", False),
    ("bicubic", False),
]


@pytest.mark.parametrize(("interpolation", "antialias"), FILTERS)
@pytest.mark.parametrize(("length", "resized"), [(1, 1), (1, 7), (2, 5), (7, 16), (16, 7), (37, 24), (50, 3), (64, 64)])
def test_weights_by_definition(interpolation, antialias, length, resized):
    wanted = transcribed(length, resized, interpolation, antialias)
    np.testing.assert_allclose(matrix(length, resized, interpolation, antialias), wanted, atol=1e-12)


@pytest.mark.parametrize(("interpolation", "antialias"), FILTERS)
@pytest.mark.parametrize(("length", "resized", "start", "size"), [(37, 24, 3, 16), (7, 16, -2, 20), (64, 10, 0, 10)])
def test_the_program_gives_the_same_weights_and_nothing_outside(interpolation, antialias, length, resized, start, size):
    place = np.arange(start, start + size)[:, None]
    found, seen = weights(place, np.arange(length)[None], length, resized, interpolation, antialias, NUMPY)
    wanted = np.zeros((size, length))
    inside = [(row, at) for row, at in enumerate(place[:, 0]) if 0 <= at < resized]
    for row, at in inside:
        wanted[row] = transcribed(length, resized, interpolation, antialias)[at]
    np.testing.assert_allclose(found, wanted, atol=2.0**-23 if antialias else 1e-12)
    assert np.flatnonzero(seen).tolist() == [row for row, _ in inside]


@pytest.mark.parametrize(("length", "resized"), [(37, 24), (7, 16), (1, 5), (300, 7)])
def test_the_program_finds_the_nearest_as_pillow_does(length, resized):
    line = np.arange(length, dtype=np.int32)
    found, _ = weights(np.arange(resized)[:, None], line[None], length, resized, "nearest", True, NUMPY)
    wanted = PIL.Image.fromarray(line[None]).resize((resized, 1), PIL.Image.Resampling.NEAREST)
    np.testing.assert_array_equal(found @ line, np.asarray(wanted)[0])


def test_definition():
    """Each output is the sum over all inputs of Keys' kernel at its distance, stretched by the scale."""

    def kernel(x):
        x = abs(x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    def line(values, size):
        scale = len(values) / size
        out = []
        for i in range(size):
            weights = [kernel((j + 0.5 - (i + 0.5) * scale) / scale) for j in range(len(values))]
            total = sum(w * float(v) for w, v in zip(weights, values, strict=True)) / sum(weights)
            out.append(int(min(max(np.floor(total + 0.5), 0), 255)))
        return out

    image = noise(23, 31, 1)
    rows = np.array([line(row, 9) for row in image[:, :, 0]])
    wanted = np.array([line(column, 7) for column in rows.T]).T
    assert np.abs(reduce(image, 7, 9, (23.0, 31.0))[:, :, 0].astype(int) - wanted).max() <= 1


def test_a_plain_colour_stays_and_the_input_too():
    image = np.full((640, 480, 3), (7, 128, 250), np.uint8)
    before = image.copy()
    assert (reduce(image, 64, 48, (640.0, 480.0)) == (7, 128, 250)).all()
    assert np.array_equal(image, before)
