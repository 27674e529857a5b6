import multiprocessing
import os
import shlex
import subprocess
import sys
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lance.fragment import write_fragments

from lookalike.core.errors import CollectionError, StorageError
from lookalike.data.collection import SCHEMA, Collection

NOISE = os.urandom(20_000)


def rows(first: int, stop: int, step: int = 1) -> pa.Table:
    ids = list(range(first, stop, step))
    return pa.table(
        {
            "id": ids,
            "source": [f"shop/{i}.jpg" for i in ids],
            "image": [NOISE + bytes([i % 256]) for i in ids],
            "width": [40] * len(ids),
            "height": [30] * len(ids),
            "sha256": [i.to_bytes(32, "big") for i in ids],
            "label": pa.array([None if i % 5 == 0 else f"label {i % 5}" for i in ids], pa.string()),
            "domain": ["even" if i % 2 == 0 else "odd" for i in ids],
            "split": ["test"] * len(ids),
            "group": pa.nulls(len(ids), pa.string()),
            "is_query": [True] * len(ids),
            "is_gallery": [True] * len(ids),
            "gone": [False] * len(ids),
            "stamp": [f"1-{i}" for i in ids],
            "price": [i / 10 for i in ids],
        }
    )


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """30 rows with ids 0, 2, 4 ..., in three commits."""
    made = Collection.create(tmp_path / "shop", pa.schema([pa.field("price", pa.float64())]))
    for first in (0, 20, 40):
        made.append(rows(first, first + 20, 2))
    return made


def ids(table: pa.Table) -> list[int]:
    return table["id"].to_pylist()


def test_rows_come_back_as_they_were_written_in_the_order_of_ids(collection: Collection) -> None:
    again = Collection.open(collection.path)
    expected = pa.concat_tables([rows(first, first + 20, 2) for first in (0, 20, 40)])
    assert again.table(again.columns).to_pylist() == expected.to_pylist()
    assert again.columns == [*SCHEMA.names, "price"]
    assert len(again) == 30


def test_scan_streams_the_same_rows_in_bounded_batches(collection: Collection) -> None:
    batches = list(collection.scan(["id", "price"], batch_rows=7))
    assert max(len(batch) for batch in batches) <= 7
    assert [i for batch in batches for i in batch["id"].to_pylist()] == list(range(0, 60, 2))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("price < 1", [0, 2, 4, 6, 8]),
        ("label IS NULL AND id >= 30", [30, 40, 50]),
        ("label = 'label 4' OR id = 2", [2, 4, 14, 24, 34, 44, 54]),
        ("id = 3", []),
        ("label = ')' OR (id = 4)", [4]),
    ],
)
def test_where_filters(collection: Collection, where: str, expected: list[int]) -> None:
    assert ids(collection.table(["id"], where)) == expected
    assert [i for batch in collection.scan(["id"], where) for i in batch["id"].to_pylist()] == expected


@pytest.mark.parametrize(
    "where",
    [
        "nosuch = 1",
        "label =",
        "price > 'x'",
        "label",
        "sum(id) > 3",
        "",
        "id = 1) OR (id = 2",
        "id = 1 trailing words",
        "(id = 1",
        "id / 0 > 1",
        "cast(domain as int) = 1",
    ],
)
def test_a_condition_that_is_none_is_told_with_the_columns(collection: Collection, where: str) -> None:
    with pytest.raises(CollectionError) as caught:
        collection.table(["id"], where)
    assert f"`{where}`" in caught.value.message
    assert "price" in caught.value.hint
    assert "/rust/" not in str(caught.value)
    assert "_rowid" not in str(caught.value)


def test_take_keeps_the_order_and_repeats(collection: Collection) -> None:
    wanted = np.array([58, 0, 4, 4, 20])
    table = collection.take(wanted, ["source", "id"])
    assert ids(table) == wanted.tolist()
    assert table["source"].to_pylist() == [f"shop/{i}.jpg" for i in wanted]
    assert len(collection.take(np.array([], np.int64), ["id", "image"])) == 0
    for absent in (3, 60, -1):
        with pytest.raises(CollectionError, match=f"no row with id {absent}"):
            collection.take(np.array([0, absent]), ["id"])


def test_an_unknown_column_is_told_with_the_nearest_name(collection: Collection) -> None:
    for read in (
        lambda: collection.table(["lable"]),
        lambda: list(collection.scan(["lable"])),
        lambda: collection.take(np.array([0]), ["lable"]),
    ):
        with pytest.raises(CollectionError, match="no column `lable`") as caught:
            read()
        assert "`label`" in caught.value.hint


