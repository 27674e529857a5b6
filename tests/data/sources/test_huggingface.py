import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lookalike.core.errors import SourceError
from lookalike.data.collection import Collection
from lookalike.data.prepare import prepare
from lookalike.data.sources import layout_of

from .datasets.conftest import picture
from .test_folder import listed

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["mug", "Ku\u0308che"], "_type": "ClassLabel"},
    "coarse": {"names": ["thing"], "_type": "ClassLabel"},
    "title": {"dtype": "string", "_type": "Value"},
    "domain": {"dtype": "int32", "_type": "Value"},
    "thumb": {"_type": "Image"},
}
SCHEMA = pa.schema(
    [
        *(("image", IMAGE), ("label", pa.int64()), ("coarse", pa.int64()), ("title", pa.string())),
        *(("domain", pa.int32()), ("thumb", IMAGE)),
    ]
)


def row(image: bytes | None, label: int | None, path: str | None = None) -> dict[str, Any]:
    """A row as `SCHEMA` has it."""
    told = {"image": {"bytes": image, "path": path}, "label": label, "coarse": 0, "title": f"no. {label}", "domain": 5}
    return {**told, "thumb": None}


def saved(
    folder: Path,
    files: Sequence[Sequence[Sequence[Mapping[str, Any]]]],
    split: str | None = None,
    schema: pa.Schema = SCHEMA,
    features: Mapping[str, Any] = FEATURES,
    options: pa.ipc.IpcWriteOptions | None = None,
    **state: Any,
) -> Path:
    """A Dataset as `save_to_disk` writes it: files of batches of rows, as Arrow streams, and two of JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{i:05}-of-{len(files):05}.arrow" for i in range(len(files))]
    for name, batches in zip(names, files, strict=True):
        with pa.ipc.new_stream(folder / name, schema, options=options) as writer:
            for batch in batches:
                writer.write_batch(pa.RecordBatch.from_pylist(list(batch), schema))
    told = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0f", "_format_type": None}
    (folder / "state.json").write_text(json.dumps({**told, "_split": split, **state}))
    info = {"citation": "", "features": features, "homepage": "", "license": ""}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def test_images_are_read_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "beside.png").write_bytes(picture(4, "PNG"))
    first = [[row(picture(1), 0), row(picture(2), 1)], [row(picture(3), -1)]]
    second = [[row(None, None, "beside.png"), row(picture(5), 0, "name/of/old.jpg")]]
    place = saved(tmp_path / "shop", [first, second], "test")
    assert layout_of(str(place)) == "huggingface"
    found = listed(place)
    assert [(r.source, r.label, r.domain, r.split) for r in found] == [
        ("0", "mug", "shop", "test"),
        ("1", "K\u00fcche", "shop", "test"),
        ("2", None, "shop", "test"),
        ("3", None, "shop", "test"),
        ("4", "mug", "shop", "test"),
    ]
    images = [picture(1), picture(2), picture(3), picture(4, "PNG"), picture(5)]
    assert [r.place.read() for r in found] == images
    assert found[0].place.path.endswith("data-00000-of-00002.arrow")
    assert found[1].extra == {"coarse": "thing", "title": "no. 1", "source_domain": 5}
    assert [r.source for r in listed(place, "[0-2]")] == ["3", "4"]


def test_splits_of_a_dataset_dict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "pets"
    for split in ("train", "validation", "extra"):
        saved(place / split, [[[row(picture(len(split)), 1)]]], split)
    (place / "dataset_dict.json").write_text('{"splits": ["train", "validation", "extra"]}')
    assert layout_of(str(place)) == "huggingface"
    assert [(r.source, r.split, r.domain) for r in listed(place)] == [
        ("train/0", "train", "pets"),
        ("validation/0", "val", "pets"),
        ("extra/0", None, "pets"),
    ]
    assert "left out: thumb" in capsys.readouterr().err
    assert [r.source for r in listed(place, "extra", "train/*")] == ["validation/0"]
    prepare([str(place)], str(tmp_path / "c"), workers=1)
    rows = Collection.open(tmp_path / "c").table(["source", "label", "title", "width"]).to_pylist()
    assert rows[0] == {"source": "pets/train/0", "label": "K\u00fcche", "title": "no. 1", "width": 16}


def test_labels_as_texts_numbers_and_the_only_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, kind, value, expected in (
        ("texts", pa.string(), "mug", "mug"),
        ("numbers", pa.int32(), 7, "7"),
        ("large", pa.large_string(), "", None),
    ):
        schema = pa.schema(
            [("photo", pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])), ("label", kind)]
        )
        rows = [[[{"photo": {"bytes": picture(1), "path": None}, "label": value}]]]
        features = {"photo": {"_type": "Image"}, "label": {"dtype": "x", "_type": "Value"}}
        (found,) = listed(saved(tmp_path / name, rows, None, schema, features))
        assert (found.label, found.place.read()) == (expected, picture(1))
    assert "no image of" in capsys.readouterr().err
    schema = pa.schema([("image", IMAGE), ("breed", pa.int64())])
    features = {"image": {"_type": "Image"}, "breed": {"names": ["a", "b"], "_type": "ClassLabel"}}
    (found,) = listed(
        saved(tmp_path / "breed", [[[{"image": {"bytes": b"x", "path": None}, "breed": 1}]]], None, schema, features)
    )
    assert (found.label, found.split, found.extra) == ("b", None, {})


def test_mistakes(tmp_path: Path) -> None:
    good = [[[row(picture(1), 0)]]]
    packed = pa.ipc.IpcWriteOptions(compression="lz4")
    cases = {
        "packed": ({"files": good, "options": packed}, "is compressed"),
        "empty": ({"files": [[]]}, "holds no rows"),
        "beyond": ({"files": [[[row(picture(1), 2)]]]}, "a class beyond its 2 names"),
        "nothing": ({"files": [[[row(None, 0)]]]}, "has no image"),
        "gone": ({"files": [[[row(None, 0, "gone.jpg")]]]}, "has the file `gone.jpg`, which is not there"),
        "chosen": ({"files": good, "_indices_files": [{"filename": "i.arrow"}]}, "table of indices"),
        "two": (
            {"files": good, "features": {"a": {"_type": "Image"}, "b": {"_type": "Image"}}},
            "has 2 columns with images; its columns are a, b",
        ),
    }
    for name, (given, words) in cases.items():
        place = saved(tmp_path / name, **given)  # type: ignore[arg-type]
        with pytest.raises(SourceError, match=words):
            listed(place)
    place = saved(tmp_path / "cut", [[[row(picture(i), 0)] for i in range(5)]])
    file = next(place.glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:-900])
    with pytest.raises(SourceError, match="can't be read as an Arrow stream"):
        listed(place)
    file.unlink()
    with pytest.raises(SourceError, match=r"There is no `.*arrow`, which `.*state.json` names"):
        listed(place)
    (place / "state.json").write_text("[]")
    with pytest.raises(SourceError, match="is not what `save_to_disk` writes"):
        listed(place)
    for split, features in (("train", FEATURES), ("test", {**FEATURES, "title": {"dtype": "int32", "_type": "Value"}})):
        saved(tmp_path / "uneven" / split, good, split, features=features)
    (tmp_path / "uneven" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(SourceError, match="have different columns"):
        listed(tmp_path / "uneven")
