"""A collection: one Lance table of images, a row an image, columns for all that is known about it.

    NAME/rows.lance     the table, columns of `SCHEMA` and whatever the sources and the encoders added
    NAME/errors.lance   images that could not be read, columns of `ERRORS`
    NAME/card.json      what, from where, when made, options, counts

Two laws make everything else simple. Rows are only ever appended, with rising ids that are never given again, and no
row is moved: so the table's own order is the order of ids, and reading in order needs no sorting and no memory. And
values change in place, one column of one fragment at a time: vectors are added and rows are marked as gone without the
bytes of an image being written again. `prune` writes fragments anew without such rows, in their places.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64
from lance import LanceOperation
from lance.fragment import write_fragments

from lookalike.core.errors import CollectionError
from lookalike.core.files import Held, fingerprint, found_at, kind_of, locked, read_card, storage_errors, write_json
from lookalike.core.shapes import Ids

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("sha256", pa.binary(32), nullable=False),
        pa.field("label", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("split", pa.string()),
        pa.field("group", pa.string()),
        pa.field("is_query", pa.bool_(), nullable=False),
        pa.field("is_gallery", pa.bool_(), nullable=False),
        pa.field("gone", pa.bool_(), nullable=False),  # the source no longer has this image
        pa.field("stamp", pa.string(), nullable=False),  # size and time of what was read, to see changes
    ]
)
DESCRIPTION = tuple(SCHEMA.names[6:12])  # what a source says of an image: texts, then its two roles
_REASON = pa.field("reason", pa.string(), nullable=False)
ERRORS = pa.schema([SCHEMA.field("id"), SCHEMA.field("source"), _REASON, SCHEMA.field("stamp")])
"""`id` is the one that the image would have."""
VECTORS = ("features_", "mirrored_", "embedding_")  # how the names of the encoders' columns begin
_PRESENT = "gone = false"
SWEEP = 32  # commits until old versions are cleared: each lists all pieces, so keeping all grows as a square
# Lance reads ahead up to 2 GB by itself; images need far less to keep the disk busy.
_IN_ORDER = {"scan_in_order": True, "batch_readahead": 2, "fragment_readahead": 2, "io_buffer_size": 64 << 20}


class Collection:
    """An open collection. Reading sees the rows that are not gone, in the order of their ids.

    An object stays at the version that it opened, and moves on with what it writes itself, which is done in `locked`.

    >>> la.Collection.open("photos.coll").table(["label"], where="split = 'test'")["label"].to_pylist()[:1]
    ['label0']
    """

    def __init__(self, path: str) -> None:
        self.path, self._errors = path, f"{path}/errors.lance"
        self._held = Held(f"{path}/rows.lance")  # before the version is looked up: its files stay from here on
        self._dataset: Any = lance.dataset(f"{path}/rows.lance")

    @classmethod
    def open(cls, path: str | Path) -> "Collection":
        """The collection at `path`; CollectionError if there is none, or its columns are not those of `SCHEMA`."""
        path = str(path)
        if (kind := kind_of(path)) != "collection":
            out = shlex.quote(path) if kind in ("missing", "empty") else "COLL"  # what is something else stays so
            raise CollectionError(f"{found_at(path)}, not a collection.", hint=f"lookalike prepare SOURCE --out {out}")
        try:
            made = cls(path)
        except (ValueError, OSError) as error:
            raise CollectionError(
                f"`{path}/rows.lance` is not a table: its first write was interrupted, or files are missing.",
                hint=f"lookalike prepare SOURCE --out {shlex.quote(path)} writes it anew",
            ) from error
        for field in SCHEMA:
            found = made.schema.field(field.name).type if field.name in made.columns else "missing"
            if found != field.type:
                raise CollectionError(
                    f"The table of `{path}` is another one's: column `{field.name}` is {found}, expected {field.type}.",
                    hint="lookalike prepare SOURCE --out NEW_COLLECTION",
                )
        return made

    @classmethod
    def create(cls, path: str | Path, extra: pa.Schema | None = None) -> "Collection":
        """A new, empty collection with the further columns `extra`; the caller holds the lock."""
        with storage_errors(path):
            lance.write_dataset(pa.schema([*SCHEMA, *(extra or ())]).empty_table(), f"{path}/rows.lance")
        return cls(str(path))

    @property
    def version(self) -> int:
        """Number of the table's version; every write makes the next one."""
        return int(self._dataset.version)

    @property
    def is_latest(self) -> bool:
        """Whether nobody else has written since it was opened."""
        return bool(self._dataset.latest_version == self.version)

    @property
    def keeps_versions(self) -> bool:
        """Whether files of earlier versions are there, as they are while another reader has any open."""
        return len(self._dataset.versions()) > 1

    @property
    def card(self) -> dict[str, Any]:
        """What `card.json` says; empty if there is none yet."""
        return read_card(self.path)

    @property
    def schema(self) -> pa.Schema:
        """Names and types of all columns."""
        return self._dataset.schema

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return list(self.schema.names)

    @cached_property
    def fingerprint(self) -> str:
        """64 hex digits over ids, image hashes, labels and domains of the rows that are not gone."""
        table = self.table(["id", "sha256", "label", "domain"])
        ids = table["id"].to_numpy().astype("<i8").tobytes()
        texts = (pc.fill_null(table[name], "\1").to_pylist() for name in ("label", "domain"))
        return fingerprint(ids, b"".join(table["sha256"].to_pylist()), *map("\0".join, texts))

    @cached_property
    def next_id(self) -> int:
        """One more than the largest id, rows that are gone included, and those that `prune` let go."""
        largest = int(self._all_ids[-1]) if len(self._all_ids) else -1
        return max(largest + 1, int(self.card.get("next_id", 0)))

    @cached_property
    def _all_ids(self) -> Ids:
        return self._dataset.to_table(columns=["id"])["id"].to_numpy()  # type: ignore[no-any-return]

    @cached_property
    def _length(self) -> int:
        return int(self._dataset.count_rows(filter=_PRESENT))

    def __len__(self) -> int:
        return self._length  # of the rows that are not gone

    def scan(
        self, columns: Sequence[str], where: str | None = None, batch_rows: int = 1024, *, gone: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """Rows in the order of ids, `batch_rows` or fewer at a time; memory holds a few batches.

        `where` is an SQL condition over the columns (`domain = 'cars' AND price < 10`); `gone` also yields the
        rows that are marked so. CollectionError if a column is unknown or the condition can't be understood.
        """
        names = self._fields(columns).names
        # A condition of the user's is never put together with ours, which a comment in it could undo.
        hidden = where is not None and not gone
        read = [*names, "gone"] if hidden and "gone" not in names else names
        condition = None if gone else _PRESENT
        try:
            if where is not None:
                _check_brackets(where)
                self._dataset.scanner(columns=["id"], filter=where).explain_plan()  # its error speaks of what was typed
                condition = f"({where}\n)"  # else words behind a whole condition are passed over
            for batch in self._dataset.scanner(read, condition, batch_size=batch_rows, **_IN_ORDER).to_batches():
                yield batch.filter(pc.invert(batch["gone"])).select(names) if hidden else batch
        except ValueError as error:  # before the first batch, or where a value makes the condition impossible
            # Lance puts its own stages before the reason, and the place in its sources and its columns behind it.
            reason = str(error).split(", /")[0].split(" Valid fields are")[0].rstrip(".")
            reason = reason.removeprefix("Invalid user input: ").rpartition("Arrow error: ")[2]
            known = ", ".join(name for name in self.columns if name != "image")
            raise CollectionError(
                f"The condition `{where}` can't be understood: {reason}.",
                hint=f"it is SQL over the columns {known}; texts stand in single quotes",
            ) from error

    def table(self, columns: Sequence[str], where: str | None = None, *, gone: bool = False) -> pa.Table:
        """All of `scan` at once."""
        return pa.Table.from_batches(list(self.scan(columns, where, gone=gone)), self._fields(columns))

    def take(self, ids: Ids, columns: Sequence[str]) -> pa.Table:
        """The rows `ids`, in that order, each as often as it is asked for; CollectionError if one does not exist."""
        fields = self._fields(columns)
        if len(ids) == 0:
            return fields.empty_table()
        return self._dataset.take(self._positions(ids), columns=fields.names)

    def vectors(self, name: str, *, partial: bool = False) -> tuple[Int64[np.ndarray, "N"], Float32[np.ndarray, "N D"]]:
        """Ids and vectors of column `name`, all rows that are not gone.

        Rows that have none are left out if `partial`, else CollectionError.
        """
        hint = f"lookalike embed {shlex.quote(self.path)} --model MODEL"
        if name not in self.columns:
            made = [field.name for field in self.schema if pa.types.is_fixed_size_list(field.type)]
            found = f"; it has vectors of other encoders: {', '.join(made)}." if made else " and no vectors at all."
            raise CollectionError(f"`{self.path}` has no column `{name}`{found}", hint=hint)
        ids = np.empty(len(self), np.int64)
        vectors = np.empty((len(self), self.schema.field(name).type.list_size), np.float32)
        done = 0
        for batch in self.scan(["id", name], f"`{name}` IS NOT NULL" if partial else None):
            if batch[name].null_count:
                raise CollectionError(f"Some rows of `{self.path}` have no value in `{name}`.", hint=hint)
            ids[done : done + len(batch)] = batch["id"].to_numpy()
            vectors[done : done + len(batch)] = batch[name].flatten().to_numpy().reshape(len(batch), -1)
            done += len(batch)
        return ids[:done], vectors[:done]

    def missing(self, name: str) -> Int64[np.ndarray, "M"]:
        """Ids of the rows that are not gone and have no value in the vector column `name` (which may not exist yet)."""
        return np.asarray(self.table(["id"], f"`{name}` IS NULL" if name in self.columns else None)["id"])

    def errors(self) -> pa.Table:
        """Images that could not be read: columns of `ERRORS`."""
        return lance.dataset(self._errors).to_table() if committed(self._errors) else ERRORS.empty_table()

    @contextmanager
    def locked(self, verb: str) -> Iterator[None]:
        """Hold the collection alone while writing; StorageError if another process does. `verb` names the command."""
        with locked(self.path, verb):
            self.sweep()
            yield

    def sweep(self) -> None:
        """Remove what a killed or refused write left, and the versions before this one if no reader has any open."""
        with storage_errors(self.path), self._held.alone() as alone:
            old = alone and self.is_latest
            age = timedelta(0) if old else timedelta(days=36_500)
            for dataset in (self._dataset, *([lance.dataset(self._errors)] if committed(self._errors) else [])):
                dataset.cleanup_old_versions(older_than=age, delete_unverified=True)

    def append(self, table: pa.Table) -> None:
        """Add rows, in one commit; their ids rise and lie above all ids that are there. Missing columns are null."""
        ids = np.concatenate([[self.next_id - 1], table["id"].to_numpy()])
        if (np.diff(ids) <= 0).any():
            raise ValueError("ids must rise, and lie above those of the rows that are there")
        with storage_errors(self.path):
            rows = table.cast(self._fields(table.column_names))
            self._commit(LanceOperation.Append(write_fragments(rows, self._dataset.uri, mode="append")))
        self.next_id = int(ids[-1]) + 1  # so that a thousand appends do not read all ids a thousand times

    def update(self, table: pa.Table) -> None:
        """Set the values of `table`'s columns in the rows of its `id` column, in one commit; other values stay.

        Only these columns are written again, and only in the fragments that hold such rows.
        """
        if len(table) == 0:
            return
        positions = self._positions(table["id"].to_numpy())
        order = np.argsort(positions, kind="stable")
        updated, fields, first, stop = [], [], 0, 0
        with storage_errors(self.path):
            for fragment in self._dataset.get_fragments():
                stop += fragment.physical_rows
                last = int(np.searchsorted(positions, stop, sorter=order))
                if first < last:
                    metadata, fields = fragment.update_columns(table.take(pa.array(order[first:last])), left_on="id")
                    updated.append(metadata)
                first = last
            self._commit(LanceOperation.Update([], updated, [], fields))

    def mark_gone(self, ids: Ids) -> None:
        """Leave these rows out of all reading from now on; nothing is deleted."""
        self.update(pa.table({"id": ids, "gone": np.ones(len(ids), bool)}))

    def add_columns(self, fields: pa.Schema) -> None:
        """Add columns without values; nothing but the table's description is written."""
        with storage_errors(self.path):
            self._dataset.add_columns(fields)
        self._dataset.checkout_latest()
        self._forget()

    def drop_columns(self, names: Sequence[str]) -> None:
        """Forget these columns; where they share files with others, their bytes stay until `rewrite`."""
        with storage_errors(self.path):
            self._dataset.drop_columns(list(names))
        self._dataset.checkout_latest()
        self._forget()

    def stale(self) -> list[int]:
        """Numbers of the fragments that hold rows that are gone, or values of columns that were dropped."""
        known = {id for field in self._dataset.lance_schema.fields() for id in _numbers(field)} | {-1, -2}
        found = list(enumerate(self._dataset.get_fragments()))
        dead = [number for number, piece in found if {id for file in piece.data_files() for id in file.fields} - known]
        return sorted({*dead, *(number for number, piece in found if piece.count_rows(filter="gone"))})

    def rewrite(self, number: int) -> None:
        """Write a fragment anew without what makes it stale, in one commit, and clear the files that held it."""
        pieces = self._dataset.get_fragments()
        with storage_errors(self.path):
            kept, new = pieces[number].count_rows(filter=_PRESENT), []
            if kept:
                rows = pieces[number].scanner(filter=_PRESENT, batch_size=256).to_reader()
                new = write_fragments(rows, self._dataset.uri, mode="append")
            fragments = [piece.metadata for piece in pieces]
            fragments[number : number + 1] = new
            self._commit(LanceOperation.Overwrite(self._dataset.lance_schema, fragments))
        self.sweep()

    def write_vectors(
        self, name: str, ids: Int64[np.ndarray, "M"], vectors: Float32[np.ndarray, "M D"], metadata: Mapping[str, str]
    ) -> None:
        """Fill the vector column `name` in the rows `ids`; `metadata` says what made it, and is kept with a new column.

        A new column appears without values first: a reader can't take it for a whole one, and a killed write is
        made good by the same call again. CollectionError if the column is there with another D.
        """
        kind = pa.list_(pa.float32(), vectors.shape[1])
        if name not in self.columns:
            self.add_columns(pa.schema([pa.field(name, kind, metadata=dict(metadata))]))
        if (found := self.schema.field(name).type) != kind:
            raise CollectionError(f"Column `{name}` of `{self.path}` is {found}, not {kind}.")
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        self.update(pa.table({"id": pa.array(ids), name: values}))

    def update_card(self, entries: Mapping[str, Any]) -> None:
        """Set these top-level entries of `card.json`; the others stay."""
        write_json(Path(self.path) / "card.json", {**self.card, **entries})

    def add_errors(self, table: pa.Table) -> None:
        """Add rows to the errors table."""
        mode = "append" if committed(self._errors) else "create"
        with storage_errors(self.path):
            lance.write_dataset(table.cast(ERRORS), self._errors, mode=mode)

    def drop_errors(self, ids: Ids) -> None:
        """Forget these rows of the errors table."""
        if len(ids):
            with storage_errors(self.path):
                lance.dataset(self._errors).delete(f"id IN ({', '.join(map(str, ids.tolist()))})")

    def _commit(self, operation: Any) -> None:
        self._dataset = lance.LanceDataset.commit(self._dataset, operation, read_version=self._dataset.version)
        self._forget()
        if self.version % SWEEP == 0:
            self.sweep()

    def _forget(self) -> None:
        for name in ("fingerprint", "next_id", "_all_ids", "_length"):
            vars(self).pop(name, None)

    def _positions(self, ids: Ids) -> Ids:
        known, positions = self._all_ids, np.searchsorted(self._all_ids, ids)
        found = positions < len(known)
        found[found] = known[positions[found]] == ids[found]
        if not found.all():
            raise CollectionError(f"`{self.path}` has no row with id {ids[~found][0]}.")
        return positions

    def _fields(self, columns: Sequence[str]) -> pa.Schema:
        """These columns; CollectionError if one is unknown."""
        schema = self.schema
        for name in columns:
            if name not in schema.names:
                close = get_close_matches(name, schema.names, 1)
                raise CollectionError(
                    f"`{self.path}` has no column `{name}`.",
                    hint=f"did you mean `{close[0]}`?" if close else f"columns: {', '.join(schema.names)}",
                )
        return pa.schema([schema.field(name) for name in columns])


def _numbers(field: Any) -> list[int]:
    """By which Lance knows a field and what is nested in it."""
    return [field.id(), *(number for child in field.children() for number in _numbers(child))]


def _check_brackets(where: str) -> None:
    """ValueError if a bracket closes that never opened: Lance stops reading there, and our own would match it."""
    depth = 0
    for character in re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "", where):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            raise ValueError("a bracket closes that was not opened")


def is_vector(field: pa.Field) -> bool:
    """Whether an encoder made this column."""
    return bool(field.name.startswith(VECTORS) and pa.types.is_fixed_size_list(field.type))


def committed(path: str) -> bool:
    """Whether the Lance table at `path` has a version: a killed first write leaves a directory without one."""
    return any(Path(path, "_versions").glob("*.manifest"))
