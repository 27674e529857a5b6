"""What is let go frees the disk, what stays is as it was, and a kill loses nothing."""

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lookalike.core.errors import CollectionError, StorageError, UsageError
from lookalike.data.collection import SCHEMA, Collection
from lookalike.data.follow import follow
from lookalike.data.prepare import prepare
from lookalike.data.prune import prune, vectors_of

PIECES = (40, 30, 1, 20, 25, 2)  # rows of each append


def rows(first: int, count: int) -> pa.Table:
    """Rows of 10,000 bytes that nothing makes smaller."""
    ids = np.arange(first, first + count)
    rng = np.random.default_rng(first)
    columns = {
        "id": ids,
        "source": [f"{i}.jpg" for i in ids],
        "image": [rng.bytes(10_000) for _ in ids],
        "width": np.full(count, 36, np.int32),
        "height": np.full(count, 36, np.int32),
        "sha256": pa.array([hashlib.sha256(str(i).encode()).digest() for i in ids], pa.binary(32)),
        **{name: pa.nulls(count, pa.string()) for name in ("label", "domain", "split", "group")},
        "is_query": np.ones(count, bool),
        "is_gallery": np.ones(count, bool),
        "gone": np.zeros(count, bool),
        "stamp": [""] * count,
    }
    return pa.table(columns, schema=SCHEMA)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return make(tmp_path / "coll")


def make(path: Path) -> Collection:
    """118 rows in six pieces with two columns of vectors; gone are some of the first, the third, and the last ones."""
    made, at = Collection.create(path), 0
    for count in PIECES:
        made.append(rows(at, count))
        at += count
    for name in ("features_11111111_float32", "embedding_22222222_float32"):
        made.write_vectors(name, np.arange(at), vectors(at), {"fingerprint": name})
    made.mark_gone(np.array([*range(10, 30), 70, at - 2, at - 1]))
    made.update_card({"model": {"column": "embedding_22222222_float32"}})
    return made


def vectors(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 500)).astype(np.float32)


def du(path: str | Path) -> int:
    return int(subprocess.run(["du", "-sb", str(path)], capture_output=True, check=True).stdout.split()[0])


def whole(path: str | Path) -> pa.Table:
    collection = Collection.open(path)
    return collection.table(collection.columns, gone=True)


def test_rows_go_with_their_bytes_and_the_others_stay(collection: Collection) -> None:
    collection.sweep()
    before, size, path = whole(collection.path), du(collection.path), collection.path
    kept = before.filter(pa.array(np.isin(before["id"].to_numpy(), [*range(10, 30), 70, 116, 117], invert=True)))
    print_of = collection.fingerprint
    told = prune(collection, dry_run=True)
    assert du(path) == size
    assert whole(path).equals(before)
    pruned = prune(collection)
    assert (pruned.rows, told.rows) == (23, 23)
    assert told.bytes == 23 * (10_000 + 2 * 500 * 4)
    assert abs(pruned.bytes - (size - du(path))) < 4096  # the folders
    assert pruned.bytes > 0.9 * told.bytes
    assert "23 rows that are gone" in pruned.sentence(path)
    assert whole(path).equals(kept)
    assert collection.fingerprint == Collection.open(path).fingerprint == print_of
    assert prune(Collection.open(path)).rows == 0


def test_ids_are_not_given_again_and_the_work_goes_on(collection: Collection) -> None:
    prune(collection)
    reopened = Collection.open(collection.path)
    assert collection.next_id == reopened.next_id == 118
    reopened.append(rows(118, 3))
    reopened.write_vectors("features_11111111_float32", np.arange(118, 121), vectors(3), {})
    np.testing.assert_array_equal(reopened.vectors("features_11111111_float32")[1][-3:], vectors(3))
    reopened.mark_gone(np.array([5, 119]))
    assert reopened.take(np.array([120, 50, 31]), ["source"])["source"].to_pylist() == ["120.jpg", "50.jpg", "31.jpg"]
    assert prune(reopened).rows == 2
    assert len(reopened) == 118 - 23 + 1


def test_columns_go_with_their_bytes(collection: Collection) -> None:
    prune(collection)  # now some pieces hold images and vectors in one file
    before = du(collection.path)
    told = prune(collection, ["features_11111111_float32"], dry_run=True)
    assert told.bytes == 95 * 500 * 4
    pruned = prune(collection, ["features_11111111_float32"])
    assert (pruned.rows, pruned.columns) == (0, ("features_11111111_float32",))
    assert 0.95 * told.bytes < before - du(collection.path) < 1.1 * told.bytes
    (left,) = vectors_of(collection)
    assert (left.column, left.rows, left.bytes, left.searched) == (
        "embedding_22222222_float32",
        95,
        95 * 500 * 4,
        True,
    )
    np.testing.assert_array_equal(
        collection.vectors("embedding_22222222_float32")[1],
        np.delete(vectors(118), [*range(10, 30), 70, 116, 117], axis=0),
    )


