"""Images in Parquet, as the data sets of Hugging Face's Hub are stored: a file, or a folder of files.

    train-00000-of-00003.parquet         in the folder, in `data`, or in folders that are called like splits
    image                                struct<bytes, path>, or bytes: the column of images, whatever it is called
    label                                numbers, whose names stand in the schema under `huggingface`, or texts

An image is called by its file and its row, counted from 0, and is read from there by whoever decodes it. Where a row
has no bytes, its path names a file beside; where it has neither, it is an image that can't be read. The split is what
the file is called, else its folder; the rest is as in `huggingface`.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from pyarrow import types

from lookalike.core.errors import SourceError
from lookalike.data.sources import SPLIT_OF, Place, excluded, parquet_in, stamp_of, text
from lookalike.data.sources.beside import Below
from lookalike.data.sources.huggingface import Saved, batches_of, further_of
from lookalike.data.sources.listed import BATCH, Source
from lookalike.data.sources.store import File, located
from lookalike.data.sources.table import open_parquet
from lookalike.imaging.decode import HEAD, kind_of

_LOOKED_AT = 16  # rows of a column of bytes, of which one tells whether they are images


def open_source(path: str, exclude: Sequence[str] = ()) -> Source:
    """The Parquet file, or the folder of such, at `path`; their columns are the same, or SourceError."""
    place = located(path)
    names = parquet_in(place) if place.is_dir() else [""]
    files = list[Saved]()
    for name in names:
        if not excluded(name, exclude):
            files.append(_saved(place, name, files[0] if files else None))
    columns, kept = further_of(files[0]) if files else (pa.schema([]), {})
    return Source(path, "parquet", partial(batches_of, path, files, exclude, columns, kept, _located), columns)


def holds_images(file: File) -> bool:
    """Whether a Parquet file holds images themselves: as the Hub has them, or as bytes where no path is told."""
    with open_parquet(file) as opened:
        schema = opened.schema_arrow
        images = _images(opened)
    return bool(images) and (
        any(types.is_struct(schema.field(name).type) for name in images)
        or not {"path", "file_name"} & {name.strip() for name in schema.names}
    )


def _saved(place: File, name: str, first: Saved | None) -> Saved:
    """A file; SourceError if its columns are not those of the `first`, or none holds images."""
    file = place / name if name else place
    with open_parquet(file) as opened:
        schema = opened.schema_arrow
        features = first.features if first else _features(file, opened)
    if first and not schema.equals(first.schema):
        raise SourceError(
            f"`{file}` and `{first.files[0]}` have different columns.",
            hint=f"give each alone, or leave one out: --exclude {shlex.quote(text(name))}",
        )
    called = text(name)[: -len(file.suffix)] if name else ""
    return Saved(file, called, _split(name or file.name), features, [file], schema)


def _features(file: File, opened: Any) -> dict[str, Any]:
    """What is known of each column; SourceError if none holds images."""
    schema = opened.schema_arrow
    if twice := [name for name in schema.names if schema.names.count(name) > 1]:
        raise SourceError(f"`{file}` has two columns called `{twice[0]}`.", hint="rename one of them")
    classes = {name: told for name, told in _told(schema).items() if _type(told) != "Image"}
    features = dict.fromkeys(schema.names) | classes | {name: {"_type": "Image"} for name in _images(opened)}
    if all(_type(told) != "Image" for told in features.values()):
        is_table = {"path", "file_name"} & {*schema.names}
        raise SourceError(
            f"`{file}` has no column of images; its columns are {', '.join(map(repr, schema.names))}.",
            hint=f"a table is one file: lookalike prepare {shlex.quote(str(file))} --out COLL"
            if is_table
            else "the images are a column of bytes, or of bytes and a path, as `to_parquet` of `datasets` writes them",
        )
    return features


def _type(told: Any) -> Any:
    return told.get("_type") if isinstance(told, dict) else None


def _told(schema: pa.Schema) -> dict[str, Any]:
    """The features that `datasets` wrote into the schema, by column."""
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: told[name] for name in schema.names if name in told} if isinstance(told, dict) else {}


def _images(file: Any) -> list[str]:
    """The columns of a Parquet file that hold images."""
    return [field.name for field in file.schema_arrow if _is_struct(field.type) or _is_picture(file, field)]


def _is_struct(kind: Any) -> bool:
    parts = {part.name: part.type for part in kind} if types.is_struct(kind) else {}
    return _is_bytes(parts.get("bytes", pa.null())) and {*parts} <= {"bytes", "path"}


def _is_bytes(kind: Any) -> bool:
    return any(fits(kind) for fits in (types.is_binary, types.is_large_binary, types.is_binary_view))


def _is_picture(file: Any, field: pa.Field) -> bool:
    """Whether a column of bytes begins with an image."""
    if not _is_bytes(field.type):
        return False
    try:
        first = next(file.iter_batches(_LOOKED_AT, columns=[field.name], use_threads=False), None)
    except (pa.ArrowException, OSError):
        return False
    values: Any = first.column(0).drop_null() if first is not None else ()
    return len(values) > 0 and kind_of(values[0].as_py()[:HEAD]) is not None


def _split(name: str) -> str | None:
    """The split that a path tells: the first word of its file that is one, else of its folders."""
    for part in reversed(name.lower().split("/")):
        for word in re.split(r"[^a-z]+", part):
            if word in SPLIT_OF:
                return SPLIT_OF[word]
    return None


def _located(saved: Saved) -> Iterator[tuple[pa.RecordBatch, list[Place]]]:
    """Rows without their images, and where these lie."""
    file, column = saved.files[0], saved.image
    bytes_of = f"{column}.bytes" if _is_struct(saved.schema.field(column).type) else column
    stamp, below, start = stamp_of(str(file), file.stat()), Below(file.parent), 0
    others = [name for name in saved.schema.names if name not in saved.of_kind("Image")]
    try:
        with open_parquet(file) as opened:
            for group in range(opened.metadata.num_row_groups):
                size = opened.metadata.row_group(group).num_rows
                absent = _absent(opened, group, column, bytes_of)
                for begin, batch in _rows(opened, group, size, others):
                    rows = range(begin, begin + len(batch))
                    yield (
                        batch,
                        [
                            _beside(below, path, stamp)
                            if (path := absent.get(row))
                            else Place(str(file), stamp, start + row, column=bytes_of)
                            for row in rows
                        ],
                    )
                start += size
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise SourceError(f"`{file}` can't be read as Parquet: {reason}.", hint="download it again") from error


def _rows(file: Any, group: int, size: int, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of a row group by these columns, and the number of the first; there may be no column."""
    begin = 0
    batches = file.iter_batches(BATCH, row_groups=[group], columns=columns) if columns else ()
    for batch in batches:
        yield begin, batch
        begin += len(batch)
    for begin in range(0, 0 if columns else size, BATCH):
        yield begin, pa.RecordBatch.from_struct_array(pa.array([{}] * min(BATCH, size - begin), pa.struct([])))