def test_gone_rows_are_left_out_everywhere_but_keep_their_place(collection: Collection) -> None:
    before = collection.fingerprint
    collection.mark_gone(np.array([0, 22, 58]))
    assert len(collection) == 27
    assert collection.fingerprint != before
    left = [i for i in range(0, 60, 2) if i not in (0, 22, 58)]
    assert ids(collection.table(["id"])) == left
    assert ids(collection.table(["id"], "price > 2 OR true")) == left
    assert collection.missing("embedding_0").tolist() == left
    assert ids(collection.table(["id"], gone=True)) == list(range(0, 60, 2))
    collection.append(rows(70, 71))
    assert ids(collection.table(["id"]))[-1] == 70
    assert collection.next_id == 71


def test_update_sets_values_null_too_and_leaves_the_others(collection: Collection) -> None:
    before = collection.table(collection.columns).to_pylist()
    version = collection.version
    collection.update(pa.table({"id": [44, 2], "label": pa.array([None, "new"], pa.string()), "price": [1.5, None]}))
    assert collection.version == version + 1
    for row in before:
        if row["id"] in (2, 44):
            row.update({"label": {44: None, 2: "new"}[row["id"]], "price": {44: 1.5, 2: None}[row["id"]]})
    assert Collection.open(collection.path).table(collection.columns).to_pylist() == before


def test_ids_must_rise(collection: Collection) -> None:
    for wrong in (rows(58, 59), rows(3, 4), pa.concat_tables([rows(61, 62), rows(60, 61)])):
        with pytest.raises(ValueError, match="rise"):
            collection.append(wrong)


