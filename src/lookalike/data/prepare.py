"""Sources -> collection: list, convert what is new, commit batch by batch, mark what is gone.

Work that was done is recognised by an image's source and stamp (size and time), so the same command goes on after
a kill, adds what is new, and does nothing where nothing changed. An image with another stamp is read again: with
the same bytes it keeps its row and vectors; with others it gets a new row, and the old one is gone. A new file with the
bytes of another (`again.py`) gets a row too, with the stored image of that one.

An id is given when an image is converted, good or bad, in the order of the listing; bad ones are written before the
good ones of a batch. So whatever a kill leaves behind, the rows come out as if nothing had happened.

Memory: about 50 bytes an image of the listing, which lies on the disk, and `BATCH_MOST` stored images.
"""

import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from itertools import tee
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.core.errors import CollectionError, SourceError, UsageError
from lookalike.core.files import locked, refuse_unless
from lookalike.core.journal import Progress
from lookalike.core.shapes import Ids
from lookalike.data.again import find_again
from lookalike.data.card import Report, card_of, finish
from lookalike.data.collection import DESCRIPTION, ERRORS, Collection, committed
from lookalike.data.convert import Converted, Copy, Failed, Outcome, Same, Task, convert_all
from lookalike.data.duplicates import MARK, SEEN, mark
from lookalike.data.failures import is_passing
from lookalike.data.follow import same_rows
from lookalike.data.sources import open_source
from lookalike.data.sources.classes import merges_of
from lookalike.data.sources.dataset import open_dataset
from lookalike.data.sources.listed import Listing, Source, common_type, list_images, place_of
from lookalike.data.sources.presets import compared, parts_of
from lookalike.data.sources.selection import TAKE_ALL, Selection
from lookalike.data.splitting import ENTRY, OWN, continue_split
from lookalike.imaging.decode import QUALITY

SIZE = 256  # shorter side of a stored image, in pixels, if nobody says another
BATCH = 512  # images of a commit, at least, unless the work ends; fewer would make a table of many small pieces
BATCH_SECONDS = 5.0  # seconds between commits, at least: on a fast machine a commit holds more images
BATCH_MOST = 4096  # images of a commit, at most: they wait in memory; of rows without them eight times as many


def prepare(
    sources: Sequence[str | tuple[str, str] | Source],
    out: str,
    *,
    size: int = SIZE,
    limit: int | None = None,
    test: float = 0.0,
    workers: int = 0,
    exclude: Sequence[str] = (),
    selection: Selection = TAKE_ALL,
    preset: str = "",
    quality: int = QUALITY,
    retry_failed: bool = False,
    max_error_rate: float = 1.0,
    merge_labels: str = "",
) -> Report:
    """Make or continue the collection `out` from `sources`; the options are those of the command.

    A source is a path, the name of a public data set and the place of its files, or an open one.
    Rows of sources that are not named here stay, as do those behind `limit`; what `exclude` fits is marked as gone.

    Raises:
        SourceError: A source is missing, empty, or says something impossible.
        CollectionError: The collection was made with another `size` or `test`, or has columns of another type.
        UsageError, StorageError: A number is out of range; `out` is something else or in use, or the disk refuses.
    """
    for name, value, fits, expected in (
        ("size", size, size >= 1, "at least 1 pixel"),
        ("limit", limit, limit is None or limit >= 1, "at least 1 image"),
        ("test", test, 0 <= test < 1, "a share from 0 to less than 1"),
        ("workers", workers, workers >= 0, "0 (one a core) or more"),
        ("quality", quality, 1 <= quality <= 95, "1 (worst) to 95"),
        ("max-error-rate", max_error_rate, 0 <= max_error_rate <= 1, "a share from 0 to 1"),
    ):
        if not fits:
            raise UsageError(f"`--{name}` is {value}; expected {expected}.")
    refuse_unless(out, ("missing", "empty", "collection"), "collection")
    with locked(out, "prepare"):  # before the card is read: another process may be writing it
        card = card_of(out, {"size": size, "test": test, "quality": quality})
        known = {entry["name"]: entry for entry in card.get("sources", [])}
        paths = {name: entry["path"] for name, entry in known.items()}
        parts = parts_of(preset, sources, selection, test)
        opened = [_opened(source, exclude, part) for source, part in zip(sources, parts, strict=True)]
        merged = merges_of(merge_labels) if merge_labels else {}
        with list_images(opened, paths, test, out, merged) as listing:
            collection = _open_or_create(out, listing)
            card |= {"preset": compared(preset, opened)} if preset else {}
            collection.update_card({**card, "sources": list({**known, **listing.sources}.values())})
            update = _Update(collection, listing, len(listing) if limit is None else limit, retry_failed)
            update.convert(size, workers, quality, max_error_rate)
            listing.check()  # else all that it no longer shows were gone
            gone = update.gone()
            collection.mark_gone(gone)
            if collection.card.get("duplicates", {}).get("of") != collection.fingerprint:  # also if killed before this
                collection.update_card({"duplicates": mark(collection)})
            continue_split(collection)
            return finish(collection, update.done[Converted], update.done[Same], len(gone), update.done[Failed])


