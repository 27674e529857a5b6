"""A CSV or Parquet file, a row an image, with the images beside it or in the tar file of the same name.

    path                 required: a path relative to the file, or a member of NAME.tar beside NAME.csv
    label, group         texts; empty: none
    domain               text; empty: the file's name without its suffix
    split                train, val, test, or empty
    is_query, is_gallery true, false, 1 or 0; empty: true
    any further column   kept, with the type that Arrow sees in it; `kinds` says which types there are

A table is a claim: an image that it names and that isn't there stops the work before it begins, while one that is
there and can't be decoded becomes a row of the errors table. Blanks around values of a CSV are no part of our texts,
and names compare as people read them: in the composed form of Unicode (NFC).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from lookalike.core.errors import SourceError
from lookalike.data.collection import VECTORS
from lookalike.data.sources import SPLITS, excluded, nfc, text
from lookalike.data.sources.beside import Files
from lookalike.data.sources.csv_table import batches_of, columns_of, line_of
from lookalike.data.sources.kinds import stored_type
from lookalike.data.sources.listed import BATCH, LISTED, Source
from lookalike.data.sources.names import Names
from lookalike.data.sources.tar import Members

TEXTS = ("path", "label", "domain", "split", "group")
ROLES = ("is_query", "is_gallery")


def open_source(path: str, exclude: Sequence[str] = ()) -> Source:
    """The table at `path` as a source, its columns checked; a row that is wrong is told when it is reached."""
    table = _Table.open(Path(path), exclude)
    return Source(path, "table", partial(_batches, table), table.further)


@dataclass(frozen=True)
class _Table:
    """An open table."""

    file: Path
    columns: pa.Schema
    """As they are called in the file."""
    exclude: Sequence[str]

    @classmethod
    def open(cls, file: Path, exclude: Sequence[str]) -> "_Table":
        """The table in `file`, its columns checked."""
        if file.suffix.lower() == ".csv":
            columns = columns_of(file, frozenset((*TEXTS, *ROLES)))
        else:
            with _parquet(file) as table:
                columns = table.schema_arrow
        found = cls(file, columns, exclude)
        names = [_kept_name(name) for name in columns.names]
        if "path" not in names:
            raise _no_path(file, columns)
        for name, field in zip(names, columns, strict=True):
            if names.count(name) > 1:
                raise SourceError(f"`{file}` has two columns called `{name}`.", hint="rename one of them")
            if name not in (*TEXTS, *ROLES) and stored_type(field.type) is None:
                raise SourceError(
                    f"Column `{name}` of `{file}` holds {field.type}, which a collection does not store.",
                    hint="write its values as text or numbers, or leave the column out",
                )
        return found

    @property
    def is_csv(self) -> bool:
        """Whether rows are lines."""
        return self.file.suffix.lower() == ".csv"

    @property
    def spaced(self) -> bool:
        """Whether there are blanks behind the commas of a CSV's first line, and so perhaps of all."""
        return self.is_csv and any(name != name.strip() for name in self.columns.names)

    @property
    def further(self) -> pa.Schema:
        """The further columns, as they are stored."""
        kept = [(_kept_name(field.name), stored_type(field.type)) for field in self.columns]
        return pa.schema([column for column in kept if column[0] not in (*TEXTS, *ROLES)])

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Rows with typed columns, and the number of the first."""
        done = 0
        for batch in self._read():
            for start in range(0, len(batch), BATCH):
                yield done + start, self._typed(batch.slice(start, BATCH), done + start)
            done += len(batch)

    def _read(self) -> Iterator[pa.RecordBatch]:
        if self.is_csv:
            yield from batches_of(self.file, self.columns)
            return
        with _parquet(self.file) as table:
            yield from table.iter_batches(BATCH)

    def place(self, row: int) -> str:
        """`line 7` of a CSV, `row 6` of a Parquet file, for data row `row` counted from 0."""
        return f"line {line_of(self.file, row)}" if self.is_csv else f"row {row + 1}"

    def error(self, row: int, what: str, hint: str) -> SourceError:
        """An error about this row."""
        return SourceError(f"`{self.file}`, {self.place(row)}: {what}.", hint=hint)

    def _typed(self, batch: pa.RecordBatch, start: int) -> pa.RecordBatch:
        """Our columns as texts and truths, further ones as they are stored; NaN becomes null."""
        columns: dict[str, Any] = {}
        for field, column in zip(batch.schema, batch.columns, strict=True):
            name = _kept_name(field.name)
            if name in TEXTS:
                columns[name] = self._text(name, column)
            elif name in ROLES:
                columns[name] = self._truths(name, self._text(name, column), start)
            else:
                columns[name] = _stored(column, self.spaced)
        return pa.RecordBatch.from_pydict(columns)

    def _text(self, name: str, column: Any) -> Any:
        try:
            column = column.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            hint = _AS_FILES if name == "path" else "write its values as text, one an image"
            raise SourceError(
                f"Column `{name}` of `{self.file}` holds {column.type}, and expected is text.", hint=hint
            ) from error
        if self.is_csv and (name != "path" or self.spaced):
            column = pc.utf8_trim_whitespace(column)
        if name != "path":
            column = pc.utf8_normalize(column, form="NFC")
        return pc.if_else(pc.equal(column, ""), None, column)

    def _truths(self, name: str, column: Any, start: int) -> Any:
        """Booleans; an empty cell is true, as a missing column is."""
        found = []
        for row, value in enumerate(column.to_pylist(), start):
            truth = True if value is None else _TRUTHS.get(value.strip().lower())
            if truth is None:
                raise self.error(row, f"`{name}` is `{value}`", "it is true, false, 1, 0, or empty, which means true")
            found.append(truth)
        return pa.array(found, pa.bool_())


_OURS = ("id", "source", "image", "width", "height", "sha256", "gone", "stamp")
_TRUTHS = {"true": True, "false": False, "1": True, "0": False}
_AS_FILES = (
    "write each image to a file of its own and name these in `path`; with the library datasets: "
    "`for i, row in enumerate(data): row['image'].save(f'{i}.png')`"
)


def _kept_name(name: str) -> str:
    """Name in the collection: a further column called like one of ours gets `source_` before it."""
    name = name.strip().replace(".", "_") or "unnamed"
    return f"source_{name}" if name in _OURS or name.startswith((*VECTORS, "_row")) else name


def _stored(column: Any, spaced: bool) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    column = column.cast(stored_type(column.type), safe=False)  # unsafe: the nanoseconds of a time
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), None, column)
    return pc.utf8_trim_whitespace(column) if spaced and pa.types.is_string(column.type) else column


def _parquet(file: Path) -> Any:
    try:
        return pyarrow.parquet.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise SourceError(
            f"`{file}` can't be read as Parquet: {reason}.", hint="write it again, or give the table as CSV"
        ) from error


# ---------------------------------------------------------------------- rows, checked


def _batches(table: _Table) -> Iterator[pa.RecordBatch]:
    """The rows of the table as rows of `LISTED`."""
    archive = table.file.with_suffix(".tar")
    places = _Places(table, Members(archive) if archive.is_file() else None, Files(table.file.parent))
    names = Names()
    for start, batch in table.batches():
        _check(table, batch, start)
        paths = [os.path.normpath(path) for path in batch["path"].to_pylist()]
        names.add(paths)
        rows = np.arange(start, start + len(paths))
        if table.exclude:
            rows = np.array(
                [row for row, path in zip(rows, paths, strict=True) if not _left_out(path, table.exclude)], int
            )
            batch = batch.take(pa.array(rows - start))
        yield _listed(table, batch, places.of(batch["path"].to_pylist(), rows))
    if not len(names):
        raise SourceError(
            f"`{table.file}` holds no rows.", hint="a row an image, below the line with the columns' names"
        )
    if (twice := names.repeated()) is not None:
        path = next(b["path"][twice[1] - s].as_py() for s, b in table.batches() if twice[1] < s + len(b))
        raise table.error(twice[1], f"`{path}` stands in {table.place(twice[0])} too", "name each image once")


def _left_out(path: str, patterns: Sequence[str]) -> bool:
    return any(excluded(part, patterns) for part in accumulate(path.split("/"), "{}/{}".format))


def _listed(table: _Table, batch: pa.RecordBatch, places: dict[str, Sequence[Any]]) -> pa.RecordBatch:
    rows, there = len(batch), batch.schema.names
    stem = nfc(text(table.file.stem))
    columns = {
        "source": batch["path"],
        **places,
        **{name: batch[name] if name in there else pa.nulls(rows, pa.string()) for name in TEXTS[1:]},
        **{name: batch[name] if name in there else pa.array([True] * rows, pa.bool_()) for name in ROLES},
        **{name: batch[name] for name in table.further.names},
    }
    columns["domain"] = pc.fill_null(columns["domain"], stem)
    return pa.RecordBatch.from_pydict(columns, schema=pa.schema([*LISTED, *table.further]))


def _check(table: _Table, batch: pa.RecordBatch, start: int) -> None:
    if batch["path"].null_count:
        row = start + pc.index(pc.is_null(batch["path"]), True).as_py()
        raise table.error(row, "`path` is empty", "each row names its image")
    if "split" not in batch.schema.names:
        return
    wrong = pc.invert(pc.is_in(batch["split"], pa.array([*SPLITS, None], pa.string())))
    if (row := pc.index(wrong, True).as_py()) >= 0:
        split = batch["split"][row].as_py()
        close = get_close_matches(split.lower(), SPLITS, 1)
        raise table.error(
            start + row,
            f"the split `{split}` is unknown",
            f"did you mean `{close[0]}`?" if close else "it is train, val, test, or empty",
        )


_PLACE = ("place.path", "place.offset", "place.size", "stamp")


@dataclass(frozen=True)
class _Places:
    """Where the images lie: in the tar beside the table if it is there, else as files."""

    table: _Table
    members: Members | None
    files: Files

    def of(self, paths: list[str], rows: np.ndarray) -> dict[str, Sequence[Any]]:
        """The columns of `LISTED` that tell the places of `paths`, which stand in these rows of the table."""
        places: list[tuple[Any, ...]] = []
        found = [-1] * len(paths)
        if self.members is not None:
            found = self.members.find([os.path.normpath(path) for path in paths]).tolist()
        for path, member, row in zip(paths, found, rows.tolist(), strict=True):
            file = self.files.find(path) if member < 0 else None
            if member >= 0 and self.members is not None:
                place: tuple[Any, ...] = self.members.place(member)
            elif file is not None:
                place = (file[0], None, None, file[1])
            else:
                raise self._missing(path, row)
            places.append((os.fsencode(place[0]), *place[1:]))
        return dict(zip(_PLACE, zip(*places, strict=True) if places else [()] * 4, strict=True))

    def _missing(self, path: str, row: int) -> SourceError:
        where, rule = f"there is no file `{path}`", f"paths are relative to `{self.files.root}`"
        names = [str(Path(os.path.normpath(path)).parent / name) for name in self.files.names(Path(path).parent)]
        if self.members is not None:
            where = f"`{self.members.path}` has no member `{path}`, and {where}"
            rule, names = f"`path` names members of `{self.members.path}`", [*self.members.names(), *names]
        slashed = path.replace("\\", "/")
        close = [slashed] if self._there(slashed) else get_close_matches(os.path.normpath(path), names, 1)
        hint = f"did you mean `{close[0]}`?" if close else rule
        if "\\" in path and close == [slashed]:
            hint = f"write it with slashes: `{slashed}`"
        return self.table.error(row, where, hint)

    def _there(self, path: str) -> bool:
        member = self.members is not None and self.members.find([os.path.normpath(path)])[0] >= 0
        return member or self.files.find(path) is not None


def _no_path(file: Path, columns: pa.Schema) -> SourceError:
    names = columns.names
    close = [c for c in names if c.strip().lower() == "path"] or get_close_matches("path", names, 1)
    close = close or [c for c in names if c.lower() in ("file", "filename", "file_name", "image", "image_path")]
    hint = f"name the column `{close[0]}` `path`" if close else "name the column with the images' paths `path`"
    if close and (pa.types.is_nested(kind := columns.field(close[0]).type) or pa.types.is_binary(kind)):
        hint = f"`{close[0]}` holds the images themselves; {_AS_FILES}"
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        hint = "separate the columns with commas"
    return SourceError(f"`{file}` has no column `path`; its columns are {', '.join(map(repr, names))}.", hint=hint)
