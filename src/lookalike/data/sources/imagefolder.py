"""A folder of images with metadata.jsonl, .csv or .parquet, as Hugging Face's ImageFolder has it.

The file is a table (`table`), whose paths are called `file_name` and are relative to it; further columns are kept. It
lies in the folder, or in folders of it that are called like splits: train, validation, test. The split is that folder,
or the first of a path. Where the table tells no label or no domain, the rest of the path does, as in `folder`. Images
that no row names are left out, and counted.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.core.errors import SourceError
from lookalike.core.journal import note
from lookalike.data.sources import SPLIT_OF, absolute, excluded, metadata_in, nfc, text
from lookalike.data.sources.folder import SUFFIXES
from lookalike.data.sources.listed import BATCH, LISTED, Names, Source, common_type
from lookalike.data.sources.store import Address, File, located
from lookalike.data.sources.table import open_source as open_table


def open_source(path: str, exclude: Sequence[str] = ()) -> Source:
    """The folder at `path`, the columns of its metadata checked."""
    place = located(path)
    if isinstance(place, Address):
        place.load()
    found = [(name, file) for name, file in metadata_in(place) if not (name and excluded(name, exclude))]
    tables = {name: open_table(file, exclude, domain=None) for name, file in found}
    if "" in tables and len(tables) > 1:
        raise SourceError(
            f"There is metadata in `{path}` and in `{found[1][1].parent}` too.", hint="take one of them away"
        )
    kinds: dict[str, Any] = {}
    for table in tables.values():
        for field in table.columns:
            there = kinds.get(field.name, pa.null())
            if (common := common_type(there, field.type) or common_type(field.type, there)) is None:
                raise SourceError(
                    f"Column `{field.name}` of `{table.path}` holds {field.type}, and in another split {there}.",
                    hint="write it with the same type in both",
                )
            kinds[field.name] = common
    columns = pa.schema(list(kinds.items()))
    return Source(path, "imagefolder", partial(_batches, place, tables, exclude, columns), columns)


def _batches(
    path: File, tables: Mapping[str, Source], exclude: Sequence[str], columns: pa.Schema
) -> Iterator[pa.RecordBatch]:
    names, schema, root = Names(), pa.schema([*LISTED, *columns]), nfc(text(absolute(str(path)).name or "root"))
    for name, table in tables.items():
        for batch in table:
            sources = [os.path.normpath(f"{name}/{source}").lstrip("/") for source in batch["source"].to_pylist()]
            names.add([nfc(source) for source in sources])
            told = {
                field.name: batch[field.name].cast(field.type)
                if field.name in batch.schema.names
                else pa.nulls(len(batch), field.type)
                for field in schema
            }
            shown = [_by_path(source, root) for source in sources]
            for i, column in enumerate(("split", "domain", "label")):
                told[column] = pc.coalesce(told[column], pa.array([of[i] for of in shown], pa.string()))
            yield pa.RecordBatch.from_pydict({**told, "source": sources}, schema)
    there, left = map(nfc, _images(path, exclude)), 0
    while some := list(islice(there, BATCH)):
        left += int((names.find(some) < 0).sum())
    if left:
        note(f"images of `{path}` that its metadata does not name, left out: {left:,}")


def _by_path(source: str, root: str) -> tuple[str | None, str, str | None]:
    """Split, domain and label of an image by its path; the latter two as `folder` tells them."""
    folders = source.split("/")[:-1]
    split = SPLIT_OF.get(folders[0]) if folders else None
    folders = folders[1:] if split else folders
    label = nfc(folders[min(len(folders), 2) - 1]) if folders else None
    return split, nfc(folders[0]) if len(folders) >= 2 else root, label


def _images(path: File, exclude: Sequence[str]) -> Iterator[str]:
    """Files that are called like images, relative to the folder."""
    if isinstance(path, Address):
        yield from (name for name, _ in path.walk() if name.lower().endswith(SUFFIXES) and not excluded(name, exclude))
        return
    for place, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".") and not excluded(text(name), exclude)]
        for name in files:
            relative = text(os.path.relpath(f"{place}/{name}", path))
            if name.lower().endswith(SUFFIXES) and not name.startswith(".") and not excluded(relative, exclude):
                yield relative
