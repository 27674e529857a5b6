"""Letting go: rows whose images the sources no longer have, vectors that nobody wants, and the bytes of both.

Fragment by fragment is written anew without them, each in one commit behind which its old files go: so little room is
needed, and a killed process leaves a whole collection, from which the same call takes the rest.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.journal import Progress
from lookalike.data.collection import Collection, is_vector


@dataclass(frozen=True)
class Vectors:
    """A column of vectors: its name, how many rows have a value, their bytes, and whether `search` takes it."""

    column: str
    rows: int
    bytes: int
    searched: bool


@dataclass(frozen=True)
class Pruned:
    """What was let go, or would be."""

    rows: int  # that were gone
    columns: tuple[str, ...]
    bytes: int  # freed on the disk; if nothing was done: of images and vectors, without what describes them
    is_dry: bool = False
    is_held: bool = False  # another reader has the collection open, and the files stay as long as it does

    def sentence(self, path: str) -> str:
        """The same in words."""
        rows = [f"{self.rows:,} {'row that is' if self.rows == 1 else 'rows that are'} gone"]
        what = " and ".join((rows if self.rows or not self.columns else []) + [f"`{name}`" for name in self.columns])
        size = f"{self.bytes / 1e6:,.1f} MB"
        if self.is_dry:
            return f"`{path}` would let go of {what}: about {size}"
        if self.is_held:
            return (
                f"`{path}` let go of {what}; it is open elsewhere, and their bytes are freed by the next command that "
                "writes to it when it is not"
            )
        return f"`{path}` let go of {what}: {size} are free"


def vectors_of(collection: Collection) -> list[Vectors]:
    """The columns of vectors, in their order."""
    noted = collection.card.get("model", {}).get("column")
    found = []
    for field in filter(is_vector, collection.schema):
        rows = len(collection.table(["id"], f"`{field.name}` IS NOT NULL", gone=True))
        found.append(Vectors(field.name, rows, 4 * rows * field.type.list_size, field.name == noted))
    return found


def prune(collection: Collection, columns: Sequence[str] = (), *, dry_run: bool = False) -> Pruned:
    """Let go of all rows that are gone, and of these columns of vectors; with `dry_run` say only what would go.

    Raises:
        CollectionError: Another process changed the collection after it was opened.
        UsageError: A column that `search` takes, or one that holds no vectors.
        StorageError: Another process is writing to it, or the disk refuses.
    """
    _check(collection, columns)
    if dry_run:
        return _told(collection, columns)
    with collection.locked("prune"):
        if not collection.is_latest:
            raise CollectionError(
                f"Another process changed `{collection.path}` after it was opened.", hint="give the same command again"
            )
        gone, before = len(collection.table(["id"], "gone", gone=True)), size_of(collection.path)
        if gone:
            collection.update_card({"next_id": collection.next_id})  # first: an id is never given again
        if columns:
            collection.drop_columns(columns)
        stale = collection.stale()
        if stale:
            with Progress("prune", "pieces", len(stale)) as bar:
                for number in reversed(stale):  # one that goes whole moves those behind it
                    collection.rewrite(number)
                    bar.advance()
        collection.sweep()
        freed, held = before - size_of(collection.path), collection.keeps_versions
    return Pruned(gone, tuple(columns), freed, is_held=held)


def _check(collection: Collection, columns: Sequence[str]) -> None:
    made = {vectors.column: vectors for vectors in vectors_of(collection)} if columns else {}
    for name in columns:
        if name not in made:
            raise UsageError(
                f"`{collection.path}` has no column `{name}` of vectors; it has {', '.join(made) or 'none'}.",
                hint="`lookalike prune COLL` alone frees what a killed one has left of columns",
            )
        if made[name].searched:
            raise UsageError(
                f"`{name}` is what `lookalike search` looks at in `{collection.path}`.",
                hint=f"index with another model first: `lookalike index {shlex.quote(collection.path)} --model MODEL`",
            )


def _told(collection: Collection, columns: Sequence[str]) -> Pruned:
    """What would go, and about how many bytes: images, and vectors of four bytes a number."""
    kept = [field for field in collection.schema if is_vector(field) and field.name not in columns]
    rows = size = 0
    for batch in collection.scan(["image", "gone"], "gone", gone=True):
        rows += len(batch)
        size += pc.sum(pc.binary_length(batch["image"])).as_py() or 0
    size += sum(4 * field.type.list_size * rows for field in kept)
    size += sum(vectors.bytes for vectors in vectors_of(collection) if vectors.column in columns)
    return Pruned(rows, tuple(columns), size, is_dry=True)


def size_of(path: str | Path) -> int:
    """Bytes of all files of a collection."""
    return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())
