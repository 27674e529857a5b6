"""What sources say of their images: rows in Arrow, types of further columns, names by the million; all as one listing.

A listing lies on the disk, in a file without a name that ends with the process; memory holds 20 bytes an image.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, count
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64
from pyarrow import types

from lookalike.core.errors import SourceError
from lookalike.core.files import storage_errors
from lookalike.core.journal import Progress, note
from lookalike.data.collection import DESCRIPTION, SCHEMA
from lookalike.data.sources import Place, absolute, kept, text
from lookalike.data.sources.classes import Class, Splits
from lookalike.data.sources.datasets import DATASETS
from lookalike.data.sources.selection import TAKE_ALL, Chosen, Selection
from lookalike.data.sources.store import is_remote
from lookalike.data.whereabouts import PLACE, kept_place

# No further column has a dot in its name.
_PLACE = (
    *(pa.field("place.path", pa.binary(), nullable=False), ("place.offset", pa.int64()), ("place.size", pa.int64())),
    *(("place.deflated", pa.bool_()), ("place.border", pa.int32()), ("place.column", pa.string())),
    ("place.member", pa.string()),
)
LISTED = pa.schema([SCHEMA.field("source"), *_PLACE, *map(SCHEMA.field, ("stamp", *DESCRIPTION))])
"""A row an image, its source the path or member as the source names it; further columns stand behind these."""
BATCH = 4096  # images that a source tells of at a time


@dataclass(frozen=True)
class Source:
    """An open source: iterate for its images, in batches with the columns of `LISTED` and the further `columns`."""

    path: str
    layout: str
    batches: Callable[[], Iterator[pa.RecordBatch]]
    columns: pa.Schema = field(default_factory=lambda: pa.schema([]))
    unread: list[str] = field(default_factory=list)  # folders, as images' names begin; known when the images are
    facts: dict[str, Any] = field(default_factory=dict)  # for the card, whole when the images are known
    selection: Selection = TAKE_ALL

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self.batches()


def place_of(row: dict[str, Any]) -> Place:
    """Where the image of a row of `LISTED` lies."""
    at, size, deflated = row["place.offset"] or 0, row["place.size"], bool(row["place.deflated"])
    border, column = row["place.border"] or 0, row["place.column"] or ""
    return Place(os.fsdecode(row["place.path"]), row["stamp"], at, size, deflated, border, column)


def listed_place(place: Place, member: str | None = None) -> dict[str, Any]:
    """The same as values of a row of `LISTED`; `member` is what the image is called in its file, if it is a part."""
    told: dict[str, Any] = {"place.path": os.fsencode(place.path), "stamp": place.stamp}
    told |= {"place.offset": place.offset, "place.size": place.size}
    told |= {"place.deflated": place.deflated, "place.border": place.border, "place.column": place.column}
    return told | {"place.member": member or place.member or (str(place.offset) if place.column else None)}


_SAME = (
    *(types.is_null, types.is_boolean, types.is_integer, types.is_float32, types.is_float64, types.is_string),
    *(types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_date, types.is_time32),
    *(types.is_decimal128, types.is_decimal256),
)
_AS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (types.is_float16, lambda _: pa.float32()),
    (types.is_large_string, lambda _: pa.string()),
    (types.is_string_view, lambda _: pa.string()),
    (types.is_binary_view, lambda _: pa.binary()),
    (types.is_time64, lambda _: pa.time64("us")),  # Python's own times know no nanoseconds
    (types.is_duration, lambda _: pa.duration("us")),
    (types.is_timestamp, lambda kind: pa.timestamp("us", kind.tz)),
    (types.is_dictionary, lambda kind: stored_type(kind.value_type)),
    (lambda kind: isinstance(kind, pa.BaseExtensionType), lambda kind: stored_type(kind.storage_type)),
)
_LISTS = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)


def stored_type(kind: Any) -> Any:
    """The type in which values of type `kind` are stored and can be shown; None if they can't: a closed list."""
    if any(fits(kind) for fits in _SAME):
        return kind
    for fits, stored in _AS:
        if fits(kind):
            return stored(kind)
    if types.is_map(kind):
        parts = [kind.key_type, kind.item_type]
    else:
        parts = [part.type for part in kind] if types.is_struct(kind) else [kind.value_type] if _is_list(kind) else []
    inner = [pa.string() if types.is_null(part) else stored_type(part) for part in parts]
    if not inner or any(part is None for part in inner):
        return None
    if types.is_struct(kind):
        return pa.struct([(part.name, stored) for part, stored in zip(kind, inner, strict=True)])
    return pa.map_(*inner) if types.is_map(kind) else pa.list_(*inner)


