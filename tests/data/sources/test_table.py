import datetime
import json
import os
import tarfile
import tempfile
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import PIL.Image
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core.errors import SourceError
from lookalike.core.files import json_text
from lookalike.data.collection import Collection
from lookalike.data.prepare import prepare
from lookalike.data.sources import csv_table, open_source
from lookalike.data.sources.listed import LISTED, Source, place_of, stored_type


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "c d.jpg", "deep/é.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def rows(source: Source) -> list[SimpleNamespace]:
    """What a source says, image by image."""
    return [
        SimpleNamespace(**row, place=place_of(row), extra={n: row[n] for n in row if n not in LISTED.names})
        for batch in source
        for row in batch.to_pylist()
    ]


def csv(folder: Path, text: str | bytes, name: str = "shop.csv") -> list[SimpleNamespace]:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return rows(open_source(str(folder / name)))


def columns(path: Path) -> dict[str, object]:
    schema = open_source(str(path)).columns
    return dict(zip(schema.names, schema.types, strict=True))


def refused(folder: Path, text: str | bytes) -> tuple[str, str]:
    with pytest.raises(SourceError) as caught:
        csv(folder, text)
    assert str(folder / "shop.csv") in caught.value.message
    assert caught.value.hint
    return caught.value.message, caught.value.hint


def test_only_path_is_required(shop: Path) -> None:
    a, b = csv(shop, "path\na.jpg\ndeep/é.jpg\n")
    assert (a.source, a.label, a.domain, a.split, a.is_query, a.is_gallery, a.group, a.extra) == (
        "a.jpg", None, "shop", None, True, True, None, {},
    )  # fmt: skip
    assert b.place.read() == "deep/é.jpg".encode()


def test_every_column_is_taken_and_further_ones_keep_their_type(shop: Path) -> None:
    source = csv(
        shop,
        "\ufeffprice,path,label,domain,split,is_query,is_gallery,group,count,sold,note,day,id,a.b\n"
        "1.5,a.jpg,007,tools,test,true,False,g1,3,true,NA,2020-01-02,9,x\n"
        ",b.jpg,NA,,,0,,,,,,,,\n"
        'nan,"c d.jpg",,cars,val,1,TRUE,,4,false,"two, words",2021-01-02,8,y\n',
    )
    a, b, c = source
    assert (a.label, a.domain, a.split, a.is_query, a.is_gallery, a.group) == (
        "007",
        "tools",
        "test",
        True,
        False,
        "g1",
    )
    assert (b.label, b.domain, b.split, b.is_query, b.is_gallery, b.group) == ("NA", "shop", None, False, True, None)
    assert (c.label, c.domain, c.split, c.is_query, c.is_gallery, c.group) == (None, "cars", "val", True, True, None)
    day = datetime.date(2020, 1, 2)
    assert a.extra == {"price": 1.5, "count": 3, "sold": True, "note": "NA", "day": day, "source_id": 9, "a_b": "x"}
    assert set(b.extra.values()) == {None}
    assert (c.extra["price"], c.extra["note"]) == (None, "two, words")
    assert {name: str(kind) for name, kind in columns(shop / "shop.csv").items()} == {
        "price": "double", "count": "int64", "sold": "bool", "note": "string", "day": "date32[day]",
        "source_id": "int64", "a_b": "string",
    }  # fmt: skip


def test_a_column_without_values_has_no_type_yet(shop: Path) -> None:
    csv(shop, "path,x\na.jpg,\n")
    assert columns(shop / "shop.csv") == {"x": pa.null()}


def test_a_type_comes_from_all_values_of_a_long_table(shop: Path) -> None:
    for i in range(3):
        (shop / f"{i}.jpg").write_bytes(b"x")
    note = "n" * 600_000
    csv(shop, f"path,note,price,size\n0.jpg,{note},1,\n1.jpg,{note},2,\n2.jpg,{note},0.5,x\n")
    kinds = columns(shop / "shop.csv")
    assert (kinds["price"], kinds["size"]) == (pa.float64(), pa.string())


