import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lookalike.evaluation.protocols import evaluate

from .conftest import Prepared, picture, written

Prepare = Callable[[str, Path], Prepared]

DATABASE = [
    {"id": 1, "path": "MET/1/0.jpg"},
    {"id": 1, "path": "MET/1/1.jpg"},
    {"id": 224408, "path": "MET/224408/0.jpg"},
]
TEST = [
    {"path": "test_met/0a1b.jpg", "MET_id": 1},
    {"path": "test_other/7c.jpg"},
    {"path": "test_noart/9d.jpg"},
]
VAL = [{"path": "test_met/0a1c.jpg", "MET_id": 224408}, {"path": "test_other/7d.jpg"}]
TRUTH = {
    "ground_truth/MET_database.json": json.dumps(DATABASE),
    "ground_truth/mini_MET_database.json": json.dumps(DATABASE[1:]),
    "ground_truth/testset.json": json.dumps(TEST, indent=1),
    "ground_truth/valset.json": json.dumps(VAL),
}
PATHS = [entry["path"] for entry in (*DATABASE, *TEST, *VAL)]
PICTURES = {f"images/{path}": picture(i) for i, path in enumerate(PATHS)}
BOTH, QUERY, GALLERY = (True, True), (True, False), (False, True)


@pytest.mark.parametrize("folder", ["images/", ""])
def test_each_split_has_its_gallery(tmp_path: Path, prepared: Prepare, folder: str) -> None:
    pictures = {folder + name.removeprefix("images/"): data for name, data in PICTURES.items()}
    found = prepared("met", written(tmp_path / "p", {**TRUTH, **pictures}))
    told = {
        name: (row["label"], row["split"], (row["is_query"], row["is_gallery"]), row["licence"])
        for name, row in found.rows.items()
    }
    assert told == {
        "MET/1/0.jpg": ("1", "train", BOTH, "cc0-1.0"),
        "MET/1/1.jpg": ("1", "train", BOTH, "cc0-1.0"),
        "MET/224408/0.jpg": ("224408", "train", BOTH, "cc0-1.0"),
        "index/MET/1/0.jpg": ("1", "test", GALLERY, "cc0-1.0"),
        "index/MET/1/1.jpg": ("1", "test", GALLERY, "cc0-1.0"),
        "index/MET/224408/0.jpg": ("224408", "test", GALLERY, "cc0-1.0"),
        "mini/MET/1/1.jpg": ("1", "val", GALLERY, "cc0-1.0"),
        "mini/MET/224408/0.jpg": ("224408", "val", GALLERY, "cc0-1.0"),
        "test_met/0a1b.jpg": ("1", "test", QUERY, "unknown"),
        "test_other/7c.jpg": (None, "test", QUERY, "unknown"),  # it shows no exhibit
        "test_noart/9d.jpg": (None, "test", QUERY, "unknown"),
        "test_met/0a1c.jpg": ("224408", "val", QUERY, "unknown"),
        "test_other/7d.jpg": (None, "val", QUERY, "unknown"),
    }


def test_a_measurement_finds_the_database(tmp_path: Path, prepared: Prepare) -> None:
    found = prepared("met", written(tmp_path / "p", {**TRUTH, **PICTURES}))
    rows = found.collection.table(["label"])["label"].to_pylist()
    vectors = np.eye(3, dtype=np.float32)[[{"1": 0, "224408": 1, None: 2}[label] for label in rows]]
    for split, skipped in (("test", 2), ("val", 1)):
        report = evaluate(vectors, found.collection, split)
        assert (report.n_queries, report.n_skipped) == (1, skipped)
        assert set(report.metrics.values()) == {1.0}


def test_the_mini_database_alone(tmp_path: Path, prepared: Prepare) -> None:
    truth = {name: told for name, told in TRUTH.items() if "MET_" not in name or "mini" in name}
    found = prepared("met", written(tmp_path / "p", {**truth, **PICTURES}))
    assert found.splits == {"train": 2, "val": 4, "test": 3}
