"""The mixture of the seed from its three sets, each in miniature and as it is published."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lookalike.commands import main
from lookalike.core.errors import UsageError
from lookalike.data.collection import Collection
from lookalike.data.prepare import prepare
from lookalike.data.sources import presets

from .conftest import picture, tarred, written, zipped

SMALL = 4  # images a class of the miniature mixture, for fifty


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """ImageNet-1k as tar files in a tar file, Products-10K as zip files, landmarks as folders."""
    inner = {
        f"n0000000{c}.tar": tarred({f"n0000000{c}_{i}.JPEG": picture(100 * c + i) for i in range(6)})
        for c in range(1, 4)
    }
    written(tmp_path / "imagenet", {"ILSVRC2012_img_train.tar": tarred(inner)})
    lines = [f"{i}.jpg,{i % 5},{i % 2}" for i in range(20)]
    files = {f"{i}.jpg": picture(1000 + i) for i in range(20)}
    written(
        tmp_path / "products",
        {"train.csv": "\n".join(["name,class,group", *lines]), "train.zip": zipped(files), "train/x": ""},
    )
    ids = [f"{c:x}{i:x}0000000000000{i:x}"[:16].ljust(16, "f") for c in range(4) for i in range(2 + c)]
    labels = [203_000 - 7 * c for c in range(4) for _ in range(2 + c)]
    landmarks = {f"train/{n[0]}/{n[1]}/{n[2]}/{n}.jpg": picture(5000 + k) for k, n in enumerate(ids)}
    table = "id,landmark_id\n" + "".join(f"{n},{label}\n" for n, label in zip(ids, labels, strict=True))
    written(tmp_path / "landmarks", {"train.csv": table, "sample_submission.csv": "id,landmarks\n", **landmarks})
    small = {
        name: presets.replace(part, max_per_class=SMALL, max_classes=3 if part.max_classes else None, validation=0.25)
        for name, part in presets.PRESETS["seed"].parts.items()
    }
    monkeypatch.setitem(presets.PRESETS, "seed", presets.replace(presets.PRESETS["seed"], parts=small))
    return [str(tmp_path / name) for name in ("imagenet", "products", "landmarks")]


NAMES = ["imagenet1k", "products10k", "glr2021"]


def test_classes_are_numbered_set_by_set(places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "seed")
    assert main(["prepare", *NAMES, "--from", *places, "--preset", "seed", "--out", out]) == 0
    said = capsys.readouterr().err
    assert "`seed` has 11 classes here, and 17,691 where it comes from" in said
    assert "imagenet1k: split train has 18 images, and 1,281,167 are published" in said
    collection = Collection.open(out)
    rows = collection.table(["domain", "label", "split", "class_index"]).to_pylist()
    # 3 synsets of 6 images, 5 products of 4, and the 3 largest landmarks, of 5, 4 and 3.
    assert Counter(row["domain"] for row in rows) == {"imagenet1k": 12, "products10k": 20, "glr2021": 11}
    numbers = {(row["domain"], row["label"]): row["class_index"] for row in rows}
    assert numbers[("imagenet1k", "n00000001")] == 0
    assert numbers[("products10k", "4")] == 1004
    assert {label: n for (domain, label), n in numbers.items() if domain == "glr2021"} == {
        "202979": 10_691,
        "202986": 10_692,
        "202993": 10_693,
    }
    assert Counter(row["split"] for row in rows if row["domain"] != "glr2021") == {"train": 24, "val": 8}
    card: dict[str, Any] = collection.card
    assert card["preset"] == {"name": "seed", "classes": 11, "published": {"classes": 17_691, "images": 478_185}}
    assert card["licences"] == {"academic research only": 20, "non-commercial research": 12, "cc-by-4.0": 11}
    assert card["sources"][2]["selection"]["max_classes"] == 3


def test_a_set_less_is_refused(places: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`glr2021` missing"):
        prepare([*zip(NAMES[:2], places[:2], strict=True)], str(tmp_path / "seed"), preset="seed")


def test_what_may_be_sold(places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "seed")
    assert main(["prepare", *NAMES, "--from", *places, "--commercial", "--out", out]) == 0
    said = capsys.readouterr().err
    assert "18 images whose licence (non-commercial research) does not allow commercial use" in said
    assert "20 images whose licence (academic research only)" in said
    assert Collection.open(out).card["licences"] == {"cc-by-4.0": 14}
