from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Prepared, picture, written

Prepare = Callable[[str, Path], Prepared]

LISTS = {
    "Food2k_label/train_finetune.txt": "0/12.jpg 0\n0/13.jpg  0\r\n1999/7.jpg\t1999\n",
    "Food2k_label/val_finetune.txt": "0/14.jpg 0\n",
    "Food2k_label/test_finetune.txt": "1999/8.jpg 1999\n1999/9.jpg 1999\n",
}
PICTURES = {
    f"Food2k_complete/{name}": picture(i)
    for i, name in enumerate(("0/12.jpg", "0/13.jpg", "1999/7.jpg", "0/14.jpg", "1999/8.jpg"))
}


@pytest.mark.parametrize("named", [True, False])
def test_lists(tmp_path: Path, prepared: Prepare, named: bool) -> None:
    names = {"Food2k_label/food2k_label2name_en.txt": "0--Fish-flavored -- pork\n1999--Rice noodles\n"} if named else {}
    found = prepared("food2k", written(tmp_path / "p", {**LISTS, **PICTURES, **names}))
    told = {name: (row["split"], row["label"], row["food2k_name"]) for name, row in found.rows.items()}
    fish, rice = ("Fish-flavored -- pork", "Rice noodles") if named else (None, None)
    assert told == {
        "Food2k_complete/0/12.jpg": ("train", "0", fish),
        "Food2k_complete/0/13.jpg": ("train", "0", fish),
        "Food2k_complete/1999/7.jpg": ("train", "1999", rice),
        "Food2k_complete/0/14.jpg": ("val", "0", fish),
        "Food2k_complete/1999/8.jpg": ("test", "1999", rice),
    }
    assert found.facts["missing"] == {"test": 1}
    assert found.collection.card["licences"] == {"unknown": 5}