def test_what_can_not_go(collection: Collection) -> None:
    with pytest.raises(UsageError, match="is what `lookalike search` looks at"):
        prune(collection, ["embedding_22222222_float32"])
    for name in ("image", "nothing"):
        with pytest.raises(UsageError, match=f"no column `{name}` of vectors; it has features_11111111_float32"):
            prune(collection, [name])
    with collection.locked("embed"), pytest.raises(StorageError, match="Another process is writing"):
        prune(collection)
    other = Collection.open(collection.path)
    other.mark_gone(np.array([1]))
    with pytest.raises(CollectionError, match="after it was opened"):
        prune(collection)


def test_all_rows_may_go(collection: Collection) -> None:
    collection.mark_gone(collection.table(["id"])["id"].to_numpy())
    assert prune(collection).rows == 118
    assert du(collection.path) < 30_000
    assert (len(Collection.open(collection.path)), collection.next_id) == (0, 118)
    collection.append(rows(118, 2))
    assert len(Collection.open(collection.path)) == 2


def test_while_another_reads_its_version_stays(collection: Collection) -> None:
    reader = Collection.open(collection.path)
    expected = reader.table(["id", "image"])
    pruned = prune(collection)
    assert pruned.is_held
    assert "open elsewhere" in pruned.sentence("coll")
    assert reader.table(["id", "image"]).equals(expected)
    size = du(collection.path)
    del reader
    with collection.locked("embed"):
        pass
    assert size - du(collection.path) > 23 * 10_000


KILLED = """
import os, signal, sys
import lance
from lookalike.data.collection import Collection
from lookalike.data.prune import prune

at, calls = int(sys.argv[2]), 0
def dying(call):
    def count(*arguments, **options):
        global calls
        calls += 1
        if calls == 2 * at - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        made = call(*arguments, **options)
        calls += 1
        if calls == 2 * at:
            os.kill(os.getpid(), signal.SIGKILL)
        return made
    return count
if sys.argv[3] == "commit":
    lance.LanceDataset.commit = dying(lance.LanceDataset.commit)
else:
    Collection.sweep = dying(Collection.sweep)
prune(Collection.open(sys.argv[1]), ["features_11111111_float32"])
"""


@pytest.mark.parametrize(("at", "call"), [(1, "commit"), (2, "commit"), (3, "commit"), (2, "sweep"), (3, "sweep")])
def test_a_killed_prune_leaves_a_whole_collection(tmp_path: Path, at: int, call: str) -> None:
    path, names = str(tmp_path / "coll"), ["id", "image", "sha256", "embedding_22222222_float32"]
    images = make(tmp_path / "coll").table(names)
    command = [sys.executable, "-c", KILLED, path, str(at), call]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    left = Collection.open(path)
    assert left.table(names).equals(images)
    assert left.next_id == 118
    prune(left)
    assert left.table(names).equals(images)
    assert len(left.table(["id"], gone=True)) == 95
    assert 95 * 12_000 < du(path) < 95 * 12_000 + 60_000


def test_a_copy_follows_a_pruned_collection(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    for i in range(6):
        noise = np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    prepare([str(folder)], str(tmp_path / "a"))
    follow(Collection.open(tmp_path / "a"), tmp_path / "b", "index")
    for i in (0, 4, 5):
        (folder / f"{i}.png").unlink()
    prepare([str(folder)], str(tmp_path / "a"))
    assert prune(Collection.open(tmp_path / "a")).rows == 3
    (folder / "5.png").symlink_to(folder / "2.png")  # a new row, whose id is not one that was pruned
    prepare([str(folder)], str(tmp_path / "a"))
    copy = follow(Collection.open(tmp_path / "a"), tmp_path / "b", "index")
    assert copy.table(["id"])["id"].to_pylist() == [1, 2, 3, 6]
    assert prune(copy).rows == 3
    follow(Collection.open(tmp_path / "a"), tmp_path / "b", "index")
    assert copy.table(["id", "source", "image"]).equals(
        Collection.open(tmp_path / "a").table(["id", "source", "image"])
    )
    (folder / "1.png").unlink()
    prepare([str(folder)], str(tmp_path / "a"))
    copy = follow(Collection.open(tmp_path / "a"), tmp_path / "b", "index")
    assert prune(copy).rows == 1
    follow(Collection.open(tmp_path / "a"), tmp_path / "b", "index")  # which still has the row, gone
    assert len(whole(tmp_path / "b")) == 3
    prepare([str(folder)], str(tmp_path / "other"))
    with pytest.raises(CollectionError, match="holds other rows"):
        follow(Collection.open(tmp_path / "other"), tmp_path / "b", "index")
