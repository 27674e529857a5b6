"""The color histogram against a slow count, pixel by pixel."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lookalike.demo.histogram import histogram


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_histogram_equals_a_slow_count(seed: int, height: int, width: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    counts = [0] * 64
    for row in image.tolist():
        for red, green, blue in row:
            counts[red // 64 * 16 + green // 64 * 4 + blue // 64] += 1
    expected = [math.sqrt(count / (height * width)) for count in counts]
    np.testing.assert_allclose(histogram(image), expected, rtol=1e-6)
    assert abs(np.linalg.norm(histogram(image)) - 1) < 1e-6
