"""Columns of features and embeddings: whole, continued after kill -9, never embedded twice, never another encoder's."""

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

from lookalike.core.errors import CollectionError, StorageError
from lookalike.core.shapes import Ids
from lookalike.data.collection import SCHEMA, Collection, is_vector
from lookalike.encoders.directory import write_model
from lookalike.retrieval.index import Index
from lookalike.vectors.column import embeddings_of, ensure_embeddings, ensure_features, stored_embeddings
from lookalike.vectors.engines import OnnxEngine
from lookalike.vectors.runtime import Embedder, load


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through the encoder, call by call."""
    counts: list[int] = []
    features = OnnxEngine.features

    def counted(self: OnnxEngine, images: np.ndarray) -> np.ndarray:
        counts.append(len(images))
        return features(self, images)

    monkeypatch.setattr(OnnxEngine, "features", counted)
    return counts


def by_hand(embedder: Embedder, collection: Collection) -> tuple[Ids, np.ndarray, np.ndarray]:
    """Ids, features and mirrored features, one image at a time."""
    table = collection.table(["id", "image"])
    images = [embedder.decode(data) for data in table["image"].to_pylist()]
    one = [embedder.features(image[None])[0] for image in images]
    two = [embedder.features(image[None, :, ::-1])[0] for image in images]
    return table["id"].to_numpy(), np.stack(one), np.stack(two)


def test_columns_hold_what_the_encoder_says(
    tmp_path: Path, parts: Callable, collection: Collection, embedded: list[int]
) -> None:
    write_model(tmp_path / "mirror", *parts(mirror=True), {})
    embedder = load(tmp_path / "mirror", "onnx", batch=5)
    name = ensure_embeddings(embedder, collection).column
    assert embedded == [5, 5, 5, 5, 5, 5, 5, 5, 3, 3]  # the image and its mirror image, decoded once
    ids, features, mirrored = by_hand(embedder, collection)
    for column, expected in [
        (embedder.column("features", "float32"), features),
        (embedder.column("mirrored", "float32"), mirrored),
        (name, embedder.project(features, mirrored)),
    ]:
        found_ids, found = collection.vectors(column)
        np.testing.assert_array_equal(found_ids, ids)
        np.testing.assert_array_equal(found, expected)
        assert (
            Collection.open(collection.path)
            .schema.field(column)
            .metadata[b"fingerprint"]
            .decode()
            .startswith(column.split("_")[1])
        )
    assert not (Path(collection.path) / ".work").exists()


def test_embeds_only_what_is_new(
    model: str, collection: Collection, rows: Callable[[int, int], pa.Table], embedded: list[int]
) -> None:
    embedder = load(model, "onnx", batch=8)
    ensure_embeddings(embedder, collection)
    assert embedded == [8, 8, 7]
    version = collection.version
    ensure_embeddings(embedder, collection)
    assert (embedded, collection.version) == ([8, 8, 7], version)
    collection.append(rows(30, 2))
    collection.mark_gone(np.array([3]))
    ensure_embeddings(embedder, collection)
    assert embedded == [8, 8, 7, 2]
    ids, features, _ = by_hand(embedder, collection)
    np.testing.assert_array_equal(collection.vectors(embedder.column("features", "float32"))[1], features)
    assert collection.vectors(embedder.embedding_column)[0].tolist() == ids.tolist()
    ensure_features(embedder, collection, mirrored=True)  # later, for training: only the mirror images are new
    assert sum(embedded) == 25 + 2 * 24 + 24
    np.testing.assert_array_equal(
        collection.vectors(embedder.column("mirrored", "float32"))[1], by_hand(embedder, collection)[2]
    )


def test_another_projection_needs_no_further_pass(
    model: str, tmp_path: Path, parts: Callable, collection: Collection, embedded: list[int]
) -> None:
    first = ensure_embeddings(load(model, "onnx"), collection).column
    config, tensors = parts()
    write_model(tmp_path / "trained", config, tensors | {"projection.weight": -tensors["projection.weight"]}, {})
    second = ensure_embeddings(load(tmp_path / "trained", "onnx"), collection).column
    assert sum(embedded) == 23
    assert first != second
    assert np.abs(collection.vectors(first)[1] - collection.vectors(second)[1]).max() > 0.1


KILLED = """
import os, signal, sys
from lookalike.data.collection import Collection
from lookalike.vectors import column
from lookalike.vectors import engines
from lookalike.vectors.runtime import load

