"""The best of pairs against Python's own sort."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.retrieval.best import best_of_pairs

values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149), 2.0**127, -(2.0**127)]) | st.floats(
    width=32, allow_nan=False
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 2**18 - 1)), values), st.integers(1, 6))
def test_equals_a_sort_by_score_and_row(pairs, k):
    places, rows = np.array([*pairs], np.int64).reshape(-1, 2).T
    found = best_of_pairs(places, rows, np.array([*pairs.values()], np.float32), 6, k)
    for query in range(6):
        mine = sorted((-value, row) for (place, row), value in pairs.items() if place == query)[:k]
        assert found.rows[query].tolist() == [row for _, row in mine] + [-1] * (k - len(mine))
        assert found.scores[query].tolist() == [-value for value, _ in mine] + [-np.inf] * (k - len(mine))
