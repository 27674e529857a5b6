import math

from hypothesis import given
from hypothesis import strategies as st

from lookalike.data.splits import position, split_of

names = st.text(max_size=8)


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
