"""Sources -> collection: list, convert what is new, commit batch by batch, mark what is gone.

Work that was done is recognised by an image's source and stamp (size and time), so the same command goes on after
a kill, adds what is new, and does nothing where nothing changed. An image with another stamp is read again: with
the same bytes it keeps its row and vectors; with others it gets a new row, and the old one is gone.

An id is given when an image is converted, good or bad, in the order of the listing; bad ones are written before the
good ones of the same batch. So whatever a kill leaves behind, ids that are free follow in the same order, and the
rows come out as if nothing had happened.

Memory: about 1.5 KB per image of the listing, and `BATCH_MOST` stored images.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.files import locked, read_card, refuse_unless
from lookalike.core.journal import progress
from lookalike.data.card import Report, check_options, counts_of, finish_card, first_card
from lookalike.data.collection import Collection, committed
from lookalike.data.convert import Converted, Failed, Outcome, Task, convert_all
from lookalike.data.sources import SourceRow
from lookalike.data.sources.listing import Listing, common_type, list_images

SIZE = 256
"""Shorter side of a stored image, in pixels, if nobody says another."""
BATCH = 512
"""Images of a commit, at least, unless the work ends; fewer would make a table of many small pieces."""
BATCH_SECONDS = 5.0
"""Seconds between commits, at least: on a fast machine a commit holds more images."""
BATCH_MOST = 4096
"""Images of a commit, at most: they wait in memory."""

DESCRIPTION = ("label", "domain", "split", "group", "is_query", "is_gallery")


def prepare(
    sources: Sequence[str],
    out: str,
    *,
    size: int = SIZE,
    limit: int | None = None,
    test: float = 0.0,
    workers: int = 0,
) -> Report:
    """Make or continue the collection `out` from `sources`.

    Args:
        sources: Folders, CSV or Parquet files. Rows of sources that are in the collection and not named here stay.
        out: The collection's directory.
        size: Shorter side of a stored image, in pixels; smaller images stay as they are.
        limit: Only the first so many images of the listing; those behind it are neither added nor marked.
        test: Share of the labels that become split `test` where the source gives no split, the others `train`; 0
            gives no splits.
        workers: Processes that decode; 0: one a core.

    Raises:
        SourceError: A source is missing, empty, or says something impossible.
        CollectionError: The collection was made with another `size` or `test`, or has columns of another type.
        UsageError: A number is out of range.
        StorageError: `out` is something else, is being written to, or the disk refuses.
    """
    _check_numbers(size, limit, test, workers)
    refuse_unless(out, ("missing", "empty", "collection"), "collection")
    options = {"size": size, "test": test}
    card = read_card(out)
    check_options(out, card.get("options", options), options)
    entries = {entry["name"]: entry for entry in card.get("sources", [])}
    listing = list_images(sources, {name: entry["path"] for name, entry in entries.items()}, test)
    with locked(out, "prepare"):
        collection = _open_or_create(out, listing)
        collection.update_card(
            {**(card or first_card(options)), "sources": list({**entries, **listing.sources}.values())}
        )
        known, bad = _known(collection, listing), _current_errors(collection, listing)
        batch = _Batch(collection, tuple(listing.columns.names), used=set(bad.values()))
        todo = _todo(batch, list(listing.rows.values())[:limit], known, bad)
        _convert(batch, todo, known, size, workers)
        gone = _gone_ids(collection, listing, limit)
        collection.mark_gone(gone)
        report = replace(batch.report, gone=len(gone), counts=counts_of(collection), errors=len(collection.errors()))
        finish_card(collection, report)
    return report


# ---------------------------------------------------------------------- what there is to do


@dataclass(frozen=True, slots=True)
class _Known:
    """The latest row of an image in the listing."""

    id: int
    sha256: bytes | None
    """Of its bytes, if the stamp is another one now; None: the image is the same."""
    told: bool
    """Whether the row says of it what the listing says."""


def _todo(
    batch: "_Batch", rows: Sequence[SourceRow], known: dict[str, "_Known"], bad: dict[str, int]
) -> list[SourceRow]:
    """The rows whose bytes must be read. Those that are known by their stamp need an edit at most."""
    todo: list[SourceRow] = []
    for row in rows:
        before = known.get(row.source)
        if before is not None and before.sha256 is None:
            if not before.told:
                batch.edits.append((before.id, row))
        elif row.source not in bad:
            todo.append(row)
    return todo


def _convert(batch: "_Batch", todo: list[SourceRow], known: dict[str, _Known], size: int, workers: int) -> None:
    tasks = [Task(row.place, known[row.source].sha256 if row.source in known else None) for row in todo]
    with progress("prepare", "images", len(tasks)) as bar:
        try:
            for row, outcome in zip(todo, convert_all(tasks, size, workers), strict=True):
                batch.add(row, outcome, known.get(row.source))
                bar.advance()
                if batch.due():
                    batch.flush()
        except KeyboardInterrupt:
            batch.flush()
            raise
    batch.flush()


@dataclass
class _Batch:
    """Rows, errors and edits that wait for the next commit."""

    collection: Collection
    extra: tuple[str, ...]
    used: set[int]
    """Ids of the errors table."""
    report: Report = field(default_factory=Report)
    good: list[tuple[int, SourceRow, Converted]] = field(default_factory=list)
    bad: list[tuple[int, SourceRow, Failed]] = field(default_factory=list)
    edits: list[tuple[int, SourceRow]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._next = self.collection.next_id
        self._begun = time.monotonic()

    def add(self, row: SourceRow, outcome: Outcome, known: _Known | None) -> None:
        """Put the outcome of one image where it belongs."""
        if isinstance(outcome, Converted):
            self.good.append((self._new_id(), row, outcome))
        elif isinstance(outcome, Failed):
            self.bad.append((self._new_id(), row, outcome))
        elif known is not None:
            self.edits.append((known.id, row))

    def due(self) -> bool:
        """Whether it is time to commit."""
        count = len(self.good) + len(self.bad) + len(self.edits)
        return count >= BATCH_MOST or (count >= BATCH and time.monotonic() - self._begun >= BATCH_SECONDS)

    def flush(self) -> None:
        """Commit what waits: errors first, since the order of free ids relies on it."""
        good, bad, edits = self.good, self.bad, self.edits
        # Let go first: a flush that an interrupt ends is not repeated by the one that answers the interrupt.
        self.good, self.bad, self.edits = [], [], []
        if bad:
            self.collection.add_errors(self._errors(bad))
        if good:
            self.collection.append(self._rows(good))
        if edits:
            self.collection.update(self._table(edits, {}))
        before = self.report
        self.report = replace(
            before,
            added=before.added + len(good),
            failed=before.failed + len(bad),
            edited=before.edited + len(edits),
        )
        self._begun = time.monotonic()

    def _new_id(self) -> int:
        while self._next in self.used:
            self._next += 1
        self._next += 1
        return self._next - 1

    def _errors(self, bad: list[tuple[int, SourceRow, Failed]]) -> pa.Table:
        return pa.Table.from_pylist(
            [
                {"id": number, "source": row.source, "reason": failed.reason, "stamp": row.place.stamp}
                for number, row, failed in bad
            ]
        )

    def _rows(self, good: list[tuple[int, SourceRow, Converted]]) -> pa.Table:
        columns: dict[str, list[Any]] = {
            "image": [converted.data for _, _, converted in good],
            "width": [converted.width for _, _, converted in good],
            "height": [converted.height for _, _, converted in good],
            "sha256": [converted.sha256 for _, _, converted in good],
            "source": [row.source for _, row, _ in good],
        }
        return self._table([(number, row) for number, row, _ in good], columns)

    def _table(self, rows: list[tuple[int, SourceRow]], columns: dict[str, list[Any]]) -> pa.Table:
        """`columns`, and those that any edit sets: descriptions, stamp, not gone."""
        described = [_description(row, self.extra) for _, row in rows]
        columns = {
            "id": [number for number, _ in rows],
            **columns,
            **{name: [d[i] for d in described] for i, name in enumerate((*DESCRIPTION, *self.extra))},
            "gone": [False] * len(rows),
            "stamp": [row.place.stamp for _, row in rows],
        }
        schema = self.collection.schema
        return pa.table({name: pa.array(values, schema.field(name).type) for name, values in columns.items()})


def _description(row: SourceRow, extra: tuple[str, ...]) -> tuple[Any, ...]:
    return (*(getattr(row, name) for name in DESCRIPTION), *(row.extra.get(name) for name in extra))


def _known(collection: Collection, listing: Listing) -> dict[str, _Known]:
    columns = ("id", "source", "stamp", "sha256", "gone", *DESCRIPTION, *listing.columns.names)
    known: dict[str, _Known] = {}
    for batch in collection.scan(columns, gone=True):
        for values in zip(*(batch[name].to_pylist() for name in columns), strict=True):
            number, source, stamp, sha256, gone, *description = values
            if (row := listing.rows.get(source)) is not None:
                told = not gone and tuple(description) == _description(row, tuple(listing.columns.names))
                known[row.source] = _Known(number, None if stamp == row.place.stamp else sha256, told)
    return known


def _current_errors(collection: Collection, listing: Listing) -> dict[str, int]:
    """Source -> id of the errors table; what changed or left since is forgotten first."""
    current: dict[str, int] = {}
    stale: list[int] = []
    for error in collection.errors().to_pylist():
        if listing.covers(error["source"]) and listing.stamp(error["source"]) != error["stamp"]:
            stale.append(error["id"])
        else:
            current[error["source"]] = error["id"]
    collection.drop_errors(np.array(stale, np.int64))
    return current


def _gone_ids(collection: Collection, listing: Listing, limit: int | None) -> Int64[np.ndarray, "N"]:
    """Rows of these sources that are not, or no longer, what the listing says."""
    reach = set(list(listing.rows)[:limit])
    latest: dict[str, int] = {}
    gone: set[int] = set()
    for batch in collection.scan(["id", "source", "stamp"]):
        for number, source, stamp in zip(*(batch[c].to_pylist() for c in ("id", "source", "stamp")), strict=True):
            if not listing.covers(source):
                continue
            if source in latest:  # an image that changed: its new row stands further down
                gone.add(latest[source])
            latest[source] = number
            if source not in listing.rows or (source in reach and listing.stamp(source) != stamp):
                gone.add(number)
    return np.array(sorted(gone), np.int64)


# ---------------------------------------------------------------------- before the work


def _open_or_create(out: str, listing: Listing) -> Collection:
    """The collection with all further columns of the listing; what a killed first write left is written anew."""
    strings = [pa.field(field.name, pa.string()) if field.type == pa.null() else field for field in listing.columns]
    if not committed(f"{out}/rows.lance"):
        return Collection.create(out, pa.schema(strings))
    collection = Collection.open(out)
    collection.sweep()
    for column in listing.columns:
        if column.name in collection.columns:
            there = collection.schema.field(column.name).type
            if common_type(column.type, there) != there:
                raise CollectionError(
                    f"Column `{column.name}` holds {column.type} in the sources and {there} in `{out}`.",
                    hint="rename it in the sources, or give another `--out`",
                )
    new = [field for field in strings if field.name not in collection.columns]
    if new:
        collection.add_columns(pa.schema(new))
    return collection


def _check_numbers(size: int, limit: int | None, test: float, workers: int) -> None:
    for name, value, fits, expected in (
        ("size", size, size >= 1, "at least 1 pixel"),
        ("limit", limit, limit is None or limit >= 1, "at least 1 image"),
        ("test", test, 0 <= test < 1, "a share from 0 to less than 1"),
        ("workers", workers, workers >= 0, "0 (one a core) or more"),
    ):
        if not fits:
            raise UsageError(f"`--{name}` is {value}; expected {expected}.")