def _absent(file: Any, group: int, column: str, bytes_of: str) -> Mapping[int, str]:
    """Rows of a row group that have a path and no bytes; these are read only where the file says that some are null."""
    if bytes_of == column or f"{column}.path" not in (leaves := _leaves(file)):
        return {}
    counted = file.metadata.row_group(group).column(leaves[bytes_of]).statistics
    if counted is not None and counted.has_null_count and counted.null_count == 0:
        return {}
    absent, row = {}, 0
    for batch in file.iter_batches(_LOOKED_AT, row_groups=[group], columns=[column], use_threads=False):
        data, paths = batch.column(0).field("bytes"), batch.column(0).field("path")
        for image, path in zip(data.is_null().to_pylist(), paths.to_pylist(), strict=True):
            if image and path:
                absent[row] = path
            row += 1
    return absent


def _leaves(file: Any) -> dict[str, int]:
    """The columns as Parquet has them, by their paths."""
    return {file.schema.column(i).path: i for i in range(len(file.schema))}


def _beside(below: Below, path: str, stamp: str) -> Place:
    """The file that a row names; where it is not, one that can't be read."""
    if (found := below.find(path)) is not None:
        return Place(found[0], found[3])
    return Place(str(below.root / path), f"{text(path)}-{stamp}")