def _opened(source: str | tuple[str, str] | Source, exclude: Sequence[str], selection: Selection) -> Source:
    if isinstance(source, Source):
        return source
    opened = open_source(source, exclude) if isinstance(source, str) else open_dataset(*source, exclude)
    if exclude:
        opened.facts["exclude"] = list(exclude)
    return replace(opened, selection=selection)


def _open_or_create(out: str, listing: Listing) -> Collection:
    """The collection with all further columns of the listing; what a killed first write left is written anew."""
    columns = [pa.field(field.name, pa.string()) if field.type == pa.null() else field for field in listing.columns]
    columns += [*SEEN, *MARK]
    if not committed(f"{out}/rows.lance"):
        return Collection.create(out, pa.schema(columns))
    collection = Collection.open(out)
    collection.sweep()
    for name in (name for name in listing.columns.names if name in collection.columns):
        kind, there = listing.columns.field(name).type, collection.schema.field(name).type
        if common_type(kind, there) != there:
            raise CollectionError(
                f"Column `{name}` holds {kind} in the sources and {there} in `{out}`.",
                hint="rename it in the sources, or give another `--out`",
            )
    if new := [field for field in columns if field.name not in collection.columns]:
        collection.add_columns(pa.schema(new))
    return collection


class _Update:
    def __init__(self, collection: Collection, listing: Listing, limit: int, retry: bool) -> None:
        self.collection, self.listing = collection, listing
        self._own = OWN if collection.card.get(ENTRY) else ()  # what the sources do not say any more
        self.done: Counter[type[Outcome]] = Counter()
        # The id of the latest row of each image of the listing, gone or not; -1: none, or it can't be read any more.
        self._shown = np.full(len(listing), -1, np.int64)
        lost = list[int]()  # rows whose names are not listed any more: files that were moved may be among them
        for ids, names, places in self._rows(gone=True):
            self._shown[places[places >= 0]] = ids[places >= 0]
            lost += [
                id
                for id, name, place in zip(ids.tolist(), names, places, strict=True)
                if place < 0 and listing.covers(name)
            ]
        stamps = collection.take(np.array(lost, np.int64), ["stamp"])["stamp"].to_pylist()
        self._lost = dict(zip(stamps, lost, strict=True))
        self._edit, self._read = np.zeros((2, len(listing)), bool)  # what is to be done
        self._failed = self._make_plan(limit, retry)
        self._again = find_again(listing, self._read & (self._shown < 0), collection)
        self._whole: dict[bytes, Converted | Failed] = {}  # of what has copies: what waits, and what failed
        self._next = collection.next_id
        self._waiting: list[tuple[int, pa.RecordBatch, Outcome]] = []
        self._images, self._begun, self._bad = 0, time.monotonic(), len(self._failed)

    def _rows(self, *, gone: bool) -> Iterator[tuple[Ids, list[str], Ids]]:
        """Ids and sources of the collection's rows, and their places in the listing; -1: not there."""
        for batch in self.collection.scan(["id", "source"], batch_rows=2**14, gone=gone):
            names = batch["source"].to_pylist()
            yield batch["id"].to_numpy(), names, self.listing.names.find(names)

    def _make_plan(self, limit: int, retry: bool) -> set[int]:
        """Plan what is to be done for each image; ids of the errors that stay: others changed, have left, or are to be
        tried again.
        """
        errors = self.collection.errors().select(["id", "source", "stamp", "reason"]).to_pylist()
        places = self.listing.names.find([error["source"] for error in errors]).tolist()
        stamps = {
            place: error["stamp"]
            for place, error in zip(places, errors, strict=True)
            if not is_passing(error["reason"])
        }
        bad = np.zeros(len(self.listing), bool)
        names = [name for name in (*DESCRIPTION, *self.listing.columns.names) if name not in self._own]
        for start, listed in self.listing.batches():
            if start >= limit:
                break
            listed = listed.slice(0, limit - start)
            part = slice(start, start + len(listed))
            if stamps and not retry:
                bad[part] = [stamps.get(i) == stamp for i, stamp in enumerate(listed["stamp"].to_pylist(), start)]
            read, edit = self._shown[part] < 0, np.zeros(len(listed), bool)
            if not read.all():
                there = listed.filter(pa.array(~read))
                stored = self.collection.take(self._shown[part][~read], ["stamp", "gone", *names])
                touched = ~same_rows(stored, there, ["stamp"])
                edit[~read] = ~touched & (~same_rows(stored, there, names) | stored["gone"].to_numpy())
                read[~read] = touched
            self._find_moved(listed, part)
            self._shown[part][read & bad[part]] = -1
            self._edit[part], self._read[part] = edit, read & ~bad[part]
        stale = {
            error["id"]
            for place, error in zip(places, errors, strict=True)
            if (self.listing.covers(error["source"]) if place < 0 else place < limit and not bad[place])
        }
        self.collection.drop_errors(np.array(sorted(stale), np.int64))
        return {error["id"] for error in errors} - stale

    def _find_moved(self, listed: pa.RecordBatch, part: slice) -> None:
        """New names with the size and time of a file that left: if the bytes are the same, its row takes the name."""
        if self._lost:
            new = np.flatnonzero(self._shown[part] < 0)
            for i, stamp in zip(new.tolist(), listed["stamp"].take(pa.array(new)).to_pylist(), strict=True):
                self._shown[part.start + i] = self._lost.pop(stamp, -1)

    def convert(self, size: int, workers: int, quality: int, most: float) -> None:
        """Carry out the plan; an interrupt keeps what was done. SourceError: a larger share than `most` failed."""
        # Conversion runs ahead of what is committed: `tee` holds the rows between, a few chunks.
        rows, ahead = tee(self._planned())
        with Progress("prepare", "images", int(self._read.sum())) as bar:
            try:
                copies = self._again.copies
                tasks = (Task(place_of(row.to_pylist()[0]), known, place in copies) for place, row, known in ahead)
                for (place, row, _), found in zip(rows, convert_all(tasks, size, workers, quality), strict=True):
                    outcome = self._copied(copies[place]) if isinstance(found, Copy) else found
                    if isinstance(outcome, Failed) and is_passing(outcome.reason):
                        self.listing.check()
                    self._add(place, row, outcome)
                    bar.advance()
                    if isinstance(outcome, Failed):
                        self._refuse_more(most)
            finally:
                self._flush()

    def _copied(self, digest: bytes) -> Outcome:
        """What became of the image that has these bytes."""
        if (found := self._whole.get(digest)) is None and digest in self._again.rows:
            names = [field.name for field in fields(Converted)]
            row = self.collection.take(np.array([self._again.rows[digest]]), names).to_pylist()[0]
            return Converted(**row)
        if found is None or (isinstance(found, Failed) and is_passing(found.reason)):
            return Failed("The file can't be read: another with the same bytes could not be, or has changed meanwhile.")
        return found

    def _refuse_more(self, most: float) -> None:
        self._bad += 1
        if self._bad > most * len(self.listing):
            raise SourceError(
                f"{self._bad:,} of {len(self.listing):,} images can't be read, which is more than `--max-error-rate` "
                f"({most:g}) allows. What was read is kept.",
                hint=f"`lookalike info {shlex.quote(self.collection.path)}` says why they can't be read",
            )

    def _planned(self) -> Iterator[tuple[int, pa.RecordBatch, bytes | None]]:
        """The images to read: place, row of the listing, SHA-256 of the bytes that are known. Edits are made."""
        for start, listed in self.listing.batches():
            part = slice(start, start + len(listed))
            for i in np.flatnonzero(self._edit[part]).tolist():
                self._add(start + i, listed.slice(i, 1), Same())
            read = np.flatnonzero(self._read[part])
            known = read[self._shown[start + read] >= 0]
            digests = self.collection.take(self._shown[start + known], ["sha256"])["sha256"].to_pylist()
            told = dict(zip(known.tolist(), digests, strict=True))
            for i in read.tolist():
                yield start + i, listed.slice(i, 1), told.get(i)

    def _add(self, place: int, row: pa.RecordBatch, outcome: Outcome) -> None:
        """Keep the outcome of one image for the next commit, and commit if it is time."""
        number = int(self._shown[place])
        if not isinstance(outcome, Same):
            while self._next in self._failed:
                self._next += 1
            number, self._next = self._next, self._next + 1
            if isinstance(outcome, Converted):
                self._shown[place] = number
            elif not (isinstance(outcome, Failed) and is_passing(outcome.reason)):  # else the row stays as it was
                self._shown[place] = -1
            if (digest := self._again.firsts.get(place)) and isinstance(outcome, Failed):
                self._whole[digest] = outcome
            elif digest and isinstance(outcome, Converted) and outcome.sha256 == digest:  # else it changed meanwhile
                self._whole[digest], self._again.rows[digest] = outcome, number
            self._images += 1
        self._waiting.append((number, row, outcome))
        late = len(self._waiting) >= BATCH and time.monotonic() - self._begun >= BATCH_SECONDS
        if late or self._images >= BATCH_MOST or len(self._waiting) >= 8 * BATCH_MOST:
            self._flush()

    def _flush(self) -> None:
        """Commit what waits: errors first, since the order of free ids relies on it."""
        # Let go first: a flush that an interrupt ends is not repeated by the one that answers the interrupt.
        waiting, self._waiting, self._images = self._waiting, [], 0
        write: Callable[[pa.Table], None]
        for kind, schema, write in (
            (Failed, ERRORS, self.collection.add_errors),
            (Converted, self.collection.schema, self.collection.append),
            (Same, self.collection.schema, self.collection.update),
        ):
            if some := [entry for entry in waiting if isinstance(entry[2], kind)]:
                own = self._own if kind is Same else self._own[:1]  # a new row has roles, and no split yet
                schema = pa.schema([field for field in schema if field.name not in own])
                write(_table(some, [field.name for field in fields(kind)], schema))
                self.done[kind] += len(some)
        self._whole = {digest: one for digest, one in self._whole.items() if isinstance(one, Failed)}
        self._begun = time.monotonic()

    def gone(self) -> Ids:
        """Rows of these sources that are not, or no longer, what the listing says."""
        gone = [np.empty(0, np.int64)]
        for ids, names, places in self._rows(gone=False):
            there = places >= 0
            wrong = np.array([not t and self.listing.covers(n) for t, n in zip(there, names, strict=True)], bool)
            wrong[there] = self._shown[places[there]] != ids[there]
            gone.append(ids[wrong])
        return np.concatenate(gone)


def _table(entries: Sequence[tuple[int, pa.RecordBatch, Outcome]], made: Sequence[str], schema: pa.Schema) -> pa.Table:
    """Ids, what conversion `made`, and what the listing says of the columns of `schema`; no image in it is gone."""
    listed = pa.Table.from_batches([row for _, row, _ in entries]).combine_chunks()
    columns: dict[str, Any] = {name: [getattr(outcome, name) for _, _, outcome in entries] for name in made}
    columns |= {"id": [number for number, _, _ in entries], "gone": [False] * len(entries)}
    return pa.table(
        {
            field.name: pa.array(columns[field.name], field.type)
            if field.name in columns
            else listed[field.name].cast(field.type)
            for field in schema
            if field.name in columns or field.name in listed.column_names
        }
    )
