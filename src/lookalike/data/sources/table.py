"""A CSV, Parquet or JSON lines file, a row an image, with the images beside it or in the tar file of the same name.

    path                 required: a path relative to the file, or a member of NAME.tar beside NAME.csv; or `file_name`
    label, group         texts; empty: none
    domain               text; empty: the file's name without its suffix
    split                train, val, test, or empty
    is_query, is_gallery true, false, 1 or 0; empty: true
    any further column   kept, with the type that Arrow sees in it; `listed` says which types there are

A table is a claim: an image that it names and that isn't there stops the work before it begins. Blanks around values of
a CSV are no part of our texts, and names compare as people read them: in the composed form of Unicode (NFC).
"""

import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet

from lookalike.core.errors import SourceError
from lookalike.data.collection import DESCRIPTION, SCHEMA, VECTORS
from lookalike.data.sources import SPLITS, excluded, nfc, text
from lookalike.data.sources.beside import Beside, Found
from lookalike.data.sources.csv_table import BLOCK, batches_of, columns_of, line_of
from lookalike.data.sources.listed import BATCH, LISTED, Names, Source, stored_type
from lookalike.data.sources.store import File, for_arrow, located
from lookalike.data.whereabouts import PLACE

_ROLES = DESCRIPTION[4:]
_WHOLE = ("place.deflated", "place.border", "place.column")  # of an image that is a file, or a stretch of one
_OURS = ("path", *DESCRIPTION)
_TAKEN = {*SCHEMA.names, *PLACE.names} - {*DESCRIPTION}
_AS_FILES = (
    "write each image to a file of its own and name these in `path`; with the library datasets: "
    "`for i, row in enumerate(data): row['image'].save(f'{i}.png')`"
)


def open_source(path: str | File, exclude: Sequence[str] = (), domain: str | None = "") -> Source:
    """The table at `path` as a source, its columns checked; a row that is wrong is told when it is reached.

    `domain` is that of rows that tell none; "": the file's name.
    """
    file = located(path)
    table = _Table(file, exclude, nfc(text(file.stem)) if domain == "" else domain)
    return Source(str(path), "table", table.listed, table.further)