def _is_list(kind: Any) -> bool:
    return any(fits(kind) for fits in _LISTS)


def common_type(kind: Any, into: Any) -> Any:
    """The type of a column of type `into` that takes values of `kind`; None if it can't.

    Nothing fits everywhere; whole numbers fit among fractions, and lists among lists of the same.
    """
    if kind == pa.null() or kind == into or (types.is_integer(kind) and types.is_floating(into)):
        return into
    if _is_list(kind) and _is_list(into) and kind.value_type == into.value_type:
        return into
    return kind if into == pa.null() else None


class Names:
    """Names by their position, 16 bytes for each whatever its length: first all are added, then they are looked up.

    A name is kept as 128 bits of its BLAKE2b: that two of 10^7 names share them has a chance of 10^-25.
    """

    def __init__(self) -> None:
        self._digests = bytearray()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, names: Sequence[str]) -> None:
        """Add names behind those that are there."""
        self._digests += names_digested(names)
        self._length += len(names)

    def find(self, names: Sequence[str]) -> Int64[np.ndarray, "N"]:
        """The position of each name, the last of several; -1 where it is not there."""
        digests, order = self._sorted
        wanted = np.frombuffer(names_digested(names), "S16")
        if not len(digests):
            return np.full(len(wanted), -1, np.int64)
        places = np.searchsorted(digests, wanted, side="right") - 1
        return np.where(digests[places] == wanted, order[places], -1).astype(np.int64)

    def repeated(self) -> tuple[int, int] | None:
        """The positions of a name that stands twice, the first such in order; None if there is none."""
        digests, order = self._sorted
        again = np.flatnonzero(digests[1:] == digests[:-1])
        if not len(again):
            return None
        first = again[np.argmin(order[again + 1])]
        return int(order[first]), int(order[first + 1])

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        digests = np.frombuffer(self._digests, "S16")
        order = np.argsort(digests, kind="stable")
        digests, self._digests = digests[order], bytearray()
        return digests, order.astype(np.int32 if self._length < 2**31 else np.int64)


def names_digested(names: Sequence[str], size: int = 16) -> bytes:
    """BLAKE2b of each name, `size` bytes each, one behind the other."""
    return b"".join(hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=size).digest() for name in names)


