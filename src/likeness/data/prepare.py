"""Sources -> collection: list, convert what is new, commit batch by batch, mark what is gone.

Work that was done is recognised by a picture's source and stamp (size and time), so the same command goes on after
a kill, adds what is new, and does nothing where nothing changed. A picture with another stamp is read again: with
the same bytes it keeps its row and vectors; with others it gets a new row, and the old one is gone.

An id is given when a picture is converted, good or bad, in the order of the listing; bad ones are written before the
good ones of the same batch. So whatever a kill leaves behind, ids that are free follow in the same order, and the
rows come out as if nothing had happened.

Memory: about 1 KB per picture of the listing, and `BATCH_MOST` stored pictures.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from likeness import __version__
from likeness.core.errors import CollectionError, SourceError
from likeness.core.files import locked, read_json, refuse_unless
from likeness.core.journal import progress, table
from likeness.data.collection import Collection
from likeness.data.convert import Converted, Failed, Outcome, Task, convert_all
from likeness.data.sources import SPLITS, Source, SourceRow, absolute, open_source, text
from likeness.data.splits import split_of

BATCH = 512
"""Rows of a commit, at least, unless the work ends; fewer would make a table of many small pieces."""
BATCH_SECONDS = 5.0
"""Time between commits, at least: on a fast machine a commit holds more rows."""
BATCH_MOST = 4096
"""Rows of a commit, at most: they wait in memory."""

DESCRIPTION = ("label", "domain", "split", "group", "is_query", "is_gallery")


@dataclass(frozen=True)
class Report:
    """What `prepare` did, and what the collection holds now."""

    added: int
    edited: int
    """Rows whose labels or other descriptions, or only the file's time, are new."""
    gone: int
    failed: int
    """Pictures that could not be read this time; the errors table also has those of earlier runs."""
    counts: dict[str, dict[str, int]]
    """Domain -> split ("none" where there is none) -> rows."""
    errors: int
    """Rows of the errors table."""

    @property
    def rows(self) -> int:
        """Rows that are not gone."""
        return sum(sum(splits.values()) for splits in self.counts.values())

    def table(self) -> str:
        """Rows per domain and split, as text."""
        splits = [s for s in (*SPLITS, "none") if any(s in counts for counts in self.counts.values())]
        body = [[d, *(c.get(s, 0) for s in splits), sum(c.values())] for d, c in self.counts.items()]
        if len(body) > 1:
            body.append(["all", *(sum(column) for column in list(zip(*body, strict=True))[1:])])
        return table(["domain", *splits, "rows"], body)

    def sentence(self, out: str) -> str:
        """What was done, in words."""
        done = [
            f"{n:,} {what}" for n, what in ((self.added, "added"), (self.edited, "edited"), (self.gone, "gone")) if n
        ]
        failed = f"; {self.errors:,} could not be read, see `likeness info {out}`" if self.errors else ""
        return f"`{out}` holds {self.rows:,} pictures: {', '.join(done) or 'nothing was new'}{failed}"


def prepare(
    sources: Sequence[str],
    out: str,
    *,
    size: int = 256,
    limit: int | None = None,
    test: float = 0.0,
    workers: int = 0,
) -> Report:
    """Make or continue the collection `out` from `sources`.

    Args:
        sources: Folders, CSV or Parquet files. Rows of sources that are in the collection and not named here stay.
        out: The collection's directory.
        size: Shorter side of a stored picture, in pixels; smaller pictures stay as they are.
        limit: Only the first so many pictures of the listing; those behind it are neither added nor marked.
        test: Share of the labels that become split `test` where the source gives no split, the others `train`; 0
            gives no splits.
        workers: Processes that decode; 0: one a core.

    Raises:
        SourceError: A source is missing, empty, or says something impossible.
        CollectionError: The collection was made with another `size` or `test`, or has columns of another type.
        StorageError: `out` is something else, is being written to, or the disk refuses.
    """
    refuse_unless(out, ("missing", "empty", "collection"), "collection")
    opened = [open_source(path) for path in sources]
    card = _card(out)
    options = {"size": size, "test": test}
    _check_options(out, card.get("options", options), options)
    names = _names(opened, {entry["name"]: entry["path"] for entry in card.get("sources", [])})
    listing = _listing(opened, names, test)
    with locked(out, "prepare"):
        collection = _open_or_create(out, opened)
        if not card:
            collection.update_card(_first_card(options))
        collection.update_card({"sources": _sources(collection.card, opened, names)})
        return _bring_up_to_date(collection, listing, set(names), limit, workers)


# ---------------------------------------------------------------------- what there is to do


@dataclass(frozen=True, slots=True)
class _Known:
    """The latest row of a source name."""

    id: int
    stamp: str
    sha256: bytes
    gone: bool
    description: tuple[Any, ...]


