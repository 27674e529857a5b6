import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.core.errors import SourceError

from .conftest import Files, Prepared, picture, written

Prepare = Callable[[str, Path], Prepared]

A, B, C, D = (
    f"train_val2018/{folder}/{number:032x}.jpg"
    for number, folder in enumerate(("Plantae/7477", "Plantae/7477", "Insecta/12", "Aves/3013"))
)
PICTURES = {name: picture(i) for i, name in enumerate((A, B, C, D))}


def coco(files: dict[str, int]) -> str:
    """The competition's lists: images and their annotations need not be in one order."""
    images = [
        {"id": i, "file_name": name, "height": 600, "width": 800, "license": 0, "rights_holder": "a"}
        for i, name in enumerate(files)
    ]
    annotations = [{"id": i, "image_id": i, "category_id": label} for i, label in enumerate(files.values())]
    categories = [{"id": label, "name": str(label), "supercategory": "Plantae"} for label in set(files.values())]
    told = {"info": {"year": 2018}, "images": images, "licenses": [], "annotations": annotations[::-1]}
    return json.dumps({**told, "categories": categories})


LISTS: Files = {
    "train2018.json": coco({A: 7477, C: 12, "train_val2018/Aves/1/gone.jpg": 1}),
    "val2018.json": coco({B: 7477, D: 3013}),
}


def test_the_competitions_lists(tmp_path: Path, prepared: Prepare) -> None:
    found = prepared("inat2018", written(tmp_path / "p", {**LISTS, **PICTURES}))
    assert found.labels("train") == {A: "7477", C: "12"}
    assert found.labels("val") == {B: "7477", D: "3013"}
    assert found.facts["missing"] == {"train": 1}
    assert found.collection.card["licences"] == {"non-commercial research": 4}


def test_the_open_set_lists_come_first(tmp_path: Path, prepared: Prepare) -> None:
    splits = {
        "Inat_dataset_splits/Inaturalist_train_set1.txt": f"{A}\r\n{B}\r\n\r\n",
        "Inat_dataset_splits/Inaturalist_test_set1.txt": f"{C}\n{D}\n",
    }
    found = prepared("inat2018", written(tmp_path / "p", {**LISTS, **splits, **PICTURES}))
    assert found.labels("train") == {A: "7477", B: "7477"}
    assert found.labels("test") == {C: "12", D: "3013"}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ('{"images": [{"id": 1, "file', r"`train2018.json` .* line 1: the JSON breaks off"),
        ('{"images": []}', "is not as COCO's: there is no 'annotations'"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, prepared: Prepare, told: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        prepared("inat2018", written(tmp_path / "p", {"train2018.json": told, **PICTURES}))
