from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import check

from .conftest import Prepared, picture, written, zipped

Prepare = Callable[[str, Path], Prepared]

TRAIN = "name,class,group\r\n0.jpg,0,0\r\n1.jpg,0,0\r\n7.jpg,9690,314\r\n"
TEST = "name,class,Usage\n1.jpg,0,Public\n2.jpg,9690,Private\n"
PICTURES = {f"train/{i}.jpg": picture(i) for i in (0, 1, 7)} | {"test/1.jpg": picture(11), "test/2.jpg": picture(12)}


def test_folders(tmp_path: Path, prepared: Prepare) -> None:
    place = written(tmp_path / "p", {"train.csv": TRAIN, "test_kaggletest.csv": TEST, **PICTURES})
    found = prepared("products10k", place)
    assert found.splits == {"train": 3, "test": 2}
    assert found.labels() == {
        "train/0.jpg": "0",
        "train/1.jpg": "0",
        "train/7.jpg": "9690",
        "test/1.jpg": "0",
        "test/2.jpg": "9690",
    }
    # A kind of product is no group: images of a class must find each other.
    assert {row["group"] for row in found.rows.values()} == {None}
    assert found.rows["train/7.jpg"]["products10k_group"] == "314"
    assert {row["domain"] for row in found.rows.values()} == {"products10k"}
    assert found.collection.card["licences"] == {"academic research only": 5}


@pytest.mark.parametrize("inside", ["train/", ""])
def test_zip_files_as_they_are_downloaded(tmp_path: Path, prepared: Prepare, inside: str) -> None:
    both = {
        f"{split}.zip": zipped(
            {inside + name.partition("/")[2]: data for name, data in PICTURES.items() if name.startswith(split)}
            if inside == ""
            else {name: data for name, data in PICTURES.items() if name.startswith(split)}
        )
        for split in ("train", "test")
    }
    place = written(tmp_path / "p", {"train.csv": TRAIN, "test_kaggletest.csv": TEST, **both})
    assert prepared("products10k", place).splits == {"train": 3, "test": 2}


def test_columns_in_another_order_and_one_more(tmp_path: Path, prepared: Prepare) -> None:
    moved = "group,extra,class,name\n0,x,5,0.jpg\n0,y,6,1.jpg\n1,z,7,7.jpg\n"
    place = written(tmp_path / "p", {"train.csv": moved, **PICTURES})
    assert prepared("products10k", place).labels("train") == {
        "train/0.jpg": "5",
        "train/1.jpg": "6",
        "train/7.jpg": "7",
    }


def test_what_is_missing_is_said_and_left_out(
    tmp_path: Path, prepared: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    place = written(
        tmp_path / "p", {"train.csv": TRAIN, "test_kaggletest.csv": TEST, **PICTURES, "train/9.jpg": picture(9)}
    )
    (place / "train/1.jpg").unlink()
    found = prepared("products10k", place)
    assert "products10k: 1 of 5 images that its lists name have no file" in capsys.readouterr().err
    assert found.facts["missing"] == {"train": 1}
    assert found.facts["found"]["train"] == {"images": 2, "classes": 2}
    checked = check("products10k", str(place))
    assert not checked.whole
    assert "missing: train/1.jpg" in checked.text
    assert "in no list: train/9.jpg" in checked.text


def test_another_ones_place_says_what_it_looks_like(tmp_path: Path) -> None:
    place = written(tmp_path / "p", {"train.csv": TRAIN, "train/0.jpg": picture(0)})
    with pytest.raises(SourceError, match=r"is not `imagenet1k`: .* It looks like `products10k`"):
        check("imagenet1k", str(place))
