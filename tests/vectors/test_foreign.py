"""Files of vectors that anyone made, and what is refused of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.core.errors import UsageError
from lookalike.vectors.foreign import read_vectors

IDS = np.array([2, 3, 7, 11])
VECTORS = np.arange(12, dtype=np.float64).reshape(4, 3)


def write(path, ids, vectors, kind=None):
    kind = kind or pa.list_(pa.float64())
    pq.write_table(pa.table({"id": pa.array(ids, pa.int64()), "embedding": pa.array(vectors, kind)}), path)
    return path


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.list_(pa.float16(), 3), pa.large_list(pa.float32()), pa.list_(pa.float32(), 3)]
)
def test_parquet_in_any_order(tmp_path, kind):
    order = [2, 0, 3, 1]
    rows = VECTORS[order].astype(kind.value_type.to_pandas_dtype())
    path = write(tmp_path / "z.parquet", IDS[order], list(rows), kind)
    np.testing.assert_array_equal(read_vectors(path, IDS), VECTORS)


def test_npy_is_not_read_before_it_is_needed(tmp_path):
    np.save(tmp_path / "z.npy", VECTORS)
    found = read_vectors(tmp_path / "z.npy", IDS)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, VECTORS)


@pytest.mark.parametrize(
    ("ids", "vectors", "words"),
    [
        ([2, 3, 7], VECTORS[:3].tolist(), "3 vectors and the collection 4 rows: id 11 is missing"),
        ([2, 3, 7, 12], VECTORS.tolist(), "has a vector of id 12"),
        ([2, 3, 7, 11, 11], [*VECTORS.tolist(), [0, 0, 0]], "The id 11 stands twice"),
        ([2, 3, 7, 11, 13], [*VECTORS.tolist(), [0, 0, 0]], "has a vector of id 13"),
        ([2, 3, 7, 11], [[1, 2, 3], [1, 2], [1, 2, 3], [1, 2, 3]], "The vector of id 3 .* has 2 numbers"),
        ([2, 3, 7, 11], [[1, 2, float("nan")], *VECTORS[1:].tolist()], "The vector of id 2 .* not finite"),
        ([2, 3, 7, 11], [[1, 2, None], *VECTORS[1:].tolist()], "a number that is missing"),
        ([2, 3, 7, 11], [None, *VECTORS[1:].tolist()], "rows without a vector"),
        ([2, 3, 7, 11], [[]] * 4, "has 0 numbers"),
        ([2, 3, 7, None], VECTORS.tolist(), "or lacks values"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(tmp_path, ids, vectors, words):
    with pytest.raises(UsageError, match=words):
        read_vectors(write(tmp_path / "z.parquet", ids, vectors), IDS)


def test_other_tables(tmp_path):
    path = tmp_path / "z.parquet"
    pq.write_table(pa.table({"id": IDS, "vector": VECTORS.tolist()}), path)
    with pytest.raises(UsageError, match="no column `embedding`; it has id, vector") as error:
        read_vectors(path, IDS)
    assert "`id`" in error.value.hint
    pq.write_table(pa.table({"id": IDS, "embedding": VECTORS[:, 0]}), path)
    with pytest.raises(UsageError, match="is double; expected lists"):
        read_vectors(path, IDS)
    pq.write_table(pa.table({"id": ["a", "b", "c", "d"], "embedding": VECTORS.tolist()}), path)
    with pytest.raises(UsageError, match="is string, or lacks values"):
        read_vectors(path, IDS)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match="can't be read as Parquet"):
        read_vectors(path, IDS)