@pytest.mark.parametrize("cores", [1, 2])
def test_a_type_comes_from_all_values_on_one_core_too(shop: Path, monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    """Where there is one core, Arrow reads without threads, and says its errors in other words."""
    monkeypatch.setattr(csv_table, "BLOCK", 16)
    before = pa.cpu_count()
    try:
        pa.set_cpu_count(cores)
        csv(shop, "path,size,when\na.jpg,,\ndeep/é.jpg,1,\nc d.jpg,2.5,2020-01-02\n")
        assert columns(shop / "shop.csv") == {"size": pa.float64(), "when": pa.date32()}
    finally:
        pa.set_cpu_count(before)


def test_members_of_the_tar_beside_it_come_first(shop: Path) -> None:
    with tarfile.open(shop / "shop.tar", "w") as archive:
        for name in ("a.jpg", "./set/x.jpg"):
            (shop / "member").write_bytes(b"in tar " + name.encode())
            archive.add(shop / "member", name)
    a, b, x = csv(shop, "path\na.jpg\nb.jpg\nset/x.jpg\n")
    assert [row.place.read() for row in (a, b, x)] == [b"in tar a.jpg", b"b.jpg", b"in tar ./set/x.jpg"]
    os.utime(shop / "shop.tar", (5, 5))
    assert rows(open_source(str(shop / "shop.csv")))[0].place.stamp != a.place.stamp


def test_parquet_is_the_same(shop: Path) -> None:
    table = pa.table(
        {
            "path": ["a.jpg", "b.jpg"],
            "label": pa.array(["x", "y"]).dictionary_encode(),
            "split": ["test", ""],
            "is_query": [False, None],
            "group": [1, 2],
            "price": pa.array([1, None], pa.int16()),
            "when": pa.array([datetime.datetime(2020, 1, 2, 3), None], pa.timestamp("ns")),
            "kind": pa.array(["k", "k"]).dictionary_encode(),
        }
    )
    pyarrow.parquet.write_table(table, shop / "shop.parquet")
    a, b = rows(open_source(str(shop / "shop.parquet")))
    assert (a.label, a.split, a.is_query, a.is_gallery, a.group) == ("x", "test", False, True, "1")
    assert (b.label, b.split, b.is_query, b.group, b.extra["price"]) == ("y", None, True, "2", None)
    assert a.extra == {"price": 1, "when": datetime.datetime(2020, 1, 2, 3), "kind": "k"}
    assert {name: str(kind) for name, kind in columns(shop / "shop.parquet").items()} == {
        "price": "int16", "when": "timestamp[us]", "kind": "string",
    }  # fmt: skip


def test_a_missing_path_column_is_told_with_a_guess(shop: Path) -> None:
    for header, guess in (
        ("Path,label", "Path"),
        ("filename,label", "filename"),
        ("paths", "paths"),
        ("x,y", "paths`"),
    ):
        message, hint = refused(shop, f"{header}\na.jpg\n" if "," not in header else f"{header}\na.jpg,b\n")
        assert "no column `path`" in message
        assert guess in hint or guess == "paths`"
    message, _ = refused(shop, "path;label\na.jpg;b\n")
    assert "'path;label'" in message


def test_a_duplicate_path_names_both_lines(shop: Path) -> None:
    message, _ = refused(shop, 'path,note\na.jpg,"two\nlines"\n\nb.jpg,x\n./a.jpg,y\n')
    assert "line 6" in message
    assert "line 2 too" in message


@pytest.mark.parametrize(
    ("split", "guess"), [("tets", "`test`"), ("TRAIN", "`train`"), ("holdout", "train, val, test")]
)
def test_an_unknown_split_is_told_with_a_guess(shop: Path, split: str, guess: str) -> None:
    message, hint = refused(shop, f"path,split\na.jpg,test\nb.jpg,{split}\n")
    assert "line 3" in message
    assert f"`{split}`" in message
    assert guess in hint


def test_a_missing_image_stops_with_a_guess(shop: Path) -> None:
    message, hint = refused(shop, "path\na.jpg\ndeep/è.jpg\n")
    assert "line 3" in message
    assert "there is no file `deep/è.jpg`" in message
    assert "deep/é.jpg" in hint
    with tarfile.open(shop / "shop.tar", "w") as archive:
        archive.add(shop / "a.jpg", "set/0001.jpg")
    message, hint = refused(shop, "path\nset/001.jpg\n")
    assert "has no member `set/001.jpg`" in message
    assert "set/0001.jpg" in hint


def test_other_bad_tables_are_told_by_line(shop: Path) -> None:
    assert "line 3: `is_query` is `maybe`" in refused(shop, "path,is_query\na.jpg,1\nb.jpg,maybe\n")[0]
    assert "line 3: `path` is empty" in refused(shop, "path,label\na.jpg,x\n,y\n")[0]
    assert "line 3" in refused(shop, "path,label\na.jpg,x\nb.jpg,y,z\n")[0]
    assert "line 3, byte 2: the text is not UTF-8" in refused(shop, b"path\na.jpg\nb\xff.jpg\n")[0]
    assert "is empty" in refused(shop, "")[0]
    assert "is empty" in refused(shop, "\n\n")[0]
    assert "no rows" in refused(shop, "path,label\n")[0]
    assert "x" in refused(shop, "path,x,x\na.jpg,1,2\n")[0]


def test_a_quote_that_is_never_closed_swallows_no_rows(shop: Path) -> None:
    message, hint = refused(shop, 'path,label\na.jpg,x\nb.jpg,"y\nc.jpg,z\n')
    assert "line 3: a quote opens that is not closed" in message
    assert "twice" in hint
    (shop / "shop.csv").write_text('path,label\na.jpg,"5"" inch"\nb.jpg,5" inch\n')
    assert [row.label for row in rows(open_source(str(shop / "shop.csv")))] == ['5" inch', '5" inch']


def test_other_separators_are_told(shop: Path) -> None:
    assert "commas" in refused(shop, "path;label\na.jpg;x\n")[1]


def test_a_broken_parquet_or_tar_is_told(shop: Path) -> None:
    (shop / "shop.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(SourceError, match="can't be read as Parquet"):
        open_source(str(shop / "shop.parquet"))
    (shop / "shop.tar").write_bytes(os.urandom(2000))
    with pytest.raises(SourceError, match="can't be read as a tar") as caught:
        csv(shop, "path\na.jpg\n")
    assert "uncompressed" in caught.value.hint


def test_blanks_behind_commas_are_no_part_of_names_and_texts(shop: Path) -> None:
    a, b = csv(shop, "label, path, note, split\n007, a.jpg, x , train\n NA, c d.jpg,, \n")
    assert (a.source, a.label, a.split, a.extra) == ("a.jpg", "007", "train", {"note": "x"})
    assert (b.source, b.label, b.split, b.extra) == ("c d.jpg", "NA", None, {"note": None})
    (a,) = csv(shop, "path,label,note\na.jpg, x, y\n")
    assert (a.label, a.extra) == ("x", {"note": " y"})


FORMS = [("Ku\u0308che/\u00e9.jpg", "K\u00fcche/e\u0301.jpg"), ("K\u00fcche/1.jpg", "Ku\u0308che/1.jpg")]


@pytest.mark.parametrize(("stored", "named"), FORMS)
def test_names_are_found_in_any_form_of_unicode(shop: Path, stored: str, named: str) -> None:
    (shop / stored).parent.mkdir()
    (shop / stored).write_bytes(b"as a file")
    (row,) = csv(shop, f"path,label\n{named},K\u00fcche\n")
    assert (row.source, row.place.read()) == (named, b"as a file")
    with tarfile.open(shop / "shop.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(shop / stored, stored)
        archive.add(shop / "a.jpg", "a.jpg")
    for name in (named, stored):
        (row,) = csv(shop, f"path,label\n{name},Ku\u0308che\n")
        assert (row.place.path, row.place.read()) == (str(shop / "shop.tar"), b"as a file")
        assert row.label == "K\u00fcche"


def test_back_slashes_are_told(shop: Path) -> None:
    assert refused(shop, "path\ndeep\\é.jpg\n")[1] == "write it with slashes: `deep/é.jpg`"


def test_patterns_leave_rows_out_and_their_images_need_not_be_there(shop: Path) -> None:
    (shop / "shop.csv").write_text("path\na.jpg\nthumbs/x.jpg\ndeep/é.jpg\n")
    assert [row.source for row in rows(open_source(str(shop / "shop.csv"), ["thumbs", "d*/*"]))] == ["a.jpg"]
    with pytest.raises(SourceError, match="line 3: there is no file"):
        rows(open_source(str(shop / "shop.csv"), ["deep"]))


KINDS = {
    "half": pa.array([1.5, None, -2.0], pa.float32()).cast(pa.float16()),
    "big": pa.array([2**63, None, 0], pa.uint64()),
    "exact": pa.array([Decimal("1.50"), None, Decimal("-2.25")], pa.decimal128(9, 2)),
    "took": pa.array([1_000, None, 5_000_000_000], pa.duration("ns")),
    "at": pa.array([1_000, None, 7_000], pa.time64("ns")),
    "when": pa.array([10**15, None, 0], pa.timestamp("ns", "UTC")),
    "words": pa.array(["x", None, ""], pa.large_string()),
    "raw": pa.array([b"\xff", None, b""], pa.binary()),
    "kind": pa.array(["k", None, "k"]).dictionary_encode(),
    "box": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    "tags": pa.array([["a", None], None, []], pa.large_list(pa.string())),
    "shot": pa.array([{"iso": 100}, None, {"iso": None}], pa.struct([("iso", pa.int32())])),
    "more": pa.array([[("k", "v")], None, []], pa.map_(pa.string(), pa.string())),
    "none": pa.nulls(3),
    "_rowid": pa.array([3, None, 1]),
    "offset": pa.array([3, None, 1]),
}


@pytest.mark.parametrize("name", KINDS)
def test_columns_of_any_type_are_stored_shown_and_found_unchanged(shop: Path, name: str) -> None:
    paths = ["a.jpg", "b.jpg", "c d.jpg"]
    for i, path in enumerate(paths):
        PIL.Image.new("RGB", (9, 9 + i)).save(shop / path)
    pyarrow.parquet.write_table(pa.table({"path": paths, name: KINDS[name]}), shop / "shop.parquet")
    kept = {"_rowid": "source__rowid"}.get(name, name)
    coarse = {"took": pa.duration("us"), "at": pa.time64("us"), "when": pa.timestamp("us", "UTC")}
    expected = KINDS[name].cast(coarse.get(name, KINDS[name].type)).to_pylist()
    for _ in range(2):
        report = prepare([str(shop / "shop.parquet")], str(shop / "out"))
        found = Collection.open(shop / "out").table([kept])[kept].to_pylist()
        assert found == expected
        json.loads(json_text(found))
    assert (report.added, report.edited, report.rows) == (0, 0, 3)


def test_a_type_that_is_not_stored_is_refused_by_name(shop: Path) -> None:
    assert stored_type(pa.month_day_nano_interval()) is None
    assert stored_type(pa.list_(pa.month_day_nano_interval())) is None
    for name, column in (("label", [["a"]]), ("path", [{"x": b"", "path": "a.jpg"}]), ("path", [b"\xff\xd8"])):
        table = {"path": ["a.jpg"], name: column}
        pyarrow.parquet.write_table(pa.table(table), shop / "shop.parquet")
        with pytest.raises(SourceError, match=f"Column `{name}` of .* expected is text") as caught:
            rows(open_source(str(shop / "shop.parquet")))
        assert ("datasets" in caught.value.hint) == (name == "path")
    pyarrow.parquet.write_table(pa.table({"image": [[{"bytes": b"", "path": "a.jpg"}]]}), shop / "shop.parquet")
    with pytest.raises(SourceError, match="no column `path`") as caught:
        open_source(str(shop / "shop.parquet"))
    assert "holds the images themselves" in caught.value.hint


@pytest.mark.parametrize("name", ["shop.tsv", "shop.TAB"])
def test_tabs_stand_between_the_values_of_a_tsv(shop: Path, name: str) -> None:
    text = 'path\tlabel\tdomain\tprice\na.jpg\t007\tcups, mugs\t1.5\nb.jpg\t"two\nlines"\t\t\n'
    (shop / name).write_text(text)
    found = rows(open_source(str(shop / name)))
    assert [(r.source, r.label) for r in found] == [("a.jpg", "007"), ("b.jpg", "two\nlines")]
    assert [r.domain for r in found] == ["cups, mugs", "shop"]
    assert [r.extra for r in found] == [{"price": 1.5}, {"price": None}]
    (shop / name).write_text(text + "c.jpg\t1\t2\t3\t4\n")
    with pytest.raises(SourceError, match="line 5: 5 values where the columns are 4") as caught:
        rows(open_source(str(shop / name)))
    assert "tab" in caught.value.hint
    (shop / name).write_text(text.replace("007", "7") + "gone.jpg\t1\t2\t3\n")
    with pytest.raises(SourceError, match=r"line 5: there is no file `gone\.jpg`"):
        rows(open_source(str(shop / name)))


cells = st.sampled_from(
    ["", "1", "-20", "2.5", "1e3", "nan", "x", "2020-01-02", "2020-01-02 03:04:05", "NA", "12:30:00"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=12))
def test_a_type_does_not_depend_on_the_blocks_in_which_a_table_is_read(values: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_table, "BLOCK", 64)
        file = Path(place, "t.csv")
        file.write_text("path,a,b\n" + "".join(f"{i:03}.jpg,{a},{b}\n" for i, (a, b) in enumerate(values)))
        found = csv_table.columns_of(file, frozenset(["path"]))
        whole = pyarrow.csv.read_csv(  # Arrow's own view of the whole columns
            file, convert_options=pyarrow.csv.ConvertOptions(null_values=[""], strings_can_be_null=True)
        )
        assert found == whole.schema
        got = pa.Table.from_batches(list(csv_table.batches_of(file, found)), found)
        assert str(got.to_pylist()) == str(whole.to_pylist())  # NaN is not equal to itself