@dataclass(frozen=True, eq=False)
class Listing:
    """All that the sources say. An image's name is its source's NAME, a slash, and what that calls it."""

    names: Names
    opened: dict[str, Source]
    columns: pa.Schema  # further ones of any source; null where no source has a value
    file: IO[bytes]
    disks: dict[str, int | None]  # of each source: the number of the device that it lies on

    def __len__(self) -> int:
        return len(self.names)

    def check(self) -> None:
        """SourceError if a source is no longer there, as on a disk that was pulled: nothing is known of its images."""
        for name, source in self.opened.items():
            if self.disks[name] is not None and _disk(source.path) != self.disks[name]:
                raise SourceError(
                    f"`{source.path}` is no longer there: its disk was removed, or it was moved meanwhile. What was "
                    "read is kept, and so are the images that were known.",
                    hint="bring it back, and give the same command again",
                )

    @property
    def sources(self) -> dict[str, dict[str, Any]]:
        """NAME -> its entry in the collection's card."""
        return {
            name: {"name": name, "path": kept(source.path), "layout": source.layout, **source.facts}
            for name, source in self.opened.items()
        }

    def covers(self, name: str) -> bool:
        """Whether an image of this name would be in the listing if it were still there."""
        source, _, image = name.partition("/")
        return source in self.opened and not image.startswith(tuple(self.opened[source].unread))

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The images as rows of `LISTED` and `columns`, and the position of the first; read from the disk."""
        self.file.seek(0)
        with pa.ipc.open_stream(self.file) as reader:
            yield from _numbered(reader)


@contextmanager
def list_images(
    sources: Sequence[Source],
    known: Mapping[str, str],
    test: float,
    place: str | Path,
    merged: Mapping[Class, str] = MappingProxyType({}),
) -> Iterator[Listing]:
    """The listing of the sources, while the block lasts.

    `known` are the names that sources have had before (NAME -> path), `place` is a directory that holds the listing.
    With `test`, that share of the labels becomes split `test` where the source gives no split, the others `train`;
    `merged` are classes that get another label. SourceError if a source is missing, empty, or says something
    impossible.
    """
    opened = _named(sources, known)
    disks = {name: _disk(source.path) for name, source in opened.items()}
    columns = pa.schema([*PLACE, *_columns(opened.values())])
    schema, names = pa.schema([*LISTED, *columns]), Names()
    with tempfile.TemporaryFile(dir=place, prefix=".listing.") as file:
        progress = Progress("list", "images", patience=2.0)
        with progress as bar, storage_errors(place), pa.ipc.new_stream(file, schema) as writer:
            for name, source in opened.items():
                completed = partial(_completed, name=name, root=kept(source.path), schema=schema, merged=merged)
                batches: Iterator[pa.RecordBatch] = map(completed, source)
                if test:
                    batches = _split(batches, test, schema, place)
                if not source.selection.takes_all:
                    batches = _selected(batches, source, schema, place)
                for listed in batches:
                    names.add(listed["source"].to_pylist())
                    writer.write_batch(listed)
                    bar.advance(len(listed))
        listing = Listing(names, opened, columns, file, disks)
        listing.check()
        if (twice := names.repeated()) is not None:
            named = next(b["source"][twice[1] - s].as_py() for s, b in listing.batches() if twice[1] < s + len(b))
            name, _, image = named.partition("/")
            path = listing.sources[name]["path"]
            raise SourceError(f"Two images of `{path}` are both called `{image}`.", hint="rename one")
        yield listing


@contextmanager
def twice(
    batches: Iterator[pa.RecordBatch], learn: Callable[[pa.RecordBatch], None], schema: pa.Schema, place: str | Path
) -> Iterator[Iterator[tuple[int, pa.RecordBatch]]]:
    """The batches with the numbers of their first rows, once all were shown to `learn`; on the disk between."""
    with tempfile.TemporaryFile(dir=place, prefix=".listing.") as file:
        with pa.ipc.new_stream(file, schema) as writer:
            for batch in batches:
                learn(batch)
                writer.write_batch(batch)
        file.seek(0)
        with pa.ipc.open_stream(file) as reader:
            yield _numbered(reader)


def _numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    done = 0
    for batch in batches:
        yield done, batch
        done += len(batch)


def _split(
    batches: Iterator[pa.RecordBatch], test: float, schema: pa.Schema, place: str | Path
) -> Iterator[pa.RecordBatch]:
    """The batches with a split for each labelled row that has none."""
    splits = Splits(test)
    with twice(batches, splits.add, schema, place) as learned:
        for _, batch in learned:
            yield splits.told(batch)


def _selected(
    batches: Iterator[pa.RecordBatch], source: Source, schema: pa.Schema, place: str | Path
) -> Iterator[pa.RecordBatch]:
    """What the source's selection takes of its batches."""
    chosen = Chosen(source.selection)
    with twice(batches, chosen.add, schema, place) as learned:
        for start, batch in learned:
            yield chosen.taken(start, batch)
    source.facts["selection"] = chosen.facts()
    for licence, images in sorted(chosen.left_out.items()):
        note(f"left out of `{source.path}`: {images:,} images whose licence ({licence}) does not allow commercial use")


