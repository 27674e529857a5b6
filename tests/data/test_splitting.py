"""Splits: nothing that belongs together is cut, as connected components of a graph say; classes as `prepare --test`."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.data.sources.classes import split_of
from lookalike.data.splitting import Options, largest_unit, shared, splits_of, units_of

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("sha256", pa.binary(32)),
        ("label", pa.string()),
        ("domain", pa.string()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("duplicate_of", pa.int64()),
    ]
)


def table(rows: list[dict[str, object]]) -> pa.Table:
    made = [
        {"id": 3 * i, "sha256": bytes([i]) * 32, "domain": "d", **row, "duplicate_of": row.get("duplicate_of")}
        for i, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(made, SCHEMA)


some_rows = st.lists(
    st.fixed_dictionaries(
        {
            "label": st.sampled_from([None, "a", "b", "c", "e", "f"]),
            "group": st.sampled_from([None, None, None, "g", "h"]),
            "duplicate_of": st.sampled_from([None, None, None, 0, 3, 6]),
            "domain": st.sampled_from([None, "d", "e"]),
        }
    ),
    min_size=1,
    max_size=12,
)


def components(rows: list[dict[str, object]], by: str) -> list[int]:
    """The component of each row in the graph of what belongs together, by growing sets; -1: without a unit."""
    keys = []
    for i, row in enumerate(rows):
        domain = row["domain"] or ""
        mark = row["duplicate_of"]
        own: set[tuple[object, ...]] = {("id", 3 * i if mark is None else mark), ("id", 3 * i)}
        if by == "class":
            own |= {("class", domain, row["label"])}
        if row["group"] is not None:
            own |= {("group", domain, row["group"])}
        keys.append(None if by == "class" and row["label"] is None else own)
    found = list(range(len(rows)))
    changed = True
    while changed:
        changed = False
        for i, one in enumerate(keys):
            for j, other in enumerate(keys):
                if one and other and one & other and found[i] != found[j]:
                    found[i] = found[j] = min(found[i], found[j])
                    changed = True
    return [-1 if key is None else number for key, number in zip(keys, found, strict=True)]


@settings(deadline=None)
@given(some_rows, st.sampled_from(["class", "group", "duplicates"]), st.integers(0, 2))
def test_units_are_the_components_of_what_belongs_together(rows, by, seed) -> None:
    made = table(rows)
    units, expected = units_of(made, by, seed), components(rows, by)
    assert [unit is None for unit in units] == [number < 0 for number in expected]
    pairs = {(unit, number) for unit, number in zip(units, expected, strict=True) if unit is not None}
    assert len({unit for unit, _ in pairs}) == len({number for _, number in pairs}) == len(pairs)
    splits = splits_of(made, Options(0.3, 0.2, by, seed))
    done = made.set_column(4, "split", pa.array(splits, pa.string()))
    told = shared(done)
    assert told["group"] == 0
    assert told["duplicates"] == 0
    assert by != "class" or told["class"] == 0
    sizes = np.bincount([number for number in expected if number >= 0], minlength=1)
    assert largest_unit(made, Options(0.3, 0.2, by, seed)) == sizes.max()


def test_classes_get_what_prepare_gives_them() -> None:
    labels = [f"label {number}" for number in range(200)]
    rows = table([{"label": label} for label in labels])
    found = splits_of(rows, Options(0.3, 0.0, "class", 0))
    assert found == [split_of("d", label, 0.3) for label in labels]
    with_val = splits_of(rows, Options(0.3, 0.2, "class", 0))
    assert [split == "test" for split in with_val] == [split == "test" for split in found]
    assert 0.1 < with_val.count("val") / 200 < 0.3
    larger = splits_of(rows, Options(0.5, 0.0, "class", 0))
    assert all(now == "test" for before, now in zip(found, larger, strict=True) if before == "test")
    assert splits_of(rows, Options(0.3, 0.0, "class", 7)) != found


@pytest.mark.parametrize("seed", range(6))
def test_no_split_that_is_asked_for_is_empty(seed: int) -> None:
    rows = table([{"label": label} for label in "abc"])
    assert {*splits_of(rows, Options(0.01, 0.01, "class", seed))} == {"train", "val", "test"}
    assert splits_of(rows.slice(0, 1), Options(0.01, 0.01, "class", seed)) == ["train"]


def test_what_leaks_is_counted() -> None:
    rows = table(
        [
            {"label": "a", "split": "train", "group": "g"},
            {"label": "a", "split": "test"},
            {"label": "b", "split": "test", "group": "g"},
            {"label": "c", "split": "val", "duplicate_of": 0},
            {"label": "a", "split": "test", "domain": "other"},
            {"label": None, "split": None, "group": "g"},
        ]
    )
    assert shared(rows) == {"class": 1, "group": 1, "duplicates": 1}
