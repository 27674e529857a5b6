"""Splits by class and group, against the definition; labels that are merged."""

from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.errors import SourceError
from lookalike.data.sources.classes import Splits, merges_of, split_of

ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("012345"), st.sampled_from([None, *"xyzw"])), max_size=12
)


@given(ROWS, st.floats(0.1, 0.9), st.integers(1, 5))
def test_classes_that_share_a_group_stay_together(
    rows: list[tuple[str, str, str | None]], test: float, size: int
) -> None:
    schema = pa.schema([(name, pa.string()) for name in ("domain", "label", "group", "split")])
    parts = [
        pa.RecordBatch.from_pylist(
            [dict(zip(schema.names, (*row, None), strict=True)) for row in rows[i : i + size]], schema
        )
        for i in range(0, len(rows), size)
    ]
    splits = Splits(test)
    for part in parts:
        splits.add(part)
    found = [split for part in parts for split in splits.told(part)["split"].to_pylist()]
    # The slow way: spread from class to class until nothing changes.
    together = {(domain, label): {(domain, label)} for domain, label, _ in rows}
    for _ in rows:
        shared = defaultdict(set)
        for domain, label, group in rows:
            if group is not None:
                shared[domain, group] |= together[domain, label]
        for domain, label, group in rows:
            if group is not None:
                together[domain, label] |= shared[domain, group]
    for (domain, label, _), split in zip(rows, found, strict=True):
        sides = {split_of(*each, test) for each in together[domain, label]}
        assert split == ("test" if "test" in sides else "train")  # the least number decides: a test if there is one


def test_labels_are_merged(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("into,label,domain\nmug,cup,shop\nmug,007,\n")
    assert merges_of(str(tmp_path / "m.csv")) == {("shop", "cup"): "mug", ("", "007"): "mug"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,into\ncup,mug\n", "has no column `domain`; its columns are label, into"),
        ("domain,label,into\nshop,cup,\n", "has no into"),
        ("domain,label,into\nshop,cup,a\nshop,cup,b\n", "gives `cup` of shop two labels"),
    ],
)
def test_what_can_not_be_merged(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(SourceError, match=words):
        merges_of(str(tmp_path / "m.csv"))
    with pytest.raises(SourceError, match="There is no file"):
        merges_of(str(tmp_path / "n.csv"))
