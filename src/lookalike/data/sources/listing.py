"""Several sources as one listing, in which no two images have the same name.

A listing lies on the disk, in a file without a name that ends with the process; memory holds 20 bytes an image.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from lookalike.core.errors import SourceError
from lookalike.core.files import storage_errors
from lookalike.data.sources import absolute, open_source, text
from lookalike.data.sources.listed import LISTED, Names, Source, common_type


@dataclass(frozen=True, eq=False)
class Listing:
    """All that the sources say."""

    names: Names
    """The images in order, by `NAME/` and what their source calls them; NAME is the source's."""
    opened: dict[str, Source]
    columns: pa.Schema
    """Further columns of any source; null where no source has a value."""
    file: IO[bytes]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sources(self) -> dict[str, dict[str, str]]:
        """NAME -> its entry in the collection's card."""
        paths = {name: text(str(absolute(source.path))) for name, source in self.opened.items()}
        return {n: {"name": n, "path": paths[n], "layout": source.layout} for n, source in self.opened.items()}

    def covers(self, name: str) -> bool:
        """Whether an image of this name would be in the listing if it were still there."""
        source, _, image = name.partition("/")
        return source in self.opened and not image.startswith(tuple(self.opened[source].unread))

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
    paths: Sequence[str], known: Mapping[str, str], test: float, place: str | Path, exclude: Sequence[str] = ()
) -> Iterator[Listing]:
    """The listing of the sources at `paths`, while the block lasts.

    `known` are the names that sources have had before (NAME -> path), `place` is a directory that holds the listing.
    With `test`, that share of the labels becomes split `test` where the source gives no split, the others `train`.

    Raises:
        SourceError: A source is missing, empty, or says something impossible.
        StorageError: The disk refuses.
    """
    opened = _named([open_source(path, exclude) for path in paths], known)
    columns = _columns(opened.values())
    schema, names = pa.schema([*LISTED, *columns]), Names()
    with tempfile.TemporaryFile(dir=place, prefix=".listing.") as file:
        with storage_errors(place), pa.ipc.new_stream(file, schema) as writer:
            for name, source in opened.items():
                for batch in source:
                    listed = _completed(batch, name, schema, test)
                    names.add(listed["source"].to_pylist())
                    writer.write_batch(listed)
        listing = Listing(names, opened, columns, file)
        if (twice := names.repeated()) is not None:
            named = next(b["source"][twice[1] - s].as_py() for s, b in listing.batches() if twice[1] < s + len(b))
            name, _, image = named.partition("/")
            path = listing.sources[name]["path"]
            raise SourceError(f"Two images of `{path}` are both called `{image}`.", hint="rename one")
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


def split_of(domain: str | None, label: str | None, test: float) -> str | None:
    """`test` for this share of the classes, `train` for the others; None for a row without a label.

    A class is a pair (domain, label) and judged by its own name alone (SHA-256), the same for ever: other classes that
    come, go or are renamed never move it, and a larger `test` keeps every class of a smaller one. So the share holds on
    average: of n classes about `test` * n +- sqrt(n * test * (1 - test)) are test classes.
    """
    if label is None:
        return None
    digest = hashlib.sha256(f"{domain or ''}\0{label}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") / 2**64 < test else "train"


def _named(opened: Sequence[Source], known: Mapping[str, str]) -> dict[str, Source]:
    """The sources by name: that of its folder, or of its file without the suffix; numbered where it is taken.

    A name whose known path no longer exists is free: such a source was moved, and keeps its name elsewhere.
    """
    named: dict[str, Source] = {}
    for source in opened:
        place = absolute(source.path)
        if place in [absolute(other.path) for other in named.values()]:
            raise SourceError(f"The source `{source.path}` is given twice.", hint="name it once")
        path = text(str(place))
        base = text(place.stem if source.layout == "table" else place.name or "root")
        earlier = (name for name, known_path in known.items() if known_path == path)
        for name in chain(earlier, [base], (f"{base}-{i}" for i in count(2))):
            if name not in named and (known.get(name, path) == path or not Path(known[name]).exists()):
                named[name] = source
                break
    return named


def _columns(opened: Iterable[Source]) -> pa.Schema:
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
