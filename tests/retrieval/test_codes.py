"""Codes against the vectors they stand for: bounds that hold, and products that do not overflow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core.machine import multiplies_bytes
from lookalike.retrieval import codes


@st.composite
def vectors(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, width = draw(st.integers(1, 40)), draw(st.integers(1, 70))
    size = draw(st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e6]))
    center = draw(st.sampled_from([0.0, 1.0, 100.0]))
    tail = draw(st.sampled_from([1, 3]))
    numbers = (rng.standard_normal((2 * count, width)) ** tail + center) * size
    return numbers[:count].astype(np.float32), numbers[count:].astype(np.float32)


@settings(max_examples=300, deadline=None)
@given(vectors())
def test_a_score_is_no_farther_off_than_the_slack(both):
    queries, gallery = both
    rows = codes.code_rows(gallery, 8, map)
    asked = codes.code_queries(queries, rows)
    products = codes.product(rows.codes, asked.codes)[: len(gallery)].T
    estimate = products * asked.scale[:, None].astype(np.float64) + asked.shift[:, None]
    true = queries.astype(np.float64) @ gallery.astype(np.float64).T
    assert (np.abs(estimate - true) <= asked.slack[:, None]).all()


def test_the_slack_of_unit_vectors_is_small_enough_to_be_of_use():
    rng = np.random.default_rng(0)
    queries, gallery = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.standard_normal((2, 5000, 64)))
    rows = codes.code_rows(gallery, 512, map)
    slack = codes.code_queries(queries.astype(np.float32), rows).slack
    assert slack.max() < 0.04


@pytest.mark.parametrize("sign", [-1, 1])
def test_products_of_the_largest_codes_do_not_saturate(sign):
    """On processors that add pairs of products in 16 bits, 255 x 127 twice would be cut off; others take 127."""
    rows = np.full((16, 128), 2 * codes.ROW_LEVELS + 1, np.uint8)
    queries = np.full((128, 32), sign * codes._levels(), np.int8)
    np.testing.assert_array_equal(codes.product(rows, queries), rows.astype(np.int32) @ queries.astype(np.int32))
    assert 2 * 255 * codes.SAFE_QUERY_LEVELS < 2**15
    assert codes._levels() == (codes.QUERY_LEVELS if multiplies_bytes() else codes.SAFE_QUERY_LEVELS)


def test_codes_are_filled_up_with_zeros():
    rows = codes.code_rows(np.ones((3, 2), np.float32), 8, map)
    assert rows.codes.shape == (8, 2)
    assert (rows.codes == codes.ZERO).all()  # all rows are their center
    assert rows.length == rows.error == 0
