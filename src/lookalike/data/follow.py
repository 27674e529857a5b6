"""A collection that follows another: its rows at first, later what is new (above the last id), edited or gone there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from lookalike.core.errors import CollectionError
from lookalike.core.files import locked, refuse_unless
from lookalike.core.journal import Progress
from lookalike.core.shapes import Ids
from lookalike.data.apart import read_apart, write_apart
from lookalike.data.collection import SCHEMA, Collection, is_vector

ROWS = 2048  # rows of a commit: they wait in memory, with their images
VECTORS = 2**16  # rows of a commit of vectors alone


def follow(source: Collection, out: str | Path, verb: str) -> Collection:
    """The collection at `out`, made or brought up to date with `source` as it is open; its vectors come along.

    StorageError if `out` is something else or is being written to, CollectionError if it has rows of its own.
    """
    if refuse_unless(out, ("missing", "empty", "collection"), "collection") != "collection":
        with locked(out, verb):
            Collection.create(out, pa.schema([field for field in source.schema if field.name not in SCHEMA.names]))
    copy = Collection.open(out)
    with copy.locked(verb):
        shared = f"id < {copy.next_id}"
        both = _shared_rows(source, copy)
        new = [field for field in source.schema if field.name not in copy.columns]
        if new:
            copy.add_columns(pa.schema(new))
        # Vectors that the source has gained since; those that both have are as they were, like the images.
        if gained := [field.name for field in new if is_vector(field)]:
            for batch in source.scan(["id", *gained], shared, VECTORS, gone=True):
                copy.update(_of(both, pa.Table.from_batches([batch])))
        names = [f.name for f in source.schema if not is_vector(f) and f.name not in ("image", "sha256")]
        theirs, ours = _of(both, source.table(names, shared, gone=True)), _of(both, copy.table(names, gone=True))
        copy.update(theirs.filter(pa.array(~same_rows(ours, theirs, names))))
        with Progress("copy", "images", len(source.table(["id"], gone=True)), len(both)) as bar:
            for batch in source.scan(source.columns, f"id >= {copy.next_id}", ROWS, gone=True):
                copy.append(pa.Table.from_batches([batch]))
                bar.advance(len(batch))
        if apart := read_apart(source.path):
            write_apart(copy.path, apart | read_apart(copy.path))
        entries = {key: value for key, value in source.card.items() if key not in ("model", "indexed")}
        copy.update_card({**entries, "copy_of": str(Path(source.path).absolute())})
    return copy


def _shared_rows(source: Collection, copy: Collection) -> Ids:
    """Ids of the rows that both have. What `prune` took from the source is marked as gone in the copy.

    CollectionError if the rows of the copy are others: it shows other images, or has never followed the source; or if
    it lacks rows that are not gone from the source, as after a `prune` of its own and a return.
    """
    theirs, ours = (part.table(["id", "sha256", "gone"], gone=True) for part in (source, copy))
    theirs = theirs.filter(pc.less(theirs["id"], copy.next_id))
    both: Ids = pc.filter(ours["id"], pc.is_in(ours["id"], theirs["id"])).to_numpy()
    pruned = ours.filter(pc.and_(pc.invert(pc.is_in(ours["id"], pa.array(both))), pc.invert(ours["gone"])))
    lacking = theirs.filter(pc.and_(pc.invert(pc.is_in(theirs["id"], pa.array(both))), pc.invert(theirs["gone"])))
    is_same = _of(both, theirs)["sha256"].equals(_of(both, ours)["sha256"])
    if not is_same or len(lacking) or (len(pruned) and copy.card.get("copy_of") != str(Path(source.path).absolute())):
        raise CollectionError(
            f"`{copy.path}` holds other rows than `{source.path}`, so it can't be brought up to date with it.",
            hint="give a new `--out`",
        )
    copy.mark_gone(pruned["id"].to_numpy())
    return both


def _of(ids: Ids, rows: pa.Table) -> pa.Table:
    return rows.filter(pc.is_in(rows["id"], pa.array(ids)))


def same_rows(ours: pa.Table, theirs: Any, names: Sequence[str]) -> Bool[np.ndarray, "N"]:
    """Which rows of two tables have the same values in these columns, or null in both."""
    same = np.ones(len(ours), bool)
    for name in names:
        left, right = ours[name], theirs[name].cast(ours[name].type)
        if pa.types.is_nested(left.type):
            same &= np.array([a == b for a, b in zip(left.to_pylist(), right.to_pylist(), strict=True)], bool)
        else:
            equal = pc.fill_null(pc.equal(left, right), False)
            same &= np.asarray(pc.or_(equal, pc.and_(pc.is_null(left), pc.is_null(right))))
    return same
