"""Sources -> collection: list, convert what is new, commit batch by batch, mark what is gone.

Work that was done is recognised by an image's source and stamp (size and time), so the same command goes on after
a kill, adds what is new, and does nothing where nothing changed. An image with another stamp is read again: with
the same bytes it keeps its row and vectors; with others it gets a new row, and the old one is gone.

An id is given when an image is converted, good or bad, in the order of the listing; bad ones are written before the
good ones of the same batch. So whatever a kill leaves behind, ids that are free follow in the same order, and the
rows come out as if nothing had happened.

Memory: about 50 bytes an image of the listing, which lies on the disk, and `BATCH_MOST` stored images.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import tee
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64, UInt8

from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.files import locked, read_card, refuse_unless
from lookalike.core.journal import progress
from lookalike.core.shapes import Ids
from lookalike.data.card import Report, check_options, counts_of, finish_card, first_card
from lookalike.data.collection import Collection, committed
from lookalike.data.convert import Converted, Failed, Outcome, Task, convert_all
from lookalike.data.follow import same_values
from lookalike.data.sources.kinds import common_type
from lookalike.data.sources.listed import place_of
from lookalike.data.sources.listing import Listing, list_images

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
    exclude: Sequence[str] = (),
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
        exclude: Patterns (`*` any text, `?` a letter) of what is left out: names of folders or files, or their paths
            within a source. Rows that they fit are marked as gone.

    Raises:
        SourceError: A source is missing, empty, or says something impossible.
        CollectionError: The collection was made with another `size` or `test`, or has columns of another type.
        UsageError: A number is out of range.
        StorageError: `out` is something else, is being written to, or the disk refuses.
    """
    _check_numbers(size, limit, test, workers)
    refuse_unless(out, ("missing", "empty", "collection"), "collection")
    options = {"size": size, "test": test}
    with locked(out, "prepare"):  # before the card is read: another process may be writing it
        card = read_card(out)
        check_options(out, card.get("options", options), options)
        entries = {entry["name"]: entry for entry in card.get("sources", [])}
        known = {name: entry["path"] for name, entry in entries.items()}
        with list_images(sources, known, test, out, exclude) as listing:
            collection = _open_or_create(out, listing)
            named = {"sources": list({**entries, **listing.sources}.values())}
            collection.update_card(named if card else {**first_card(options), **named})
            return _update(collection, listing, len(listing) if limit is None else limit, size, workers)


def _update(collection: Collection, listing: Listing, limit: int, size: int, workers: int) -> Report:
    shown = _latest(collection, listing)
    used, known = _current_errors(collection, listing)
    bad = np.zeros(len(listing), bool)
    bad[list(known)] = True
    plan = _plan(collection, listing, shown, bad, limit)
    batch = _Batch(collection, tuple(listing.columns.names), shown, used)
    _convert(batch, listing, plan, size, workers)
    gone = _gone_ids(collection, listing, shown)
    collection.mark_gone(gone)
    report = replace(batch.report, gone=len(gone), counts=counts_of(collection), errors=len(collection.errors()))
    finish_card(collection, report)
    return report


# ---------------------------------------------------------------------- what there is to do


_NOTHING, _EDIT, _READ = 0, 1, 2


def _latest(collection: Collection, listing: Listing) -> Ids:
    """The id of the latest row of each image of the listing, gone or not; -1 where there is none."""
    shown = np.full(len(listing), -1, np.int64)
    for batch in collection.scan(["id", "source"], batch_rows=2**14, gone=True):
        places = listing.names.find(batch["source"].to_pylist())
        shown[places[places >= 0]] = batch["id"].to_numpy()[places >= 0]
    return shown


