"""Columns that our own verbs make of vectors and marks, beside those of the sources: filled whole, in one commit."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from lookalike.core.errors import CollectionError
from lookalike.core.shapes import Ids
from lookalike.data.collection import Collection

_MAKER = b"made_by"  # in a column's metadata: the verb


def is_made(field: pa.Field) -> bool:
    """Whether one of our verbs filled this column, and no source."""
    return _MAKER in (field.metadata or {})


def write_made(collection: Collection, verb: str, ids: Ids, columns: Mapping[str, pa.Array]) -> None:
    """Set these columns in the rows `ids`, and make those that are not there; the caller holds the lock.

    CollectionError if one of them is a source's own.
    """
    check_made(collection, verb, tuple(columns))
    metadata = {_MAKER.decode(): f"lookalike {verb}"}
    new = [pa.field(name, values.type, metadata=metadata) for name, values in columns.items()]
    if new := [field for field in new if field.name not in collection.columns]:
        collection.add_columns(pa.schema(new))
    table: dict[str, Any] = {"id": pa.array(ids), **columns}
    collection.update(pa.table(table))


def check_made(collection: Collection, verb: str, names: tuple[str, ...]) -> None:
    """CollectionError if a column that `verb` is to write is a source's own."""
    for name in names:
        if name in collection.columns and not is_made(collection.schema.field(name)):
            raise CollectionError(
                f"`{collection.path}` has a column `{name}` of its own source, which `lookalike {verb}` would write.",
                hint="rename it in the source, and prepare a new collection: `lookalike prepare SOURCE --out NEW`",
            )
