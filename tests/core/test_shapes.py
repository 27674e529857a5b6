import numpy as np
import pytest

from lookalike.core.shapes import l2_normalize


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_rows_get_length_one_and_keep_their_direction(kind: type) -> None:
    rows = np.random.default_rng(0).normal(size=(9001, 3)).astype(kind)
    found = l2_normalize(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose((found.astype(np.float64) ** 2).sum(axis=1), 1, atol=1e-6)
    for row in (0, 4095, 4096, 9000):  # on both sides of a block's end
        length = sum(float(x) ** 2 for x in rows[row]) ** 0.5
        np.testing.assert_allclose(found[row], [float(x) / length for x in rows[row]], atol=1e-7)


def test_zeros_stay_and_extremes_neither_overflow_nor_vanish() -> None:
    rows = np.array([[0, 0], [3e38, 3e38], [3e-38, 4e-38]], np.float32)
    np.testing.assert_allclose(l2_normalize(rows), [[0, 0], [0.5**0.5, 0.5**0.5], [0.6, 0.8]], atol=1e-6)
    assert l2_normalize(rows[:0]).shape == (0, 2)
    wide = np.array([[3e300, 4e300], [3e-320, 4e-320], [3e200, 4e-200], [1e308, 1e308]])  # whose squares no float holds
    np.testing.assert_allclose(l2_normalize(wide), [[0.6, 0.8], [0.6, 0.8], [1, 0], [0.5**0.5] * 2], atol=1e-3)
    np.testing.assert_array_equal(
        np.isfinite(l2_normalize(np.array([[np.inf, 1], [np.nan, 1], [1, 1]]))[:, 0]), [0, 0, 1]
    )
