"""Images in Parquet, in the layouts in which the Hub stores them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from lookalike.commands import main
from lookalike.core.errors import ImageError, SourceError
from lookalike.data.collection import Collection
from lookalike.data.prepare import prepare
from lookalike.data.sources import layout_of
from lookalike.data.sources.cells import read_cell

from .datasets.conftest import picture
from .test_folder import listed

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["mug", "Ku\u0308che"], "_type": "ClassLabel"},
    "title": {"dtype": "string", "_type": "Value"},
}
SCHEMA = pa.schema([("image", IMAGE), ("label", pa.int64()), ("title", pa.string())])


def row(image: bytes | None, label: int | None = 0, path: str | None = None) -> dict[str, Any]:
    return {"image": {"bytes": image, "path": path}, "label": label, "title": f"no. {label}"}


def stored(
    file: Path,
    rows: list[dict[str, Any]],
    schema: pa.Schema = SCHEMA,
    features: Mapping[str, Any] | None = FEATURES,
    **options: Any,
) -> Path:
    """A file as `to_parquet` of `datasets` writes it: features in the schema's metadata, small row groups."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if features is not None:
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    table = pa.Table.from_pylist(rows, schema)
    pyarrow.parquet.write_table(table, file, **{"row_group_size": 3, **options})
    return file


