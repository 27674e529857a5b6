"""CSV files in batches: names and types of columns, lines as a person finds them, and what is wrong where."""

import csv
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from lookalike.core.errors import SourceError

BLOCK = 2**24
"""Bytes that are read at a time; a row is shorter."""


def columns_of(file: Path, texts: frozenset[str]) -> pa.Schema:
    """The columns of a CSV by their names in it, with the type that all of their values have.

    Args:
        file: The CSV.
        texts: Columns, by their names without blanks around them, that are texts whatever stands in them: "NA" is a
            fine label and "007" is not seven.
    """
    _check_quotes(file)
    names = next(_records(file), (1, []))[1]
    if not names:
        raise _error(file, "it has no first line")
    kinds = {name: pa.string() if name.strip() in texts else pa.null() for name in names}
    guessed = [name for name, kind in kinds.items() if kind == pa.null()]
    if guessed and len(kinds) == len(names):  # a name that stands twice is refused by the caller
        for batch in batches_of(file, pa.schema([(name, pa.string()) for name in kinds])):
            for name, kind in _guess(batch.select(guessed)).items():
                kinds[name] = _wider(kinds[name], kind)
    return pa.schema([(name, kinds[name]) for name in names])


def batches_of(file: Path, columns: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a CSV; only nothing is null."""
    convert = pyarrow.csv.ConvertOptions(
        column_types={field.name: field.type for field in columns}, null_values=[""], strings_can_be_null=True
    )
    try:
        yield from pyarrow.csv.open_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=convert,
        )
    except pa.ArrowInvalid as error:
        raise _error(file, str(error)) from error
    except OSError as error:
        reason = str(error).rpartition("[errno ")[2].partition("] ")[2] or str(error)  # Arrow's own words around it
        raise SourceError(
            f"`{file}` can't be read: {reason.rstrip('.')}.", hint="`ls -l` says who may read it"
        ) from error


def line_of(file: Path, row: int) -> int:
    """Number of the line on which data row `row` begins, counted from 0."""
    return next(islice(_records(file), row + 1, None))[0]


def _guess(texts: pa.RecordBatch) -> dict[str, Any]:
    """The types that Arrow sees in columns of text."""
    names = texts.schema.names
    file = BytesIO()
    pyarrow.csv.write_csv(texts.rename_columns([str(i) for i in range(len(names))]), file)
    size = file.tell()
    file.seek(0)
    found = pyarrow.csv.read_csv(
        file,
        read_options=pyarrow.csv.ReadOptions(block_size=max(size, 1)),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(null_values=[""], strings_can_be_null=True),
    )
    return dict(zip(names, found.schema.types, strict=True))


def _wider(one: Any, other: Any) -> Any:
    """The type that Arrow would see in a column whose parts have these types."""
    if one == other or other == pa.null():
        return one
    if one == pa.null():
        return other
    for narrow, wide in ((one, other), (other, one)):
        if narrow == pa.int64() and wide == pa.float64():
            return wide
        if narrow in (pa.date32(), pa.timestamp("s")) and pa.types.is_timestamp(wide) and wide.tz is None:
            return wide
    return pa.string()


def _check_quotes(file: Path) -> None:
    """SourceError if a quote is never closed: all rows behind it would be taken for its value."""
    try:
        with file.open("rb") as data:
            if sum(block.count(b'"') for block in iter(lambda: data.read(BLOCK), b"")) % 2 == 0:
                return
    except OSError:
        return  # said when it is read
    end = "a row behind the last"
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        *_, (begin, values) = _numbered(chain(lines, ["\n", end]))
    if values != [end]:
        raise SourceError(
            f"`{file}`, line {begin}: a quote opens that is not closed.",
            hint='close it; a quote inside a quoted value is written twice: ""',
        )


def _error(file: Path, reason: str) -> SourceError:
    with file.open("rb") as lines:
        something = False
        for number, line in enumerate(lines, 1):
            something |= bool(line.strip())
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return SourceError(
                    f"`{file}`, line {number}, byte {error.start + 1}: the text is not UTF-8.",
                    hint="save the file as UTF-8",
                )
    if not something:
        return SourceError(f"`{file}` is empty.", hint="its first line names the columns: path,label,domain,split")
    records = _records(file)
    wanted = len(next(records)[1])
    for begin, values in records:
        if len(values) != wanted:
            return SourceError(
                f"`{file}`, line {begin}: {len(values)} values where the columns are {wanted}.",
                hint="a value with a comma in it stands in double quotes",
            )
    return SourceError(f"`{file}` is not a table: {reason.removeprefix('CSV parse error: ')}.")


def _records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV with the lines that they begin on: values may hold line ends, and lines may be empty."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
            yield from _numbered(lines)
    except OSError:  # said when Arrow reads it
        return


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines)
    begin = 1
    for values in reader:
        if values:
            yield begin, values
        begin = reader.line_num + 1