def test_appending_again_and_again_does_not_read_all_ids_each_time(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.append(rows(60, 70))
    monkeypatch.setattr(Collection, "_all_ids", property(lambda _: pytest.fail("read all ids")))
    collection.append(rows(80, 90))
    assert collection.next_id == 90
    with pytest.raises(ValueError, match="ids must rise"):
        collection.append(rows(89, 95))
    monkeypatch.undo()
    assert Collection.open(collection.path).next_id == 90
    assert len(Collection.open(collection.path)) == 50


def test_vectors_are_added_and_filled_in_without_writing_images_again(collection: Collection) -> None:
    rng = np.random.default_rng(0)
    every = np.arange(0, 60, 2)
    values = rng.standard_normal((30, 8)).astype(np.float32)
    images = image_files(collection)
    before = data_bytes(collection)
    version = collection.version

    assert collection.missing("features_0a").tolist() == every.tolist()
    some = rng.permutation(30)[:17]  # in any order, over all three fragments
    collection.write_vectors("features_0a", every[some], values[some], {"model": "m"})
    assert collection.version <= version + 2
    assert set(collection.missing("features_0a").tolist()) == set(every.tolist()) - set(every[some].tolist())
    with pytest.raises(CollectionError, match="no value in `features_0a`") as caught:
        collection.vectors("features_0a")
    assert "lookalike embed" in caught.value.hint

    rest = np.setdiff1d(np.arange(30), some)
    version = collection.version
    collection.write_vectors("features_0a", every[rest], values[rest], {"model": "m"})
    assert collection.version == version + 1
    again = Collection.open(collection.path)
    got_ids, got = again.vectors("features_0a")
    assert got_ids.tolist() == every.tolist()
    np.testing.assert_array_equal(got, values)
    assert again.schema.field("features_0a").metadata == {b"model": b"m"}
    assert str(again.schema.field("features_0a").type) == "fixed_size_list<item: float>[8]"

    collection.append(rows(60, 70))
    assert collection.missing("features_0a").tolist() == list(range(60, 70))
    collection.write_vectors("features_0a", np.arange(60, 70), np.ones((10, 8), np.float32), {})
    np.testing.assert_array_equal(collection.vectors("features_0a")[1][:30], values)
    assert len(collection.missing("features_0a")) == 0

    assert images <= image_files(collection)
    assert data_bytes(collection) - before < 10 * 20_001 + 60_000  # ten new images, small columns


def test_vectors_of_another_encoder_are_named(collection: Collection) -> None:
    with pytest.raises(CollectionError, match="no vectors at all"):
        collection.vectors("embedding_b")
    collection.write_vectors("embedding_a", np.array([0]), np.ones((1, 4), np.float32), {})
    with pytest.raises(CollectionError, match="embedding_a") as caught:
        collection.vectors("embedding_b")
    assert "lookalike embed" in caught.value.hint
    with pytest.raises(CollectionError, match=r"\[4\]"):
        collection.write_vectors("embedding_a", np.array([0]), np.ones((1, 5), np.float32), {})


def test_vectors_of_gone_rows_are_not_asked_for(collection: Collection) -> None:
    collection.mark_gone(np.array([2]))
    present = collection.missing("embedding_a")
    collection.write_vectors("embedding_a", present, np.ones((29, 4), np.float32), {})
    got_ids, got = collection.vectors("embedding_a")
    assert got_ids.tolist() == present.tolist()
    assert got.shape == (29, 4)


def test_the_fingerprint_is_of_ids_images_labels_and_domains(collection: Collection) -> None:
    first = collection.fingerprint
    assert len(first) == 64
    assert Collection.open(collection.path).fingerprint == first
    collection.write_vectors("embedding_a", np.array([0]), np.ones((1, 4), np.float32), {})
    collection.update(pa.table({"id": [0], "price": [9.0]}))
    assert collection.fingerprint == first
    seen = {first}
    for change in ({"label": ["label 3"]}, {"label": [""]}, {"domain": ["even\0"]}, {"sha256": [b"x" * 32]}):
        collection.update(
            pa.table({"id": [0], **change}, schema=collection.schema.empty_table().select(["id", *change]).schema)
        )
        seen.add(collection.fingerprint)
    assert len(seen) == 5


def test_an_open_collection_stays_at_its_version(collection: Collection) -> None:
    reader = Collection.open(collection.path)
    collection.append(rows(60, 70))
    collection.mark_gone(np.array([0]))
    assert len(reader) == 30
    assert ids(reader.table(["id"]))[0] == 0
    assert len(Collection.open(collection.path)) == 39


def test_what_is_no_collection_is_said(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "broken" / "rows.lance" / "data").mkdir(parents=True)
    for name, word in (
        ("missing", "nothing"),
        ("photos", "something else"),
        ("empty", "empty"),
        ("file", "something else"),
        ("broken", "interrupted"),
    ):
        with pytest.raises(CollectionError, match=word) as caught:
            Collection.open(tmp_path / name)
        assert str(tmp_path / name) in caught.value.message
        assert "lookalike prepare" in caught.value.hint


def test_a_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    lance.write_dataset(pa.table({"id": ["a"], "image": [b""]}), tmp_path / "a" / "rows.lance", mode="create")
    with pytest.raises(CollectionError, match="column `id` is string, expected int64"):
        Collection.open(tmp_path / "a")
    lance.write_dataset(rows(0, 1).drop_columns("label").cast(schema_of("label")), tmp_path / "b" / "rows.lance")
    with pytest.raises(CollectionError, match="column `label` is missing, expected string"):
        Collection.open(tmp_path / "b")


def test_the_card_keeps_what_others_wrote(collection: Collection) -> None:
    assert collection.card == {}
    collection.update_card({"model": {"path": "m"}, "rows": 1})
    collection.update_card({"rows": 2})
    assert Collection.open(collection.path).card == {"model": {"path": "m"}, "rows": 2}


def test_errors_are_kept_and_forgotten(collection: Collection) -> None:
    assert len(collection.errors()) == 0
    table = pa.table({"id": [1, 3], "source": ["a", "b"], "reason": ["r", "s"], "stamp": ["1", "2"]})
    collection.add_errors(table)
    collection.drop_errors(np.array([1]))
    collection.drop_errors(np.array([], np.int64))
    assert collection.errors().to_pylist() == [{"id": 3, "source": "b", "reason": "s", "stamp": "2"}]


def test_a_second_writer_is_refused(collection: Collection) -> None:
    with collection.locked("embed"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            message = pool.apply(try_to_lock, (collection.path,))
    assert "Another process is writing" in message
    assert try_to_lock(collection.path) == ""


def test_what_a_killed_write_left_is_swept_away_and_old_versions_stay(collection: Collection) -> None:
    old = Collection.open(collection.path)
    collection.update(pa.table({"id": [0], "price": [9.0]}))
    known = set(Path(collection.path, "rows.lance", "data").iterdir())
    write_fragments(
        rows(60, 70).cast(collection.schema), f"{collection.path}/rows.lance", mode="append"
    )  # and no commit
    assert set(Path(collection.path, "rows.lance", "data").iterdir()) > known
    with collection.locked("embed"):
        assert set(Path(collection.path, "rows.lance", "data").iterdir()) == known
    assert old.take(np.array([0]), ["price"])["price"].to_pylist() == [0.0]
    assert collection.take(np.array([0]), ["price"])["price"].to_pylist() == [9.0]


def try_to_lock(path: str) -> str:
    try:
        with Collection.open(path).locked("prepare"):
            return ""
    except StorageError as error:
        return error.message


def schema_of(dropped: str) -> pa.Schema:
    return pa.schema([field for field in [*SCHEMA, pa.field("price", pa.float64())] if field.name != dropped])


def image_files(collection: Collection) -> set[str]:
    """Names of the data files that hold the column `image`."""
    dataset = lance.dataset(f"{collection.path}/rows.lance")
    return {f.path for fragment in dataset.get_fragments() for f in fragment.data_files() if 2 in f.fields}


def versions(collection: Collection) -> list[Path]:
    return list(Path(collection.path, "rows.lance", "_versions").glob("*.manifest"))


def data_bytes(collection: Collection) -> int:
    return sum(f.stat().st_size for f in Path(collection.path, "rows.lance", "data").iterdir())


def test_the_hint_never_names_a_place_that_prepare_would_refuse(tmp_path: Path) -> None:
    with pytest.raises(CollectionError) as caught:
        Collection.open(tmp_path / "new")
    assert caught.value.hint == f"lookalike prepare SOURCE --out {shlex.quote(str(tmp_path / 'new'))}"
    (tmp_path / "mine.txt").touch()
    with pytest.raises(CollectionError) as caught:
        Collection.open(tmp_path)
    assert caught.value.hint == "lookalike prepare SOURCE --out COLL"


parts = st.sampled_from(
    [
        "id > 4",
        "label = 'label 4'",
        "true",
        "gone",
        "gone = true",
        "OR",
        "AND",
        "NOT",
        "(",
        ")",
        "--",
        "/*",
        "*/",
        "'",
        '"',
        "`",
        "\n",
    ]
)


@pytest.fixture(scope="module")
def thinned(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    made = Collection.create(tmp_path_factory.mktemp("where") / "shop", pa.schema([pa.field("price", pa.float64())]))
    made.append(rows(0, 20))
    made.mark_gone(np.array([0, 5, 19]))
    return made


@pytest.mark.parametrize(
    "where",
    ["true -- '\n) OR true -- '", "true /* ' */ ) OR (true /* ' */", "true /*'*/) OR (gone /*'*/", "gone", "true --"],
)
def test_no_condition_brings_back_what_is_gone(thinned: Collection, where: str) -> None:
    check_subset(thinned, where)


@settings(max_examples=200, deadline=None)
@given(st.lists(parts, min_size=1, max_size=9).map(" ".join))
def test_where_gives_a_subset_of_the_present_rows(thinned: Collection, where: str) -> None:
    check_subset(thinned, where)


def check_subset(collection: Collection, where: str) -> None:
    try:
        found = ids(collection.table(["id"], where))
    except CollectionError:
        return
    present = ids(collection.table(["id"]))
    assert set(found) <= set(present)
    assert found == sorted(set(found))
    assert set(found) == set(ids(collection.table(["id"], where, gone=True))) & set(present)


def test_many_commits_keep_few_versions(tmp_path: Path) -> None:
    made = Collection.create(tmp_path / "shop", pa.schema([pa.field("price", pa.float64())]))
    sizes = []
    for commits in (40, 80, 160):
        while made.version <= commits:
            made.append(rows(made.next_id, made.next_id + 1))
        made.sweep()
        sizes.append(sum(file.stat().st_size for file in versions(made)))
        assert len(versions(made)) == 1
    assert sizes[2] < 5 * sizes[0]  # all versions: 16 times
    before = data_bytes(made)
    for value in range(4):  # a column that is written again takes the place of the one before
        made.write_vectors("features_a", made.table(["id"])["id"].to_numpy(), np.full((160, 64), value, "f4"), {})
    made.sweep()
    assert data_bytes(made) - before < 160 * (64 * 4 + 1500)
    assert len(Collection.open(made.path)) == 160


READER = """
import sys
import numpy as np
from lookalike.data.collection import Collection
collection = Collection.open(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
print(len(collection), collection.table(["price"])["price"][0], len(collection.take(np.array([0, 2]), ["image"])))
"""


def test_a_reader_elsewhere_keeps_its_version(collection: Collection) -> None:
    command = [sys.executable, "-c", READER, collection.path]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "open\n"
    collection.update(pa.table({"id": [0], "price": [9.0]}))
    collection.mark_gone(np.array([2]))
    with collection.locked("embed"):
        pass
    assert len(versions(collection)) > 1
    assert reader.communicate("\n")[0] == "30 0.0 2\n"
    with collection.locked("embed"):
        assert len(versions(collection)) == 1
    assert (len(collection), len(Collection.open(collection.path))) == (29, 29)


def test_a_writer_that_is_behind_clears_nothing(collection: Collection) -> None:
    behind = Collection.open(collection.path)
    collection.update(pa.table({"id": [0], "price": [9.0]}))
    del collection
    with behind.locked("embed"):
        assert behind.table(["price"])["price"][0].as_py() == 0.0
