"""Metrics of raw MobileNetV2 features on real images, against values that were computed apart from this project."""

import csv
import tarfile

import numpy as np
import pyarrow as pa
import pytest

from lookalike.commands import main
from lookalike.evaluation.protocols import evaluate
from lookalike.vectors.runtime import load, prepared

# Test images of ten sets in one index, raw 1280 features, cosine; written in NumPy and torch.
MACRO = {"mp@5": 0.5559, "recall@1": 0.6921}
PER_DOMAIN = {
    "apparel": 0.410,
    "caltech_objects": 0.662,
    "cars": 0.143,
    "dishes": 0.696,
    "earrings": 0.275,
    "furniture": 0.949,
    "grocery_packages": 0.599,
    "grocery_produce": 0.540,
    "landmarks": 0.739,
    "logos": 0.547,
}
GROUPED_MACRO, GROUPED_DISHES = 0.5549, 0.685


@pytest.mark.data
def test_raw_features_reach_their_known_values(data_path, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["pull", str(data_path / "backbones" / "mobilenet_v2_1.0_224"), "--out", str(tmp_path / "model")]) == 0
    embedder = load(tmp_path / "model")
    rows, pictures = [], []
    for table in sorted(data_path.glob("*.csv")):
        with table.open(newline="") as file, tarfile.open(table.with_suffix(".tar")) as tar:
            for row in csv.DictReader(file):
                if row["split"] == "test":
                    rows.append({name: row[name] or None for name in ("label", "domain", "split", "group")})
                    pictures.append(tar.extractfile(row["path"]).read())
    assert len(rows) == 1703
    batches = (pictures[i : i + 64] for i in range(0, len(pictures), 64))
    features = np.concatenate([embedder.features(np.stack(images)) for images in prepared(batches, embedder.decode)])
    table = pa.Table.from_pylist([{"id": i, **row} for i, row in enumerate(rows)])

    report = evaluate(features, table.drop_columns(["group"]))
    assert {name: report.metrics[name] for name in MACRO} == pytest.approx(MACRO, abs=0.005)
    assert {name: values["mp@5"] for name, values in report.per_domain.items()} == pytest.approx(PER_DOMAIN, abs=0.01)
    assert (report.n_queries, report.n_skipped) == (1703, 0)

    grouped = evaluate(features, table)
    assert grouped.metrics["mp@5"] == pytest.approx(GROUPED_MACRO, abs=0.005)
    assert grouped.per_domain["dishes"]["mp@5"] == pytest.approx(GROUPED_DISHES, abs=0.01)
    assert report.metrics["mp@5"] - grouped.metrics["mp@5"] == pytest.approx(0.0010, abs=0.0005)