features, calls = engines.OnnxEngine.features, 0
def dying(self, images):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return features(self, images)
engines.OnnxEngine.features = dying

commit = column.Work.commit
def dying_commit(self):
    if sys.argv[4] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[4] == "after":  # the vectors are in the collection, the work files are still there
        column.os.truncate = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    commit(self)
column.Work.commit = dying_commit
column.ensure_embeddings(load(sys.argv[1], "onnx", batch=4), Collection.open(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("call", "moment", "again"),
    [(1, "", 23), (4, "", 11), (0, "before", 0), (0, "after", 0)],
    ids=["first batch", "fourth batch", "before the commit", "after the commit"],
)
def test_goes_on_after_kill_9(
    model: str, collection: Collection, embedded: list[int], call: int, moment: str, again: int
) -> None:
    """At most the batch that was in work is embedded twice, and the result is that of an undisturbed run to the bit."""
    command = [sys.executable, "-c", KILLED, model, collection.path, str(call), moment]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    went_on = Collection.open(collection.path)
    embedder = load(model, "onnx", batch=4)
    ensure_embeddings(embedder, went_on)
    assert sum(embedded) == again
    ids, features, _ = by_hand(embedder, went_on)
    np.testing.assert_array_equal(went_on.vectors(embedder.column("features", "float32"))[0], ids)
    np.testing.assert_array_equal(went_on.vectors(embedder.column("features", "float32"))[1], features)
    np.testing.assert_array_equal(went_on.vectors(embedder.embedding_column)[1], embedder.project(features))
    assert not (Path(collection.path) / ".work").exists()


def leave_work(embedder: Embedder, collection: Collection, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Embed everything and die before the commit; returns the work file."""
    with monkeypatch.context() as patch:
        patch.setattr("lookalike.vectors.column.Work.commit", lambda self: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            ensure_features(embedder, collection, mirrored=False)
    (file,) = (Path(collection.path) / ".work").iterdir()
    return file


def test_stale_work_is_not_used(
    model: str,
    collection: Collection,
    tmp_path: Path,
    rows: Callable[[int, int], pa.Table],
    embedded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Work of other images, of another encoder, torn at its end, damaged, and of rows that are gone."""
    embedder = load(model, "onnx", batch=4)
    work = leave_work(embedder, collection, monkeypatch)
    other = Collection.create(tmp_path / "other")
    other.append(rows(100, 8).set_column(0, "id", pa.array(range(8))))  # ids 0 to 7 are other images here
    other.append(rows(8, 12))
    folder = tmp_path / "other" / ".work"
    (folder / "features_0123abcd").mkdir(parents=True)  # of a version before
    (folder / "features_0123abcd" / "000000000000.npz").write_bytes(b"ids, image hashes and vectors")
    size, records = 8 + 32 + 4 * 16, work.read_bytes()
    damaged = (
        records[: 8 * size] + bytes(4 * size) + records[12 * size : 19 * size] + records[19 * size : 20 * size - 1]
    )
    (folder / work.name).write_bytes(damaged)
    (folder / work.name.replace("_float32", "_int8")).write_bytes(records)
    other.mark_gone(np.array([17]))  # what still counts: 12 to 16, and 18
    embedded.clear()
    ensure_features(embedder, other, mirrored=False)
    assert sum(embedded) == 8 + 4 + 1
    np.testing.assert_array_equal(other.vectors(embedder.column("features", "float32"))[1], by_hand(embedder, other)[1])
    assert [file.name for file in folder.iterdir()] == [work.name.replace("_float32", "_int8")]


def test_work_for_one_column_serves_when_two_are_wanted(
    model: str, collection: Collection, embedded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = load(model, "onnx", batch=4)
    leave_work(embedder, collection, monkeypatch)
    embedded.clear()
    ensure_features(embedder, collection, mirrored=True)
    assert sum(embedded) == 23
    _, features, mirrored = by_hand(embedder, collection)
    np.testing.assert_array_equal(collection.vectors(embedder.column("features", "float32"))[1], features)
    np.testing.assert_array_equal(collection.vectors(embedder.column("mirrored", "float32"))[1], mirrored)


def test_commits_part_by_part_when_much_comes_together(
    model: str, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike.vectors.column.COMMIT_BYTES", 4 * 16 * 10)  # ten rows of features
    embedder = load(model, "onnx", batch=4)
    before = collection.version
    ensure_embeddings(embedder, collection)
    assert collection.version - before == 6  # two new columns, commits of 8, 8 and 7, and one of all embeddings
    ids, features, _ = by_hand(embedder, collection)
    np.testing.assert_array_equal(collection.vectors(embedder.column("features", "float32"))[1], features)
    np.testing.assert_array_equal(collection.vectors(embedder.embedding_column)[0], ids)
    np.testing.assert_array_equal(collection.vectors(embedder.embedding_column)[1], embedder.project(features))


def test_two_writers_at_once_are_refused(model: str, collection: Collection) -> None:
    with collection.locked("prepare"), pytest.raises(StorageError, match="Another process is writing"):
        ensure_embeddings(load(model, "onnx"), collection)
    stale = Collection.open(collection.path)
    ensure_features(load(model, "onnx"), collection, mirrored=False)
    with pytest.raises(CollectionError, match="after it was opened"):
        ensure_features(load(model, "onnx"), stale, mirrored=False)


def test_the_column_of_another_encoder_is_not_filled(model: str, collection: Collection) -> None:
    """Another encoder whose fingerprint begins in the same way: one in four thousand million, and still told apart."""
    embedder = load(model, "onnx")
    ensure_embeddings(embedder, collection)
    twin = load(model, "onnx")
    twin.fingerprint = embedder.fingerprint[:8] + "0" * 56
    with pytest.raises(CollectionError, match="was made by another encoder"):
        ensure_embeddings(twin, collection)
    twin.features_fingerprint = embedder.features_fingerprint[:8] + "0" * 56
    with pytest.raises(CollectionError, match="was made by another encoder"):
        ensure_features(twin, collection, mirrored=False)


def test_a_damaged_picture_is_named(model: str, tmp_path: Path, rows: Callable[[int, int], pa.Table]) -> None:
    table = rows(0, 3)
    pictures = table["image"].to_pylist()
    pictures[1] = pictures[1][:100]
    made = Collection.create(tmp_path / "damaged")
    made.append(table.set_column(2, "image", pa.array(pictures, pa.binary())))
    with pytest.raises(CollectionError, match=r"image of row 1 of .* can't be decoded"):
        ensure_features(load(model, "onnx"), made, mirrored=False)


def test_a_collection_without_rows_gets_its_columns(model: str, tmp_path: Path) -> None:
    empty = Collection.create(tmp_path / "empty")
    name = ensure_embeddings(load(model, "onnx"), empty).column
    ids, vectors = empty.vectors(name)
    assert (len(ids), vectors.shape) == (0, (0, 5))
    assert ensure_embeddings(load(model, "onnx"), empty) == (name, 0)


def as_before(collection: Collection, embedder: Embedder, change: float) -> None:
    """Features and embeddings in columns whose names say no precision, `change` away from what the encoder gives."""
    ids, features, _ = by_hand(embedder, collection)
    features = features + np.float32(change * np.abs(features).max())
    prints = {"fingerprint": embedder.features_fingerprint}
    collection.write_vectors(f"features_{embedder.features_fingerprint[:8]}", ids, features, prints)
    prints = {"fingerprint": embedder.fingerprint}
    collection.write_vectors(f"embedding_{embedder.fingerprint[:8]}", ids, embedder.project(features), prints)


def test_columns_from_before_open_as_what_they_are(
    model: str, collection: Collection, rows: Callable[[int, int], pa.Table], embedded: list[int]
) -> None:
    """Read, and continued, where they hold what the encoder gives; made anew where they hold something else."""
    embedder = load(model, "onnx", batch=64)
    as_before(collection, embedder, 1e-5)
    embedded.clear()
    with pytest.MonkeyPatch.context() as patch:  # nothing is to be written
        patch.setattr(Collection, "locked", lambda *_: pytest.fail("locked"))
        assert ensure_embeddings(embedder, collection) == (f"embedding_{embedder.fingerprint[:8]}", 0)
    collection.append(rows(30, 2))
    assert ensure_embeddings(embedder, collection) == (f"embedding_{embedder.fingerprint[:8]}", 2)
    assert max(embedded) == 4  # rows that are looked at
    assert not any(name.endswith("_float32") for name in collection.columns)


def test_columns_from_before_in_eight_bits_are_not_continued(model: str, collection: Collection) -> None:
    embedder = load(model, "onnx")
    as_before(collection, embedder, 0.02)
    assert ensure_features(embedder, collection, mirrored=False) == [embedder.column("features", "float32")]
    np.testing.assert_array_equal(
        collection.vectors(embedder.column("features", "float32"))[1], by_hand(embedder, collection)[1]
    )
    assert ensure_embeddings(embedder, collection) == (embedder.embedding_column, 23)


INTERRUPTED = """
import os, signal, sys, threading, time
from lookalike.data.collection import Collection
from lookalike.vectors import engines
from lookalike.vectors.column import ensure_features
from lookalike.vectors.runtime import load

features, calls = engines.OnnxEngine.features, 0
def interrupted(self, images):
    global calls
    calls += 1
    if calls == 3:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
    return features(self, images)
engines.OnnxEngine.features = interrupted

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    ensure_features(load(sys.argv[1], "onnx", batch=4), Collection.open(sys.argv[2]), mirrored=False)
except KeyboardInterrupt:
    print(threading.active_count())
"""


def test_ctrl_c_keeps_the_work(model: str, collection: Collection, embedded: list[int]) -> None:
    command = [sys.executable, "-c", INTERRUPTED, model, collection.path]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"  # no thread is left
    embedder = load(model, "onnx", batch=4)
    assert embedder.column("features", "float32") not in Collection.open(collection.path).columns
    ensure_features(embedder, collection, mirrored=False)
    assert sum(embedded) == 23 - 2 * 4


# ------------------------------------------------------------------ the same image twice


def test_the_same_image_is_embedded_once(
    model: str, collection: Collection, rows: Callable[[int, int], pa.Table], embedded: list[int]
) -> None:
    """Of new rows, and of rows whose image others have: of those that are gone, too."""

    def again(first: int, images: Sequence[int], width: int = 36) -> pa.Table:
        """Rows from id `first` on, with the images of these numbers."""
        table = pa.concat_tables([rows(number, 1) for number in images])
        table = table.set_column(0, SCHEMA.field("id"), pa.array(range(first, first + len(images))))
        return table.set_column(3, SCHEMA.field("width"), pa.array([width] * len(images), pa.int32()))

    collection.append(again(30, [4, 4, 50, 50, 51]))
    embedder = load(model, "onnx", batch=8)
    assert ensure_embeddings(embedder, collection).new == 28
    assert sum(embedded) == 23 + 2
    collection.append(again(40, [51, 7, 60, 60, 61]))
    collection.mark_gone(np.array([7]))
    assert ensure_embeddings(embedder, collection).new == 5
    assert sum(embedded) == 23 + 2 + 2
    ensure_features(embedder, collection, mirrored=True)
    assert sum(embedded) == 23 + 2 + 2 + 27  # whose mirror images are as few; 7's is that of row 41
    collection.append(again(50, [4], width=34))  # cut from the same file, but not alike
    ensure_embeddings(embedder, collection)
    assert sum(embedded) == 23 + 2 + 2 + 27 + 1
    every, features = collection.vectors(embedder.column("features", "float32"))
    ids, by_hand_features, _ = by_hand(embedder, collection)
    np.testing.assert_array_equal(every, ids)
    np.testing.assert_allclose(features, by_hand_features, rtol=1e-5, atol=1e-6)


def test_a_killed_run_goes_on_with_images_that_stand_twice(
    model: str, collection: Collection, rows: Callable[[int, int], pa.Table], embedded: list[int]
) -> None:
    table = rows(0, 12).set_column(0, SCHEMA.field("id"), pa.array(range(30, 42)))
    collection.append(table)
    command = [sys.executable, "-c", KILLED, model, collection.path, "4", ""]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    went_on, embedder = Collection.open(collection.path), load(model, "onnx", batch=4)
    assert ensure_embeddings(embedder, went_on).new == 35
    assert sum(embedded) == 11
    _, features, _ = by_hand(embedder, went_on)
    np.testing.assert_array_equal(went_on.vectors(embedder.column("features", "float32"))[1], features)


# ------------------------------------------------------------------ a tower as it is


@pytest.mark.parametrize("l2_normalize_input", [True, False])
def test_an_untouched_tower_stores_one_column(
    tmp_path: Path, parts: Callable, collection: Collection, embedded: list[int], l2_normalize_input: bool
) -> None:
    write_model(tmp_path / "as_it_is", *parts(kind="identity", l2_normalize_input=l2_normalize_input), {})
    embedder = load(tmp_path / "as_it_is", "onnx")
    name, new = ensure_embeddings(embedder, collection)
    assert (name, new) == (embedder.column("features", "float32"), 23)
    assert [field.name for field in collection.schema if is_vector(field)] == [name]
    images = [embedder.decode(data) for data in collection.table(["image"])["image"].to_pylist()]
    by_itself = embedder.embed([PIL.Image.fromarray(image) for image in images[:1]])
    _, vectors = stored_embeddings(embedder, collection)
    expected = embedder.vectors(np.stack(images), "embedding")
    assert by_itself.shape == expected[:1].shape
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    index = Index.open(collection.path)
    assert index.column == name
    np.testing.assert_allclose(index.vectors, expected, atol=1e-6)
    assert ensure_embeddings(embedder, collection) == (name, 0)
    assert embeddings_of(embedder, collection, "") == name
    embedded.clear()
    trained = load_trained(tmp_path, parts, embedder)  # which learns from the same features
    assert ensure_embeddings(trained, collection).column.startswith("embedding_")
    assert sum(embedded) == 0


def load_trained(folder: Path, parts: Callable, tower: Embedder) -> Embedder:
    config, tensors = parts()
    write_model(folder / "trained", config, tensors, {})
    trained = load(folder / "trained", "onnx")
    assert trained.features_fingerprint == tower.features_fingerprint
    return trained


def test_columns_of_an_untouched_tower_from_before_are_continued(
    tmp_path: Path, parts: Callable, collection: Collection, rows: Callable[[int, int], pa.Table]
) -> None:
    """Which has both, features and embeddings."""
    write_model(tmp_path / "as_it_is", *parts(kind="identity"), {})
    embedder = load(tmp_path / "as_it_is", "onnx")
    ids, features, _ = by_hand(embedder, collection)
    for column, values, made_by in [
        (embedder.column("features", "float32"), features, embedder.features_fingerprint),
        (embedder.embedding_column, embedder.project(features), embedder.fingerprint),
    ]:
        collection.write_vectors(column, ids, values, {"fingerprint": made_by})
    assert ensure_embeddings(embedder, collection) == (embedder.embedding_column, 0)
    assert embeddings_of(embedder, collection, embedder.embedding_column) == embedder.embedding_column
    collection.append(rows(30, 2))
    assert ensure_embeddings(embedder, collection) == (embedder.embedding_column, 2)
    _, now, _ = by_hand(embedder, collection)
    np.testing.assert_allclose(stored_embeddings(embedder, collection)[1], embedder.project(now), atol=1e-6)


def test_one_column_takes_the_room_of_one(
    tmp_path: Path, parts: Callable, rows: Callable[[int, int], pa.Table]
) -> None:
    write_model(tmp_path / "as_it_is", *parts(kind="identity"), {})
    embedder = load(tmp_path / "as_it_is", "onnx")
    made = Collection.create(tmp_path / "many")
    made.append(pa.concat_tables([rows(0, 1)] * 4000).set_column(0, SCHEMA.field("id"), pa.array(range(4000))))
    before = room(tmp_path / "many")
    ensure_embeddings(embedder, made)
    assert 0.9 < (room(tmp_path / "many") - before) / (4 * 16 * 4000) < 1.2


def room(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