def _completed(
    batch: pa.RecordBatch, name: str, root: str, schema: pa.Schema, merged: Mapping[Class, str]
) -> pa.RecordBatch:
    columns: dict[str, Any] = {
        field.name: batch[field.name].cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(len(batch), field.type)
        for field in schema
    }
    columns["source"] = [f"{name}/{source}" for source in batch["source"].to_pylist()]
    columns["place"] = list(_places(columns, batch["source"], root))
    if merged:
        told = zip(batch["domain"].to_pylist(), batch["label"].to_pylist(), strict=True)
        columns["label"] = [None if label is None else merged.get((d or "", label), label) for d, label in told]
    return pa.RecordBatch.from_pydict(columns, schema=schema)


def _places(columns: Mapping[str, Any], named: Any, root: str) -> Iterator[bytes]:
    """What the rows keep of where their images lie; a part of a file without a name there has the image's."""
    told = (columns[f"place.{part}"].to_pylist() for part in ("path", "size", "column", "member"))
    for file, size, column, member, name in zip(*told, named.to_pylist(), strict=True):
        is_part = size is not None or bool(column)
        yield kept_place(file, (member or name) if is_part else None, root)


def _named(opened: Sequence[Source], known: Mapping[str, str]) -> dict[str, Source]:
    """The sources by name: the data set's, or that of its folder, or of its file without the suffix; numbered where it
    is taken.

    A name whose known path no longer exists is free: such a source was moved, and keeps its name elsewhere.
    """
    named: dict[str, Source] = {}
    for source in opened:
        place = absolute(source.path)
        if (place, source.layout) in [(absolute(other.path), other.layout) for other in named.values()]:
            raise SourceError(f"The source `{source.path}` is given twice.", hint="name it once")
        path = kept(source.path)
        if source.layout in DATASETS:
            base = source.layout
        else:
            is_file = source.layout in ("table", "webdataset", "parquet") and not place.is_dir()
            base = text(place.stem if is_file else place.name or "root")
        earlier = (name for name, known_path in known.items() if known_path == path)
        for name in chain(earlier, [base], (f"{base}-{i}" for i in count(2))):
            if name not in named and (known.get(name, path) == path or not _there(known[name])):
                named[name] = source
                break
    return named


def _disk(path: str) -> int | None:
    """The device of a file, or of a folder that is not empty; None of what is not there, or lies on no disk of ours.

    Where a disk was mounted, an empty folder stays when it is pulled, on the device of what is around it.
    """
    if path == "-" or is_remote(path):
        return None
    try:
        with os.scandir(path) if Path(path).is_dir() else nullcontext([path]) as entries:
            return Path(path).stat().st_dev if any(entries) else None
    except OSError:
        return None


def _there(path: str) -> bool:
    return is_remote(path) or Path(path).exists()


def _columns(opened: Iterable[Source]) -> pa.Schema:
    kinds: dict[str, Any] = {}
    for source in opened:
        made = [("class_index", pa.int64())] if source.selection.first is not None else []
        for name, kind in chain(zip(source.columns.names, source.columns.types, strict=True), made):
            there = kinds.get(name, pa.null())
            if (common := common_type(there, kind) or common_type(kind, there)) is None:
                raise SourceError(
                    f"Column `{name}` of `{source.path}` holds {kind}, that of another source {there}.",
                    hint="rename it in one of them",
                )
            kinds[name] = common
    return pa.schema(list(kinds.items()))
