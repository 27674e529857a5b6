import json
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest

from lookalike.evaluation.protocols import evaluate

from .conftest import Prepared, picture, written, zipped

Prepare = Callable[[str, Path], Prepared]
Entry = tuple[str, int | list[int]]

GLDV2 = "gldv2/images"
INFO: dict[str, dict[str, list[Entry]]] = {
    "cars": {
        "train": [("cars/car_ims/000001.jpg", 0)],
        "val": [("cars/car_ims/000101.jpg", 0)],
        "test": [("cars/car_ims/016184.jpg", 0), ("cars/car_ims/016185.jpg", 0)],
    },
    "sop": {"train": [("sop/bicycle_final/111085122871_0.JPG", 0), ("sop/bicycle_final/none.JPG", 0)]},
    "inshop": {
        "test": [("deepfashion/inshop/img/WOMEN/a/id_1/01_1_front.jpg", 5)],
        # a query that is in its index too
        "index": [
            ("deepfashion/inshop/img/WOMEN/a/id_1/01_1_front.jpg", 5),
            ("deepfashion/inshop/img/WOMEN/a/id_1/01_2_side.jpg", 5),
        ],
    },
    "inat": {"train": [("inat/iNaturalist/train_val2018/Aves/3013/0.jpg", 4551)]},
    "met": {
        "train": [("met/MET/1/0.jpg", 0), ("met/MET/2/0.jpg", 1)],
        "index": [("met/MET/1/0.jpg", 0), ("met/MET/2/0.jpg", 1)],
        "small_index": [("met/MET/2/0.jpg", 1)],
        "val": [("met/test_met/v.jpg", [1])],
        "test": [("met/test_met/t.jpg", [0])],
    },
    "gldv2": {
        "train": [(f"{GLDV2}/train/1/7/6/1760.jpg", 0)],
        "index": [(f"{GLDV2}/index/0/0/{i}/00{i}.jpg", label) for i, label in enumerate((3, 8, 8))],
        "test": [(f"{GLDV2}/test/a/b/c/abc.jpg", [3, 8]), (f"{GLDV2}/test/a/b/d/abd.jpg", [3])],
    },
    "food2k": {"val": [("food2k/Food2k_complete/7/1.jpg", 2)]},
    "rp2k": {"train": [("rp2k/all/train/康师傅/0.jpg", 0), ("rp2k/all/train/Café/0.png", 1)]},
}
LISTS = {
    f"{name}/{split}.json": json.dumps([{"path": path, "class_id": label} for path, label in entries])
    for name, splits in INFO.items()
    for split, entries in splits.items()
}
PATHS = {path for splits in INFO.values() for entries in splits.values() for path, _ in entries}
PICTURES = {f"images/{path}": picture(i) for i, path in enumerate(sorted(PATHS)) if "none" not in path}
BOTH, QUERY, GALLERY = (True, True), (True, False), (False, True)
TOLD = {
    "cars/car_ims/000001.jpg": ("cars", "train", "0", BOTH, "0"),
    "cars/car_ims/000101.jpg": ("cars", "val", "val/0", BOTH, "0"),
    "cars/car_ims/016184.jpg": ("cars", "test", "test/0", BOTH, "0"),
    "cars/car_ims/016185.jpg": ("cars", "test", "test/0", BOTH, "0"),
    "sop/bicycle_final/111085122871_0.JPG": ("sop", "train", "0", BOTH, "0"),
    "deepfashion/inshop/img/WOMEN/a/id_1/01_1_front.jpg": ("inshop", "test", "test/5", BOTH, "5"),
    "index/deepfashion/inshop/img/WOMEN/a/id_1/01_2_side.jpg": ("inshop", "test", "test/5", GALLERY, "5"),
    "inat/iNaturalist/train_val2018/Aves/3013/0.jpg": ("inat", "train", "4551", BOTH, "4551"),
    "met/MET/1/0.jpg": ("met", "train", "0", BOTH, "0"),
    "met/MET/2/0.jpg": ("met", "train", "1", BOTH, "1"),
    "index/met/MET/1/0.jpg": ("met", "test", "0", GALLERY, "0"),
    "index/met/MET/2/0.jpg": ("met", "test", "1", GALLERY, "1"),
    "small_index/met/MET/2/0.jpg": ("met", "val", "1", GALLERY, "1"),
    "met/test_met/v.jpg": ("met", "val", "1", QUERY, "1"),
    "met/test_met/t.jpg": ("met", "test", "0", QUERY, "0"),
    f"{GLDV2}/train/1/7/6/1760.jpg": ("gldv2", "train", "0", BOTH, "0"),
    f"index/{GLDV2}/index/0/0/0/000.jpg": ("gldv2", "test", "test/3", GALLERY, "3"),
    f"index/{GLDV2}/index/0/0/1/001.jpg": ("gldv2", "test", "test/8", GALLERY, "8"),
    f"index/{GLDV2}/index/0/0/2/002.jpg": ("gldv2", "test", "test/8", GALLERY, "8"),
    # of several classes the one that is most often in the index
    f"{GLDV2}/test/a/b/c/abc.jpg": ("gldv2", "test", "test/8", QUERY, "3 8"),
    f"{GLDV2}/test/a/b/d/abd.jpg": ("gldv2", "test", "test/3", QUERY, "3"),
    "food2k/Food2k_complete/7/1.jpg": ("food2k", "val", "val/2", BOTH, "2"),
    "rp2k/all/train/康师傅/0.jpg": ("rp2k", "train", "0", BOTH, "0"),
    "rp2k/all/train/Café/0.png": ("rp2k", "train", "1", BOTH, "1"),
}


