from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import check

from .conftest import Prepared, picture, written, zipped
from .tfrecords import entry, field, framed, varint

Prepare = Callable[[str, Path], Prepared]


def record(image: bytes, label: int, turned: bool = False, key: str = "image/encoded") -> bytes:
    """An Example as the files have it; the order of its features is not fixed."""
    features = [
        entry(key, field(1, field(1, image))),
        entry("image/class/label", field(3, field(1, varint(label)))),
    ]
    return field(1, b"".join(features[::-1] if turned else features))


FILES = {
    "guie-products10k-train-00-2.tfrec": framed(record(picture(1), 1000), record(picture(2), 10_690, turned=True)),
    "guie-glr2021mini-train-03-1.tfrec": framed(record(picture(3, mode="L"), 17_690)),
    "guie-imagenet1k-mini1-train-00-1.tfrec": framed(record(picture(4, mode="CMYK"), 0)),
    "guie-objectnet-224pix-train-00-1.tfrec": framed(record(picture(5), 312)),
    "cardataset-train-07-1.tfrec": framed(record(picture(6), 17_888)),
    "more.tfrec": framed(record(picture(7), 5)),
}
EXPECTED = {
    "guie-products10k-train-00-2.tfrec/0": ("1000", "products10k", "train"),
    "guie-products10k-train-00-2.tfrec/1": ("10690", "products10k", "train"),
    "guie-glr2021mini-train-03-1.tfrec/0": ("17690", "glr2021", "train"),
    "guie-imagenet1k-mini1-train-00-1.tfrec/0": ("0", "imagenet1k", "train"),
    "guie-objectnet-224pix-train-00-1.tfrec/0": ("312", "objectnet", "test"),
    "cardataset-train-07-1.tfrec/0": ("17888", "cardataset", "train"),
    "more.tfrec/0": ("5", "guie_tfrecords", "train"),
}


def told(found: Prepared) -> dict[str, tuple[str, str, str]]:
    return {name: (row["label"], row["domain"], row["split"]) for name, row in found.rows.items()}


def test_files_of_all_sets_in_one_folder(tmp_path: Path, prepared: Prepare) -> None:
    found = prepared("guie_tfrecords", written(tmp_path / "k", FILES))
    assert told(found) == EXPECTED
    assert {(row["width"], row["height"]) for row in found.rows.values()} == {(16, 12)}
    assert found.collection.card["licences"] == {
        "academic research only": 2,
        "cc-by-4.0": 1,
        "non-commercial research": 1,
        "unknown": 3,
    }


def test_a_folder_a_set_and_a_zip_of_files_as_they_are(tmp_path: Path, prepared: Prepare) -> None:
    (first, data), (second, other), *_ = FILES.items()
    place = written(
        tmp_path / "k",
        {f"guie-products10k-tfrecords/{first}": data, "guie-glr2021mini.zip": zipped({second: other}, method=0)},
    )
    assert {
        name.rpartition("tfrecords/")[2]: values for name, values in told(prepared("guie_tfrecords", place)).items()
    } == {name: values for name, values in EXPECTED.items() if name.startswith((first, second))}


def test_a_name_that_promises_more_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = written(tmp_path / "k", {"guie-products10k-train-00-7097.tfrec": framed(record(picture(1), 1))})
    assert check("guie_tfrecords", str(place)).whole
    assert "holds 1 images, and its name says 7,097" in capsys.readouterr().err


def test_a_second_prepare_changes_nothing(tmp_path: Path, prepared: Prepare) -> None:
    place = written(tmp_path / "k", FILES)
    before = prepared("guie_tfrecords", place).rows
    assert prepared("guie_tfrecords", place).rows == before


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (framed(record(picture(1), 1))[:-3], "record 0 at byte 0: the file ends in it"),
        (b"no records at all, but text", "is no TFRecord file"),
        (framed(b"\xff" * 20), "record 0 is no tf.train.Example"),
        (framed(record(b"", 1, key="jpg")), "record 0 has no image `image/encoded`; it has image/class/label, jpg"),
        (framed(field(1, entry("image/encoded", field(1, field(1, b"x"))))), "has no whole number `image/class/label`"),
    ],
)
def test_mistakes(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        check("guie_tfrecords", str(written(tmp_path / "k", {"guie-products10k-train-00-1.tfrec": data})))


def test_a_zip_that_makes_smaller_must_be_unpacked(tmp_path: Path) -> None:
    place = written(tmp_path / "k", {"guie.zip": zipped({"guie-products10k-train-00-1.tfrec": bytes(1000)})})
    with pytest.raises(SourceError, match="made smaller"):
        check("guie_tfrecords", str(place))
