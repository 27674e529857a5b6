"""A collection that follows another: its rows at first, later what is new, edited or gone there.

Rows are only ever appended, with rising ids: what is new lies above the last id, and a killed copy goes on there.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.core.errors import CollectionError
from lookalike.core.files import locked, refuse_unless
from lookalike.core.journal import progress
from lookalike.data.collection import SCHEMA, Collection, is_vector

ROWS = 2048
"""Rows of a commit: they wait in memory, with their images."""
VECTORS = 2**16
"""Rows of a commit of vectors alone."""


def follow(source: Collection, out: str | Path, verb: str) -> Collection:
    """The collection at `out`, made or brought up to date with `source`; vectors that are there come along.

    Args:
        source: Is read as it is, at the version that is open.
        out: Nothing, or what an earlier call made of the same source.
        verb: The command, for the message to a second writer.

    Raises:
        StorageError: `out` is something else, or another process writes there.
        CollectionError: `out` is a collection with rows of its own.
    """
    kind = refuse_unless(out, ("missing", "empty", "collection"), "collection")
    if kind != "collection":
        with locked(out, verb):
            extra = [field for field in source.schema if field.name not in SCHEMA.names]
            Collection.create(out, pa.schema(extra))
    copy = Collection.open(out)
    with copy.locked(verb):
        shared = len(copy.table(["id"], gone=True))
        _check_same(source, copy, shared)
        new = [field for field in source.schema if field.name not in copy.columns]
        if new:
            copy.add_columns(pa.schema(new))
        _fill(source, copy, [field.name for field in new if is_vector(field)])
        _edit(source, copy)
        with progress("copy", "images", len(source.table(["id"], gone=True)), shared) as bar:
            for batch in source.scan(source.columns, f"id > {_last(copy)}", ROWS, gone=True):
                copy.append(pa.Table.from_batches([batch]))
                bar.advance(len(batch))
        entries = {key: value for key, value in source.card.items() if key != "model"}
        copy.update_card({**entries, "copy_of": str(Path(source.path).absolute())})
    return copy


def _last(copy: Collection) -> int:
    ids = copy.table(["id"], gone=True)["id"]
    return ids[-1].as_py() if len(ids) else -1


def _check_same(source: Collection, copy: Collection, shared: int) -> None:
    """CollectionError unless the rows of `copy` are the first rows of `source`."""
    theirs = source.table(["id", "sha256"], f"id <= {_last(copy)}", gone=True)
    if len(theirs) != shared or not theirs.equals(copy.table(["id", "sha256"], gone=True)):
        raise CollectionError(
            f"`{copy.path}` holds other rows than `{source.path}`, so it can't be brought up to date with it.",
            hint="give a new `--out`",
        )


def _fill(source: Collection, copy: Collection, names: list[str]) -> None:
    """Vectors that the source has gained since; those that both have are as they were, like the images."""
    if names:
        for batch in source.scan(["id", *names], f"id <= {_last(copy)}", VECTORS, gone=True):
            copy.update(pa.Table.from_batches([batch]))


def _edit(source: Collection, copy: Collection) -> None:
    """Set what was edited since, images and vectors aside."""
    names = [field.name for field in source.schema if not is_vector(field) and field.name not in ("image", "sha256")]
    theirs = source.table(names, f"id <= {_last(copy)}", gone=True)
    ours = copy.table(names, gone=True)
    same = pa.array([True] * len(ours), pa.bool_())
    for name in names:
        same = pc.and_(same, same_values(theirs[name], ours[name]))
    copy.update(theirs.filter(pc.invert(same)))


def same_values(left: Any, right: Any) -> Any:
    """Where two columns are equal, or null in both."""
    if pa.types.is_nested(left.type):
        return pa.array([a == b for a, b in zip(left.to_pylist(), right.to_pylist(), strict=True)], pa.bool_())
    return pc.or_(pc.and_(pc.is_null(left), pc.is_null(right)), pc.fill_null(pc.equal(left, right), False))
