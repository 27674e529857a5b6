"""A collection that follows another, against a plain reading of both."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lookalike.core.errors import CollectionError, StorageError
from lookalike.data.collection import Collection
from lookalike.data.follow import follow
from lookalike.data.prepare import prepare


@pytest.fixture
def folder(tmp_path):
    """Six images of two labels."""
    for i in range(6):
        file = tmp_path / "shop" / f"label{i % 2}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        draw(file, i)
    return tmp_path / "shop"


def draw(file, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)).save(file)


def whole(path) -> list[dict]:
    collection = Collection.open(path)
    return collection.table(collection.columns, gone=True).to_pylist()


def test_it_has_the_same_rows_and_vectors_and_is_its_own(folder, tmp_path):
    prepare([str(folder)], str(tmp_path / "a"))
    source = Collection.open(tmp_path / "a")
    ids = source.table(["id"])["id"].to_numpy()
    source.write_vectors("features_12345678", ids, np.eye(6, 4, dtype=np.float32), {"fingerprint": "12345678ab"})
    copy = follow(source, tmp_path / "b", "index")
    assert whole(tmp_path / "b") == whole(tmp_path / "a")
    assert copy.schema.field("features_12345678").metadata == {b"fingerprint": b"12345678ab"}
    assert copy.card["counts"] == source.card["counts"]
    shutil.rmtree(tmp_path / "a")
    assert len(whole(tmp_path / "b")) == 6


def test_it_is_brought_up_to_date_with_what_is_new_edited_and_gone(folder, tmp_path):
    prepare([str(folder)], str(tmp_path / "a"))
    follow(Collection.open(tmp_path / "a"), tmp_path / "b", "index")
    draw(folder / "label0" / "new.png", 9)
    (folder / "label1" / "1.png").unlink()
    (folder / "label0" / "0.png").rename(folder / "label1" / "0.png")
    prepare([str(folder)], str(tmp_path / "a"))
    source = Collection.open(tmp_path / "a")
    edited = pa.table({"id": pa.array([2]), "label": pa.array(["another"])})
    source.update(edited)
    follow(source, tmp_path / "b", "index")
    assert whole(tmp_path / "b") == whole(tmp_path / "a")
    assert sum(row["gone"] for row in whole(tmp_path / "b")) == 1  # the file that was moved kept its row
    version = Collection.open(tmp_path / "b").version
    follow(source, tmp_path / "b", "index")
    assert Collection.open(tmp_path / "b").version == version


def test_a_killed_copy_goes_on(folder, tmp_path):
    prepare([str(folder)], str(tmp_path / "a"))
    killed = (
        "import os, lookalike.data.follow as f; from lookalike.data.collection import Collection\n"
        "f.ROWS, append = 2, Collection.append\n"
        "def die(self, table):\n"
        "    append(self, table)\n"
        "    os.kill(os.getpid(), 9)\n"
        "Collection.append = die\n"
        f"f.follow(Collection.open({str(tmp_path / 'a')!r}), {str(tmp_path / 'b')!r}, 'index')\n"
    )
    done = subprocess.run([sys.executable, "-c", killed], env={**os.environ}, capture_output=True)
    assert done.returncode == -9
    assert len(whole(tmp_path / "b")) == 2
    follow(Collection.open(tmp_path / "a"), tmp_path / "b", "index")
    assert whole(tmp_path / "b") == whole(tmp_path / "a")


def test_what_is_no_copy_is_left_alone(folder, tmp_path):
    prepare([str(folder)], str(tmp_path / "a"))
    other = tmp_path / "other" / "label"
    other.mkdir(parents=True)
    draw(other / "x.png", 77)
    prepare([str(tmp_path / "other")], str(tmp_path / "b"))
    before = whole(tmp_path / "b")
    with pytest.raises(CollectionError, match="other rows"):
        follow(Collection.open(tmp_path / "a"), tmp_path / "b", "index")
    assert whole(tmp_path / "b") == before
    with pytest.raises(StorageError, match="something else"):
        follow(Collection.open(tmp_path / "a"), folder, "index")


def test_columns_that_come_later_come_along(folder, tmp_path):
    table = tmp_path / "t.csv"
    paths = [f"shop/label{i % 2}/{i}.png" for i in range(6)]
    table.write_text("\n".join(["path,label", *(f"{path},a" for path in paths)]) + "\n")
    prepare([str(table)], str(tmp_path / "a"))
    follow(Collection.open(tmp_path / "a"), tmp_path / "b", "index")
    table.write_text("\n".join(["path,label,price", *(f"{path},a,{i}" for i, path in enumerate(paths))]) + "\n")
    prepare([str(table)], str(tmp_path / "a"))
    source = Collection.open(tmp_path / "a")
    source.add_columns(pa.schema([pa.field("tags", pa.list_(pa.string()))]))
    source.update(pa.table({"id": [1, 4], "tags": [["x", "y"], []]}))
    source.write_vectors("features_12345678", np.arange(5), np.eye(5, 4, dtype=np.float32), {"fingerprint": "12345678"})
    follow(source, tmp_path / "b", "index")
    assert whole(tmp_path / "b") == whole(tmp_path / "a")
    assert [row["price"] for row in whole(tmp_path / "b")] == list(range(6))
    version = Collection.open(tmp_path / "b").version
    follow(source, tmp_path / "b", "index")
    assert Collection.open(tmp_path / "b").version == version
    source.update(pa.table({"id": [4], "tags": [["z"]]}))
    follow(source, tmp_path / "b", "index")
    assert whole(tmp_path / "b") == whole(tmp_path / "a")
