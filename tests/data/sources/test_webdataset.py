import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from lookalike.core.errors import SourceError
from lookalike.data.collection import Collection
from lookalike.data.prepare import prepare
from lookalike.data.sources import layout_of

from .datasets.conftest import picture, tarred, written
from .test_folder import listed

FIRST = {
    "./n01/0001.jpg": picture(1),
    "./n01/0001.cls": "7\n",
    "0002.JPG": picture(2),
    "0002.json": json.dumps({"label": "mug", "caption": "a mug", "url": "http://example.org/2", "width": 3}),
    "0002.txt": "a mug, said beside",
    "0003.left.png": picture(3, "PNG"),
    "0003.right.png": picture(4, "PNG"),
    "0003.cls": "Ku\u0308che",
    "._0003.left.png": b"macOS",
    "0004.webp": picture(5, "WEBP"),
    "0004.json": '{"class": 3, "label_name": "x"}',
    "notes.md": "words",
}
SECOND = {"0001.txt": "before its image", "0001.cls": "", "0001.jpg": picture(6)}


def test_one_tar(tmp_path: Path) -> None:
    place = written(tmp_path, {"shop-000.tar": tarred(FIRST)}) / "shop-000.tar"
    assert layout_of(str(place)) == "webdataset"
    found = listed(place)
    assert [(r.source, r.label, r.domain, r.extra["caption"], r.extra["url"]) for r in found] == [
        ("n01/0001.jpg", "7", "shop-000", None, None),
        ("0002.JPG", "mug", "shop-000", "a mug, said beside", "http://example.org/2"),
        ("0003.left.png", "K\u00fcche", "shop-000", None, None),
        ("0003.right.png", "K\u00fcche", "shop-000", None, None),
        ("0004.webp", "3", "shop-000", None, None),
    ]
    assert [r.place.read() for r in found] == [
        picture(1),
        picture(2),
        picture(3, "PNG"),
        picture(4, "PNG"),
        FIRST["0004.webp"],
    ]
    assert all(r.is_query and r.is_gallery and r.split is None for r in found)
    assert [r.source for r in listed(place, "n01/*", "*.png")] == ["0002.JPG", "0004.webp"]


def test_a_folder_of_tars_as_img2dataset_writes_it(tmp_path: Path) -> None:
    told = {"key": "000000000", "caption": "a cat", "url": "http://example.org/0", "status": "success", "sha256": "00"}
    image = {"000000000.jpg": picture(1), "000000000.txt": "a cat", "000000000.json": json.dumps(told)}
    place = written(
        tmp_path / "laion", {"00001.tar": tarred(SECOND), "00000.tar": tarred(image), "00000_stats.json": "{}"}
    )
    pa.parquet.write_table(pa.table({"key": ["000000000"], "status": ["success"]}), place / "00000.parquet")
    assert layout_of(str(place)) == "webdataset"
    assert [(r.source, r.label, r.domain, r.extra["caption"]) for r in listed(place)] == [
        ("00000/000000000.jpg", None, "laion", "a cat"),
        ("00001/0001.jpg", None, "laion", "before its image"),
    ]
    assert [r.source for r in listed(place, "00000.tar")] == ["00001/0001.jpg"]


def test_a_collection_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = written(tmp_path / "shards", {"a.tar": tarred(FIRST), "b.tar": tarred(SECOND)})
    for source in (str(place), str(place / "a.tar")):
        prepare([source], str(tmp_path / "c"), workers=1)
    rows = Collection.open(tmp_path / "c").table(["source", "label"]).to_pylist()
    assert [row["source"] for row in rows][:2] == ["shards/a/n01/0001.jpg", "shards/a/0002.JPG"]
    assert {"source": "shards/b/0001.jpg", "label": None} in rows
    assert {"source": "a/0004.webp", "label": "3"} in rows


def test_a_folder_of_photographs_with_a_tar_in_it_is_a_folder(tmp_path: Path) -> None:
    place = written(tmp_path / "photos", {"backup.tar": tarred(FIRST), "mug/1.jpg": picture(1)})
    assert layout_of(str(place)) == "folder"
    assert [r.source for r in listed(place)] == ["mug/1.jpg"]


def test_a_tar_of_a_table_names_the_table(tmp_path: Path) -> None:
    tar = tarred({"1.jpg": picture(1)})
    written(tmp_path, {"shop.tar": tar, "shop.csv": "path\n1.jpg\n", "cups.tar": tar})
    pa.parquet.write_table(pa.table({"path": ["1.jpg"]}), tmp_path / "cups.parquet")
    for name in ("shop.csv", "cups.parquet"):
        with pytest.raises(SourceError, match="belongs to the table") as caught:
            listed((tmp_path / name).with_suffix(".tar"))
        assert str(tmp_path / name) in caught.value.hint


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compressed = io.BytesIO()
    with tarfile.open(fileobj=compressed, mode="w:gz"):
        pass
    for name, data, words in (
        ("empty.tar", tarred({"a.txt": "x"}), "holds no images"),
        ("packed.tar", compressed.getvalue(), "can't be read as a tar file"),
        ("cut.tar", tarred(FIRST)[:700], "can't be read as a tar file"),
        ("json.tar", tarred({"1.jpg": picture(1), "1.json": "{"}), "`1.json` in .* is no JSON"),
        ("text.tar", tarred({"1.jpg": picture(1), "1.cls": b"\xff"}), "is no text in UTF-8"),
    ):
        with pytest.raises(SourceError, match=words):
            listed(written(tmp_path, {name: data}) / name)
    capsys.readouterr()
    listed(written(tmp_path, {"plain.tar": tarred({"1.jpg": picture(1)})}) / "plain.tar")
    assert "has a label: there is no .cls" in capsys.readouterr().err
