"""A CSV or Parquet file, a row an image, with the images beside it or in the tar file of the same name.

    path                 required: a path relative to the file, or a member of NAME.tar beside NAME.csv
    label, group         texts; empty: none
    domain               text; empty: the file's name without its suffix
    split                train, val, test, or empty
    is_query, is_gallery true, false, 1 or 0; empty: true
    any further column   kept, with the type that Arrow sees in it

A table is a claim: an image that it names and that isn't there stops the work before it begins, while one that is
there and can't be decoded becomes a row of the errors table.
"""

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from lookalike.core.errors import SourceError
from lookalike.data.collection import VECTORS
from lookalike.data.sources import SPLITS, Place, Source, SourceRow, stamp_of
from lookalike.data.sources.tar import index_of

TEXTS = ("path", "label", "domain", "split", "group")
ROLES = ("is_query", "is_gallery")


@dataclass(frozen=True)
class _Lines:
    """Tells a row of the table as a person finds it in the file."""

    file: Path

    def place(self, row: int) -> str:
        """`line 7` of a CSV, `row 6` of a Parquet file, for data row `row` counted from 0."""
        return f"line {_line(self.file, row)}" if self.file.suffix.lower() == ".csv" else f"row {row + 1}"

    def error(self, row: int, what: str, hint: str) -> SourceError:
        """An error about this row."""
        return SourceError(f"`{self.file}`, {self.place(row)}: {what}.", hint=hint)


def open_source(path: str) -> Source:
    """The table at `path` as a source, with every row checked; SourceError names the line."""
    file = Path(path)
    read = _read_csv if file.suffix.lower() == ".csv" else _read_parquet
    table = read(file)
    if "path" not in table.column_names:
        raise _no_path(file, table.column_names)
    if not len(table):
        raise SourceError(f"`{file}` holds no rows.", hint="a row an image, below the line with the columns' names")
    lines = _Lines(file)
    table = _typed(table, lines)
    _check(table, lines)
    places = _places(file, table["path"].to_pylist(), lines)
    extra = {name: table.schema.field(name).type for name in table.column_names if name not in (*TEXTS, *ROLES)}
    return Source(path=path, layout="table", rows=partial(_rows, file.stem, table, places, tuple(extra)), columns=extra)


def _rows(stem: str, table: pa.Table, places: list[Place], extra: tuple[str, ...]) -> Iterator[SourceRow]:
    done = 0
    for batch in table.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            yield SourceRow(
                source=row["path"],
                place=places[done],
                label=row.get("label"),
                domain=row.get("domain") or stem,
                split=row.get("split"),
                is_query=row.get("is_query", True),
                is_gallery=row.get("is_gallery", True),
                group=row.get("group"),
                extra={name: row[name] for name in extra},
            )
            done += 1


# ---------------------------------------------------------------------- reading