def _bring_up_to_date(
    collection: Collection, listing: dict[str, SourceRow], names: set[str], limit: int | None, workers: int
) -> Report:
    extra = tuple({name: None for row in listing.values() for name in row.extra})
    known = _known(collection, extra)
    bad = _current_errors(collection, listing, names)
    batch = _Batch(collection, extra, used=set(bad.values()))
    todo: list[SourceRow] = []
    for row in list(listing.values())[:limit]:
        before = known.get(row.source)
        if before is not None and before.stamp == row.place.stamp:
            if before.gone or before.description != _description(row, extra):
                batch.edits.append((before.id, row))
        elif row.source not in bad:
            todo.append(row)
    _convert(batch, todo, known, int(collection.card["options"]["size"]), workers)
    gone = _gone_ids(collection, listing, names, limit)
    collection.mark_gone(gone)
    report = replace(batch.report, gone=len(gone), counts=_counts(collection), errors=len(collection.errors()))
    _finish_card(collection, report)
    return report


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
    report: Report = Report(0, 0, 0, 0, {}, 0)
    good: list[tuple[int, SourceRow, Converted]] = field(default_factory=list)
    bad: list[tuple[int, SourceRow, Failed]] = field(default_factory=list)
    edits: list[tuple[int, SourceRow]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._next = self.collection.next_id
        self._begun = time.monotonic()

    def add(self, row: SourceRow, outcome: Outcome, known: _Known | None) -> None:
        """Put the outcome of one picture where it belongs."""
        if isinstance(outcome, Converted):
            self.good.append((self._new_id(), row, outcome))
        elif isinstance(outcome, Failed):
            self.bad.append((self._new_id(), row, outcome))
        elif known is not None:
            self.edits.append((known.id, row))

    def due(self) -> bool:
        """Whether it is time to commit."""
        count = len(self.good)
        return count >= BATCH_MOST or (count >= BATCH and time.monotonic() - self._begun >= BATCH_SECONDS)

    def flush(self) -> None:
        """Commit: errors first, since the order of free ids relies on it."""
        if self.bad:
            self.collection.add_errors(self._errors())
        if self.good:
            self.collection.append(self._rows())
        if self.edits:
            self.collection.update(self._edited())
        before = self.report
        self.report = replace(
            before,
            added=before.added + len(self.good),
            failed=before.failed + len(self.bad),
            edited=before.edited + len(self.edits),
        )
        self.good, self.bad, self.edits, self._begun = [], [], [], time.monotonic()

    def _new_id(self) -> int:
        while self._next in self.used:
            self._next += 1
        self._next += 1
        return self._next - 1

    def _errors(self) -> pa.Table:
        return pa.Table.from_pylist(
            [
                {"id": number, "source": row.source, "reason": failed.reason, "stamp": row.place.stamp}
                for number, row, failed in self.bad
            ]
        )

    def _rows(self) -> pa.Table:
        columns: dict[str, list[Any]] = {
            "image": [converted.data for _, _, converted in self.good],
            "width": [converted.width for _, _, converted in self.good],
            "height": [converted.height for _, _, converted in self.good],
            "sha256": [converted.sha256 for _, _, converted in self.good],
            "source": [row.source for _, row, _ in self.good],
        }
        return self._table([(number, row) for number, row, _ in self.good], columns)

    def _edited(self) -> pa.Table:
        return self._table(self.edits, {})

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


def _known(collection: Collection, extra: tuple[str, ...]) -> dict[str, _Known]:
    columns = ("id", "source", "stamp", "sha256", "gone", *DESCRIPTION, *extra)
    known: dict[str, _Known] = {}
    for batch in collection.scan(columns, gone=True):
        for values in zip(*(batch[name].to_pylist() for name in columns), strict=True):
            number, source, stamp, sha256, gone, *description = values
            known[source] = _Known(number, stamp, sha256, gone, tuple(description))
    return known


def _current_errors(collection: Collection, listing: dict[str, SourceRow], names: set[str]) -> dict[str, int]:
    """Source -> id of the errors table; what changed or left since is forgotten first."""
    current: dict[str, int] = {}
    stale: list[int] = []
    for error in collection.errors().to_pylist():
        row = listing.get(error["source"])
        if _origin(error["source"]) in names and (row is None or row.place.stamp != error["stamp"]):
            stale.append(error["id"])
        else:
            current[error["source"]] = error["id"]
    collection.drop_errors(np.array(stale, np.int64))
    return current


def _gone_ids(
    collection: Collection, listing: dict[str, SourceRow], names: set[str], limit: int | None
) -> Int64[np.ndarray, "N"]:
    """Rows of these sources that are not, or no longer, what the listing says."""
    reach = set(list(listing)[:limit])
    latest: dict[str, int] = {}
    gone: list[int] = []
    for batch in collection.scan(["id", "source", "stamp"]):
        for number, source, stamp in zip(*(batch[c].to_pylist() for c in ("id", "source", "stamp")), strict=True):
            if _origin(source) not in names:
                continue
            if source in latest:  # a picture that changed: its new row stands further down
                gone.append(latest[source])
            latest[source] = number
            if source not in listing or (source in reach and listing[source].place.stamp != stamp):
                gone.append(number)
    return np.unique(np.array(gone, np.int64))


# ---------------------------------------------------------------------- listing


def _listing(opened: list[Source], names: list[str], test: float) -> dict[str, SourceRow]:
    """All rows by their name in the collection, in order."""
    listing: dict[str, SourceRow] = {}
    for source, name in zip(opened, names, strict=True):
        for row in source:
            full = f"{name}/{row.source}"
            if full in listing:
                raise SourceError(f"Two pictures of `{source.path}` are both called `{row.source}`.", hint="rename one")
            split = split_of(row.domain, row.label, test) if test and row.split is None else row.split
            listing[full] = replace(row, source=full, split=split)
    return listing


def _names(opened: list[Source], known: dict[str, str]) -> list[str]:
    """A name for each source: that of its folder or file, numbered where another source of the card has it.

    A name whose recorded path no longer exists is free for a source of that name elsewhere: it was moved.
    """
    names: list[str] = []
    paths = [absolute(source.path) for source in opened]
    for path, source in zip(paths, opened, strict=True):
        if paths.count(path) > 1:
            raise SourceError(f"The source `{source.path}` is given twice.", hint="name it once")
        base = text((path.name or "root") if source.layout == "folder" else path.stem)
        recorded = [name for name, place in known.items() if place == text(str(path))]
        for name in chain(recorded, [base], (f"{base}-{number}" for number in count(2))):
            free = name not in known or known[name] == text(str(path)) or not Path(known[name]).exists()
            if name not in names and free:
                names.append(name)
                break
    return names


def _origin(source: str) -> str:
    return source.partition("/")[0]


def _open_or_create(out: str, opened: list[Source]) -> Collection:
    """The collection with all further columns of the sources; what a killed first write left is written anew."""
    wanted: dict[str, Any] = {}
    for source in opened:
        for name, kind in source.columns.items():
            wanted[name] = _common_type(source.path, name, wanted.get(name, pa.null()), kind)
    fields = [pa.field(name, pa.string() if kind == pa.null() else kind) for name, kind in wanted.items()]
    if not list(Path(out, "rows.lance", "_versions").glob("*.manifest")):  # nothing was ever committed
        return Collection.create(out, pa.schema(fields))
    collection = Collection.open(out)
    for field_ in fields:
        if field_.name in collection.columns and wanted[field_.name] != pa.null():
            _common_type(out, field_.name, field_.type, collection.schema.field(field_.name).type, exact=True)
    new = [field_ for field_ in fields if field_.name not in collection.columns]
    if new:
        collection.add_columns(pa.schema(new))
    return collection


def _common_type(path: str, name: str, one: Any, other: Any, *, exact: bool = False) -> Any:
    """A type for values of both; whole numbers may stand in a column of fractions, unless it is already there."""
    if pa.null() in (one, other):
        return other if one == pa.null() else one
    if one == other or (pa.types.is_integer(one) and pa.types.is_floating(other)):
        return other
    if not exact and pa.types.is_floating(one) and pa.types.is_integer(other):
        return one
    raise CollectionError(
        f"Column `{name}` of `{path}` holds {other}, and {one} elsewhere.", hint="rename it in one of the tables"
    )


# ---------------------------------------------------------------------- card


def _card(out: str) -> dict[str, Any]:
    path = Path(out) / "card.json"
    return dict(read_json(path)) if path.exists() else {}


def _first_card(options: dict[str, Any]) -> dict[str, Any]:
    return {
        "what": "a collection of pictures",
        "made_by": f"likeness {__version__}",
        "created": _now(),
        "options": options,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_options(out: str, recorded: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if recorded.get(name, value) != value:
            raise CollectionError(
                f"`{out}` was made with `--{name} {recorded[name]}`, not {value}.",
                hint=f"give `--{name} {recorded[name]}`, or another `--out`",
            )


def _sources(card: dict[str, Any], opened: list[Source], names: list[str]) -> list[dict[str, str]]:
    entries = {entry["name"]: entry for entry in card.get("sources", [])}
    for source, name in zip(opened, names, strict=True):
        entries[name] = {"name": name, "path": text(str(absolute(source.path))), "layout": source.layout}
    return list(entries.values())


def _counts(collection: Collection) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    grouped = collection.table(["domain", "split"]).group_by(["domain", "split"]).aggregate([([], "count_all")])
    for row in sorted(grouped.to_pylist(), key=lambda row: (row["domain"] or "", row["split"] or "")):
        counts.setdefault(row["domain"] or "none", {})[row["split"] or "none"] = row["count_all"]
    return counts


def _finish_card(collection: Collection, report: Report) -> None:
    entries = {"rows": report.rows, "errors": report.errors, "counts": report.counts}
    if {name: collection.card.get(name) for name in entries} != entries or report.edited or report.gone or report.added:
        collection.update_card({**entries, "updated": _now()})