def test_a_folder_as_the_hub_has_it(tmp_path: Path) -> None:
    place = tmp_path / "pets"
    for name, first in (("train-00000-of-00002", 0), ("train-00001-of-00002", 5), ("validation-00000-of-00001", 10)):
        stored(place / "data" / f"{name}.parquet", [row(picture(first + i), i % 2) for i in range(5)])
    stored(place / "data" / "test-00000-of-00001.parquet", [row(picture(15), -1)])
    (place / "README.md").write_text("---\nlicense: mit\n---\n")
    (place / ".gitattributes").write_text("*.parquet filter=lfs\n")
    assert layout_of(str(place)) == "parquet"
    found = listed(place)
    assert [r.source for r in found[:2]] == ["data/test-00000-of-00001/0", "data/train-00000-of-00002/0"]
    assert [r.split for r in found] == ["test"] + ["train"] * 10 + ["val"] * 5
    assert [r.label for r in found] == [None] + ["mug", "K\u00fcche", "mug", "K\u00fcche", "mug"] * 3
    assert {r.domain for r in found} == {"pets"}
    assert found[2].extra == {"title": "no. 1"}
    images = [picture(i) for i in (15, *range(15))]
    assert [r.place.read() for r in found] == images
    assert [r.place.read() for r in reversed(found)] == images[::-1]
    assert [r.source for r in listed(place, "train-*", "data/test*")] == [
        f"data/validation-00000-of-00001/{i}" for i in range(5)
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_collection_of_it_and_the_same_command_again(tmp_path: Path, workers: int) -> None:
    images = [picture(i) for i in range(150)]
    options = {"row_group_size": 40, "data_page_size": 2000, "use_dictionary": False}
    stored(tmp_path / "pets" / "train" / "0000.parquet", [row(image) for image in images[:130]], **options)
    stored(tmp_path / "pets" / "test" / "0000.parquet", [row(image) for image in images[130:]], **options)
    place, out = str(tmp_path / "pets"), str(tmp_path / "c")
    report = prepare([place], out, workers=workers)
    assert (report.added, report.failed) == (150, 0)
    rows = Collection.open(out).table(["source", "split", "image"]).to_pylist()
    # Small upright JPEGs are stored as they are.
    assert {r["source"]: r["image"] for r in rows} == {
        f"pets/{split}/0000/{i}": image
        for split, some in (("train", images[:130]), ("test", images[130:]))
        for i, image in enumerate(some)
    }
    assert {r["split"] for r in rows if "/test/" in r["source"]} == {"test"}
    again = prepare([place], out, workers=workers)
    assert (again.added, again.edited, again.gone) == (0, 0, 0)
    changed = [row(picture(999)), *(row(image) for image in images[131:])]
    stored(tmp_path / "pets" / "test" / "0000.parquet", changed, **options)
    again = prepare([place], out, workers=workers)
    assert (again.added, again.gone) == (1, 1)


def test_one_file_by_any_column_of_bytes(tmp_path: Path) -> None:
    for name, kind in (("small", pa.binary()), ("large", pa.large_binary())):
        schema = pa.schema([("photo", kind), ("label", pa.string()), ("hash", pa.binary())])
        rows = [{"photo": picture(i), "label": f"l{i}", "hash": b"\0\1"} for i in range(4)]
        file = stored(tmp_path / f"{name}-test.parquet", rows, schema, None)
        assert layout_of(str(file)) == "parquet"
        found = listed(file)
        assert [(r.source, r.label, r.split) for r in found] == [(str(i), f"l{i}", "test") for i in range(4)]
        assert [r.place.read() for r in found] == [picture(i) for i in range(4)]
        assert found[0].extra == {"hash": b"\0\1"}
        prepare([str(file)], str(tmp_path / name), workers=1)
        assert Collection.open(tmp_path / name).table(["source"])["source"][0].as_py() == f"{name}-test/0"
    only = stored(
        tmp_path / "only.parquet", [{"image": {"bytes": picture(1), "path": None}}], pa.schema([SCHEMA.field(0)]), None
    )
    assert [(r.source, r.label, r.split, r.extra) for r in listed(only)] == [("0", None, None, {})]


def test_a_table_of_paths_stays_one(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture(1))
    schema = pa.schema([("path", pa.string()), ("thumb", pa.binary())])
    file = stored(tmp_path / "shop.parquet", [{"path": "a.jpg", "thumb": picture(2)}], schema, None)
    assert layout_of(str(file)) == "table"
    (found,) = listed(file)
    assert found.place.read() == picture(1)


def test_images_that_are_not_there_are_rows_of_the_errors(tmp_path: Path) -> None:
    rows = [
        row(picture(0)),
        row(None, 1, None),
        {"image": None, "label": 1, "title": "none"},
        row(None, 1, "beside.png"),
        row(None, 1, "gone.png"),
        row(b"no image", 1),
        row(b"", 1),
        row(picture(7), 1, "beside.png"),
    ]
    file = stored(tmp_path / "pets.parquet", rows)
    (tmp_path / "beside.png").write_bytes(picture(3, "PNG"))
    assert [len(r.place.read()) for r in listed(file) if r.source in "037"] == [
        len(picture(0)),
        len(picture(3, "PNG")),
        len(picture(7)),
    ]
    report = prepare([str(file)], str(tmp_path / "c"), workers=1)
    assert (report.added, report.failed) == (3, 5)
    errors = {e["source"]: e["reason"] for e in Collection.open(tmp_path / "c").errors().to_pylist()}
    assert errors["pets/1"] == errors["pets/2"] == "The row holds no image."
    assert "No such file" in errors["pets/4"]
    assert "empty" in errors["pets/6"]


def test_rows_without_statistics_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(picture(2))
    file = stored(tmp_path / "p.parquet", [row(picture(1)), row(None, 0, "b.jpg")], write_statistics=False)
    assert [r.place.read() for r in listed(file)] == [picture(1), picture(2)]


def test_two_columns_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for names, refused in ((("left", "right"), True), (("image", "mask"), False)):
        schema = pa.schema([(name, IMAGE) for name in names])
        one = {name: {"bytes": picture(i), "path": None} for i, name in enumerate(names)}
        file = stored(tmp_path / f"{names[0]}.parquet", [one], schema, None)
        assert main(["prepare", str(file), "--out", str(tmp_path / names[0])]) == (2 if refused else 0)
        said = capsys.readouterr().err
        if refused:
            assert "has 2 columns with images; its columns are left, right" in said
            assert "call it `image`" in said
        else:
            assert "left out: mask" in said
            assert Collection.open(tmp_path / names[0]).table(["image"])["image"][0].as_py() == picture(0)


def test_mistakes(tmp_path: Path) -> None:
    cut = stored(tmp_path / "cut.parquet", [row(picture(i)) for i in range(9)])
    whole = cut.read_bytes()
    cut.write_bytes(whole[:-200])
    with pytest.raises(SourceError, match=r"cut.parquet` can't be read as Parquet"):
        listed(cut)
    for other, schema in (
        ("b.parquet", SCHEMA.set(1, pa.field("label", pa.string()))),
        ("sub/c.parquet", SCHEMA.remove(1)),
    ):
        place = tmp_path / other[-9]
        stored(place / "a.parquet", [row(picture(1))])
        stored(place / other, [{**row(picture(1)), "label": "x"}], schema, None)
        with pytest.raises(SourceError, match=f"{other}` and `.*a.parquet` have different columns") as caught:
            listed(place)
        assert f"--exclude {other}" in caught.value.hint
        assert [r.source for r in listed(place, other)] == ["a/0"]
    stored(tmp_path / "paths" / "a.parquet", [{"path": "a.jpg"}], pa.schema([("path", pa.string())]), None)
    with pytest.raises(SourceError, match=r"no column of images; its columns are 'path'") as caught:
        listed(tmp_path / "paths")
    assert "a table is one file: lookalike prepare" in caught.value.hint
    with pytest.raises(SourceError, match="holds no rows"):
        listed(stored(tmp_path / "none.parquet", []))
    with pytest.raises(SourceError, match="a class beyond its 2 names"):
        listed(stored(tmp_path / "beyond.parquet", [row(picture(1), 2)]))


def test_pages_that_are_damaged_cost_their_images(tmp_path: Path) -> None:
    options = {"row_group_size": 4, "use_dictionary": False, "compression": "zstd"}
    file = stored(tmp_path / "p.parquet", [row(picture(i)) for i in range(12)], **options)
    places = [r.place for r in listed(file)]
    column = pyarrow.parquet.ParquetFile(file).metadata.row_group(1).column(0)
    data = bytearray(file.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 100] = b"\xff" * 100
    file.write_bytes(data)
    for i, place in enumerate(places):
        if 4 <= i < 8:
            with pytest.raises(ImageError, match="damaged"):
                place.read()
        else:
            assert place.read() == picture(i)


def test_a_row_group_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    """64 MB of images in one row group, of which a reader holds a quarter at most."""
    images = [bytes([i]) * 2**20 for i in range(64)]
    options = {"row_group_size": 64, "use_dictionary": False, "compression": "none", "write_batch_size": 1}
    file = str(stored(tmp_path / "p.parquet", [row(image) for image in images], **options))
    before = pa.total_allocated_bytes()
    most = 0
    for i in (0, 1, 40, 63, 2):
        assert read_cell(file, "s", "image.bytes", i) == images[i]
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 2**25
