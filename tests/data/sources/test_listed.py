import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.errors import SourceError
from lookalike.data.sources import open_source
from lookalike.data.sources.classes import split_of
from lookalike.data.sources.listed import Listing, Names
from lookalike.data.sources.listed import list_images as listing_of
from lookalike.data.whereabouts import PLACE


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("one/photos/mug/1.jpg", "two/photos/mug/1.jpg", "two/x.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@dataclass
class Listed:
    """A listing, read whole."""

    rows: dict[str, SimpleNamespace]
    sources: dict[str, dict[str, str]]
    columns: pa.Schema
    listing: Listing


def list_images(paths: list[str], known: dict[str, str], test: float, *exclude: str) -> Listed:
    sources = [open_source(path, exclude) for path in paths]
    with tempfile.TemporaryDirectory() as place, listing_of(sources, known, test, place) as listing:
        assert os.listdir(place) == []  # nothing is left, however the process ends
        rows = {row["source"]: SimpleNamespace(**row) for _, batch in listing.batches() for row in batch.to_pylist()}
        assert listing.names.find(list(rows)).tolist() == list(range(len(listing)))
        return Listed(rows, listing.sources, listing.columns, listing)


def known(listing: Listed) -> dict[str, str]:
    return {name: entry["path"] for name, entry in listing.sources.items()}


def test_sources_of_the_same_name_are_told_apart_and_stay_so(place: Path) -> None:
    one, two = str(place / "one/photos"), str(place / "two/photos")
    first = list_images([one, two], {}, 0.0)
    assert list(first.rows) == ["photos/mug/1.jpg", "photos-2/mug/1.jpg"]
    assert list(list_images([two, one], known(first), 0.0).rows) == ["photos-2/mug/1.jpg", "photos/mug/1.jpg"]
    assert list(list_images([two], known(first), 0.0).rows) == ["photos-2/mug/1.jpg"]
    assert list(list_images([two], {}, 0.0).rows) == ["photos/mug/1.jpg"]
    assert first.sources["photos-2"] == {"name": "photos-2", "path": two, "layout": "folder"}
    assert first.listing.covers("photos-2/gone.jpg")
    assert not first.listing.covers("photo/mug/1.jpg")


def test_a_source_that_moved_keeps_its_name(place: Path) -> None:
    first = list_images([str(place / "one/photos")], {}, 0.0)
    (place / "one").rename(place / "three")
    assert list(list_images([str(place / "three/photos")], known(first), 0.0).rows) == ["photos/mug/1.jpg"]


def test_a_source_given_twice_is_refused(place: Path) -> None:
    with pytest.raises(SourceError, match="given twice"):
        list_images([str(place / "one/photos"), str(place / "two/../one/photos/")], {}, 0.0)


def test_columns_of_tables_are_joined(place: Path) -> None:
    def tables(*texts: str) -> Listed:
        for i, text in enumerate(texts):
            (place / "two" / f"t{i}.csv").write_text(text)
        return list_images([str(place / "two" / f"t{i}.csv") for i in range(len(texts))], {}, 0.0)

    joined = tables("path,price,note\nx.jpg,1,\n", "path,price,size\nx.jpg,1.5,3\n", "path,price\nx.jpg,\n")
    assert joined.columns == pa.schema([*PLACE, ("price", pa.float64()), ("note", pa.null()), ("size", pa.int64())])
    assert tables("path,price\nx.jpg,1.5\n", "path,price\nx.jpg,1\n").columns.field("price").type == pa.float64()
    with pytest.raises(SourceError, match=r"`price`.*string.*int64"):
        tables("path,price\nx.jpg,1\n", "path,price\nx.jpg,cheap\n")


def test_labels_are_split_only_where_the_source_gives_no_split(place: Path) -> None:
    (place / "two" / "t.csv").write_text("path,label,split\nx.jpg,a,val\nphotos/mug/1.jpg,b,\n")
    rows = list_images([str(place / "two" / "t.csv")], {}, 0.999999).rows.values()
    assert [row.split for row in rows] == ["val", "test"]
    rows = list_images([str(place / "two" / "t.csv")], {}, 0.0).rows.values()
    assert [row.split for row in rows] == ["val", None]


def test_images_of_one_name_are_refused(place: Path) -> None:
    name = b"two/\xe9.jpg"
    (place / os.fsdecode(name)).write_bytes(b"x")
    (place / "two" / r"\xe9.jpg").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"both called `\\xe9.jpg`"):
        list_images([str(place / "two")], {}, 0.0)


@given(st.lists(st.text(max_size=3)), st.lists(st.text(max_size=3)))
def test_names_are_found_where_they_stand(names: list[str], others: list[str]) -> None:
    found = Names()
    found.add(names[:2])
    found.add(names[2:])
    last = {name: i for i, name in enumerate(names)}
    wanted = [*names, *others]
    assert found.find(wanted).tolist() == [last.get(name, -1) for name in wanted]
    again = [i for i, name in enumerate(names) if name in names[:i]]
    twice = found.repeated()
    assert (twice is None) == (not again)
    if twice is not None:
        assert twice[1] == again[0]
        assert twice[0] == names.index(names[again[0]])


names = st.text(max_size=8)


@given(names, names, st.floats(0, 1), st.floats(0, 1))
def test_a_class_is_judged_by_its_own_name_and_larger_shares_keep_smaller_ones(
    domain: str, label: str, share: float, other: float
) -> None:
    assert split_of(domain, label, share) == split_of(domain, label, share)
    low, high = sorted((share, other))
    if split_of(domain, label, low) == "test":
        assert split_of(domain, label, high) == "test"
    assert split_of(domain, label, 0.0) == "train"
    assert split_of(domain, label, 1.0) == "test"
    assert split_of(domain, None, share) is None


def test_where_a_class_lies_never_changes() -> None:
    # SHA-256 of the names with a zero byte between, first eight bytes, computed with coreutils
    place = int("e0ad2fcc710e8c4e", 16) / 2**64
    assert [split_of("cars", "beetle", share) for share in (place, math.nextafter(place, 1))] == ["train", "test"]


def test_the_share_holds_on_average_and_domains_are_independent() -> None:
    for domain in ("cars", "shoes"):
        for share in (0.1, 0.5):
            count = sum(split_of(domain, f"class {i}", share) == "test" for i in range(4000))
            assert abs(count - 4000 * share) < 4 * math.sqrt(4000 * share * (1 - share))
    both = sum(split_of("cars", f"{i}", 0.5) == split_of("shoes", f"{i}", 0.5) for i in range(4000))
    assert abs(both - 2000) < 4 * math.sqrt(1000)
