import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from lookalike.core.errors import SourceError
from lookalike.data.collection import Collection
from lookalike.data.prepare import prepare
from lookalike.data.sources import layout_of

from .datasets.conftest import picture, written
from .test_folder import listed


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def told(place: Path, *exclude: str) -> list[tuple[str | None, ...]]:
    return [(r.source, r.label, r.domain, r.split) for r in listed(place, *exclude)]


def test_the_table_says_what_the_path_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = lines(
        {"file_name": "flat.jpg", "caption": 'a, "b"', "size": 3},
        {"file_name": "cat/1.png", "label": "tom", "size": 2.5},
        {"file_name": "./pets/cat/2.jpg"},
        {"file_name": "train/dog/3.jpg", "domain": "others"},
    )
    images = {"flat.jpg": picture(1), "cat/1.png": picture(2, "PNG"), "pets/cat/2.jpg": picture(3)}
    more = {"train/dog/3.jpg": picture(4), "cat/unnamed.jpg": picture(5), ".hidden/1.jpg": b"", "notes.txt": "words"}
    place = written(tmp_path / "photos", {"metadata.jsonl": rows, **images, **more})
    assert layout_of(str(place)) == "imagefolder"
    assert told(place) == [
        ("flat.jpg", None, "photos", None),
        ("cat/1.png", "tom", "photos", None),
        ("pets/cat/2.jpg", "cat", "pets", None),
        ("train/dog/3.jpg", "dog", "others", "train"),
    ]
    assert "does not name, left out: 1\n" in capsys.readouterr().err
    found = listed(place)
    assert [(r.extra["caption"], r.extra["size"]) for r in found][:2] == [('a, "b"', 3.0), (None, 2.5)]
    assert found[1].place.read() == picture(2, "PNG")
    assert told(place, "cat", "*/dog/*") == [("flat.jpg", None, "photos", None)]


def test_a_table_a_split(tmp_path: Path) -> None:
    train, test = "file_name,label,n\n0.jpg,007,1\n", "file_name,label,n,more\n0.jpg,cat,1.5,x\n"
    files = {"train/metadata.csv": train, "test/metadata.csv": test}
    place = written(tmp_path / "pets", {**files, "train/0.jpg": picture(1), "test/0.jpg": picture(2)})
    assert layout_of(str(place)) == "imagefolder"
    assert told(place) == [("train/0.jpg", "007", "pets", "train"), ("test/0.jpg", "cat", "pets", "test")]
    assert told(place, "train") == [("test/0.jpg", "cat", "pets", "test")]
    prepare([str(place)], str(tmp_path / "c"), workers=1)
    rows = Collection.open(tmp_path / "c").table(["source", "n", "more"]).to_pylist()
    assert rows == [
        {"source": "pets/train/0.jpg", "n": 1.0, "more": None},
        {"source": "pets/test/0.jpg", "n": 1.5, "more": "x"},
    ]


def test_metadata_as_parquet_and_alone(tmp_path: Path) -> None:
    place = written(tmp_path / "pets", {"a.jpg": picture(1)})
    pa.parquet.write_table(pa.table({"file_name": ["a.jpg"], "label": ["cat"]}), place / "metadata.parquet")
    assert told(place) == [("a.jpg", "cat", "pets", None)]
    (place / "words.jsonl").write_text(lines({"path": "a.jpg", "label": 3}))
    assert layout_of(str(place / "words.jsonl")) == "table"
    assert told(place / "words.jsonl") == [("a.jpg", "3", "words", None)]


def test_mistakes(tmp_path: Path) -> None:
    image = {"a.jpg": picture(1)}
    for name, files, words in (
        ("gone", {"metadata.csv": "file_name\nb.jpg\n"}, "line 2: there is no file `b.jpg`"),
        ("row", {"metadata.jsonl": lines({"file_name": "a.jpg"}, {"file_name": "b.jpg"})}, "row 2: there is no file"),
        ("twice", {"metadata.csv": "file_name\na.jpg\na.jpg\n"}, "`a.jpg` stands in line 2 too"),
        ("nameless", {"metadata.csv": "image,label\na.jpg,x\n"}, "has no column `path`"),
        ("json", {"metadata.jsonl": '{"file_name"'}, "can't be read as JSON lines"),
        ("both", {"metadata.csv": "file_name\na.jpg\n", "train/metadata.csv": "file_name\na.jpg\n"}, "too"),
        (
            "types",
            {"train/metadata.csv": "file_name,n\na.jpg,1\n", "test/metadata.csv": "file_name,n\na.jpg,x\n"},
            "Column `n` of .* and in another split int64",
        ),
    ):
        place = written(tmp_path / name, {**files, **image, "train/a.jpg": picture(1), "test/a.jpg": picture(2)})
        with pytest.raises(SourceError, match=words):
            listed(place)
