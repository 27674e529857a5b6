"""What a selection takes, against plain loops over the same rows."""

from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.errors import UsageError
from lookalike.data.sources.classes import split_of
from lookalike.data.sources.listed import LISTED
from lookalike.data.sources.selection import Chosen, Selection

Row = tuple[str | None, str | None]  # label, split


def batches(rows: list[Row], size: int, licences: list[str | None] | None = None) -> list[pa.RecordBatch]:
    """Rows as a listing has them, in batches of this size."""
    further = [("class_index", pa.int64())] + ([("licence", pa.string())] if licences else [])
    schema = pa.schema([*LISTED, *further])
    found = [
        {
            "source": f"set/{i}",
            "place.path": b"x",
            "stamp": "s",
            "label": label,
            "domain": "d",
            "split": split,
            "is_query": True,
            "is_gallery": True,
            "licence": licences[i] if licences else None,
        }
        for i, (label, split) in enumerate(rows)
    ]
    return [pa.RecordBatch.from_pylist(found[i : i + size], schema) for i in range(0, len(found), size)]


def chosen(selection: Selection, parts: list[pa.RecordBatch]) -> list[dict[str, Any]]:
    made, done, found = Chosen(selection), 0, list[dict[str, Any]]()
    for part in parts:
        made.add(part)
    for part in parts:
        found += made.taken(done, part).to_pylist()
        done += len(part)
    assert made.facts()["images"] == len(found)
    return found


ROWS = st.lists(st.tuples(st.sampled_from([None, "1", "2", "10", "a"]), st.sampled_from(["train", None, "test"])))


@given(ROWS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 7))
def test_against_a_plain_loop(rows: list[Row], most: int, least: int, classes: int, size: int) -> None:
    selection = Selection(max_per_class=most, min_per_class=least, max_classes=classes, first=100)
    found = chosen(selection, batches(rows, size))
    sizes = Counter(label for label, split in rows if label is not None and split != "test")
    large = [label for label in sizes if sizes[label] >= least]
    large.sort(key=lambda label: (-sizes[label], label.isalpha(), int(label) if label.isdigit() else 0))
    expected = {label: min(sizes[label], most) for label in large[:classes]}
    learned = [row for row in found if row["label"] is not None and row["split"] != "test"]
    assert Counter(row["label"] for row in learned) == expected
    others = [row for row in rows if row[0] is None or row[1] == "test"]
    assert len(found) - len(learned) == len(others)
    order = sorted(expected, key=lambda label: (label.isalpha(), int(label) if label.isdigit() else 0))
    for row in found:
        number = 100 + order.index(row["label"]) if row in learned else None
        assert row["class_index"] == number
    assert [row["source"] for row in found] == sorted((row["source"] for row in found), key=lambda s: int(s[4:]))


def test_which_images_does_not_depend_on_their_order() -> None:
    rows: list[Row] = [("1", "train")] * 40
    (whole,) = batches(rows, 40)
    backwards = whole.take(pa.array(range(39, -1, -1)))
    selection = Selection(max_per_class=10)
    one, other = ({row["source"] for row in chosen(selection, [part])} for part in (whole, backwards))
    assert len(one) == 10
    assert one == other


def test_a_share_of_each_class_validates() -> None:
    rows: list[Row] = [("1", "train")] * 20 + [("2", None)] * 5 + [("3", "test")] * 5
    splits = defaultdict(Counter[str | None])
    for row in chosen(Selection(validation=0.1), batches(rows, 7)):
        splits[row["label"]][row["split"]] += 1
    assert splits == {"1": {"train": 18, "val": 2}, "2": {None: 5}, "3": {"test": 5}}


def test_whole_classes_are_kept_for_the_test() -> None:
    rows: list[Row] = [(str(i % 40), "train") for i in range(200)] + [(None, "train"), ("1", "test")]
    found = chosen(Selection(max_per_class=3, held_out=0.3, validation=0.34), batches(rows, 23))
    told = defaultdict(Counter[str | None])
    for row in found:
        told[row["label"]][row["split"]] += 1
    for label, splits in told.items():
        if label is None:
            assert splits == {"train": 1}
        elif split_of("d", label, 0.3) == "test":
            assert splits == {"test": 3 + (label == "1")}
        else:
            assert splits == {"train": 2, "val": 1} | ({"test": 1} if label == "1" else {})
    assert 4 < sum("train" not in splits for splits in told.values()) < 20


def test_what_may_not_be_sold_is_left_out_and_counted() -> None:
    licences = ["cc-by-4.0", "non-commercial research", None, "CC0", "cc-by-nc-4.0", "mit"]
    parts = batches([("1", "train")] * 6, 4, licences)
    made = Chosen(Selection(commercial=True))
    for part in parts:
        made.add(part)
    taken = [
        row["licence"] for start, part in ((0, parts[0]), (4, parts[1])) for row in made.taken(start, part).to_pylist()
    ]
    assert taken == ["cc-by-4.0", "CC0", "mit"]
    assert made.facts()["left_out"] == {"non-commercial research": 1, "unknown": 1, "cc-by-nc-4.0": 1}
    # A source that says nothing of licences is the user's own.
    assert len(chosen(Selection(commercial=True), batches([("1", "train")] * 3, 2))) == 3


def test_a_cap_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="`max_per_class` of Selection is 0; expected 1 or more"):
        Selection(max_per_class=0)
