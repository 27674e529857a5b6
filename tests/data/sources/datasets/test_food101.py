import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import check

from .conftest import Prepared, picture, tarred, written

Prepare = Callable[[str, Path], Prepared]

FILES: dict[str, bytes | str] = {
    "food-101/meta/classes.txt": "apple_pie\nbaby_back_ribs\n",
    "food-101/meta/labels.txt": "Apple pie\nBaby back ribs\n",
    "food-101/meta/train.txt": "apple_pie/1005649\r\napple_pie/1014775\r\nbaby_back_ribs/1005293\r\n\r\n",
    "food-101/meta/train.json": '{"apple_pie": ["apple_pie/1005649", "apple_pie/1014775"]}',
    "food-101/meta/test.txt": "apple_pie/1011328\nbaby_back_ribs/103123",
    "food-101/images/apple_pie/1005649.jpg": picture(1),
    "food-101/images/apple_pie/1014775.jpg": picture(2, mode="L"),
    "food-101/images/apple_pie/1011328.jpg": picture(3, mode="CMYK"),
    "food-101/images/baby_back_ribs/1005293.jpg": picture(4),
    "food-101/images/baby_back_ribs/103123.jpg": picture(5),
    "food-101/images/.DS_Store": b"x",
}
LABELS = {
    "images/apple_pie/1005649.jpg": "apple_pie",
    "images/apple_pie/1014775.jpg": "apple_pie",
    "images/baby_back_ribs/1005293.jpg": "baby_back_ribs",
    "images/apple_pie/1011328.jpg": "apple_pie",
    "images/baby_back_ribs/103123.jpg": "baby_back_ribs",
}


@pytest.mark.parametrize("inside", ["", "food-101"])
def test_lists_say_which_image_is_of_which_split(tmp_path: Path, prepared: Prepare, inside: str) -> None:
    found = prepared("food101", written(tmp_path / "f", FILES) / inside)
    assert found.labels() == LABELS
    assert found.splits == {"train": 3, "test": 2}
    assert list(found.labels("test")) == ["images/apple_pie/1011328.jpg", "images/baby_back_ribs/103123.jpg"]
    assert found.collection.card["licences"] == {"unknown": 5}


def test_a_plain_tar_is_read_where_it_lies(tmp_path: Path, prepared: Prepare) -> None:
    place = written(tmp_path, {"food-101.tar": tarred(FILES)})
    assert prepared("food101", place / "food-101.tar").labels() == LABELS


def test_what_is_compressed_says_how_it_is_unpacked(tmp_path: Path) -> None:
    packed = written(tmp_path, {"food-101.tar.gz": gzip.compress(tarred(FILES))})
    for place in (packed, packed / "food-101.tar.gz"):
        with pytest.raises(SourceError) as caught:
            check("food101", str(place))
        assert "tar -xf food-101.tar.gz" in str(caught.value.hint)
