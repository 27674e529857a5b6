import math
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from likeness.data.splits import at_least, cap, position, split_of

names = st.text(max_size=8)
labels = st.lists(st.integers(0, 6), max_size=60).map(lambda values: np.array(values, np.int64))


@given(names, names, st.floats(0, 1), st.floats(0, 1))
def test_a_class_is_judged_by_its_own_name_and_larger_shares_keep_smaller_ones(
    domain: str, label: str, share: float, other: float
) -> None:
    assert 0 <= position(domain, label) < 1
    assert split_of(domain, label, share) == split_of(domain, label, share)
    low, high = sorted((share, other))
    if split_of(domain, label, low) == "test":
        assert split_of(domain, label, high) == "test"
    assert split_of(domain, label, 0.0) == "train"
    assert split_of(domain, label, 1.0) == "test"
    assert split_of(domain, None, share) is None


def test_where_a_class_lies_never_changes() -> None:
    # SHA-256 of the names with a zero byte between, first eight bytes, computed with coreutils
    assert position("cars", "beetle") == int("e0ad2fcc710e8c4e", 16) / 2**64


def test_the_share_holds_on_average_and_domains_are_independent() -> None:
    for domain in ("cars", "shoes"):
        for share in (0.1, 0.5):
            count = sum(split_of(domain, f"class {i}", share) == "test" for i in range(4000))
            assert abs(count - 4000 * share) < 4 * math.sqrt(4000 * share * (1 - share))
    both = sum(split_of("cars", f"{i}", 0.5) == split_of("shoes", f"{i}", 0.5) for i in range(4000))
    assert abs(both - 2000) < 4 * math.sqrt(1000)


@given(labels, st.integers(0, 8), st.integers(0, 2**32))
def test_cap_keeps_so_many_of_each_label(values: np.ndarray, most: int, seed: int) -> None:
    kept = cap(values, most, seed)
    assert Counter(values[kept].tolist()) == Counter(
        {k: min(n, most) for k, n in Counter(values.tolist()).items() if most}
    )
    np.testing.assert_array_equal(kept, cap(values, most, seed))


def test_cap_draws_every_row_of_a_label_equally_often() -> None:
    values = np.array([0] * 6 + [1] * 3)
    drawn = sum(cap(values, 2, seed).astype(int) for seed in range(3000))
    assert np.abs(drawn[:6] - 1000).max() < 5 * math.sqrt(3000 * 2 / 9)
    assert np.abs(drawn[6:] - 2000).max() < 5 * math.sqrt(3000 * 2 / 9)


@given(labels, st.integers(0, 8))
def test_at_least_counts(values: np.ndarray, least: int) -> None:
    counts = Counter(values.tolist())
    assert at_least(values, least).tolist() == [counts[v] >= least for v in values.tolist()]