@pytest.mark.parametrize("shape", ["folders", "zip", "escapes", "archive"])
def test_the_bundle(tmp_path: Path, prepared: Prepare, shape: str) -> None:
    pictures = dict(PICTURES)
    if shape == "escapes":
        for name, there in (("康师傅", "#U5eb7#U5e08#U5085"), ("Café", "Caf#U00e9")):
            pictures = {path.replace(name, there): data for path, data in pictures.items()}
    files: dict[str, bytes | str] = {}
    if shape == "archive":  # whose names are in the other form of Unicode
        inside = {path: pictures.pop(path) for path in list(pictures) if "rp2k" in path}
        inside = {normalize("NFD", path.removeprefix("images/rp2k/")): data for path, data in inside.items()}
        files["data/images/rp2k.zip"] = zipped(inside)
    files |= {f"data/{path}": data for path, data in pictures.items()}
    lists = {f"info_files/{name}": told for name, told in LISTS.items()}
    files |= {"data/info_files.zip": zipped(lists)} if shape == "zip" else {f"data/{n}": t for n, t in lists.items()}
    place = written(tmp_path / "bundle", files)
    found = prepared("uned", place / "data" if shape == "zip" else place)
    told = {
        name: (
            *(row[c] for c in ("domain", "split", "label")),
            (row["is_query"], row["is_gallery"]),
            row["uned_class_id"],
        )
        for name, row in found.rows.items()
    }
    assert told == TOLD
    assert found.facts["missing"] == {"train": 1}
    assert found.facts["found"]["train"]["classes"] == 8  # a 0 of each domain is a class of its own
    licences = {row["domain"]: row["licence"] for row in found.rows.values()}
    assert licences == {
        "cars": "non-commercial research",
        "sop": "unknown",
        "inshop": "non-commercial research",
        "inat": "non-commercial research",
        "met": "cc0-1.0",
        "gldv2": "cc-by-4.0",
        "food2k": "unknown",
        "rp2k": "unknown",
    }


def test_a_measurement_of_all_domains(tmp_path: Path, prepared: Prepare) -> None:
    files = {f"info_files/{name}": told for name, told in LISTS.items()} | PICTURES
    collection = prepared("uned", written(tmp_path / "data", files)).collection
    labels = list(zip(*(collection.table([c])[c].to_pylist() for c in ("domain", "label")), strict=True))
    known = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    vectors = np.eye(len(known), dtype=np.float32)[[known[label] for label in labels]]
    report = evaluate(vectors, collection, "test")
    assert set(report.per_domain) == {"cars", "inshop", "met", "gldv2"}
    assert report.n_skipped == 0
    assert set(report.metrics.values()) == {1.0}