class _Table:
    def __init__(self, file: File, exclude: Sequence[str], domain: str | None) -> None:
        self.file, self.exclude, self.domain = file, exclude, domain
        self.is_csv, self.is_json = (
            file.suffix.lower() in kinds for kinds in ((".csv", ".tsv", ".tab"), (".jsonl", ".ndjson"))
        )
        if self.is_csv:
            self.columns = columns_of(file, frozenset((*_OURS, "file_name")))
        elif self.is_json:
            self.columns = _json(file).schema
        else:
            with open_parquet(file) as table:
                self.columns = table.schema_arrow
        names = [kept_name(name) for name in self.columns.names]
        if "path" not in names and names.count("file_name") == 1:
            names[names.index("file_name")] = "path"
        if "path" not in names:
            raise _no_path(file, self.columns)
        further = []
        for name, kind in zip(names, self.columns.types, strict=True):
            if names.count(name) > 1:
                raise SourceError(f"`{file}` has two columns called `{name}`.", hint="rename one of them")
            if name in _OURS:
                continue
            if (stored := stored_type(kind)) is None:
                raise SourceError(
                    f"Column `{name}` of `{file}` holds {kind}, which a collection does not store.",
                    hint="write its values as text or numbers, or leave the column out",
                )
            further.append((name, stored))
        self.names, self.further = names, pa.schema(further)
        # Blanks behind the commas of a CSV's first line, and so perhaps of all.
        self.spaced = self.is_csv and any(name != name.strip() for name in self.columns.names)

    def listed(self) -> Iterator[pa.RecordBatch]:
        """The rows as rows of `LISTED`, checked."""
        beside, names = Beside(self.file), Names()
        for start, batch in self._batches():
            if (empty := batch["path"].is_null().index(True).as_py()) >= 0:
                raise self._error(start + empty, "`path` is empty", "each row names its image")
            paths = batch["path"].to_pylist()
            names.add([os.path.normpath(path) for path in paths])
            rows, places = list(range(len(paths))), []
            if self.exclude:
                rows = [row for row in rows if not self._left_out(paths[row])]
                batch = batch.take(pa.array(rows, pa.int64()))
            for row, place in zip(rows, beside.find([paths[row] for row in rows]), strict=True):
                if place is None:
                    raise self._error(start + row, *beside.missing(paths[row]))
                places.append(place)
            yield self._listed(batch, places)
        if not len(names):
            hint = "a row an image, below the line with the columns' names"
            raise SourceError(f"`{self.file}` holds no rows.", hint=hint)
        if (twice := names.repeated()) is not None:
            path = next(b["path"][twice[1] - s].as_py() for s, b in self._batches() if twice[1] < s + len(b))
            raise self._error(twice[1], f"`{path}` stands in {self._place(twice[0])} too", "name each image once")

    def _left_out(self, path: str) -> bool:
        parts = os.path.normpath(path).split("/")
        return any(excluded(part, self.exclude) for part in accumulate(parts, "{}/{}".format))

    def _listed(self, batch: pa.RecordBatch, places: Sequence[Found]) -> pa.RecordBatch:
        schema = pa.schema([*LISTED, *self.further])
        files, offsets, sizes, stamps = zip(*places, strict=True) if places else [()] * 4
        columns: dict[str, Any] = {name: pa.nulls(len(batch), pa.string()) for name in DESCRIPTION}
        columns |= {name: pa.repeat(True, len(batch)) for name in _ROLES}
        columns |= dict(zip(batch.schema.names, batch.columns, strict=True))
        columns |= {"source": columns["path"], "place.path": [os.fsencode(file) for file in files]}
        columns |= {"place.offset": offsets, "place.size": sizes, "stamp": stamps}
        columns |= {name: pa.nulls(len(batch), LISTED.field(name).type) for name in _WHOLE}
        columns["place.member"] = [os.path.normpath(path) for path in columns["path"].to_pylist()]  # if it is one
        columns["domain"] = pc.fill_null(columns["domain"], self.domain) if self.domain else columns["domain"]
        return pa.RecordBatch.from_pydict(columns, schema)

    def _batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Rows with typed columns, and the number of the first."""
        done = 0
        if self.is_csv:
            batches = batches_of(self.file, self.columns)
        else:
            batches = _json(self.file).to_batches() if self.is_json else open_parquet(self.file).iter_batches(BATCH)
        for batch in batches:
            for start in range(0, len(batch), BATCH):
                part = batch.slice(start, BATCH)
                named = zip(self.names, part.columns, strict=True)
                columns = {name: self._typed(name, column, done) for name, column in named}
                yield done, pa.RecordBatch.from_pydict(columns)
                done += len(part)

    def _typed(self, name: str, column: Any, start: int) -> Any:
        """Our columns as texts and truths, further ones as they are stored; NaN becomes null."""
        if name not in _OURS:
            column = column.cast(self.further.field(name).type, safe=False)  # unsafe: the nanoseconds of a time
            if pa.types.is_floating(column.type):
                return pc.if_else(pc.is_nan(column), None, column)
            return pc.utf8_trim_whitespace(column) if self.spaced and pa.types.is_string(column.type) else column
        try:
            column = column.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SourceError(
                f"Column `{name}` of `{self.file}` holds {column.type}, and expected is text.",
                hint=_AS_FILES if name == "path" else "write its values as text, one an image",
            ) from error
        if name in _ROLES or (self.is_csv and (name != "path" or self.spaced)):
            column = pc.utf8_trim_whitespace(column)
        if name != "path":
            column = pc.utf8_normalize(column, form="NFC")
        column = pc.if_else(pc.equal(column, ""), None, column)
        if name == "split":
            self._check(name, column, SPLITS, start)
        elif name in _ROLES:
            truths = pc.utf8_lower(column)
            self._check(name, truths, ("true", "false", "1", "0"), start)
            return pc.is_in(truths, pa.array(["true", "1", None]))
        return column

    def _check(self, name: str, column: Any, allowed: Sequence[str], start: int) -> None:
        """SourceError, with the row, if a value is none of those."""
        known = pc.is_in(column, pa.array([*allowed, None], pa.string()))
        if (row := known.index(False).as_py()) >= 0:
            value = column[row].as_py()
            close = get_close_matches(value.lower(), allowed, 1) if name == "split" else []
            rule = f"it is {', '.join(allowed)}, or empty{'' if name == 'split' else ', which means true'}"
            hint = f"did you mean `{close[0]}`?" if close else rule
            raise self._error(start + row, f"`{name}` is `{value}`", hint)

    def _place(self, row: int) -> str:
        """`line 7` of a CSV, `row 6` of another file, for data row `row` counted from 0."""
        return f"line {line_of(self.file, row)}" if self.is_csv else f"row {row + 1}"

    def _error(self, row: int, what: str, hint: str) -> SourceError:
        return SourceError(f"`{self.file}`, {self._place(row)}: {what}.", hint=hint)


def kept_name(name: str) -> str:
    """Name in the collection: a further column called like one of ours gets `source_` before it."""
    name = name.strip().replace(".", "_") or "unnamed"
    return f"source_{name}" if name in _TAKEN or name.startswith((*VECTORS, "_row")) else name


def open_parquet(file: File) -> Any:
    """A Parquet file, whose row groups are read a buffer at a time; SourceError if it is none."""
    try:
        return pyarrow.parquet.ParquetFile(for_arrow(file), buffer_size=2**20, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise SourceError(
            f"`{file}` can't be read as Parquet: {reason}.", hint="write it again, or give the table as CSV"
        ) from error


def _json(file: File) -> pa.Table:
    """All of a file of JSON lines: what is behind its first lines may widen a column."""
    try:
        return pyarrow.json.read_json(for_arrow(file), pyarrow.json.ReadOptions(block_size=BLOCK))
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise SourceError(
            f"`{file}` can't be read as JSON lines: {reason}.", hint="an object a line, in UTF-8"
        ) from error


def _no_path(file: File, columns: pa.Schema) -> SourceError:
    names = columns.names
    close = [c for c in names if c.strip().lower() == "path"] or get_close_matches("path", names, 1)
    close = close or [c for c in names if c.lower() in ("file", "filename", "image", "image_path")]
    hint = f"name the column `{close[0]}` `path`" if close else "name the column with the images' paths `path`"
    if close and (pa.types.is_nested(kind := columns.field(close[0]).type) or pa.types.is_binary(kind)):
        hint = f"`{close[0]}` holds the images themselves; {_AS_FILES}"
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        hint = "separate the columns with commas, or with tabs in a file called .tsv"
    return SourceError(f"`{file}` has no column `path`; its columns are {', '.join(map(repr, names))}.", hint=hint)
