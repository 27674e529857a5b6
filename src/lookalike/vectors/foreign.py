"""Vectors that anyone made, as files: a .npy matrix in the order of ids, or Parquet with columns `id`, `embedding`."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int64

from lookalike.core.errors import UsageError
from lookalike.core.shapes import Ids

SUFFIXES = (".npy", ".parquet")
_KINDS = (np.float16, np.float32, np.float64)
_NPY = "numpy.save(FILE, vectors.astype(numpy.float32)) writes one, a row an image of the collection"
_FINITE = "numpy.isfinite(vectors).all(axis=1) shows which rows are whole; make the others again"
_BLOCK = 2**16  # rows that are looked at together
_PARQUET = "a Parquet file has the columns `id` (whole numbers) and `embedding` (lists of as many float numbers each)"


def read_vectors(path: str | Path, ids: Int64[np.ndarray, "rows"]) -> Float[np.ndarray, "N D"]:
    """The vectors in a file, row i of the i-th of `ids`, which rise; UsageError if it holds anything else.

    What begins as Parquet does is that, whatever its name. A .npy file is mapped, and
    read once to see that all numbers are finite. Pickles stay closed.
    """
    if not Path(path).is_file():
        raise UsageError(f"There is no file `{path}` with embeddings.", hint=_NPY)
    with Path(path).open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    vectors: Float[np.ndarray, "N D"] = _parquet(path, ids) if is_parquet else _npy(path)
    return vectors


def _npy(path: str | Path) -> Any:
    try:
        vectors = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise UsageError(f"`{path}` is not a .npy file, or can't be read as one: {error}.", hint=_NPY) from error
    if vectors.dtype.newbyteorder("=") not in _KINDS or vectors.ndim != 2 or 0 in vectors.shape:
        raise UsageError(
            f"`{path}` holds {vectors.dtype} {list(vectors.shape)}; expected float16, float32 or float64 [N, D].",
            hint=_NPY,
        )
    for start in range(0, len(vectors), _BLOCK):
        bad = ~np.isfinite(vectors[start : start + _BLOCK]).all(axis=1)
        if bad.any():
            row = start + int(np.argmax(bad))
            raise UsageError(f"Row {row} of `{path}` holds a number that is not finite.", hint=_FINITE)
    return vectors


def _parquet(path: str | Path, ids: Ids) -> Any:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(str(path))
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"`{path}` can't be read as Parquet: {error}.", hint=_PARQUET) from error
    for name in ("id", "embedding"):
        if name not in table.column_names:
            found = ", ".join(table.column_names)
            raise UsageError(f"`{path}` has no column `{name}`; it has {found}.", hint=_PARQUET)
    order = _order(path, table["id"], ids)
    column = table["embedding"].combine_chunks()
    vectors = _matrix(path, column, table["id"])
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        name = table["id"][int(np.argmax(bad))]
        raise UsageError(f"The vector of id {name} in `{path}` holds a number that is not finite.", hint=_FINITE)
    return vectors[order]


def _order(path: str | Path, column: pa.ChunkedArray, ids: Ids) -> Ids:
    """Where each of `ids` stands in the file; UsageError unless each stands there once, and nothing else."""
    if not pa.types.is_integer(column.type) or column.null_count:
        raise UsageError(f"Column `id` of `{path}` is {column.type}, or lacks values; expected whole numbers.")
    given = column.to_numpy().astype(np.int64)
    order = np.argsort(given, kind="stable")
    rising = given[order]
    hint = "`lookalike info COLL` tells how many rows it has; `Collection.open(COLL).table(['id'])` lists their ids"
    if (doubled := rising[1:][rising[1:] == rising[:-1]]).size:
        raise UsageError(f"The id {doubled[0]} stands twice in `{path}`.", hint=hint)
    if (unknown := rising[~np.isin(rising, ids)]).size:
        raise UsageError(f"`{path}` has a vector of id {unknown[0]}, and the collection has no such row.", hint=hint)
    if (missing := ids[~np.isin(ids, rising)]).size:
        raise UsageError(
            f"`{path}` has {len(given):,} vectors and the collection {len(ids):,} rows: id {missing[0]} is missing.",
            hint=hint,
        )
    return order.astype(np.int64)


def _matrix(path: str | Path, column: Any, ids: pa.ChunkedArray) -> Any:
    kind = column.type
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(kind) for is_kind in lists) or not pa.types.is_floating(kind.value_type):
        raise UsageError(f"Column `embedding` of `{path}` is {kind}; expected lists of float numbers.", hint=_PARQUET)
    if column.null_count or not len(column):
        raise UsageError(f"Column `embedding` of `{path}` has rows without a vector, or no row.", hint=_PARQUET)
    if pa.types.is_fixed_size_list(kind):
        widths = np.full(len(column), kind.list_size)
    else:
        widths = np.diff(column.offsets.to_numpy())
    other = widths != widths[0]
    if other.any() or widths[0] == 0:
        at = int(np.argmax(other))
        raise UsageError(
            f"The vector of id {ids[at]} in `{path}` has {widths[at]} numbers, and that of id {ids[0]} {widths[0]}; "
            "expected as many in each, and one at least.",
            hint=_PARQUET,
        )
    flat = column.flatten()
    if flat.null_count:
        raise UsageError(f"Column `embedding` of `{path}` holds a number that is missing.", hint=_PARQUET)
    return flat.to_numpy(zero_copy_only=False).reshape(len(column), widths[0])
