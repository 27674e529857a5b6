"""What tests share with training is counted, and the score is told without it."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

from lookalike.commands import main
from lookalike.data.collection import Collection
from lookalike.data.prepare import prepare
from lookalike.evaluation.leakage import with_leakage
from lookalike.evaluation.protocols import evaluate


def photograph(seed: int) -> PIL.Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return PIL.Image.fromarray(small).resize((320, 240), PIL.Image.Resampling.BICUBIC)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Six test images of two labels: one is a pixel-equal copy of a training image, one a small copy."""
    lines = ["path,label,split"]
    for split, label, seed, name in (
        ("train", "a", 1, "1.png"),
        ("train", "a", 2, "2.png"),
        ("test", "b", 1, "same.png"),
        ("test", "b", 2, "near.jpg"),
        ("test", "b", 3, "3.jpg"),
        ("test", "c", 4, "4.jpg"),
        ("test", "c", 5, "5.jpg"),
        ("test", "c", 6, "6.jpg"),
    ):
        image = photograph(seed).resize((240, 180)) if name == "near.jpg" else photograph(seed)
        image.save(tmp_path / name)
        lines.append(f"{name},{label},{split}")
    (tmp_path / "shop.csv").write_text("\n".join(lines))
    prepare([str(tmp_path / "shop.csv")], str(tmp_path / "shop"), workers=1)
    return tmp_path / "shop"


VECTORS = np.array(
    [[1, 0, 0], [1, 0, 0], [1, 0.1, 0], [1, 0.2, 0], [0, 1, 0.1], [0, 1, 0.2], [0, 1, 0.3], [0, 0.1, 1]], np.float32
)


def test_the_score_without_what_leaks(shop: Path) -> None:
    collection = Collection.open(shop)
    report = evaluate(VECTORS, collection)
    told = with_leakage(report, collection).leakage
    assert told is not None
    assert (told["same"], told["near"], told["learned_from"]) == (1, 1, [str(shop)])
    assert report.per_query is not None
    values = dict(zip(report.per_query.rows.tolist(), report.per_query.values["mp@5"].tolist(), strict=True))
    assert told["metrics"]["mp@5"] == pytest.approx(np.mean([values[row] for row in (4, 5, 6, 7)]))
    assert told["metrics"]["mp@5"] != pytest.approx(report.metrics["mp@5"])


def test_another_collection_that_was_learned_from(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "x").mkdir(parents=True)
    photograph(5).save(tmp_path / "other" / "x" / "5.jpg", quality=60)
    prepare([str(tmp_path / "other")], str(tmp_path / "elsewhere"), workers=1)
    collection = Collection.open(shop)
    told = with_leakage(evaluate(VECTORS, collection), collection, [str(tmp_path / "elsewhere")]).leakage
    assert told is not None
    assert (told["same"], told["near"]) == (1, 2)
    assert told["learned_from"] == [str(shop), str(tmp_path / "elsewhere")]


def test_where_nothing_is_told_apart_nothing_is_said(shop: Path) -> None:
    collection = Collection.open(shop)
    assert with_leakage(evaluate(VECTORS, collection, "all"), collection).leakage is None


def test_the_command_tells_it(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    assert main(["evaluate", "--embeddings", str(tmp_path / "v.npy"), str(shop)]) == 0
    assert (
        f"1 queries are the same as an image to learn from of `{shop}`, 1 nearly so; without them: "
        in capsys.readouterr().out
    )
    assert main(["evaluate", "--embeddings", str(tmp_path / "v.npy"), str(shop), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["leakage"]["near"] == 1


def test_the_lengths_of_stored_features_do_not_count(shop: Path) -> None:
    """An untouched tower's features keep their lengths, and a cosine must not grow with them."""
    collection = Collection.open(shop)
    kind = pa.list_(pa.float32(), 3)
    collection.add_columns(pa.schema([pa.field("features_x_float32", kind)]))
    column = pa.FixedSizeListArray.from_arrays(pa.array((100 * VECTORS).ravel()), 3)
    collection.update(pa.table({"id": pa.array(range(8)), "features_x_float32": column}))
    marks = {"column": "features_x_float32", "model": "x", "cosine": 0.99}
    collection.update_card({"duplicates": {"embedding": marks}})
    collection = Collection.open(shop)
    told = with_leakage(evaluate(VECTORS, collection), collection).leakage
    assert told is not None
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    near = [row for row in range(2, 8) if max(unit[row] @ unit[0], unit[row] @ unit[1]) >= 0.99]
    assert near == [2]  # the looks say it already, so that nothing is left to say
    assert told["embedding"]["queries"] == 0