def _read_csv(file: Path) -> pa.Table:
    try:
        table = pyarrow.csv.read_csv(
            file,
            # One block, so that a column's type comes from all of its values and not from the first megabyte's.
            read_options=pyarrow.csv.ReadOptions(block_size=min(max(file.stat().st_size, 1), 2**31 - 1)),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                # "NA" is a fine label and "007" is not seven: our columns are texts, and only nothing is nothing
                column_types=dict.fromkeys((*TEXTS, *ROLES), pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        raise _csv_error(file, str(error)) from error
    except OSError as error:
        reason = str(error).rpartition("[errno ")[2].partition("] ")[2] or str(error)  # Arrow's own words around it
        raise SourceError(
            f"`{file}` can't be read: {reason.rstrip('.')}.", hint="`ls -l` says who may read it"
        ) from error
    _check_quotes(file)
    return table


def _check_quotes(file: Path) -> None:
    """SourceError if a quote is never closed: all rows behind it would be taken for its value."""
    if file.read_bytes().count(b'"') % 2 == 0:
        return
    end = "a row behind the last"
    with file.open(encoding="utf-8-sig", newline="") as lines:
        *_, (begin, values) = _numbered(chain(lines, ["\n", end]))
    if values != [end]:
        raise SourceError(
            f"`{file}`, line {begin}: a quote opens that is not closed.",
            hint='close it; a quote inside a quoted value is written twice: ""',
        )


def _csv_error(file: Path, reason: str) -> SourceError:
    data = file.read_bytes()
    if not data.strip():
        return SourceError(f"`{file}` is empty.", hint="its first line names the columns: path,label,domain,split")
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            return SourceError(
                f"`{file}`, line {number}, byte {error.start + 1}: the text is not UTF-8.",
                hint="save the file as UTF-8",
            )
    records = _records(file)
    wanted = len(next(records)[1])
    for begin, values in records:
        if len(values) != wanted:
            return SourceError(
                f"`{file}`, line {begin}: {len(values)} values where the columns are {wanted}.",
                hint="a value with a comma in it stands in double quotes",
            )
    return SourceError(f"`{file}` is not a table: {reason.removeprefix('CSV parse error: ')}.")


def _read_parquet(file: Path) -> pa.Table:
    try:
        return pyarrow.parquet.read_table(file)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise SourceError(
            f"`{file}` can't be read as Parquet: {reason}.", hint="write it again, or give the table as CSV"
        ) from error


def _typed(table: pa.Table, lines: _Lines) -> pa.Table:
    """Our columns as texts and truths, further ones as types that a collection stores; NaN becomes null."""
    columns: dict[str, Any] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if name in TEXTS:
            column = column.cast(pa.string())
            column = pc.if_else(pc.equal(column, ""), None, column)
        elif name in ROLES:
            column = _truths(name, column, lines)
        elif pa.types.is_floating(column.type):
            column = column.cast(pa.float32()) if pa.types.is_float16(column.type) else column
            column = pc.if_else(pc.is_nan(column), None, column)
        elif pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
        elif pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        name = _kept_name(name)
        if name in columns:
            raise SourceError(f"`{lines.file}` has two columns called `{name}`.", hint="rename one of them")
        columns[name] = column
    return pa.table(columns)


_OURS = ("id", "source", "image", "width", "height", "sha256", "gone", "stamp")


def _kept_name(name: str) -> str:
    """Name in the collection: a further column called like one of ours gets `source_` before it."""
    name = name.strip().replace(".", "_") or "unnamed"
    return f"source_{name}" if name in _OURS or name.startswith(VECTORS) else name


_TRUTHS = {"true": True, "false": False, "1": True, "0": False}


def _truths(name: str, column: Any, lines: _Lines) -> Any:
    """Booleans; an empty cell is true, as a missing column is."""
    found = []
    for row, value in enumerate(column.cast(pa.string()).to_pylist()):
        truth = True if value is None or value == "" else _TRUTHS.get(value.strip().lower())
        if truth is None:
            raise lines.error(row, f"`{name}` is `{value}`", "it is true, false, 1, 0, or empty, which means true")
        found.append(truth)
    return pa.chunked_array([pa.array(found, pa.bool_())])


# ---------------------------------------------------------------------- checking


def _check(table: pa.Table, lines: _Lines) -> None:
    seen: dict[str, int] = {}
    for row, path in enumerate(table["path"].to_pylist()):
        if path is None:
            raise lines.error(row, "`path` is empty", "each row names its image")
        first = seen.setdefault(os.path.normpath(path), row)
        if first != row:
            raise lines.error(row, f"`{path}` stands in {lines.place(first)} too", "name each image once")
    if "split" in table.column_names:
        for row, split in enumerate(table["split"].to_pylist()):
            if split is not None and split not in SPLITS:
                close = get_close_matches(split.strip().lower(), SPLITS, 1)
                raise lines.error(
                    row,
                    f"the split `{split}` is unknown",
                    f"did you mean `{close[0]}`?" if close else "it is train, val, test, or empty",
                )


def _places(file: Path, paths: list[str], lines: _Lines) -> list[Place]:
    """Where the images lie: in the tar beside the table if it is there, else as files."""
    archive = file.with_suffix(".tar")
    members = index_of(archive) if archive.is_file() else {}
    places = []
    for row, path in enumerate(paths):
        place = members.get(os.path.normpath(path)) or _file(file.parent / path)
        if place is None:
            raise _missing(row, path, archive, members, lines)
        places.append(place)
    return places


def _file(path: Path) -> Place | None:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return None
    return Place(str(path), stamp_of(str(path), status)) if path.is_file() else None


def _missing(row: int, path: str, archive: Path, members: dict[str, Place], lines: _Lines) -> SourceError:
    names = list(members) if members else _beside(archive.parent, path)
    close = get_close_matches(os.path.normpath(path), names, 1)
    where = f"`{archive}` has no member `{path}`" if members else f"there is no file `{path}`"
    rule = f"`path` names members of `{archive}`" if members else f"paths are relative to `{archive.parent}`"
    hint = f"did you mean `{close[0]}`?" if close else rule
    return lines.error(row, where, hint)


def _beside(root: Path, path: str) -> list[str]:
    """The files of the folder that `path` names, as a table at `root` would name them."""
    folder = Path(os.path.normpath(path)).parent
    return [str(folder / p.name) for p in (root / folder).iterdir()] if (root / folder).is_dir() else []


def _no_path(file: Path, columns: list[str]) -> SourceError:
    close = [c for c in columns if c.strip().lower() == "path"] or get_close_matches("path", columns, 1)
    close = close or [c for c in columns if c.lower() in ("file", "filename", "file_name", "image", "image_path")]
    hint = f"name the column `{close[0]}` `path`" if close else "name the column with the images' paths `path`"
    if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
        hint = "separate the columns with commas"
    return SourceError(f"`{file}` has no column `path`; its columns are {', '.join(map(repr, columns))}.", hint=hint)


def _line(file: Path, row: int) -> int:
    """Number of the line on which data row `row` of a CSV begins."""
    return next(islice(_records(file), row + 1, None))[0]


def _records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV with the lines that they begin on: values may hold line ends, and lines may be empty."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        yield from _numbered(lines)


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines)
    begin = 1
    for values in reader:
        if values:
            yield begin, values
        begin = reader.line_num + 1
