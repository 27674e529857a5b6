"""Several sources as one listing, in which no two images have the same name.

A listing lies on the disk, in a file without a name that ends with the process; memory holds 20 bytes an image.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from lookalike.core.errors import SourceError
from lookalike.core.files import storage_errors
from lookalike.data.sources import absolute, open_source, text
from lookalike.data.sources.kinds import common_type
from lookalike.data.sources.listed import LISTED, Source
from lookalike.data.sources.names import Names
from lookalike.data.splits import split_of


@dataclass(frozen=True, eq=False)
class Listing:
    """All that the sources say."""

    names: Names
    """The images in order, by `NAME/` and what their source calls them; NAME is the source's."""
    sources: dict[str, dict[str, str]]
    """NAME -> its entry in the collection's card: name, path, layout."""
    columns: pa.Schema
    """Further columns of any source; null where no source has a value."""
    unread: tuple[str, ...]
    """Beginnings of the names of images that could not be looked for."""
    file: IO[bytes]

    def __len__(self) -> int:
        return len(self.names)

    def covers(self, name: str) -> bool:
        """Whether an image of this name would be in the listing if it were still there."""
        return name.partition("/")[0] in self.sources and not name.startswith(self.unread)

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The images as rows of `LISTED` and `columns`, and the position of the first; read from the disk."""
        self.file.seek(0)
        done = 0
        with pa.ipc.open_stream(self.file) as reader:
            for batch in reader:
                yield done, batch
                done += len(batch)


@contextmanager
def list_images(
    paths: Sequence[str],
    known: Mapping[str, str],
    test: float,
    place: str | Path,
    exclude: Sequence[str] = (),
) -> Iterator[Listing]:
    """The listing of the sources at `paths`, while the block lasts.

    Args:
        paths: As given on the command line.
        known: Names that sources have had before: NAME -> path.
        test: Share of the labels that become split `test` where the source gives no split; 0: no splits are made.
        place: A directory on the disk that holds the listing.
        exclude: Patterns of names and paths that are left out.

    Raises:
        SourceError: A source is missing, empty, or says something impossible.
        StorageError: The disk refuses.
    """
    opened = [open_source(path, exclude) for path in paths]
    names = _names(opened, known)
    columns = _columns(opened)
    found = Names()
    schema = pa.schema([*LISTED, *columns])
    with tempfile.TemporaryFile(dir=place, prefix=".listing.") as file:
        with storage_errors(place), pa.ipc.new_stream(file, schema) as writer:
            for name, source in zip(names, opened, strict=True):
                for batch in source:
                    batch = _completed(batch, name, schema, test)
                    found.add(batch["source"].to_pylist())
                    writer.write_batch(batch)
        entries = {
            name: {"name": name, "path": text(str(absolute(source.path))), "layout": source.layout}
            for name, source in zip(names, opened, strict=True)
        }
        unread = tuple(f"{name}/{folder}" for name, s in zip(names, opened, strict=True) for folder in s.unread)
        listing = Listing(found, entries, columns, unread, file)
        _check_names(listing)
        yield listing


def _completed(batch: pa.RecordBatch, name: str, schema: pa.Schema, test: float) -> pa.RecordBatch:
    """A batch of one source as one of the listing."""
    columns: dict[str, Any] = {
        field.name: batch[field.name].cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(len(batch), field.type)
        for field in schema
    }
    columns["source"] = [f"{name}/{source}" for source in batch["source"].to_pylist()]
    if test:
        told = zip(*(batch[c].to_pylist() for c in ("domain", "label", "split")), strict=True)
        columns["split"] = [split_of(d, label, test) if split is None else split for d, label, split in told]
    return pa.RecordBatch.from_pydict(columns, schema=schema)


def _check_names(listing: Listing) -> None:
    if (twice := listing.names.repeated()) is None:
        return
    name = next(b["source"][twice[1] - s].as_py() for s, b in listing.batches() if twice[1] < s + len(b))
    source, _, image = name.partition("/")
    raise SourceError(
        f"Two images of `{listing.sources[source]['path']}` are both called `{image}`.", hint="rename one"
    )


def _names(opened: Sequence[Source], known: Mapping[str, str]) -> list[str]:
    """The name of each source: that of its folder, or of its file without the suffix; numbered where it is taken.

    A name whose known path no longer exists is free: such a source was moved, and keeps its name elsewhere.
    """
    names: list[str] = []
    seen: set[str] = set()
    for source in opened:
        place = absolute(source.path)
        path = text(str(place))
        if path in seen:
            raise SourceError(f"The source `{source.path}` is given twice.", hint="name it once")
        seen.add(path)
        for name in _candidates(text(place.stem if source.layout == "table" else place.name or "root"), path, known):
            if name not in names and (known.get(name, path) == path or not Path(known[name]).exists()):
                names.append(name)
                break
    return names


def _candidates(base: str, path: str, known: Mapping[str, str]) -> Iterator[str]:
    return chain((n for n, place in known.items() if place == path), [base], (f"{base}-{i}" for i in count(2)))


def _columns(opened: Sequence[Source]) -> pa.Schema:
    kinds: dict[str, Any] = {}
    for source in opened:
        for name, kind in zip(source.columns.names, source.columns.types, strict=True):
            common = common_type(kinds.get(name, pa.null()), kind) or common_type(kind, kinds[name])
            if common is None:
                raise SourceError(
                    f"Column `{name}` of `{source.path}` holds {kind}, that of another source {kinds[name]}.",
                    hint="rename it in one of them",
                )
            kinds[name] = common
    return pa.schema(list(kinds.items()))
