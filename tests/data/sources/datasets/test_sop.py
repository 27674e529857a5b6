from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.core.errors import SourceError

from .conftest import Files, Prepared, picture, written, zipped

Prepare = Callable[[str, Path], Prepared]

HEADER = "image_id class_id super_class_id path"
TRAIN = f"{HEADER}\n1 1 1 bicycle_final/111085122871_0.JPG\n2 1 1 bicycle_final/111085122871_1.JPG\n"
# the test's ids go on; runs of blanks, CRLF, an empty line at the end
TEST = f"{HEADER}\r\n1  11319 12\ttoaster_final/281529368844_0.JPG\r\n2 11319 12 toaster_final/none.JPG\r\n\r\n"
FILES: Files = {
    "Ebay_train.txt": TRAIN,
    "Ebay_test.txt": TEST,
    "Ebay_info.txt": "image_id class_id super_class_id path\n",
    "bicycle_final/111085122871_0.JPG": picture(1),
    "bicycle_final/111085122871_1.JPG": picture(2, mode="L"),
    "toaster_final/281529368844_0.JPG": picture(3),
}


@pytest.mark.parametrize("shape", ["folder", "zip", "above"])
def test_lists(tmp_path: Path, prepared: Prepare, shape: str) -> None:
    inside = {f"Stanford_Online_Products/{name}": data for name, data in FILES.items()}
    place = written(tmp_path / "p", {"sop.zip": zipped(inside)} if shape == "zip" else inside)
    where = {"folder": "Stanford_Online_Products", "zip": "sop.zip", "above": ""}[shape]
    found = prepared("sop", place / where)
    assert found.labels("train") == {
        "bicycle_final/111085122871_0.JPG": "1",
        "bicycle_final/111085122871_1.JPG": "1",
    }
    assert found.labels("test") == {"toaster_final/281529368844_0.JPG": "11319"}
    assert found.rows["toaster_final/281529368844_0.JPG"]["sop_super_class"] == "12"
    assert found.facts["missing"] == {"test": 1}
    assert found.collection.card["licences"] == {"unknown": 3}


def test_columns_by_name_and_rows_that_are_short(tmp_path: Path, prepared: Prepare) -> None:
    moved = "path class_id image_id super_class_id\nbicycle_final/111085122871_0.JPG 5 1 2\n"
    place = written(tmp_path / "p", {**FILES, "Ebay_train.txt": moved})
    assert prepared("sop", place).labels("train") == {"bicycle_final/111085122871_0.JPG": "5"}
    written(place, {"Ebay_train.txt": TRAIN + "3 2\n"})
    with pytest.raises(SourceError, match=r"`Ebay_train.txt` .* line 4: 2 words, and 4 are expected"):
        prepared("sop", place)
    written(place, {"Ebay_train.txt": "image_id class super_class_id path\n1 1 1 a.JPG\n"})
    with pytest.raises(SourceError, match="has no column `class_id`; its columns are image_id, class,"):
        prepared("sop", place)