def _plan(
    collection: Collection, listing: Listing, shown: Ids, bad: Bool[np.ndarray, "N"], limit: int
) -> UInt8[np.ndarray, "N"]:
    """What is to be done for each image; in `shown` an image that became unreadable loses its row."""
    plan = np.zeros(len(listing), np.uint8)
    for start, batch in _within(listing, limit):
        part = slice(start, start + len(batch))
        known = shown[part] >= 0
        read, edit = ~known, np.zeros(len(batch), bool)
        if known.any():
            there = batch.filter(pa.array(known))
            same = [*DESCRIPTION, *listing.columns.names]
            stored = collection.take(shown[part][known], ["stamp", "gone", *same])
            changed = ~_equal(stored, there, ["stamp"])
            read[known] = changed
            edit[known] = ~changed & ~(_equal(stored, there, same) & ~stored["gone"].to_numpy())
        shown[part][read & bad[part]] = -1
        plan[part] = np.where(edit, _EDIT, np.where(read & ~bad[part], _READ, _NOTHING))
    return plan


def _within(listing: Listing, limit: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The first `limit` images of the listing."""
    for start, batch in listing.batches():
        if start >= limit:
            return
        yield start, batch.slice(0, limit - start)


def _equal(stored: pa.Table, listed: pa.RecordBatch, names: Sequence[str]) -> Bool[np.ndarray, "M"]:
    same = np.ones(len(stored), bool)
    for name in names:
        column = stored[name].combine_chunks()
        same &= np.asarray(same_values(column, listed[name].cast(column.type)))
    return same


def _convert(batch: "_Batch", listing: Listing, plan: UInt8[np.ndarray, "N"], size: int, workers: int) -> None:
    count = int((plan == _READ).sum())
    # Conversion runs ahead of what is committed: `tee` holds the rows between, a few chunks.
    rows, ahead = tee(_images(batch, listing, plan))
    with progress("prepare", "images", count) as bar:
        try:
            tasks = (Task(place_of(row.to_pylist()[0]), digest) for _, row, digest in ahead)
            for (position, row, _), outcome in zip(rows, convert_all(tasks, size, workers), strict=True):
                batch.add(position, row, outcome)
                bar.advance()
                if batch.due():
                    batch.flush()
        except KeyboardInterrupt:
            batch.flush()
            raise
    batch.flush()


def _images(
    batch: "_Batch", listing: Listing, plan: UInt8[np.ndarray, "N"]
) -> Iterator[tuple[int, pa.RecordBatch, bytes | None]]:
    """The images to read: position, row of the listing, SHA-256 of the bytes that are known. Edits go to `batch`."""
    for start, listed in listing.batches():
        part = plan[start : start + len(listed)]
        for i in np.flatnonzero(part == _EDIT).tolist():
            batch.edit(start + i, listed.slice(i, 1))
        read = np.flatnonzero(part == _READ)
        digests = batch.digests(start + read)
        for i in read.tolist():
            yield start + i, listed.slice(i, 1), digests.get(start + i)


@dataclass
class _Batch:
    """Rows, errors and edits that wait for the next commit."""

    collection: Collection
    extra: tuple[str, ...]
    shown: Ids
    """The id of the row of each image, which follows what is added."""
    used: set[int]
    """Ids of the errors table."""
    report: Report = field(default_factory=Report)
    good: list[tuple[int, pa.RecordBatch, Converted]] = field(default_factory=list)
    bad: list[tuple[int, pa.RecordBatch, Failed]] = field(default_factory=list)
    edits: list[tuple[int, pa.RecordBatch]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._next = self.collection.next_id
        self._begun = time.monotonic()

    def add(self, position: int, row: pa.RecordBatch, outcome: Outcome) -> None:
        """Put the outcome of one image where it belongs."""
        if isinstance(outcome, Converted):
            self.shown[position] = self._new_id()
            self.good.append((int(self.shown[position]), row, outcome))
        elif isinstance(outcome, Failed):
            self.shown[position] = -1
            self.bad.append((self._new_id(), row, outcome))
        else:
            self.edit(position, row)

    def edit(self, position: int, row: pa.RecordBatch) -> None:
        """Set what the listing says of an image that has its row."""
        self.edits.append((int(self.shown[position]), row))
        if len(self.edits) >= 8 * BATCH_MOST:
            self.flush()

    def digests(self, positions: Ids) -> dict[int, bytes]:
        """SHA-256 of the bytes of those of these images that have rows, by position."""
        positions = positions[self.shown[positions] >= 0]
        found = self.collection.take(self.shown[positions], ["sha256"])["sha256"].to_pylist()
        return dict(zip(positions.tolist(), found, strict=True))

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

    def _errors(self, bad: list[tuple[int, pa.RecordBatch, Failed]]) -> pa.Table:
        rows = pa.Table.from_batches([row for _, row, _ in bad])
        reasons = [failed.reason for _, _, failed in bad]
        ids = [number for number, _, _ in bad]
        return pa.table({"id": ids, "source": rows["source"], "reason": reasons, "stamp": rows["stamp"]})

    def _rows(self, good: list[tuple[int, pa.RecordBatch, Converted]]) -> pa.Table:
        columns: dict[str, list[Any]] = {
            "image": [converted.data for _, _, converted in good],
            "width": [converted.width for _, _, converted in good],
            "height": [converted.height for _, _, converted in good],
            "sha256": [converted.sha256 for _, _, converted in good],
        }
        return self._table([(number, row) for number, row, _ in good], columns, "source")

    def _table(self, rows: list[tuple[int, pa.RecordBatch]], columns: dict[str, list[Any]], *names: str) -> pa.Table:
        """`columns`, the listing's `names`, and what any edit sets: descriptions, stamp, not gone."""
        listed = pa.Table.from_batches([row for _, row in rows]).combine_chunks()
        columns = {"id": [number for number, _ in rows], "gone": [False] * len(rows), **columns}
        schema = self.collection.schema
        return pa.table(
            {
                **{name: pa.array(values, schema.field(name).type) for name, values in columns.items()},
                **{n: listed[n].cast(schema.field(n).type) for n in (*names, *DESCRIPTION, *self.extra, "stamp")},
            }
        )


def _current_errors(collection: Collection, listing: Listing) -> tuple[set[int], set[int]]:
    """Ids of the errors table, and positions in the listing that it is about; what changed or left is dropped first."""
    errors = collection.errors()
    ids, names, stamps = (errors[name].to_pylist() for name in ("id", "source", "stamp"))
    places = listing.names.find(names).tolist()
    now = _stamps(listing, np.unique(places)) if ids else {}
    stale = [
        number
        for number, name, stamp, place in zip(ids, names, stamps, places, strict=True)
        if (place >= 0 or listing.covers(name)) and now.get(place) != stamp
    ]
    collection.drop_errors(np.array(stale, np.int64))
    left = set(ids) - set(stale)
    return left, {place for number, place in zip(ids, places, strict=True) if number in left and place >= 0}


def _stamps(listing: Listing, places: Ids) -> dict[int, str]:
    """The stamps of the images at these rising positions."""
    found: dict[int, str] = {}
    for start, batch in listing.batches():
        first, last = np.searchsorted(places, (start, start + len(batch)))
        inside = places[first:last]
        found |= zip(inside.tolist(), batch["stamp"].take(pa.array(inside - start)).to_pylist(), strict=True)
    return found


def _gone_ids(collection: Collection, listing: Listing, shown: Ids) -> Int64[np.ndarray, "M"]:
    """Rows of these sources that are not, or no longer, what the listing says."""
    gone = [np.empty(0, np.int64)]
    for batch in collection.scan(["id", "source"], batch_rows=2**14):
        ids, names = batch["id"].to_numpy(), batch["source"].to_pylist()
        places = listing.names.find(names)
        wrong = np.zeros(len(ids), bool)
        wrong[places >= 0] = shown[places[places >= 0]] != ids[places >= 0]
        for i in np.flatnonzero(places < 0).tolist():
            wrong[i] = listing.covers(names[i])
        gone.append(ids[wrong])
    return np.concatenate(gone)


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
