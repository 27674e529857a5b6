import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from lookalike.core.errors import SourceError
from lookalike.data.collection import Collection
from lookalike.data.sources.dataset import check

from .conftest import Prepared, picture

Prepare = Callable[[str, Path], Prepared]


def table(path: Path, seeds: list[int], categories: list[str] | None, **more: list[object]) -> None:
    """As `datasets` writes it: images as structs, features in the schema's metadata."""
    columns = {"image": [{"bytes": picture(seed), "path": f"{seed}.jpg"} for seed in seeds], **more}
    made = pa.table(columns if categories is None else {**columns, "category": categories})
    features = {"image": {"_type": "Image"}}
    told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(made.replace_schema_metadata(told), path, row_group_size=2)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    root = tmp_path / "look-bench" / "v20251201"
    table(
        root / "real_studio_flat/query.parquet",
        [1, 2, 3],
        ["dress", "dress", "shoe"],
        main_attribute=["red", "red", "flat"],
        other_attributes=[["long", "silk"], ["short"], []],
        item_ID=["a", "b", "c"],
        task=["single"] * 3,
        difficulty=["easy"] * 3,
        bbox=[[0, 0, 5, 5], [1, 1, 4, 4], None],
    )
    table(
        root / "real_studio_flat/gallery.parquet",
        [4, 5],
        ["dress", "shoe"],
        main_attribute=["red", "flat"],
        other_attributes=[["silk", "long"], []],
        item_ID=["a", "d"],
    )
    table(root / "aigen_studio/query.parquet", [6], ["coat"], main_attribute=["wool"], other_attributes=["long"])
    table(root / "noise/gallery-00000-of-00001.parquet", [7, 8], None)
    (root.parent / "README.md").write_text("words")
    return root.parent


def test_queries_gallery_and_noise(snapshot: Path, prepared: Prepare) -> None:
    found = prepared("lookbench", snapshot)
    rows = {
        name: (row["label"], row["domain"], row["is_query"], row["is_gallery"], row["item_id"])
        for name, row in found.rows.items()
    }
    flat, noise = "real_studio_flat", "noise/gallery-00000-of-00001.parquet"
    assert rows == {
        f"{flat}/query.parquet/0": ("dress/red/long, silk", f"lookbench/{flat}", True, False, "a"),
        f"{flat}/query.parquet/1": ("dress/red/short", f"lookbench/{flat}", True, False, "b"),
        f"{flat}/query.parquet/2": ("shoe/flat/", f"lookbench/{flat}", True, False, "c"),
        f"{flat}/gallery.parquet/0": ("dress/red/long, silk", f"lookbench/{flat}", False, True, "a"),
        f"{flat}/gallery.parquet/1": ("shoe/flat/", f"lookbench/{flat}", False, True, "d"),
        "aigen_studio/query.parquet/0": ("coat/wool/long", "lookbench/aigen_studio", True, False, None),
        f"{noise}/0": (None, "lookbench/noise", False, True, None),
        f"{noise}/1": (None, "lookbench/noise", False, True, None),
    }
    assert found.splits == {"test": 8}
    assert found.collection.card["licences"] == {"apache-2.0": 8}
    stored = Collection.open(found.collection.path).table(["source", "image"])
    images = dict(zip(*(stored[name].to_pylist() for name in ("source", "image")), strict=True))
    assert images[f"lookbench/{noise}/1"] == picture(8)


def test_it_is_known_from_any_part(snapshot: Path) -> None:
    assert check("lookbench", str(snapshot)).whole
    with pytest.raises(SourceError, match="looks like `lookbench`"):
        check("gpr1200", str(snapshot))


def test_a_part_without_images_or_categories(snapshot: Path) -> None:
    place = snapshot / "v20251201/aigen_studio/query.parquet"
    pyarrow.parquet.write_table(pa.table({"image": ["a.jpg"], "category": ["coat"]}), place)
    with pytest.raises(SourceError, match="no column `image` with `bytes`"):
        check("lookbench", str(snapshot))
    table(place, [6], None)
    with pytest.raises(SourceError, match="no column `category`"):
        check("lookbench", str(snapshot))
