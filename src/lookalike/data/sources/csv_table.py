"""CSV files in batches, and such with tabs (.tsv, .tab): names and types of columns, lines as a person finds them, and
what is wrong where.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.csv

from lookalike.core.errors import SourceError
from lookalike.data.sources.store import File, for_arrow

BLOCK = 2**24  # bytes that are read at a time; a row is shorter
_KINDS = (
    *(pa.null(), pa.int64(), pa.bool_(), pa.date32(), pa.time32("s"), pa.timestamp("s"), pa.timestamp("ns")),
    *(pa.timestamp("s", "UTC"), pa.timestamp("ns", "UTC"), pa.float64(), pa.string()),
)
"""Types of columns, in the order in which Arrow tries them on a whole file; a stream it judges by its first block."""


def columns_of(file: File, texts: frozenset[str]) -> pa.Schema:
    """The columns of a CSV by their names in it, with the type that all of their values have.

    `texts` are columns, by their names without blanks around them, that are texts whatever stands in them: "NA" is a
    fine label and "007" is not seven.
    """
    _check_quotes(file)
    names = next(_records(file), (1, []))[1]
    if not names:
        raise _error(file, "it has no first line")
    kinds = {name: pa.string() for name in names if name.strip() in texts or names.count(name) > 1}
    while True:
        try:
            stream = _stream(file, kinds)
            kinds = {field.name: field.type if field.type in _KINDS else pa.string() for field in stream.schema}
            for _ in stream:
                pass
            return pa.schema([(name, kinds[name]) for name in names])
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:  # the latter of a name
            column = re.match(r"In CSV column #(\d+): (?:Row #\d+: )?CSV conversion error", str(error))
            if column is None or kinds[name := names[int(column[1])]] == pa.string():
                raise _error(file, str(error)) from error
            kinds[name] = _KINDS[_KINDS.index(kinds[name]) + 1]


def batches_of(file: File, columns: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a CSV; only nothing is null."""
    try:
        yield from _stream(file, dict(zip(columns.names, columns.types, strict=True)))
    except pa.ArrowInvalid as error:
        raise _error(file, str(error)) from error


def _stream(file: File, kinds: dict[str, Any]) -> Any:
    return pyarrow.csv.open_csv(
        for_arrow(file),
        read_options=pyarrow.csv.ReadOptions(block_size=BLOCK),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, delimiter=delimiter(file)),
        convert_options=pyarrow.csv.ConvertOptions(column_types=kinds, null_values=[""], strings_can_be_null=True),
    )


def delimiter(file: File) -> str:
    """What stands between the values: by the file's suffix."""
    return "\t" if file.suffix.lower() in (".tsv", ".tab") else ","


def line_of(file: File, row: int) -> int:
    """Number of the line on which data row `row` begins, counted from 0."""
    return next(islice(_records(file), row + 1, None))[0]


def _check_quotes(file: File) -> None:
    """SourceError if a quote is never closed: all rows behind it would be taken for its value."""
    try:
        with file.open("rb") as data:
            if sum(block.count(b'"') for block in iter(lambda: data.read(BLOCK), b"")) % 2 == 0:
                return
    except OSError as error:
        raise SourceError(f"`{file}` can't be read: {error.strerror}.", hint="`ls -l` says who may read it") from error
    end = "a row behind the last"
    *_, (begin, values) = _records(file, ["\n", end])
    if values != [end]:
        raise SourceError(
            f"`{file}`, line {begin}: a quote opens that is not closed.",
            hint='close it; a quote inside a quoted value is written twice: ""',
        )


def _error(file: File, reason: str) -> SourceError:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                what = f"`{file}`, line {number}, byte {error.start + 1}: the text is not UTF-8."
                return SourceError(what, hint="save the file as UTF-8")
    records = _records(file)
    if (wanted := len(next(records, (1, []))[1])) == 0:
        return SourceError(f"`{file}` is empty.", hint="its first line names the columns: path,label,domain,split")
    for begin, values in records:
        if len(values) != wanted:
            what = f"`{file}`, line {begin}: {len(values)} values where the columns are {wanted}."
            sign = "comma" if delimiter(file) == "," else "tab"
            return SourceError(what, hint=f"a value with a {sign} in it stands in double quotes")
    return SourceError(f"`{file}` is not a table: {reason.removeprefix('CSV parse error: ')}.")


def _records(file: File, behind: Iterable[str] = ()) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV, and of lines `behind` it, with the lines that they begin on: a value may hold line ends."""
    with file.open("r", encoding="utf-8-sig", errors="replace", newline="") as lines:
        reader = csv.reader(chain(lines, behind), delimiter=delimiter(file))
        begin = 1
        for values in reader:
            if values:
                yield begin, values
            begin = reader.line_num + 1
