"""Reduction by matrix products, against Pillow and against a loop over the definition."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest

from lookalike.imaging.resample import reduce


def pillow(image, height, width, box):
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[image.shape[2]]  # RGBA would be weighted by its alpha
    picture = PIL.Image.frombytes(mode, image.shape[1::-1], image.tobytes())
    small = picture.resize((width, height), PIL.Image.Resampling.BICUBIC, box=(0, 0, box[1], box[0]))
    return np.asarray(small).reshape(height, width, -1)


def noise(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@hypothesis.given(st.integers(1, 300), st.integers(1, 300), st.floats(0.01, 1), st.sampled_from([1, 3, 4]))
@hypothesis.settings(max_examples=40, deadline=None)
def test_pixels_are_those_of_pillow(height, width, share, channels):
    image = noise(height, width, channels)
    new_height, new_width = max(1, round(height * share)), max(1, round(width * share))
    box = (float(height), float(width))
    got = reduce(image, new_height, new_width, box)
    # In two calls, since in one Pillow may begin with the columns of a very thin image.
    wanted = pillow(pillow(image, height, new_width, box), new_height, new_width, (float(height), float(new_width)))
    assert np.abs(got.astype(int) - wanted.astype(int)).max() <= 1
    assert np.sum(got != wanted) <= 4 + got.size / 100  # sums that end in exactly a half may round either way


@pytest.mark.parametrize("box", [(99.5, 80.25), (60.0, 40.0)])
def test_part_of_the_picture(box):
    image = noise(100, 81, 3)
    assert np.abs(reduce(image, 20, 15, box).astype(int) - pillow(image, 20, 15, box)).max() <= 1


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
